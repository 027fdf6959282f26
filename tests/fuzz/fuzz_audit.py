"""What a process does beside its work: files written outside its folder, processes started, pickles read."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

_STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty")
_CHANGES = ("os.mkdir", "os.remove", "os.rmdir", "os.rename", "os.link", "os.symlink", "os.chmod", "os.truncate",
            "os.chown", "os.utime", "shutil.rmtree", "shutil.move")  # fmt: skip
_FORBIDDEN = ("pickle.find_class", "socket.connect", "socket.bind", "urllib.Request", "ctypes.dlopen.inside")
_OWN = (os.devnull, "/proc/self/clear_refs")  # the second starts the count of peak memory anew
# where libraries may keep what they make on the way
_TEMPORARY = f"{os.path.realpath(os.environ.get('TMPDIR', '/nowhere'))}/"
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def install(found: Callable[[str], None], inside: Callable[[], str], active: Callable[[], bool]) -> None:
    """Report, while `active`, everything that a file must not bring about.

    Args:
        found: told a line for each.
        inside: the folder in which files may be written, and from which no code may come.
    """

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _WATCHED and active():
            fault = _fault(event, arguments, f"{os.path.realpath(inside())}/")
            if fault:
                found(fault)

    sys.addaudithook(hook)


_WATCHED = frozenset((*_STARTS, *_CHANGES, *_FORBIDDEN, "open", "exec", "import"))


def _fault(event: str, arguments: tuple[Any, ...], inside: str) -> str:
    if event == "subprocess.Popen" and list(arguments[1])[-2:] == ["-m", "snnconvert.zoo.worker"]:
        return ""
    if event in (*_STARTS, *_FORBIDDEN):
        return f"{event} {arguments!r:.200}"
    if event == "exec":
        name = getattr(arguments[0], "co_filename", "")
        place = os.path.realpath(name)
        return f"code of {place} ran" if name[:1] != "<" and place.startswith(inside) else ""
    if event == "import":
        return f"import of {arguments[1]}" if str(arguments[1] or "").startswith(inside) else ""
    if event == "open":
        path, _, flags = arguments
        if isinstance(path, int) or not (flags or 0) & _WRITES:
            return ""
        paths: tuple[Any, ...] = (path,)
    else:
        paths = arguments[:2] if event in ("os.rename", "os.link", "os.symlink", "shutil.move") else arguments[:1]
    named = [os.fsdecode(path) for path in paths if isinstance(path, (str, bytes, os.PathLike))]
    real = [(path, f"{os.path.realpath(path)}/") for path in named if path not in _OWN]
    outside = [path for path, place in real if not place.startswith((inside, _TEMPORARY))]
    return f"{event} {outside[0]} outside" if outside else ""
