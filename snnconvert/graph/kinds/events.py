"""Where events come in: the input of a network that watches a camera of events, step by step."""

from __future__ import annotations

from torch import Tensor

from snnconvert.errors import OptionError
from snnconvert.graph.kinds.base import Op, Role


class Events(Op):
    """What comes in in a step is a whole number of events at every place, each worth `amplitude` to the network.

    Called outside an engine it hands on what the original network sees; at stage SNN (`units`) as events a step.
    `amplitude` broadcasts against one sample.

    Attributes:
        slicing: how recordings are cut into steps, as `data.recordings.Slicing` reads it.
        steps: those of a whole recording, as the network was trained on them.
        levels: the most events that are taken in at a place in one step; what lies beyond is cut off.
        reset: steps after which all begins anew, 0 for never.
    """

    role = Role.EVENTS
    fields = ("slicing", "steps", "levels", "units", "reset")
    amplitude: Tensor

    def __init__(
        self, amplitude: Tensor, *, slicing: str, steps: int, levels: int, units: bool = False, reset: int = 0
    ) -> None:
        super().__init__()
        if not 1 <= levels < 2**24 or steps < 1 or reset < 0 or not bool((amplitude > 0).all()):
            raise OptionError(
                f"events in {steps} steps, at most {levels} at a place, reset every {reset}: no such input",
                hint="steps and levels are at least 1, amplitudes above 0",
            )
        self.tensor("amplitude", amplitude)
        self.slicing, self.steps, self.levels, self.units, self.reset = slicing, steps, levels, units, reset

    def forward(self, x: Tensor) -> Tensor:
        return x / self.amplitude if self.units else x.clone()

    @property
    def sends(self) -> bool:
        """Events are spikes."""
        return True

    @property
    def sends_negative(self) -> bool:
        """Polarities have channels of their own."""
        return False

    def largest(self, *inputs: float) -> float:
        """What is let in."""
        del inputs
        return float(self.levels)

    def received(self, events: Tensor) -> tuple[Tensor, int]:
        """What is let in of a whole number of events at every place, and at how many places there were more."""
        beyond = int((events.abs() > self.levels).sum())
        return (events.clamp(-self.levels, self.levels) if beyond else events), beyond
