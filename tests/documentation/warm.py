"""`snnconvert` and `python` for command blocks, forked from a process that has imported everything already.

The docs start some fifty programs, and each would import torch anew, which is most of what they cost. Here the programs
on PATH hand arguments, folder, environment and their three streams to a server, which forks: what runs is the same code
in a process of its own, only that its imports are done. What it is not made for (`python -m`) gets a new interpreter.

    python warm.py serve SOCKET
    python warm.py call SOCKET snnconvert|python ARGUMENTS...
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import traceback
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOADED = (
    "torch.export",
    "onnx",
    "onnxruntime",
    "altair",
    "snnconvert.pipeline",
    "snnconvert.cli.main",
    "snnconvert.report.from_run",
    "snnconvert.report.render_html",
    "snnconvert.zoo.commands",
    "snnconvert.exporters.export",
    "snnconvert.api.convert",
)
START_SECONDS = 120


@contextmanager
def warm_programs(folder: Path, root: Path) -> Iterator[Path]:
    """`folder` with the two programs, which run the code of `root` as long as the block lasts."""
    path = folder / "socket"
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen([sys.executable, __file__, "serve", str(path)], env=environment)
    try:
        for name in ("snnconvert", "python"):
            file = folder / name
            file.write_text(f'#!/bin/sh\nexec "{sys.executable}" -SE "{__file__}" call "{path}" {name} "$@"\n')
            file.chmod(file.stat().st_mode | stat.S_IXUSR)
        begun = time.monotonic()
        while not path.exists():
            assert server.poll() is None, "the server of warm programs did not start"
            assert time.monotonic() - begun < START_SECONDS, "the server of warm programs does not answer"
            time.sleep(0.05)
        yield folder
    finally:
        server.terminate()
        server.wait()


def call(path: str, program: str, arguments: list[str]) -> int:
    """Let the server run it with this process's streams; the exit code."""
    if program == "python" and arguments[:1] != ["-c"] and not Path(arguments[0]).is_file():
        return subprocess.run([sys.executable, *arguments], check=False).returncode
    wanted = json.dumps([program, arguments, str(Path.cwd()), dict(os.environ)]).encode()
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(path)
        socket.send_fds(link, [len(wanted).to_bytes(8, "big")], [0, 1, 2])
        link.sendall(wanted)
        link.shutdown(socket.SHUT_WR)
        return int(link.recv(16) or b"1")


def serve(path: str) -> None:
    """Import, listen, and fork for every call."""
    for name in LOADED:
        __import__(name)
    assert threading.active_count() == 1, "threads do not survive a fork"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    while True:
        link, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            _answer(link)
        link.close()
        while _reaped():
            pass


def _reaped() -> bool:
    try:
        return os.waitpid(-1, os.WNOHANG)[0] > 0
    except ChildProcessError:
        return False


def _answer(link: socket.socket) -> None:
    """In the fork: a grandchild runs the program, so that its exit code is known whatever ends it."""
    head, streams, _, _ = socket.recv_fds(link, 8, 3)
    size, text = int.from_bytes(head, "big"), b""
    while len(text) < size:
        text += link.recv(1 << 16)
    child = os.fork()
    if child == 0:
        link.close()
        for own, stream in enumerate(streams):
            os.dup2(stream, own)
        os._exit(_run(*json.loads(text)))
    _, status = os.waitpid(child, 0)
    link.sendall(str(os.waitstatus_to_exitcode(status) & 255).encode())
    os._exit(0)


def _run(program: str, arguments: list[str], folder: str, environment: dict[str, str]) -> int:
    """As a new interpreter would."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", buffering=1)  # noqa: SIM115
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    sys.path[0] = ""
    code = 0
    try:
        if program == "snnconvert":
            from snnconvert.cli.main import main as snnconvert

            sys.argv = [program, *arguments]
            snnconvert()
        elif arguments[0] == "-c":
            sys.argv = arguments[:1] + arguments[2:]
            exec(compile(arguments[1], "<string>", "exec"), main.__dict__)
        else:
            sys.argv = arguments
            runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return code


if __name__ == "__main__":
    role, where, *rest = sys.argv[1:]
    if role == "serve":
        serve(where)
    sys.exit(call(where, rest[0], rest[1:]))
