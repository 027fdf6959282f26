"""serial K: one window of K steps for each layer, one layer after the other.

A site at depth k sends in window k what has come in in all windows before: what arrives early waits in its membrane, so
that no branch has to be held back, and the answer stands after D + 1 windows. Everything that needs the whole of what
it reads (a product of two streams, a largest value, a threshold that is itself a sum) has it then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from snnconvert.errors import OptionError
from snnconvert.graph.schedule.base import MOST_TIMESTEPS, Schedule
from snnconvert.graph.schedule.windows import LONGEST_WINDOW, PHASES, InPhases
from snnconvert.neurons.bistable import BISTABLE
from snnconvert.options import Usual

USUAL_WINDOW = 8


@dataclass(frozen=True)
class Serial(InPhases):
    """Layers that send one after the other, each in a window of its own."""

    kind: ClassVar[str] = "serial"
    label: ClassVar[str] = "serial, window {window}"
    own_neuron: ClassVar[str | None] = BISTABLE.name
    from_timesteps: ClassVar[tuple[str, ...]] = ("window",)
    limited: ClassVar[bool] = False
    tried: ClassVar[bool] = False
    whole: ClassVar[bool] = True
    remedies: ClassVar[Mapping[str, str]] = {
        "clipping": "More calibration images help: thresholds follow the largest of their activations.",
        "quantisation": "A longer --window helps: with power2 each step of it halves the distance of the levels, and "
        "adds a step of latency per layer.",
    }
    residual: ClassVar[str] = "clear"

    @property
    def own_method(self) -> str | None:
        """The one that knows neurons of two inputs."""
        return "windows"

    @property
    def staggered(self) -> bool:
        """What arrives early waits in the membrane that it is for."""
        return False

    @property
    def spacing(self) -> int:
        """The whole run: a neuron is busy from its first input to the end of its window."""
        return self.timesteps

    @property
    def frames(self) -> int:
        """One, if there is time for it."""
        return int(self.timesteps >= (self.depth + 1) * self.window)

    @property
    def keeps_membrane(self) -> bool:
        """What is left after the window is of no use to anybody."""
        return False

    def updates(self, depth: int) -> list[int]:
        """In every step of two windows, booked when the second is over.

        What came in earlier than in the window before was added when it came, which is charged to the spikes.
        """
        found = [0] * self.timesteps
        found[self.emission_step(depth, 0, self.window - 1)] = 2 * self.window
        return found

    @classmethod
    def within(cls, timesteps: int, depth: int, **options: Any) -> list[tuple[str, Schedule | OptionError]]:
        """One schedule, of as many steps as its windows take: `timesteps` is a limit only where somebody asked for it.

        With a T and no window it is the longest window that fits.
        """
        window, asked = options.get("window"), not isinstance(timesteps, Usual)
        if window is None:
            phases = options.get("phases", cls.default("phases"))
            longest = LONGEST_WINDOW.get(phases, USUAL_WINDOW)
            window = min(timesteps // (depth + 1), longest) if asked else USUAL_WINDOW
        options = {**options, "window": window}
        needed = (depth + 1) * max(window, 1)
        if asked and needed > timesteps:
            short = f"{depth + 1} windows of {max(window, 1)} take {needed} of {timesteps} steps"
            return [(cls.title(options), OptionError(short, hint=f"use at least -T {needed}, or leave -T out"))]
        return [cls._attempt(needed, depth, **options)]

    def _check(self) -> None:
        super()._check()
        self._check_names(phases=PHASES)
        longest = LONGEST_WINDOW[self.phases]
        if not 1 <= self.window <= longest or self.timesteps > MOST_TIMESTEPS:
            raise OptionError(
                f"--window {self.window} is outside 1 to {longest}, or takes more than {MOST_TIMESTEPS} steps",
                hint="a window of 8 steps with power2, or of 32 with uniform, is enough for most networks: --window 8",
            )

    def _budget_hint(self) -> str:
        return f"{self.depth + 1} windows of {self.window} need -T {(self.depth + 1) * self.window}; or leave -T out"
