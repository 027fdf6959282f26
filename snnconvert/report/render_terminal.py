"""Blocks in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from snnconvert.report.blocks import Block, Code, Drawing, Notices, On, Table, Text, shown
from snnconvert.report.section import Document
from snnconvert.report.sections import SECTIONS
from snnconvert.report.sections.summary import headline
from snnconvert.report.wording import DASH, clean

if TYPE_CHECKING:
    from rich.console import Console

_WIDTH = 64


def print_summary(document: Document, console: Console) -> None:
    """Print what was found. Colours and width are the console's, so NO_COLOR and pipes are respected.

    Names from the model are printed as plain text: neither markup nor control characters in them take effect.
    """
    print_headline(headline(document), console)
    print_blocks([text for section in SECTIONS.values() for text in section.sentences(document)], console)
    print_blocks([block for section in SECTIONS.values() for block in section.blocks(document)], console)
    if document["next_commands"]:
        print_blocks([Text("", On.TERMINAL), Text("next:", On.TERMINAL)], console)
        print_blocks([Code(document["next_commands"], On.TERMINAL)], console)


def print_headline(text: str, console: Console) -> None:
    """The one line that stands out."""
    from rich.text import Text as Rich

    console.print(Rich(_printable(text, console), style="bold"))


def print_blocks(blocks: Sequence[Block], console: Console) -> None:
    """Print the blocks that are meant for a terminal."""
    from rich.text import Text as Rich

    for block in shown(blocks, On.TERMINAL):
        if isinstance(block, Text):
            console.print(Rich(_printable(block.text, console), style="dim" if block.soft else ""))
        elif isinstance(block, Notices):
            for text, hint in block.rows:
                console.print(Rich.assemble(("warning: ", "yellow"), _printable(text, console)))
                if hint:
                    console.print(Rich.assemble("  hint: ", _printable(hint, console)))
        elif isinstance(block, Drawing):
            lines = block.draw(max(16, min(_WIDTH, console.width - 8)), _ascii_only(console))
            for line in ["", *lines] if lines else []:
                console.print(Rich(line), no_wrap=True, overflow="crop")
        elif isinstance(block, Table) and block.rows:
            console.print()
            console.print(_table(block, console))
        elif isinstance(block, Code):
            for line in block.lines:
                # A command that is broken by the printer cannot be copied.
                console.print(Rich(f"  {_printable(line, console)}", style="bold"), soft_wrap=True)


def _table(block: Table, console: Console) -> Any:
    from rich.table import Table as RichTable
    from rich.text import Text as Rich

    table = RichTable(box=None, pad_edge=False, header_style="dim")
    for index, title in enumerate(block.head):
        wide: dict[str, Any] = {} if index or block.folds else {"overflow": "ellipsis", "no_wrap": True, "ratio": 1}
        words = index == 0 or index in block.left
        table.add_column(
            _printable(title, console), justify="left" if words else "right", **wide or {"overflow": "fold"}
        )
    for row in block.rows:
        table.add_row(*(Rich(_printable(cell, console)) for cell in row))
    return table


def _ascii_only(console: Console) -> bool:
    return not (console.encoding or "").lower().startswith("utf")


def _printable(text: str, console: Console) -> str:
    text = clean(text)
    return text.replace(DASH, "-").encode("ascii", "replace").decode() if _ascii_only(console) else text
