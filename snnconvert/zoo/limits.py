"""What one model of a zoo may take: time and memory."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import partial
from typing import Any

from snnconvert.errors import OptionError
from snnconvert.options import option

_UNITS = {"": 1, "b": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "kb": 10**3, "mb": 10**6, "gb": 10**9}
# What the operating system can take for a size.
_LARGEST = 2**62


def parse_seconds(value: Any) -> float:
    """A number of seconds, or its text.

    Raises:
        OptionError: not a finite number above 0.
    """
    try:
        number = 0.0 if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = 0.0
    if not 0 < number < math.inf:
        raise OptionError(
            f"seconds is {value!r}; allowed: a number above 0",
            hint="for instance 600, ten minutes",
            options=("seconds",),
        )
    return number


def parse_bytes(value: Any) -> int:
    """Bytes from a number, or from a text such as "4 GiB".

    Raises:
        OptionError: neither, or more than there can be.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(value))
    size = float(found.group(1)) * _UNITS.get(found.group(2).lower(), 0) if found else 0.0
    if isinstance(value, bool) or not 1 <= size <= _LARGEST:
        raise OptionError(
            f"memory is {value!r}; allowed: bytes, or a size",
            hint='for instance memory = "4 GiB"',
            options=("memory",),
        )
    return int(size)


_limit = partial(option, None, commands=("zoo run",), panel="Work")


@dataclass(frozen=True)
class Limits:
    """What one model may take; None is what `zoo run` decides."""

    seconds: float | None = _limit(
        "Seconds of wall-clock time per model, instead of the manifest's.",
        flag="--time-limit",
        metavar="X",
        read=parse_seconds,
    )
    memory: int | None = _limit(
        "Bytes that the conversion may add to its process, e.g. 4GiB, instead of the manifest's.",
        flag="--memory-limit",
        metavar="SIZE",
        read=parse_bytes,
    )
