"""Spikes that a part of the network has sent: kept packed, or at hand for the operators that read them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from snnconvert.calibrate.packed_units import PackedUnits, bits_per_frame, mean_sent, share_sent
from snnconvert.compile.exact import on_grid
from snnconvert.errors import InternalError
from snnconvert.graph.kinds import Op, Weighted
from snnconvert.neurons.base import planes
from snnconvert.simulate.kernels import Native, choose
from snnconvert.simulate.kernels.bits import Bits, empty_bits, moved
from snnconvert.simulate.kernels.layout import Packed, pack
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


def wired(op: Op, parts: Sequence[Sent], shape: tuple[int, ...], amplitude: Tensor) -> Sent:
    """What an operator that moves spikes makes of those of its inputs; `shape` is that of one sample."""
    bits = [part.spikes for part in parts if isinstance(part.spikes, Bits)]
    spikes = moved(op, bits, shape) if len(bits) == len(parts) else None
    elements = sum(part.elements for part in parts)
    return Sent(
        op(*(part.units for part in parts)) if spikes is None else spikes,
        amplitude,
        (min(part.range[0] for part in parts), max(part.range[1] for part in parts)),
        sum(part.density * part.elements for part in parts) / max(elements, 1),
    )


def moved_amplitude(op: Op, parts: Sequence[Sent]) -> Tensor:
    """What a unit is worth where an operator has moved spikes: one value per channel where all pixels have the same."""
    moved_to = op.moved_amplitude(*(part.amplitude.expand(part.sample).unsqueeze(0) for part in parts))[0]
    if moved_to.ndim != 3:
        return moved_to.contiguous()
    first = moved_to[:, :1, :1]
    return first.contiguous() if bool((moved_to == first).all()) else moved_to.contiguous()


def folded(
    op: Weighted, source: Sent, native: Native | None, *, windowed: bool
) -> tuple[Weighted | None, Packed | None]:
    """An operator that reads units, amplitudes folded into its weights, and the same for kernels; or None."""
    amplitude, rank = source.amplitude.double().flatten(), len(source.sample)
    if len(amplitude) != source.sample[0] or rank != (op.weight.ndim - 1):
        return None, None
    reading, _ = on_grid(op.reading(amplitude), float(source.peak), signed=source.range[0] < 0, windowed=windowed)
    small = isinstance(source.spikes, Bits) or source.spikes.dtype == torch.int8
    fits = native is not None and small and rank in (1, 3)
    return reading, pack(reading, max(source.planes, 1)) if fits else None
