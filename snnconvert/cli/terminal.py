"""What a command says, and where: progress and remarks go to stderr, results to stdout."""

from __future__ import annotations

import errno
import io
import os
import shlex
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from snnconvert import progress as reporting
from snnconvert.errors import OutputError
from snnconvert.options import option
from snnconvert.printable import say

_MEASURING = ("convert", "run", "report", "debug", "cost")


@dataclass(frozen=True)
class Terminal:
    """How much to say."""

    quiet: bool = option(
        False,
        "Print nothing but errors.",
        commands=(*_MEASURING, "finetune", "export", "gate", "zoo pull", "zoo run"),
        panel="Output",
        short="-q",
    )
    as_json: bool = option(
        False,
        "The result on stdout as JSON, and nothing else there.",
        commands=(*_MEASURING, "finetune", "export", "info", "check"),
        panel="Output",
        flag="--json",
    )

    @property
    def command_line(self) -> str:
        """What the user typed."""
        return shlex.join(["snnconvert", *sys.argv[1:]])

    def progress(self) -> AbstractContextManager[reporting.Progress]:
        """A progress callback; a bar on a terminal, nothing elsewhere."""
        return nullcontext(reporting.silent) if self.quiet else reporting.bars(only_on_terminals=True)

    def remark(self, text: str) -> None:
        """A line on stderr."""
        if not self.quiet:
            say(text, error=True)


class ClosableOutput:
    """Passes text on to `stream`, and drops it once nobody reads any more (`snnconvert ... --json | head -1`).

    The command then finishes as if everything had been read, with its own exit code and without an error message; so
    it does where there was no output to begin with (`snnconvert ... >&-`). What an encoding cannot hold is escaped.

    Raises:
        OutputError: what should take the output cannot, for instance a file on a full disk.
    """

    def __init__(self, stream: TextIO | None) -> None:
        # open to the end of the program, as stdout is
        self.stream = stream or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
        self.gone = False
        if isinstance(self.stream, io.TextIOWrapper):
            self.stream.reconfigure(errors="backslashreplace")

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
        except OSError as error:
            # What is still buffered is flushed when Python ends; it must not fail once more then.
            self.gone = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())
            if error.errno not in (errno.EPIPE, errno.EBADF):
                raise OutputError(
                    f"the output cannot be written: {error.strerror}", hint="make room, or send it to another place"
                ) from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)
