"""What a section says, in blocks: the page, the terminal and Markdown each show those that are meant for them.

Texts are plain. Every rendering cleans and escapes them itself, so no section has to.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import Flag
from typing import Any


class On(Flag):
    """Where a block is shown."""

    PAGE, TERMINAL, MARKDOWN = 1, 2, 4
    TEXT = TERMINAL | MARKDOWN
    ALL = PAGE | TEXT


@dataclass(frozen=True)
class Text:
    """A paragraph; `soft` if it explains rather than says."""

    text: str
    on: On = On.PAGE
    soft: bool = False
    kind = "text"


@dataclass(frozen=True)
class Title:
    """A heading within a section."""

    text: str
    on: On = On.PAGE
    kind = "title"


@dataclass(frozen=True)
class Table:
    """A table; the first column holds names, the others numbers to the right.

    Attributes:
        left: columns of words.
        chosen: rows that stand out.
        bad: cells (row, column) that stand out as bad.
        dense: whether it has many columns.
        named: whether the first column holds names and not numbers.
        folds: whether long names take several lines in a terminal, instead of being cut.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    on: On = On.PAGE
    left: tuple[int, ...] = ()
    chosen: tuple[int, ...] = ()
    bad: tuple[tuple[int, int], ...] = ()
    dense: bool = False
    named: bool = True
    folds: bool = False
    kind = "table"


@dataclass(frozen=True)
class Chart:
    """The place of a chart; nothing where its section had no numbers for one."""

    name: str
    label: str
    caption: str = ""
    image: str = ""
    on: On = On.PAGE
    kind = "chart"


@dataclass(frozen=True)
class Fold:
    """Blocks that the reader may open."""

    title: str
    blocks: Sequence[Block]
    on: On = On.PAGE
    kind = "fold"


@dataclass(frozen=True)
class Group:
    """Blocks beside each other: a `pair`, `multiples` or `examples`."""

    style: str
    blocks: Sequence[Block]
    on: On = On.PAGE
    kind = "group"


@dataclass(frozen=True)
class Facts:
    """Lists of names and values, beside each other: (title, rows)."""

    lists: Sequence[tuple[str, Sequence[tuple[str, str]]]]
    on: On = On.PAGE
    kind = "facts"


@dataclass(frozen=True)
class Tiles:
    """Figures in large: (name, value, remark)."""

    figures: Sequence[tuple[str, str, str]]
    on: On = On.PAGE
    kind = "tiles"


@dataclass(frozen=True)
class Notices:
    """What has to be known: (text, hint); `grave` if nothing else is to be believed before."""

    rows: Sequence[tuple[str, str]]
    on: On = On.ALL
    grave: bool = False
    kind = "notices"


@dataclass(frozen=True)
class Items:
    """A list of sentences."""

    texts: Sequence[str]
    on: On = On.PAGE
    kind = "items"


@dataclass(frozen=True)
class Code:
    """Lines to be copied."""

    lines: Sequence[str]
    on: On = On.PAGE
    kind = "code"


@dataclass(frozen=True)
class Drawing:
    """A chart in characters: called with the columns that there are and whether they have to be ASCII."""

    draw: Callable[[int, bool], list[str]]
    on: On = On.TERMINAL
    kind = "drawing"


Block = Text | Title | Table | Chart | Fold | Group | Facts | Tiles | Notices | Items | Code | Drawing


def shown(blocks: Sequence[Block], on: On, charts: Collection[str] | None = None) -> list[Any]:
    """The blocks meant for `on`, without charts that are not in `charts` and without what they leave empty."""
    found: list[Any] = []
    for block in blocks:
        missing = isinstance(block, Chart) and charts is not None and block.name not in charts
        hollow = isinstance(block, Group) and not shown(block.blocks, on, charts)
        if on in block.on and not missing and not hollow:
            found.append(block)
    return found
