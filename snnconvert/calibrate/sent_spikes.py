"""Spikes that a part of the network has sent: kept packed, or at hand for the operators that read them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from snnconvert.calibrate.packed_units import PackedUnits, bits_per_frame, mean_sent, share_sent
from snnconvert.errors import InternalError
from snnconvert.graph.kinds import Op
from snnconvert.neurons.base import planes
from snnconvert.simulate.kernels import Native, choose
from snnconvert.simulate.kernels.bits import Bits, empty_bits, moved
from snnconvert.simulate.kernels.native_statistics import MOST_FRAMES, means
from snnconvert.simulate.over_time import by_frames

MEAN_BYTES = 4  # of a float32


@dataclass(frozen=True)
class Sent:
    """Spikes sent per frame, (frames * batch, *sample), channels first.

    Attributes:
        spikes: units, a signed integer type; or bits, as native kernels make and read them.
        amplitude: value of one unit, broadcastable to one sample.
        range: least and most units in a frame.
        density: share of units that are not zero.
    """

    spikes: Tensor | Bits
    amplitude: Tensor
    range: tuple[int, int]
    density: float

    @property
    def sample(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return self.spikes.shape if isinstance(self.spikes, Bits) else tuple(self.spikes.shape[1:])

    @property
    def elements(self) -> int:
        """How many spikes there could be."""
        return len(self.spikes) * math.prod(self.sample)

    @cached_property
    def units(self) -> Tensor:
        """The spikes as units."""
        if not isinstance(self.spikes, Bits):
            return self.spikes
        return _kernels().expanded(self.spikes)

    @property
    def by_channel(self) -> bool:
        """Whether all pixels of a channel have the same amplitude."""
        return self.amplitude.ndim == len(self.sample) and self.amplitude[0].numel() == 1

    @property
    def peak(self) -> int:
        """The most units of either sign in a frame."""
        return max(map(abs, self.range))

    @property
    def planes(self) -> int:
        """Planes of bits that hold the spikes, 0 if none do."""
        if isinstance(self.spikes, Bits):
            return self.spikes.planes
        return planes(*self.range) if self.spikes.dtype == torch.int8 else 0

    def for_kernels(self, native: Native) -> Tensor | Bits:
        """Bits where bits hold them, else units."""
        return native.in_planes(self.spikes, self.planes) if isinstance(self.spikes, Tensor) else self.spikes

    def values(self) -> Tensor:
        """As a current in units of the ANN's activations."""
        return self.units.float() * self.amplitude

    def share(self) -> float:
        """Share of units that are not zero, of bits an estimate."""
        return self.spikes.density() if isinstance(self.spikes, Bits) else share_sent(self.spikes)

    def means(self, frames: int, read_at: tuple[int, ...]) -> Tensor:
        """The mean value sent until each of `read_at` frames, (reads * batch, *sample)."""
        if isinstance(self.spikes, Bits) and frames <= MOST_FRAMES:
            return means(_kernels(), self.spikes, self.amplitude, frames, read_at)
        return mean_sent(by_frames(self.units, frames), self.amplitude, self.peak, read_at)

    def moved(self, spikes: Tensor | Bits) -> Sent:
        """The same spikes elsewhere: `spikes` are theirs, and silence."""
        return replace(self, spikes=spikes)

    def laid_out(self, outside: Tensor, height: int, width: int) -> Sent:
        """Spikes of pixels in a row as maps, silent where `outside` (pixels) says so; what is here is overwritten."""
        if isinstance(self.spikes, Bits):
            self.spikes.bytes.index_fill_(1, outside.nonzero().squeeze(1), 0)
            return self.moved(replace(self.spikes, shape=(self.spikes.shape[0], height, width)))
        self.spikes[:, :, outside] = 0
        return self.moved(self.spikes.view(*self.spikes.shape[:2], height, width))

    def kept(self, frames: int) -> Spikes:
        """Packed, until they are read again."""
        if isinstance(self.spikes, Bits):
            return Spikes(self.spikes, self)
        packed = PackedUnits.of(self.spikes, frames, *self.range)
        nothing = self.spikes.new_empty((0, *self.spikes.shape[1:]))
        return Spikes(packed, replace(self, spikes=nothing, density=share_sent(self.spikes)))


@dataclass(frozen=True)
class Spikes:
    """Packed spikes; `template` is what they were sent as."""

    packed: PackedUnits | Bits
    template: Sent

    @property
    def by_channel(self) -> bool:
        """Whether all pixels of a channel have the same amplitude."""
        return self.template.by_channel

    def sent(self) -> Sent:
        """All of them."""
        packed = self.packed
        return self.template.moved(packed if isinstance(packed, Bits) else packed.unpacked())

    def at(self, pixels: Tensor) -> Sent:
        """Those at some pixels, (frames * batch, channels, pixels, 1); amplitudes have to be the channels'."""
        packed = self.packed
        if not isinstance(packed, Bits):
            return self.template.moved(packed.at(pixels))
        some = empty_bits(packed.count, (packed.shape[0], len(pixels), 1), packed.planes)
        by_pixel, there = packed.bytes.flatten(1, 2).flatten(2), some.bytes.flatten(1, 2).flatten(2)
        torch.index_select(by_pixel, 1, pixels, out=there)
        return self.template.moved(some)


def finds_means(frames: int, units: tuple[int, int], *, bits: bool) -> bool:
    """Whether means of spikes, from the least to the most units in a frame, are made anew when they are read.

    Kernels find those of bits; others are, where the units take no more room than a mean.
    """
    return frames <= MOST_FRAMES if bits else frames * bits_per_frame(*units) <= 8 * MEAN_BYTES


def _kernels() -> Native:
    """Those that made the bits that there are."""
    native = choose()
    if native is None:
        raise InternalError("there are bits, and no kernels that made them")
    return native


def wired(op: Op, parts: Sequence[Sent], shape: tuple[int, ...]) -> Sent:
    """What an operator that moves spikes makes of those of its inputs; `shape` is that of one sample."""
    amplitudes = [part.amplitude.expand(part.sample).unsqueeze(0) for part in parts]
    bits = [part.spikes for part in parts if isinstance(part.spikes, Bits)]
    spikes = moved(op, bits, shape) if len(bits) == len(parts) else None
    elements = sum(part.elements for part in parts)
    return Sent(
        op(*(part.units for part in parts)) if spikes is None else spikes,
        _compressed(op.moved_amplitude(*amplitudes)[0]),
        (min(part.range[0] for part in parts), max(part.range[1] for part in parts)),
        sum(part.density * part.elements for part in parts) / max(elements, 1),
    )


def _compressed(amplitude: Tensor) -> Tensor:
    """One value per channel where all pixels have the same."""
    if amplitude.ndim != 3:
        return amplitude.contiguous()
    first = amplitude[:, :1, :1]
    return first.contiguous() if bool((amplitude == first).all()) else amplitude.contiguous()
