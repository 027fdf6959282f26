"""The printer of tables and coloured text, which takes every text as it stands."""

from __future__ import annotations

from typing import Any

import rich.console
from rich.text import Text

from snnconvert.printable import lines


class Console(rich.console.Console):
    """A console without markup: a node may be called [/red], and what cannot be printed is made visible."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "markup": False, "emoji": False, "highlight": False})

    def render_str(self, text: str, **how: Any) -> Text:
        """A text as it stands, for instance the cell of a table."""
        return super().render_str(lines(text), **{**how, "markup": False, "emoji": False, "highlight": False})
