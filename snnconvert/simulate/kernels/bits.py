"""Spikes of 0 and 1, or of -1, 0 and 1, as bits, and what can be done to them without unpacking."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from snnconvert.graph.kinds import Concat, Op, Pad, Reshape, Slice

READ_BEYOND = 64  # bytes that kernels may read beyond the end
CHANNELS = 4  # axis of `Bits.bytes`
# number of set bits of each byte
_SET = np.array([byte.bit_count() for byte in range(256)], dtype=np.uint8)


def physical(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(height, width, channels) of a sample in memory order."""
    if len(shape) == 3:
        return shape[1], shape[2], shape[0]
    if len(shape) == 2:
        return 1, shape[0], shape[1]
    return 1, 1, math.prod(shape)


def bytes_for(channels: int) -> int:
    """Bytes of one plane of a pixel."""
    return -(-channels // 8)


@dataclass(frozen=True)
class Bits:
    """Spikes as bits, channels last, the lowest first; every pixel begins a byte, what is beyond its channels is zero.

    Attributes:
        memory: uint8, with READ_BEYOND bytes more than there are.
        count: number of samples.
        shape: of one sample.
        planes: 1; or 2, of which the first has the spikes of 1 and the second those of -1; or those of
            `Native.condensed` with several magnitudes.
    """

    memory: Tensor
    count: int
    shape: tuple[int, ...]
    planes: int

    @property
    def bytes(self) -> Tensor:
        """The bytes as (count, height, width, planes, ceil(channels / 8)), see `physical`."""
        height, width, channels = physical(self.shape)
        return self.memory[:-READ_BEYOND].view(self.count, height, width, self.planes, bytes_for(channels))

    def __len__(self) -> int:
        return self.count

    @property
    def elements(self) -> int:
        """How many spikes there could be."""
        return self.count * math.prod(self.shape)

    def density(self) -> float:
        """Share of bits that are set, estimated from some 65,000 bytes spread over all."""
        all_bytes = self.memory[:-READ_BEYOND]
        some = all_bytes[:: len(all_bytes) // 2**16 | 1]  # an odd step: in turn all channels of all pixels
        set_bits = int(_SET[some.numpy()].sum(dtype=np.int64))
        return set_bits * len(all_bytes) / max(len(some) * self.elements, 1)


def empty_bits(count: int, shape: tuple[int, ...], planes: int) -> Bits:
    """Room for the spikes of so many samples."""
    height, width, channels = physical(shape)
    size = count * height * width * planes * bytes_for(channels)
    return Bits(torch.empty(size + READ_BEYOND, dtype=torch.uint8), count, shape, planes)


def moved(op: Op, inputs: Sequence[Bits], shape: tuple[int, ...]) -> Bits | None:
    """What `op`, which moves spikes, makes of `inputs`; None where bits would have to be shifted."""
    first = inputs[0]
    match op:
        case Reshape():
            alone = physical(first.shape)[:2] == (1, 1) == physical(shape)[:2]
            return Bits(first.memory, first.count, shape, first.planes) if alone else None
        case Concat():
            return _joined(op, inputs, shape)
        case Slice():
            return _sliced(op, first, shape)
        case Pad():
            return _padded(op, first, shape)
    return None


def _joined(op: Concat, inputs: Sequence[Bits], shape: tuple[int, ...]) -> Bits | None:
    axis, planes = _axis(op.dim, len(shape)), inputs[0].planes
    if axis == CHANNELS and any(physical(bits.shape)[2] % 8 for bits in inputs[:-1]):
        return None
    if any(bits.planes != planes for bits in inputs):
        return None
    made = empty_bits(len(inputs[0]), shape, planes)
    memory = [bits.bytes for bits in (*inputs, made)]
    if all(each.shape[CHANNELS] % 8 == 0 and each.data_ptr() % 8 == 0 for each in memory):
        memory = [each.view(torch.int64) for each in memory]  # fewer, larger pieces to copy
    torch.cat(memory[:-1], axis, out=memory[-1])
    return made


def _sliced(op: Slice, bits: Bits, shape: tuple[int, ...]) -> Bits | None:
    axis, start, stop = _axis(op.dim, len(shape)), op.start, min(op.stop, bits.shape[op.dim - 1])
    if axis == CHANNELS:
        if op.step != 1 or start % 8 or (stop % 8 and stop != physical(bits.shape)[2]):
            return None
        start, stop = start // 8, bytes_for(stop)
    index = [slice(None)] * 5
    index[axis] = slice(start, stop, op.step)
    return _copied(bits.bytes[tuple(index)], shape, bits.planes)


def _padded(op: Pad, bits: Bits, shape: tuple[int, ...]) -> Bits | None:
    by_axis = {_axis(len(shape) - i, len(shape)): op.pads[2 * i : 2 * i + 2] for i in range(len(op.pads) // 2)}
    before, after = by_axis.get(CHANNELS, (0, 0))
    channels = physical(bits.shape)[2]
    cut = after < 0 and physical(shape)[2] % 8  # bits of channels that are gone would stay
    if before % 8 or cut or (after > 0 and channels % 8):
        return None
    by_axis[CHANNELS] = (before // 8, bytes_for(physical(shape)[2]) - before // 8 - bytes_for(channels))
    sizes = [size for axis in (CHANNELS, 3, 2, 1) for size in by_axis.get(axis, (0, 0))]
    return _copied(F.pad(bits.bytes, sizes), shape, bits.planes)


def _axis(dim: int, rank: int) -> int:
    """The axis of `Bits.bytes` that belongs to axis `dim` of the spikes (the batch's is 0)."""
    return {3: (0, CHANNELS, 1, 2), 2: (0, 2, CHANNELS), 1: (0, CHANNELS)}[rank][dim]


def _copied(memory: Tensor, shape: tuple[int, ...], planes: int) -> Bits:
    made = empty_bits(len(memory), shape, planes)
    made.bytes.copy_(memory)
    return made
