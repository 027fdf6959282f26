"""Spikes that a part of the network has sent: kept packed, or at hand for the operators that read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from snnconvert.calibrate.packed_units import PackedUnits, share_sent
from snnconvert.neurons.base import planes


@dataclass(frozen=True)
class Sent:
    """Units sent per frame, (frames * batch, *sample), channels first.

    Attributes:
        units: a signed integer type.
        amplitude: value of one unit, broadcastable to one sample.
        range: least and most units in a frame.
        density: share of units that are not zero.
    """

    units: Tensor
    amplitude: Tensor
    range: tuple[int, int]
    density: float

    @property
    def by_channel(self) -> bool:
        """Whether all pixels of a channel have the same amplitude."""
        return self.amplitude.ndim == self.units.ndim - 1 and self.amplitude[0].numel() == 1

    @property
    def peak(self) -> int:
        """The most units of either sign in a frame."""
        return max(map(abs, self.range))

    @property
    def planes(self) -> int:
        """Planes of bits that hold the units, 0 if none do."""
        return planes(*self.range) if self.units.dtype == torch.int8 else 0

    def values(self) -> Tensor:
        """As a current in units of the ANN's activations."""
        return self.units.float() * self.amplitude

    def moved(self, units: Tensor) -> Sent:
        """The same spikes elsewhere: `units` are theirs, and silence."""
        return replace(self, units=units)

    def kept(self, frames: int) -> Spikes:
        """Packed, until they are read again."""
        packed = PackedUnits.of(self.units, frames, *self.range)
        nothing = self.units.new_empty((0, *self.units.shape[1:]))
        return Spikes(packed, replace(self, units=nothing, density=share_sent(self.units)))


@dataclass(frozen=True)
class Spikes:
    """Packed spikes; `template` is what they were sent as, without the units."""

    packed: PackedUnits
    template: Sent

    @property
    def by_channel(self) -> bool:
        """Whether all pixels of a channel have the same amplitude."""
        return self.template.by_channel

    def sent(self) -> Sent:
        """All of them."""
        return self.template.moved(self.packed.unpacked())

    def at(self, pixels: Tensor) -> Sent:
        """Those at some pixels, (frames * batch, channels, pixels, 1); amplitudes have to be the channels'."""
        return self.template.moved(self.packed.at(pixels))


def side_by_side(parts: Sequence[Sent]) -> Sent:
    """The channels of all parts, whose amplitudes are the channels'."""
    units = torch.cat([part.units for part in parts], 1)
    sent = sum(part.density * part.units.numel() for part in parts)
    return Sent(
        units,
        torch.cat([part.amplitude for part in parts]),
        (min(part.range[0] for part in parts), max(part.range[1] for part in parts)),
        sent / max(units.numel(), 1),
    )
