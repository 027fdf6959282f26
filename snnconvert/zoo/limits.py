"""What one model of a zoo may take: time and memory."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from snnconvert.errors import OptionError

_UNITS = {"": 1, "b": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "kb": 10**3, "mb": 10**6, "gb": 10**9}
# What the operating system can take for a size.
_LARGEST = 2**62


@dataclass(frozen=True)
class Limits:
    """What one model may take; None is what `zoo run` decides.

    Attributes:
        seconds: wall-clock time.
        memory: bytes that the conversion may add to its process.
    """

    seconds: float | None = None
    memory: int | None = None


def read_limits(given: Mapping[str, Any]) -> dict[str, Any]:
    """The table `limits` of a manifest, checked, with bytes as numbers.

    Raises:
        OptionError: an unknown key or a value outside its range.
    """
    if unknown := sorted(set(given) - {"seconds", "memory"}):
        raise OptionError(f"unknown limit {unknown[0]!r}; allowed: seconds, memory", hint="correct or remove it")
    read: dict[str, Any] = {}
    if "seconds" in given:
        read["seconds"] = check_seconds("seconds", given["seconds"])
    if "memory" in given:
        read["memory"] = parse_bytes(given["memory"])
    return read


def check_seconds(name: str, value: Any) -> float:
    """`value` as a number of seconds; `name` is what the user wrote it as.

    Raises:
        OptionError: not a finite number above 0.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 < value < math.inf:
        raise OptionError(f"{name} is {value!r}; allowed: a number above 0", hint="for instance 600, ten minutes")
    return float(value)


def parse_bytes(value: Any) -> int:
    """Bytes from a number, or from a text such as "4 GiB".

    Raises:
        OptionError: neither, or more than there can be.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(value))
    size = float(found.group(1)) * _UNITS.get(found.group(2).lower(), 0) if found else 0.0
    if isinstance(value, bool) or not 1 <= size <= _LARGEST:
        raise OptionError(f"memory is {value!r}; allowed: bytes, or a size", hint='for instance memory = "4 GiB"')
    return int(size)
