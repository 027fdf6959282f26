"""The table of options in the docs: `python -m snnconvert.cli.table docs/options.md` writes it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from snnconvert.gates.limits import Gates
from snnconvert.options import AUTO, Declared, declared
from snnconvert.request import Request
from snnconvert.train.options import FineTuning

MARKED = "<!-- {}: begin -->\n", "<!-- {}: end -->\n"
TABLES = {"options": (Request, Gates), "finetune": (FineTuning,)}


def options_table(*holders: type) -> str:
    """The options of these classes as a Markdown table, by panel in the order in which they are first named."""
    rows = [row for holder in holders for row in _rows(holder)]
    lines = ["| option | meaning | values | default |", "|---|---|---|---|"]
    for panel in dict.fromkeys(row.option.panel for row in rows):
        lines.append(f"| **{panel}** | | | |")
        lines += [_line(row) for row in rows if row.option.panel == panel]
    return "\n".join(lines) + "\n"


def _rows(holder: type) -> Iterator[Declared]:
    """Those that a command takes by name, also where they stand inside another one."""
    for row in declared(holder).values():
        if row.option.commands and not row.option.positional:
            yield row
        if row.option.inside is not None:
            yield from row.option.inside().values()


def _line(row: Declared) -> str:
    spelled = ", ".join(f"`{name}`" for name in (row.flag, row.option.short) if name)
    values = ", ".join(f"`{name}`" for name in row.choices) or ("" if row.kind is bool else row.metavar)
    if row.option.auto and AUTO not in values:
        values += ", `auto`"
    meaning = row.option.help + (f" {row.explained}." if row.explained else "")
    cells = (cell.replace("|", r"\|") for cell in (spelled, meaning, values, row.usual))
    return f"| {' | '.join(cells)} |"


def with_table(text: str) -> str:
    """A page with its tables of options as they have to be now."""
    for name, holders in TABLES.items():
        begin, end = (mark.format(name) for mark in MARKED)
        before, rest = text.split(begin)
        text = f"{before}{begin}{options_table(*holders)}{end}{rest.split(end)[1]}"
    return text


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(with_table(page.read_text("utf-8")), "utf-8")
