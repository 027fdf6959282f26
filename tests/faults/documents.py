"""JSON documents, place by place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def places(value: Any, most: int, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value, of lists only to the first `most`."""
    if path:
        yield path
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], most, (*path, key))
    elif isinstance(value, list):
        for index in range(min(len(value), most)):
            yield from places(value[index], most, (*path, index))
