"""What a command says, and where: progress and remarks go to stderr, results to stdout."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TextIO

from snnconvert import progress as reporting
from snnconvert.options import option

_MEASURING = ("convert", "run", "report", "debug")


@dataclass(frozen=True)
class Terminal:
    """How much to say."""

    quiet: bool = option(
        False,
        "Print nothing but errors.",
        commands=(*_MEASURING, "export", "gate", "zoo pull", "zoo run"),
        panel="Output",
        short="-q",
    )
    as_json: bool = option(
        False,
        "The result on stdout as JSON, and nothing else there.",
        commands=(*_MEASURING, "export", "info", "check"),
        panel="Output",
        flag="--json",
    )

    @property
    def command_line(self) -> str:
        """What the user typed."""
        return shlex.join(["snnconvert", *sys.argv[1:]])

    @contextmanager
    def progress(self) -> Iterator[reporting.Progress]:
        """A progress callback; a bar on a terminal, nothing elsewhere."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        if self.quiet or not console.is_terminal:
            yield reporting.silent
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as bars:
            tasks: dict[str, TaskID] = {}

            def show(what: str, done: int, total: int) -> None:
                if what not in tasks:
                    tasks[what] = bars.add_task(what, total=total)
                bars.update(tasks[what], completed=done, total=total)

            yield show

    def remark(self, text: str) -> None:
        """A line on stderr."""
        if not self.quiet:
            print(text, file=sys.stderr)


class ClosableOutput:
    """Passes text on to `stream`, and drops it once nobody reads any more (`snnconvert ... --json | head -1`).

    The command then finishes as if everything had been read, with its own exit code and without an error message.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.gone = stream, False

    def write(self, text: str) -> int:
        """Write, or drop."""
        self._unless_gone(lambda: self.stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flush what is left."""
        self._unless_gone(self.stream.flush)

    def _unless_gone(self, action: Callable[[], object]) -> None:
        try:
            if not self.gone:
                action()
        except BrokenPipeError:
            # What is still buffered is flushed when Python ends; it must not fail once more then.
            self.gone = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)
