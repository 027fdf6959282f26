"""bistable K: windows of K steps, alternately integrating and emitting.

A site at depth k integrates in windows k-1, k+1, ... and emits in windows k, k+2, ...; the first answer stands after
(D + 1) K steps, later ones follow every 2 K (reconstruction of Li, Zeng & Zhao, arXiv 2105.12917).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from snnconvert.errors import OptionError
from snnconvert.graph.schedule.base import Schedule
from snnconvert.graph.schedule.windows import LONGEST_WINDOW, PHASES, InPhases
from snnconvert.neurons import BISTABLE

RESIDUALS = ("keep", "clear", "clamp")
# the windows that are tried where none is given
WINDOWS = range(2, 9)
# thresholds are fitted for the levels of a window times windows to the power of this. Agreement against 0.5 on held-out
# training images of five networks: 0 -0.2 points, 1 -0.3 (standard errors 0.1; `python benchmarks/constants.py`)
REFINEMENT = 0.5


@dataclass(frozen=True)
class Bistable(InPhases):
    """Neurons that integrate for one window and send for the next; a frame is what is sent in a window.

    Attributes:
        residual: what becomes of the membrane after an emitting window: keep, clear (to its value at t = 0) or clamp
            (to what one unit is worth).
    """

    kind: ClassVar[str] = "bistable"
    label: ClassVar[str] = "bistable, window {window}"
    own_neuron: ClassVar[str | None] = BISTABLE.name
    remedies: ClassVar[Mapping[str, str]] = {
        "clipping": "Higher thresholds help: --calibration percentile --percentile 99.99. They make each spike "
        "coarser.",
        "quantisation": "A longer --window helps: each step of it halves the distance of the levels, and adds a step "
        "of latency per layer, for which -T has to leave room.",
        "unevenness": "A longer --window helps, so that more of the input is in before the first spike; each step of "
        "it adds a step of latency per layer.",
    }

    residual: str = field(default="keep", kw_only=True)

    @property
    def spacing(self) -> int:
        """Two windows: one to send, one to integrate.

        (With a second set of membranes the idle half of each cycle could serve another input.)
        """
        return 2 * self.window

    @property
    def keeps_membrane(self) -> bool:
        """Whether nothing is taken from the membrane after a window."""
        return self.residual == "keep"

    def resolution(self, levels: int) -> int:
        """Number of values above zero that thresholds are fitted to.

        A neuron sends a full code in every window already, so more windows refine it less.
        """
        return max(1, round(levels * math.pow(self.frames, REFINEMENT)))

    def updates(self, depth: int) -> list[int]:
        """Two windows of updates for each that is sent, booked when it has been."""
        found = [0] * self.timesteps
        for frame in range(self.frames):
            found[self.emission_step(depth, frame, self.window - 1)] = self.spacing
        return found

    @classmethod
    def within(cls, timesteps: int, depth: int, **options: Any) -> list[tuple[str, Schedule | OptionError]]:
        """For each length of a window one with a single window, and one with as many as fit.

        They take only the steps that these windows need.
        """
        windows = WINDOWS if options.get("window") is None else (options["window"],)
        return [
            found for window in windows for found in cls._of_window(timesteps, depth, **{**options, "window": window})
        ]

    @classmethod
    def _of_window(cls, timesteps: int, depth: int, **options: Any) -> list[tuple[str, Schedule | OptionError]]:
        name, widest = cls._attempt(timesteps, depth, **options)
        if isinstance(widest, OptionError):
            first = (depth + 1) * options["window"]
            short = f"the first answer takes {first} of {timesteps} steps"
            return [(name, OptionError(short, hint=widest.hint) if timesteps < first else widest)]
        found: list[tuple[str, Schedule | OptionError]] = []
        for frames in sorted({1, widest.frames}):
            counted = f"{name}, {frames} {'window' if frames == 1 else 'windows'}"
            found.append((counted, cls._attempt(widest.answer_step(frames - 1), depth, **options)[1]))
        return found

    def _check(self) -> None:
        super()._check()
        self._check_names(phases=PHASES, residual=RESIDUALS)
        longest = LONGEST_WINDOW[self.phases]
        if not 1 <= self.window <= longest:
            raise OptionError(
                f"--window {self.window} is outside 1 to {longest}",
                hint="a window of 5 or 6 steps is enough for most networks, e.g. --window 5",
            )

    def _budget_hint(self) -> str:
        two, four = ((self.depth + 1) * window for window in (2, 4))
        return f"a window of 2 needs -T {two}, a window of 4 needs -T {four}; or use --schedule streaming"
