"""Which line of a TOML file a key stands on; `tomllib` does not say."""

from __future__ import annotations

import re
from collections.abc import Sequence

Path = tuple[str | int, ...]
_TABLE = re.compile(r"^\s*\[(\[?)\s*([^\[\]]+?)\s*\]?\]\s*(?:#.*)?$")
_KEY = re.compile(r"""^\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=""")
_PART = re.compile(r"""[A-Za-z0-9_-]+|"[^"]*"|'[^']*'""")


def line_index(text: str) -> dict[Path, int]:
    """Line numbers (from 1) of tables and keys, by path; arrays of tables are counted from 0.

    Keys inside inline tables are not listed: `line_of` falls back to the line of the table.
    """
    lines: dict[Path, int] = {}
    counts: dict[Path, int] = {}
    table: Path = ()
    closing = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if closing:
            closing = "" if closing in line else closing
            continue
        if found := _TABLE.match(line):
            parts = _parts(found.group(2))
            table = (*_inside(parts[:-1], counts), parts[-1])
            if found.group(1):
                counts[table] = counts.get(table, -1) + 1
                table = (*table, counts[table])
            lines.setdefault(table, number)
        elif found := _KEY.match(line):
            lines.setdefault(table + _parts(found.group(1)), number)
        for quotes in ('"""', "'''"):
            if line.count(quotes) % 2:
                closing = quotes
    return lines


def line_of(lines: dict[Path, int], path: Sequence[str | int]) -> int:
    """The line of the longest known beginning of `path`; 1 where nothing is known."""
    for length in range(len(path), 0, -1):
        if found := lines.get(tuple(path[:length])):
            return found
    return 1


def _parts(text: str) -> Path:
    return tuple(part.strip("\"'") for part in _PART.findall(text))


def _inside(parts: Path, counts: dict[Path, int]) -> Path:
    """`parts`, with the number of the latest element put after each array of tables."""
    path: Path = ()
    for part in parts:
        path = (*path, part)
        if path in counts:
            path = (*path, counts[path])
    return path
