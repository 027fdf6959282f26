"""Blocks in a terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from snnconvert.printable import printable
from snnconvert.report.blocks import Block, Code, Drawing, Notices, On, Table, Text, shown
from snnconvert.report.section import Document
from snnconvert.report.sections import SECTIONS
from snnconvert.report.verdict import verdict
from snnconvert.report.wording import DASH, clean, spoken

if TYPE_CHECKING:
    from rich.console import Console

_WIDTH = 64


def print_summary(document: Document, console: Console) -> None:
    """Print what was found. Colours and width are the console's, so NO_COLOR and pipes are respected.

    Names from the model are printed as plain text: neither markup nor control characters in them take effect.
    """
    print_headline(f"{document['model']['name']}: {verdict(document)}", console)
    say = partial(spoken, document)
    print_blocks([text for section in SECTIONS.values() for text in section.sentences(document)], console, say)
    print_blocks([block for section in SECTIONS.values() for block in section.blocks(document)], console, say)


def print_next(document: Document, console: Console) -> None:
    """The one command to go on with, as it can be copied; the others stand on the page."""
    for line in document["next_commands"][:1]:
        print_blocks([Text("next:", On.TERMINAL), Code([line], On.TERMINAL)], console)


def print_headline(text: str, console: Console) -> None:
    """The one line that stands out."""
    from rich.text import Text as Rich

    console.print(Rich(_printable(text, console), style="bold"))


def print_blocks(blocks: Sequence[Block], console: Console, say: Callable[[str], str] = str) -> None:
    """Print the blocks that are meant for a terminal; `say` puts prose into the words of what it is about."""
    from rich.text import Text as Rich

    for block in shown(blocks, On.TERMINAL):
        if isinstance(block, Text):
            console.print(Rich(_printable(say(block.text), console), style="dim" if block.soft else ""))
        elif isinstance(block, Notices):
            for text, hint in block.rows:
                console.print(Rich.assemble(("warning: ", "yellow"), _printable(say(text), console)))
                if hint:
                    console.print(Rich.assemble("  hint: ", _printable(say(hint), console)))
        elif isinstance(block, Drawing):
            lines = block.draw(max(16, min(_WIDTH, console.width - 8)), _ascii_only(console))
            for line in ["", *lines] if lines else []:
                console.print(Rich(line), no_wrap=True, overflow="crop")
        elif isinstance(block, Table) and block.rows:
            console.print()
            console.print(_table(block, console, say))
        elif isinstance(block, Code):
            for line in block.lines:
                # A command that is broken by the printer cannot be copied.
                console.print(Rich(f"  {_encoded(printable(line), console)}", style="bold"), soft_wrap=True)


def _table(block: Table, console: Console, say: Callable[[str], str]) -> Any:
    from rich.table import Table as RichTable
    from rich.text import Text as Rich

    table = RichTable(box=None, pad_edge=False, header_style="dim")
    for index, title in enumerate(block.head):
        wide: dict[str, Any] = {} if index or block.folds else {"overflow": "ellipsis", "no_wrap": True, "ratio": 1}
        words = index == 0 or index in block.left
        table.add_column(
            _printable(say(title), console), justify="left" if words else "right", **wide or {"overflow": "fold"}
        )
    for row in block.rows:
        table.add_row(*(Rich(_printable(cell, console)) for cell in row))
    return table


def _ascii_only(console: Console) -> bool:
    return not (console.encoding or "").lower().startswith("utf")


def _printable(text: str, console: Console) -> str:
    return _encoded(clean(text), console)


def _encoded(text: str, console: Console) -> str:
    return text.replace(DASH, "-").encode("ascii", "replace").decode() if _ascii_only(console) else text
