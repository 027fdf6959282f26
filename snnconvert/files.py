"""Files: reading those of others, which have to be files; writing so that what is seen is always whole."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import platform
import re
import signal
import stat
import tempfile
import threading
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import Any

from snnconvert.budget import check_claim
from snnconvert.errors import ModelFileError, OutputError

# bytes of parsed values, by the length of their text
BYTES_PARSED = 32
# tables in tables: those that people and this package write have less than ten
_DEEPEST = 100
_NESTED = "it is nested too deeply"
_PART = ".part"
# what this program has put in place so far, in order; whoever is interrupted is told
PLACED: list[Path] = []
# the temporary files of the outermost `together`, with what they will replace
_waiting: ContextVar[list[tuple[Path, Path]] | None] = ContextVar("waiting", default=None)


def opened(path: str | Path) -> BufferedReader:
    """A file of somebody else's, open for reading. Pipes and devices may never end, or never begin: they are refused.

    Raises:
        OSError: it is missing, cannot be read, or is no regular file.
    """
    # Without O_NONBLOCK a pipe that nobody writes to would be waited for here already.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    raise OSError(errno.EINVAL, "it is a pipe or a device, not a file; write what comes from it to a file", str(path))


@contextmanager
def named_in_utf8(path: str | Path) -> Iterator[str]:
    """A name of the file for libraries that take none but UTF-8; Linux allows any bytes.

    Raises:
        OSError: as `opened` does.
    """
    name = str(path)
    if name.encode("utf-8", "replace").decode() == name:
        yield name
        return
    with opened(path) as file:
        yield f"/proc/self/fd/{file.fileno()}"


def is_regular(path: str | Path) -> bool:
    """Whether `path` is there and is neither a folder nor a pipe nor a device."""
    try:
        return stat.S_ISREG(Path(path).stat().st_mode)
    except (OSError, ValueError):
        return False


def read_text(path: str | Path) -> str:
    """The UTF-8 text of a file of somebody else's.

    Raises:
        OSError: as `opened` does.
        ValueError: it is not UTF-8.
        ClaimError: it is too long.
    """
    with opened(path) as file:
        check_claim(os.fstat(file.fileno()).st_size * BYTES_PARSED, "its text", path)
        return file.read().decode("utf-8")


def read_toml(path: str | Path) -> dict[str, Any]:
    """The content of a TOML file.

    Raises:
        OSError, ClaimError: as `read_text` does.
        ValueError: it is not UTF-8 or no TOML, is nested too deeply, or holds a number of too many digits.
    """
    return parsed_toml(read_text(path))


def parsed_toml(text: str) -> dict[str, Any]:
    """As `read_toml`, of a text."""
    found: dict[str, Any] = _parsed(tomllib.loads, text)
    return found


def read_json(path: str | Path) -> Any:
    """The content of a JSON file.

    Raises:
        OSError, ClaimError: as `read_text` does.
        ValueError: it is not UTF-8 or no JSON, is nested too deeply, or holds a number of too many digits or half of a
            character of two.
    """
    text = read_text(path)
    content = _parsed(partial(json.loads, parse_constant=_finite, parse_float=_finite), text)
    if "\\ud" in text.lower():
        json.dumps(content, ensure_ascii=False).encode()  # a UnicodeEncodeError is a ValueError
    return content


def _finite(text: str) -> float:
    """A number of a JSON file, where Python would take NaN, Infinity and 1e999 as well."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is no number of JSON")
    return number


def _parsed(reader: Callable[[str], Any], text: str) -> Any:
    """What `reader` makes of `text`, unless walking through it would go too deep (a dotted key needs no brackets)."""
    try:
        content = reader(text)
    except RecursionError:
        raise ValueError(_NESTED) from None
    except ValueError as error:
        if "integer string conversion" in str(error):
            raise ValueError("it holds a number of thousands of digits") from None
        raise
    level: list[Any] = [content]
    for _ in range(_DEEPEST):
        tables = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)]
        level = [item for table in tables for item in table]
        if not level:
            return content
    raise ValueError(_NESTED)


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file.

    Raises:
        OSError: as `opened` does.
    """
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder() -> Path:
    """$SNNCONVERT_CACHE, else $XDG_CACHE_HOME/snnconvert, else ~/.cache/snnconvert."""
    own = os.environ.get("SNNCONVERT_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "snnconvert"


@contextmanager
def together() -> Iterator[None]:
    """All files that the block writes with `atomic` appear at its end, or none of them.

    All are complete and on the disk then. Old files of these names but the first are removed before the first new one
    appears: whenever the program or the machine stops, no new file stands beside an old one of another conversion. Two
    programs that write the same files do so one after the other.

    Raises:
        OutputError: a file cannot be put in its place.
    """
    if _waiting.get() is not None:  # a block inside another one belongs to it
        yield
        return
    places: list[tuple[Path, Path]] = []
    token = _waiting.set(places)
    try:
        yield
        _appear(places)
    finally:
        _waiting.reset(token)
        for temporary, _ in places:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that replaces it when the block succeeds, and vanishes when it does not.

    Raises:
        OutputError: `path` cannot be written.
    """
    with together():
        with writing_to(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                raise IsADirectoryError(0, "it is a folder")
            _remove_abandoned(path)
            # With the process in its name: of two that write the same file, each has its own.
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{_prefix(path)}{os.getpid()}.", suffix=_PART)
        os.close(handle)
        temporary, places = Path(name), _waiting.get()
        assert places is not None
        places.append((temporary, path))
        yield temporary
        with writing_to(path):
            temporary.chmod(0o666 & ~_umask())
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())  # some file systems say only now that there is no room


def write_atomically(texts: Mapping[Path, str]) -> None:
    """Write UTF-8 files, each whole or not at all; all are complete before the first appears.

    Raises:
        OutputError: a folder or file cannot be written; nothing new is left behind.
    """
    with together():
        for path, text in texts.items():
            with (
                atomic(path) as temporary,
                writing_to(path),
                temporary.open("w", encoding="utf-8", newline="\n") as file,
            ):
                file.write(text)


def _appear(places: list[tuple[Path, Path]]) -> None:
    with ExitStack() as stack:
        for folder in sorted({path.parent for _, path in places}):
            stack.enter_context(_alone(folder))
        stack.enter_context(_uninterrupted())
        for _, path in places[1:]:
            with writing_to(path):
                path.unlink(missing_ok=True)
        for temporary, path in places:
            with writing_to(path):
                temporary.replace(path)
            PLACED.append(path)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Nobody else's files appear in `folder` meanwhile, where its file system can keep them out."""
    with ExitStack() as stack:
        with suppress(ImportError, OSError):
            import fcntl

            descriptor = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C waits until the block is done; it takes no longer than renaming a few files."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed: list[int] = []
    own = signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, own)
    if pressed:
        raise KeyboardInterrupt


def _prefix(path: Path) -> str:
    """What the temporary files for `path` begin with on this machine, before the number of the process."""
    return f".{path.name[:40]}.{re.sub(r'[^A-Za-z0-9]', '', platform.node())[:20]}-"


def _remove_abandoned(path: Path) -> None:
    """Temporary files for `path` of processes of this machine that were killed."""
    prefix = _prefix(path)
    for found in path.parent.iterdir():
        if found.name.startswith(prefix) and found.name.endswith(_PART):
            number = found.name.removeprefix(prefix).split(".")[0]
            if number.isdecimal() and not _runs(int(number)):
                with suppress(OSError):
                    found.unlink()


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass
    return True


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """What the disk refuses of a block that changes `path`, in words.

    Raises:
        OutputError: it refuses something.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}",
            hint="choose a folder that exists and can be written, with enough room",
        ) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def refuse_others(path: Path) -> None:
    """What is not named as checkpoints are, and turns out to be none, is a model, or images.

    Raises:
        ModelFileError: always, unless the name ends in .snn.
    """
    if path.suffix != ".snn":
        raise ModelFileError(
            f"{path} is not a checkpoint (.snn)",
            hint="snnconvert MODEL makes one of a model; snnconvert check MODEL says what would become of it",
        )
