"""What a file may ask for: one budget, checked before the work.

A file of a kilobyte can ask for gigabytes: a compressed member, a shape in a header, a constant that is computed when
the model is read, the pixels of an image. Each such claim, in bytes of memory, is held against what the file may ask
for: so many times its own size, and a fixed amount besides, which $SNNCONVERT_BUDGET sets.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable
from pathlib import Path

from snnconvert.errors import ClaimError, OptionError

VARIABLE = "SNNCONVERT_BUDGET"
DEFAULT = 512 << 20
# files that are really full of data: compressed images, weights of 8 bits that are read as 32
TIMES_ITS_SIZE = 8
# of nodes after functions are expanded; the largest public ONNX files have some ten thousand
BYTES_PER_NODE = 8 << 10
# of a decoded image while it is converted, resized and cropped
BYTES_PER_PIXEL = 8
_UNITS = {"": 1, "b": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "kb": 10**3, "mb": 10**6, "gb": 10**9}
_ALLOWED = "allowed: bytes (1 or more), or a size"
# What the operating system can take for a size.
_LARGEST = 2**62


def parse_bytes(value: object) -> int:
    """Bytes from a number, or from a text such as "4 GiB".

    Raises:
        OptionError: neither, or more than there can be.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(value)[:100])
    size = float(found.group(1)) * _UNITS.get(found.group(2).lower(), 0) if found else 0.0
    if isinstance(value, bool) or not 1 <= size <= _LARGEST:
        raise OptionError(
            f"memory is {value!r}; {_ALLOWED}",
            hint='for instance memory = "4 GiB"',
            options=("memory",),
        )
    return int(size)


def budget() -> int:
    """$SNNCONVERT_BUDGET in bytes, 512 MiB by default.

    Raises:
        OptionError: it is no size.
    """
    given = os.environ.get(VARIABLE)
    try:
        return DEFAULT if not given else parse_bytes(given)
    except OptionError:
        raise OptionError(f"{VARIABLE} is {given!r}; {_ALLOWED}", hint=f"{VARIABLE}=4GiB") from None


def check_claim(size: float, what: str, path: str | Path, own: int | None = None) -> None:
    """Make sure that `path` may ask for `size` bytes of memory.

    Args:
        size: bytes.
        what: what they are for, for instance "its member x.npy".
        own: bytes of the file, with those beside it that belong to it; by default those of `path`.

    Raises:
        ClaimError: it may not; naming the file, and how more is allowed.
    """
    if own is None:
        try:
            own = Path(path).stat().st_size
        except (OSError, ValueError):  # a network in memory, or a name in place of a file
            own = 0
    allowed = budget() + TIMES_ITS_SIZE * own
    if size > allowed:
        # Rounded up, so that what the hint says is enough.
        needed = max(1, math.ceil((size - TIMES_ITS_SIZE * own) / 2**30)) if size < _LARGEST else None
        raise ClaimError(
            f"{path} asks for {said(size)} of memory for {what}; a file of its size may ask for {said(allowed)}",
            hint="use another file: no computer has so much memory"
            if needed is None
            else f"if the file is what you take it for, allow it more: {VARIABLE}={needed}GiB snnconvert ...",
        )


class Claims:
    """All that one file asks for, one thing after another, where all of it is kept.

    Args:
        path: the file.
        own: as of `check_claim`.
    """

    def __init__(self, path: str | Path, own: int | None = None) -> None:
        self.path, self.own, self.total = path, own, 0.0

    def add(self, size: float, what: str) -> None:
        """Count `size` bytes for `what`.

        Raises:
            ClaimError: with them it is more than the file may ask for.
        """
        self.total += size
        check_claim(self.total, what, self.path, self.own)


def elements(shape: Iterable[int]) -> int:
    """The number of elements of an array; sizes below 1 count as 1, so that no claim hides behind an empty axis."""
    return math.prod(max(1, int(size)) for size in shape)


def said(size: float) -> str:
    """Bytes in words."""
    for unit, worth in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= worth:
            return f"{size / worth:,.1f} {unit}" if size < 2**60 else "more than any number of GiB"
    return f"{size:.0f} bytes"
