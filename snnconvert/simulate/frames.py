"""Values over time, as the layer engine hands them from operator to operator."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from snnconvert.simulate.kernels.bits import Bits


@dataclass(frozen=True)
class Frames:
    """Real values: (frames * batch, *sample), frame-major; or (batch, *sample) where they are constant in time."""

    tensor: Tensor
    constant: bool


@dataclass(frozen=True)
class Spikes:
    """Spikes for the native kernels, (frames * batch, *sample), frame-major.

    Attributes:
        sent: bits, or int8 where spikes have more than one unit.
        density: share that is not zero, estimated.
    """

    sent: Bits | Tensor
    density: float

    @property
    def bits(self) -> Bits | None:
        """The spikes, if they are bits."""
        return self.sent if isinstance(self.sent, Bits) else None


Value = Frames | Spikes


def density_of(sent: Bits | Tensor) -> float:
    """Share of spikes that are not zero, estimated from some 16 moments spread over time."""
    if isinstance(sent, Bits):
        return sent.density()
    some = sent[:: max(1, len(sent) // 16)]
    return float(torch.count_nonzero(some)) / max(some.numel(), 1)


def over_time(value: Frames, frames: int) -> Tensor:
    """A value as (frames * batch, *sample), also where it is constant in time."""
    if not value.constant:
        return value.tensor
    return value.tensor.repeat(frames, *([1] * (value.tensor.ndim - 1)))
