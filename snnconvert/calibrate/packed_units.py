"""Units sent per frame, several frames to a byte: what calibration keeps of the spikes that later layers read.

A binary neuron's frame takes one bit, a ternary one's two. Packing and unpacking work on whole words.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from snnconvert.calibrate.pixels import at_pixels

BITS = (1, 2, 4)
WORD = 8  # bytes


def bits_per_frame(low: int, high: int) -> int:
    """Bits that units between `low` and `high` take: 1, 2 or 4, or 8 or 32 where they are kept as they are."""
    needed = (high - low).bit_length()
    return next((bits for bits in BITS if needed <= bits), 8 if max(-low, high) < 2**7 else 32)


@dataclass(frozen=True)
class PackedUnits:
    """Units per frame of some images, as they were sent.

    Attributes:
        data: (frames / frames per byte rounded up, batch, elements per image), uint8, elements in memory order; or the
            units themselves, (frames * batch, *sample), where they take more than half a byte.
        frames: number of frames.
        sample: shape of one image's units.
        bits: what one frame takes in `data`.
        lowest: the least value there may be; what zero bits stand for.
    """

    data: Tensor
    frames: int
    sample: tuple[int, ...]
    bits: int
    lowest: int

    @classmethod
    def of(cls, units: Tensor, frames: int, lowest: int, highest: int) -> PackedUnits:
        """Pack `units`, a signed integer type, (frames * batch, *sample)."""
        bits, sample = bits_per_frame(lowest, highest), tuple(units.shape[1:])
        if bits not in BITS or units.dtype != torch.int8:
            return cls(units, frames, sample, 8 * units.element_size(), lowest)
        ordered = units.permute(0, 2, 3, 1) if len(sample) == 3 else units
        flat = ordered.reshape(frames, -1)
        words = _as_words(flat - lowest if lowest else flat)
        each = 8 // bits
        packed = torch.zeros((math.ceil(frames / each), words.shape[1]), dtype=torch.int64)
        for frame in range(frames):
            packed[frame // each] |= words[frame] << (bits * (frame % each))
        by_image = packed.view(torch.uint8)[:, : flat.shape[1]]
        return cls(by_image.reshape(len(by_image), units.shape[0] // frames, -1), frames, sample, bits, lowest)

    def unpacked(self) -> Tensor:
        """The units as they were given: (frames * batch, *sample), channels last in memory where there are pixels."""
        if self.bits not in BITS:
            return self.data
        flat = self._spread(self.data)
        if len(self.sample) != 3:
            return flat.view(-1, *self.sample)
        channels, height, width = self.sample
        return flat.view(-1, height, width, channels).permute(0, 3, 1, 2)

    def at(self, pixels: Tensor) -> Tensor:
        """The units at some pixels (indices into height * width) of every image, (frames * batch, channels, pixels, 1).

        Channels are last in memory. The units are of shape (channels, height, width).
        """
        if self.bits not in BITS:
            return at_pixels(self.data, pixels)
        channels = self.sample[0]
        some = self.data.view(*self.data.shape[:2], -1, channels)[:, :, pixels]
        return self._spread(some.flatten(2)).view(-1, len(pixels), channels).permute(0, 2, 1).unsqueeze(-1)

    def _spread(self, packed: Tensor) -> Tensor:
        """int8 (frames, elements) of `packed`, uint8 (bytes per element, batch, elements per image)."""
        each, length = 8 // self.bits, packed[0].numel()
        words = _as_words(packed.flatten(1))
        spread = torch.empty((len(packed), each, words.shape[1]), dtype=torch.int64)
        mask = int.from_bytes(bytes([2**self.bits - 1]) * WORD, "little")
        for part in range(each):
            torch.bitwise_right_shift(words, self.bits * part, out=spread[:, part])
        spread &= mask
        units = spread.view(torch.int8).flatten(0, 1)[: self.frames, :length]
        return (units + self.lowest if self.lowest else units).contiguous()


def mean_sent(units: Tensor, amplitude: Tensor, levels: int, read_at: tuple[int, ...]) -> Tensor:
    """The mean value sent until each of `read_at` frames, (reads * batch, *sample).

    `units` is (frames, batch, *sample), at most `levels` in a frame; `amplitude`, one's value, broadcasts to a sample.
    """
    whole = torch.int8 if levels * len(units) < 2**7 else torch.int32
    total, means = torch.zeros_like(units[0], dtype=whole), []
    for frame, sent in enumerate(units, 1):
        total += sent
        if frame in read_at:
            means.append(total * (amplitude / frame))
    return means[0] if len(means) == 1 else torch.cat(means)


def share_sent(units: Tensor) -> float:
    """Share of units that are not zero."""
    return float(units.count_nonzero()) / max(units.numel(), 1)


def _as_words(rows: Tensor) -> Tensor:
    """Rows of bytes as rows of whole words, the last filled up with zeros."""
    padded = F.pad(rows, (0, -rows.shape[1] % WORD)) if rows.shape[1] % WORD else rows
    return padded.contiguous().view(torch.int64)
