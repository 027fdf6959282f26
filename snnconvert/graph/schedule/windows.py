"""What schedules have in common whose neurons send in windows of several steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from snnconvert.graph.schedule.base import Schedule

PHASES = ("power2", "uniform")
LONGEST_WINDOW = {"power2": 16, "uniform": 1024}


@dataclass(frozen=True)
class InWindows(Schedule):
    """Neurons that send in windows; a frame is what is sent in one."""

    windowed: ClassVar[bool] = True

    @property
    def delay(self) -> int:
        """A window."""
        return self.steps_per_frame


@dataclass(frozen=True)
class InPhases(InWindows):
    """Windows whose steps, the phases, have weights of their own.

    Attributes:
        window: K, steps per window.
        phases: weights of the spikes in a window: power2 (2^(K-1-k) units at phase k) or uniform.
    """

    window: int = field(kw_only=True)
    phases: str = field(default="power2", kw_only=True)

    @property
    def steps_per_frame(self) -> int:
        """A window."""
        return self.window

    @property
    def levels(self) -> int:
        """Units that a neuron can send in one window."""
        return 2**self.window - 1 if self.positional else self.window

    @property
    def positional(self) -> bool:
        """Whether the spikes of a window are the bits of a binary number."""
        return self.phases == "power2"
