"""The native kernel for inputs that are parts with the same weights (see `Gathering.scales`)."""

from __future__ import annotations

from ctypes import Structure, c_int64, c_void_p

import torch
from torch import Tensor

from snnconvert.errors import InternalError
from snnconvert.simulate.kernels.bits import physical
from snnconvert.simulate.kernels.layout import out_tensor
from snnconvert.simulate.kernels.native import Native, memory_of


class _Parts(Structure):
    _fields_ = (
        *((name, c_int64) for name in ("pixels", "parts", "channels")),
        *((name, c_void_p) for name in ("units", "factors", "sums")),
        ("threads", c_int64),
    )


def sums_of_parts(native: Native, units: Tensor, factors: Tensor) -> Tensor:
    """Parts of int8 spikes (count, *sample) times factors, added up one after the other, as `Gathering.summed` does it.

    Args:
        native: the library.
        units: a sample is (C), (N, C) or (C, H, W); its channels are those of the first part, then of the second, ...
        factors: float32 (parts, channels of a part).

    Returns:
        float32, whose samples have as many channels as a part has.
    """
    height, width, inputs = physical(tuple(units.shape[1:]))
    parts, channels = factors.shape
    if inputs != parts * channels:
        raise InternalError(f"{inputs} channels are not {parts} parts of {channels}")
    shape = (channels, *units.shape[2:]) if units.ndim == 4 else (*units.shape[1:-1], channels)
    out, kept, factors = out_tensor(len(units), shape, torch.float32), list[Tensor](), factors.contiguous()
    made = _Parts(pixels=len(units) * height * width, parts=parts, channels=channels, sums=out.data_ptr())
    made.units, made.factors = memory_of(units, torch.int8, kept), factors.data_ptr()
    made.threads = torch.get_num_threads()
    native.call("snnconvert_parts", made)
    return out
