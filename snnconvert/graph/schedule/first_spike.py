"""ttfs: time to first spike. In its layer's window each neuron spikes at most once, and when is its value.

A site at depth k integrates in window k - 1 and sends in window k; the answer stands after D + 1 windows. A window has
2^B slots, or, in continuous time, is one step whose spikes have real times in it (see `neurons.first_spike`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from snnconvert.errors import OptionError
from snnconvert.graph.schedule.base import MOST_TIMESTEPS, Schedule
from snnconvert.graph.schedule.windows import InWindows
from snnconvert.neurons.first_spike import FIRST_SPIKE
from snnconvert.options import Usual

MOST_BITS = 12


@dataclass(frozen=True)
class FirstSpike(InWindows):
    """One spike a neuron at most, whose time is its value.

    Attributes:
        time_bits: B, so that a window has 2^B slots; None for continuous time.
    """

    kind: ClassVar[str] = "ttfs"
    label: ClassVar[str] = "time to first spike, {time_bits} bits"
    own_neuron: ClassVar[str | None] = FIRST_SPIKE.name
    once: ClassVar[bool] = True
    from_timesteps: ClassVar[tuple[str, ...]] = ("time_bits",)
    limited: ClassVar[bool] = False
    tried: ClassVar[bool] = False
    remedies: ClassVar[Mapping[str, str]] = {
        "quantisation": "A bit more helps: --time-bits halves the distance of the levels, and doubles the latency.",
        "clipping": "Longer windows help in continuous time: --calibration first-spike --zeta 1.",
    }
    phases: ClassVar[str] = "first"
    residual: ClassVar[str] = "clear"

    time_bits: int | None = field(default=None, kw_only=True)

    @property
    def continuous(self) -> bool:
        """Whether spikes have real times."""
        return self.time_bits is None

    @property
    def own_method(self) -> str | None:
        """In continuous time nothing is rounded: windows have to be long enough, that is all."""
        return FIRST_SPIKE.name if self.continuous else None

    @property
    def window(self) -> int:
        """Steps of a window."""
        return 1 if self.time_bits is None else 2**self.time_bits

    @property
    def spacing(self) -> int:
        """Two windows: one to integrate, one to send."""
        return 2 * self.window

    @property
    def frames(self) -> int:
        """One, if there is time for it."""
        return int(self.timesteps >= (self.depth + 1) * self.window)

    @property
    def steps_per_frame(self) -> int:
        """A window."""
        return self.window

    @property
    def levels(self) -> int:
        """Units of a spike in the first slot."""
        return self.window

    @property
    def initial(self) -> float:
        """In continuous time nothing is rounded."""
        return 0.0 if self.continuous else super().initial

    def updates(self, depth: int) -> list[int]:
        """In every slot of two windows, booked when the spike has been sent; in continuous time at its two ends."""
        found = [0] * self.timesteps
        found[self.emission_step(depth, 0, self.window - 1)] = self.spacing
        return found

    @property
    def answer_steps(self) -> list[int]:
        """After every slot of the last window: an output grows in it as a membrane does, and is complete at its end."""
        return list(range(self.timesteps - self.window + 1, self.timesteps + 1))

    @classmethod
    def title(cls, given: Mapping[str, Any]) -> str:
        """As of every schedule; without bits time is continuous."""
        return super().title(given) if given.get("time_bits") else "time to first spike, continuous"

    @classmethod
    def within(cls, timesteps: int, depth: int, **options: Any) -> list[tuple[str, Schedule | OptionError]]:
        """One schedule, of as many steps as it takes: `timesteps` is a limit only where somebody asked for it."""
        bits, asked = options.get("time_bits"), not isinstance(timesteps, Usual)
        name = cls.title(options)
        if bits is not None and asked:
            hint = f"leave one of them out: -T {(depth + 1) * 2**bits} follows from --time-bits {bits}"
            return [(name, OptionError(f"--time-bits {bits} and -T {timesteps} say the same in two ways", hint=hint))]
        if asked:
            bits = (timesteps // (depth + 1)).bit_length() - 1
            if bits < 1:
                short = f"{timesteps} steps are too few for {depth + 1} windows of two slots"
                return [(name, OptionError(short, hint=f"use at least -T {2 * (depth + 1)}, or leave -T out"))]
            options = {**options, "time_bits": min(bits, MOST_BITS)}
        window = 1 if bits is None else 2 ** min(int(bits), MOST_BITS)
        return [cls._attempt((depth + 1) * window, depth, **options)]

    def _check(self) -> None:
        super()._check()
        bits = self.time_bits
        if bits is not None and not (1 <= bits <= MOST_BITS and self.timesteps <= MOST_TIMESTEPS):
            raise OptionError(
                f"--time-bits {bits} is outside 1 to {MOST_BITS}, or takes more than {MOST_TIMESTEPS} steps",
                hint="4 bits, 16 slots a layer, are enough for most networks: --time-bits 4",
            )

    def _budget_hint(self) -> str:
        return f"{self.depth + 1} windows need at least -T {2 * (self.depth + 1)}; or leave -T out"
