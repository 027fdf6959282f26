"""Standard output that outlives its reader."""

from __future__ import annotations

import io
import os
from typing import Any, TextIO


class Patient(io.TextIOBase):
    """Passes text on to `stream`, and drops it once nobody reads any more (`snnconvert ... --json | head -1`).

    The command then finishes as if everything had been read, with its own exit code and without an error message.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.gone = stream, False

    def write(self, text: str) -> int:
        """Write, or drop."""
        if not self.gone:
            try:
                return self.stream.write(text)
            except BrokenPipeError:
                self._drop()
        return len(text)

    def flush(self) -> None:
        """Flush what is left."""
        try:
            self.stream.flush()
        except BrokenPipeError:
            self._drop()

    def _drop(self) -> None:
        # What is still buffered is flushed when Python ends; it must not fail once more then.
        self.gone = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())

    def isatty(self) -> bool:
        return self.stream.isatty()

    def fileno(self) -> int:
        return self.stream.fileno()

    def writable(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self.stream.errors

    @property
    def buffer(self) -> Any:
        return self.stream.buffer
