"""How a recording of events is cut into steps."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from snnconvert.errors import OptionError
from snnconvert.graph.schedule import MOST_TIMESTEPS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_FORM = re.compile(r"(frames|window|count):(\d+(?:\.\d+)?)", re.ASCII)


@dataclass(frozen=True)
class Slicing:
    """A way to cut.

    Attributes:
        kind: "window": slices of so many milliseconds; "count": of so many events; "frames": so many of equal length.
        value: how many.
    """

    kind: str
    value: float

    @classmethod
    def read(cls, text: str) -> Slicing:
        """From a text such as "window:1".

        Raises:
            OptionError: no such text, or numbers that make no slices.
        """
        found = _FORM.fullmatch(str(text).strip())
        kind, value = (found[1], float(found[2])) if found else ("", 0.0)
        whole = kind == "window" or value == int(value)
        if not found or not value or not whole or value > (10**6 if kind != "frames" else MOST_TIMESTEPS):
            raise OptionError(
                f"--events {str(text)[:40]!r} is no way to cut recordings; allowed: window:MS (milliseconds a step), "
                f"count:N (events a step), frames:N (steps of equal length, at most {MOST_TIMESTEPS})",
                hint="for instance --events window:1",
                options=("events",),
            )
        return cls(kind, value)

    def __str__(self) -> str:
        return f"{self.kind}:{self.value:g}"

    @property
    def described(self) -> str:
        """A step in words."""
        return {
            "window": f"{self.value:g} ms",
            "count": f"{self.value:g} events",
            "frames": f"1/{self.value:g} of a recording",
        }[self.kind]

    def needed(self, times: NDArray[np.int64]) -> int:
        """Steps of a whole recording whose events come at `times`, microseconds, ascending."""
        if self.kind == "frames":
            return int(self.value)
        if self.kind == "count":
            return math.ceil(len(times) / self.value)
        return int((int(times[-1]) - int(times[0])) // (1000 * self.value)) + 1

    def steps(self, times: NDArray[np.int64]) -> NDArray[np.int64]:
        """The step (from 0) of each event."""
        import numpy as np

        if self.kind == "count":
            return np.arange(len(times), dtype=np.int64) // int(self.value)
        since = times - times[0]
        if self.kind == "window":
            windows: NDArray[np.int64] = (since // (1000 * self.value)).astype(np.int64)
            return windows
        shares: NDArray[np.int64] = since * int(self.value) // (int(since[-1]) + 1)
        return shares

    def milliseconds(self, duration: float, steps: float) -> float:
        """How long a step is, given the mean duration of recordings in milliseconds and their mean number of steps."""
        return self.value if self.kind == "window" else duration / max(steps, 1.0)
