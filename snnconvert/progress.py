"""How long work reports how far it has come."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, how much is done, out of how much)."""


def silent(what: str, done: int, total: int) -> None:
    """Progress that nobody wants to see."""
    del what, done, total
