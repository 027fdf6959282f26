"""What one model of a zoo may take: time and memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

from snnconvert.budget import parse_bytes
from snnconvert.errors import OptionError
from snnconvert.options import option


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
