"""What to do when memory runs out: the same work with fewer images at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

SIGNS = ("allocate memory", "not enough memory", "out of memory")
Result = TypeVar("Result")


def out_of_memory(error: Exception) -> bool:
    """Whether `error` says that memory ran out, in Python, torch or the native kernels."""
    return isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in SIGNS)


def with_smaller_chunks(size: int, work: Callable[[int], Result]) -> tuple[Result, tuple[str, ...]]:
    """`work(size)`, begun again with half the size as often as memory runs out.

    Returns:
        the result, and a note if the size had to change.

    Raises:
        Exception: what `work` raised, if it is not about memory or a single image does not fit.
    """
    now = size
    while True:
        try:
            result = work(now)
        except (MemoryError, RuntimeError) as error:
            if now == 1 or not out_of_memory(error):
                raise
            now //= 2
            continue
        images = "1 image" if now == 1 else f"{now} images"
        note = f"memory ran out with {size} images at once: simulated {images} at a time"
        return result, () if now == size else (note,)
