"""Native kernels for neurons with phase weights (see source/windows.h): whole windows, or one step after the other."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import POINTER, Structure, c_double, c_int64, c_void_p
from dataclasses import dataclass

import torch
from torch import Tensor

from snnconvert.errors import InternalError
from snnconvert.graph.schedule import Windowed
from snnconvert.simulate.kernels.bits import physical
from snnconvert.simulate.kernels.layout import out_tensor
from snnconvert.simulate.kernels.native import MEMBRANE, Native

RESIDUALS = {"keep": 0, "clear": 1, "clamp": 2}


class _Term(Structure):
    _fields_ = (
        ("kind", c_int64),
        ("values", c_void_p),
        ("factor", c_void_p),
        ("factor_stride", c_int64),
        ("grid", c_double),
        ("at", c_void_p),
    )


class _Layer(Structure):
    _fields_ = (
        *((name, c_int64) for name in ("frames", "batch", "pixels", "channels", "terms")),
        ("term", POINTER(_Term)),
        *((name, c_int64) for name in ("negative", "levels", "residual", "window", "uniform")),
        *MEMBRANE,
        ("weight", c_void_p),
        ("send_at", c_void_p),
        ("units", c_void_p),
        ("counts", c_void_p),
        ("threads", c_int64),
    )


@dataclass(frozen=True)
class Values:
    """A summand of the current: float32 or float64, (frames * batch, *sample), channels last or not.

    Attributes:
        tensor: the values; float32 units where there is a factor.
        factor: what units are worth, float64, laid out by `layout.per_element`; None: the values are the current.
        grid: the current is rounded to multiples of this power of two; 0: it stays as it is.
        at: for each frame of the layer the frame of `tensor` that arrives, -1 for none; None: all in their order.
        ours: whether the memory may be written to, because nobody else reads it.
    """

    tensor: Tensor
    factor: Tensor | None = None
    grid: float = 0.0
    at: Sequence[int] | None = None
    ours: bool = False


@dataclass(frozen=True)
class Emitter:
    """Neurons with phase weights, for `batch` samples of `shape`.

    Their parameters are float64 and laid out by `layout.per_element`.
    """

    batch: int
    shape: tuple[int, ...]
    threshold: Tensor
    initial: Tensor
    negative: bool
    levels: int


def send_by_window(
    native: Native, terms: Sequence[Values], emitter: Emitter, schedule: Windowed
) -> tuple[Tensor, Tensor]:
    """What bistable neurons send in each of their windows, given the sum of each window's input.

    Returns:
        float32 units (frames * batch, *shape), and the number of spikes in each step of the windows, int64
        (frames, window).
    """
    counts = torch.zeros((schedule.frames, schedule.window), dtype=torch.int64)
    layer = _Layer(residual=RESIDUALS[schedule.residual], window=schedule.window, uniform=schedule.phases != "power2")
    layer.counts = counts.data_ptr()
    return _run(native, layer, terms, emitter, range(schedule.frames)), counts


def send_by_step(
    native: Native, terms: Sequence[Values], emitter: Emitter, weights: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """What neurons of phase coding send in each step; `weights` are the units of a spike, 0 where none may be sent.

    Returns:
        float32 units (sending steps * batch, *shape), and the number of spikes of every step, int64 (steps,).
    """
    counts, sending, at = torch.zeros(len(weights), dtype=torch.int64), 0, []
    for weight in weights:
        at.append(sending if weight else -1)
        sending += weight > 0
    worth = torch.tensor(weights, dtype=torch.float64)
    layer = _Layer(weight=worth.data_ptr(), counts=counts.data_ptr())
    return _run(native, layer, terms, emitter, at), counts


def _run(native: Native, layer: _Layer, terms: Sequence[Values], emitter: Emitter, send_at: Sequence[int]) -> Tensor:
    frames, batch, shape, kept = len(send_at), emitter.batch, emitter.shape, list[Tensor]()
    height, width, channels = physical(shape)
    out = _room_for_units(terms, (max(send_at, default=-1) + 1) * batch, shape)
    array = (_Term * len(terms))(*(_term(term, frames, emitter, kept) for term in terms))
    layer.frames, layer.batch, layer.pixels, layer.channels = frames, batch, height * width, channels
    layer.terms, layer.term, layer.negative, layer.levels = len(terms), array, emitter.negative, emitter.levels
    layer.threshold, layer.threshold_stride = _parameter(emitter.threshold)
    layer.initial, layer.initial_stride = _parameter(emitter.initial)
    layer.send_at, layer.units = _indices(send_at, kept), out.data_ptr()
    layer.threads = torch.get_num_threads()
    native.call("snnconvert_windows", layer)
    return out


def _room_for_units(terms: Sequence[Values], count: int, shape: tuple[int, ...]) -> Tensor:
    """Memory for units (count, *shape): that of a current that is read at the same place just before, or new."""
    out = out_tensor(count, shape, torch.float32)
    for term in terms:
        same = term.tensor.shape == out.shape and term.tensor.stride() == out.stride()
        if term.ours and same and term.at is None and term.tensor.dtype == torch.float32:
            return term.tensor
    return out


def _term(term: Values, frames: int, emitter: Emitter, kept: list[Tensor]) -> _Term:
    batch, shape = emitter.batch, emitter.shape
    at = range(frames) if term.at is None else term.at
    if tuple(term.tensor.shape[1:]) != shape or term.tensor.shape[0] < (max(at, default=-1) + 1) * batch:
        raise InternalError(f"a current of shape {tuple(term.tensor.shape)} does not reach neurons of shape {shape}")
    kinds = {torch.float32: 0, torch.float64: 1} if term.factor is None else {torch.float32: 2}
    if term.tensor.dtype not in kinds:
        raise InternalError(f"the kernel for windows does not know {term.tensor.dtype} here")
    channels_last = term.tensor.ndim == 4
    ordered = term.tensor.contiguous(memory_format=torch.channels_last) if channels_last else term.tensor.contiguous()
    kept.append(ordered)
    made = _Term(kind=kinds[term.tensor.dtype], values=ordered.data_ptr(), grid=term.grid, at=_indices(at, kept))
    if term.factor is not None:
        made.factor, made.factor_stride = _parameter(term.factor)
    return made


def _indices(numbers: Sequence[int], kept: list[Tensor]) -> int:
    tensor = torch.tensor(list(numbers), dtype=torch.int64)
    kept.append(tensor)
    return tensor.data_ptr()


def _parameter(tensor: Tensor) -> tuple[int, int]:
    if tensor.dtype != torch.float64:
        raise InternalError(f"the kernel for windows expects float64 parameters, not {tensor.dtype}")
    return tensor.data_ptr(), tensor.shape[1] if tensor.shape[0] > 1 else 0
