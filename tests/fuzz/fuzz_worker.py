"""A process that runs one command line after another under an audit hook and limits, and says how each ended.

A line of JSON in, {"folder": ..., "arguments": [...], "code": may the file's own code run}, and one out:
{"exit": ..., "faults": [...], "text": ..., "memory": bytes above the start, "seconds": of processor}.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import io
import json
import os
import resource
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import typer.main
from fuzz_audit import install
from fuzz_mutations import MARKER

BEYOND = 3 * 2**30  # of address space: what asks for more fails at once, and says so


class Worker:
    """The state of one process."""

    def __init__(self) -> None:
        self.folder, self.active = "/", False
        self.faults: list[str] = []
        install(self.faults.append, lambda: self.folder, lambda: self.active)
        # the command line is made of its declarations once: nine tenths of what a refusal takes
        typer.main.get_command = functools.cache(typer.main.get_command)  # type: ignore[assignment]

    def run(self, task: dict[str, Any]) -> dict[str, Any]:
        from snnconvert.cli.main import main

        self.folder = task["folder"]
        os.chdir(self.folder)
        self.faults.clear()
        sys.argv = ["snnconvert", *task["arguments"]]
        log = Path(self.folder, "audit.log")  # of the processes that this one starts, see children/sitecustomize.py
        log.touch()
        os.environ["SNNCONVERT_FUZZ_LOG"] = str(log)
        said, code = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="surrogateescape"), 0
        gc.collect()
        before, start = _memory(reset=True), time.process_time()
        self.active = True
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        except BaseException:  # anything else is what is looked for
            code = 1
            said.write(traceback.format_exc())
        finally:
            self.active = False
        said.flush()
        text = said.buffer.getvalue().decode("utf-8", "replace")  # type: ignore[attr-defined]
        if Path(MARKER).exists():
            self.faults.append("code of the file ran")
        self.faults += log.read_text().splitlines()
        memory = _memory(reset=False) - before
        return {
            "exit": code,
            "faults": list(dict.fromkeys(self.faults)),
            "text": text[-3000:],
            "memory": memory,
            "seconds": round(time.process_time() - start, 3),
        }


def _memory(*, reset: bool) -> int:
    """Resident bytes now, from which peaks count anew; or the peak since."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    name = "VmRSS" if reset else "VmHWM"
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def serve() -> None:
    """Answer tasks until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker = Worker()
    for line in sys.stdin:
        task = json.loads(line)
        if task.get("limit"):
            data = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmData"))
            resource.setrlimit(resource.RLIMIT_DATA, (int(data.split()[1]) * 1024 + BEYOND,) * 2)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            gc.collect()
            gc.freeze()  # what is imported is not walked through at every collection
            answer: dict[str, Any] = {}
        else:
            answer = worker.run(task)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve()
