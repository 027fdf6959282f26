"""Text out of files, made fit to be printed: one place, so that no command and no table forgets it.

A model may call its nodes anything: markup of the printer, escape sequences of a terminal, a formula of a spreadsheet,
half a character. None of that takes effect, and none of it is lost without a trace.
"""

from __future__ import annotations

import re
import sys
from contextlib import suppress

# what JSON may hold as it is, but a terminal or an encoder may not: C1 controls, separators of lines, half characters
_UNSAFE_IN_JSON = re.compile("[\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")


def printable(text: object) -> str:
    """One line of printable text: what is no printable character becomes "\\ufffd", a line's end a space."""
    return "".join(c if c.isprintable() else " " if c in "\n\r\t" else "\ufffd" for c in str(text))


def lines(text: object) -> str:
    """As `printable`, line by line."""
    return "\n".join(map(printable, str(text).split("\n")))


def cell(value: object) -> str:
    """A cell of a CSV file. Spreadsheets take a text that begins like a formula for one: it is put behind a quote."""
    text = printable(value)
    risky = isinstance(value, str) and text.lstrip()[:1] in ("=", "+", "-", "@")
    return f"'{text}" if risky else text


def json_text(text: str) -> str:
    """The text of a JSON document whose characters can all be printed and encoded; it means the same."""
    return _UNSAFE_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def say(text: object, *, error: bool = False) -> None:
    """Print lines on stdout, or remarks on stderr; a remark that nobody can read is lost, and nothing else with it."""
    if not error:
        print(lines(text))
    elif sys.stderr is not None:
        with suppress(OSError):
            print(lines(text), file=sys.stderr, flush=True)
