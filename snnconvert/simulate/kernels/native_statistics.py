"""Native kernels for what calibration counts (see source/statistics.h)."""

from __future__ import annotations

import math
from ctypes import Structure, c_int64, c_void_p

import torch
from torch import Tensor

from snnconvert.errors import InternalError
from snnconvert.simulate.kernels.bits import Bits, physical
from snnconvert.simulate.kernels.layout import address, is_channels_last, out_tensor, per_element
from snnconvert.simulate.kernels.native import Native

MOST_FRAMES = 255


class _Sums(Structure):
    _fields_ = (
        *((name, c_int64) for name in ("frames", "batch", "pixels", "channels", "planes")),
        ("bits", c_void_p),
        ("amplitude", c_void_p),
        ("amplitude_stride", c_int64),
        ("reads", c_int64),
        ("read_at", c_void_p),
        ("means", c_void_p),
        ("threads", c_int64),
    )


class _Histogram(Structure):
    _fields_ = (
        *((name, c_int64) for name in ("outer", "channels", "inner")),
        ("values", c_void_p),
        ("largest", c_void_p),
        ("bins", c_int64),
        ("counts", c_void_p),
        ("threads", c_int64),
    )


class _Products(Structure):
    _fields_ = (
        *((name, c_int64) for name in ("batch", "pixels", "channels", "positions", "taps")),
        *((name, c_void_p) for name in ("values", "read", "wanted", "pairs", "cross")),
        ("threads", c_int64),
    )


def means(native: Native, spikes: Bits, amplitude: Tensor, frames: int, read_at: tuple[int, ...]) -> Tensor:
    """The mean value sent until each of `read_at` frames, float32 (reads * batch, *sample).

    Args:
        native: the library.
        spikes: (frames * batch, *sample), of at most MOST_FRAMES frames.
        amplitude: what a unit is worth, broadcastable to one sample.
        frames: of each image.
        read_at: numbers of frames, ascending.
    """
    height, width, channels = physical(spikes.shape)
    batch = len(spikes) // frames
    out = out_tensor(len(read_at) * batch, spikes.shape, torch.float32)
    worth, reads = per_element(amplitude, spikes.shape), torch.tensor(read_at, dtype=torch.int64)
    made = _Sums(frames=frames, batch=batch, pixels=height * width, channels=channels, planes=spikes.planes)
    made.bits, made.means = address(spikes), out.data_ptr()
    made.amplitude, made.amplitude_stride = worth.data_ptr(), channels if len(worth) > 1 else 0
    made.reads, made.read_at = len(reads), reads.data_ptr()
    made.threads = torch.get_num_threads()
    native.call("snnconvert_sums", made)
    return out


def add_to_histogram(native: Native, values: Tensor, axis: int, largest: Tensor, counts: Tensor) -> None:
    """Count how large values are, in parts of the largest of their channel.

    Args:
        native: the library.
        values: float32 (batch, *sample).
        axis: of the channels in `values`.
        largest: float32 (channels).
        counts: int64 (channels, bins), added to: of values that are not zero, those that are too large in the last bin.
    """
    if axis == 1 and is_channels_last(values):
        values, axis = values.permute(0, 2, 3, 1), 3
    values, largest = values.contiguous(), largest.contiguous()
    shape = values.shape
    made = _Histogram(outer=math.prod(shape[:axis]), channels=shape[axis], inner=math.prod(shape[axis + 1 :]))
    made.values, made.largest = values.data_ptr(), largest.data_ptr()
    made.bins, made.counts = counts.shape[1], counts.data_ptr()
    made.threads = torch.get_num_threads()
    native.call("snnconvert_histogram", made)


def add_products(
    native: Native, values: Tensor, read: Tensor, wanted: Tensor, to: tuple[Tensor | None, Tensor]
) -> None:
    """Add up, channel by channel, the products of what a depthwise kernel reads for each row: its taps and a one.

    Args:
        native: the library.
        values: float32 (batch, pixels, channels).
        read: int64 (positions, taps), pixels; -1 is a pixel of zeros.
        wanted: float32 (batch, positions, channels).
        to: products of two of them, of a triangle, float64 ((taps + 1) * (taps + 2) / 2, channels), or None; and those
            with what is wanted, float64 (taps + 1, channels). Both are added to.
    """
    values, read, wanted = values.contiguous(), read.contiguous(), wanted.contiguous()
    if (values.dtype, read.dtype, wanted.dtype) != (torch.float32, torch.int64, torch.float32):
        raise InternalError(f"kernels expected float32 and int64, not {values.dtype}, {read.dtype} and {wanted.dtype}")
    batch, pixels, channels = values.shape
    made = _Products(batch=batch, pixels=pixels, channels=channels, positions=len(read), taps=read.shape[1])
    made.values, made.read, made.wanted = values.data_ptr(), read.data_ptr(), wanted.data_ptr()
    made.pairs, made.cross = (None if one is None else one.data_ptr() for one in to)
    made.threads = torch.get_num_threads()
    native.call("snnconvert_products", made)
