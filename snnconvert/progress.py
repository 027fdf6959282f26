"""How long work reports how far it has come, and how long its stages took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, how much is done, out of how much)."""


def silent(what: str, done: int, total: int) -> None:
    """Progress that nobody wants to see."""
    del what, done, total


@contextmanager
def timed(timings: dict[str, float], stage: str) -> Iterator[None]:
    """Store the seconds that the block takes."""
    start = time.perf_counter()
    yield
    timings[stage] = round(time.perf_counter() - start, 3)


@contextmanager
def bars(*, only_on_terminals: bool = False) -> Iterator[Progress]:
    """Bars on stderr while the block runs; with `only_on_terminals` nothing where that goes elsewhere."""
    from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    from snnconvert.console import Console

    console = Console(stderr=True)
    if only_on_terminals and not console.is_terminal:
        yield silent
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, console=console, transient=True) as shown:
        tasks: dict[str, TaskID] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = shown.add_task(what, total=total)
            shown.update(tasks[what], completed=done, total=total)

        yield show
