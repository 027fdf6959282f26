"""The native library's entry points, by ctypes: raw buffers in, raw buffers out (see source/layer.h)."""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Mapping, Sequence
from ctypes import POINTER, Structure, byref, c_int, c_int64, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from snnconvert.errors import InternalError
from snnconvert.graph.kinds import MaxPool, SumPool
from snnconvert.neurons import NeuronModel
from snnconvert.simulate.kernels.bits import Bits, bytes_for, empty_bits, physical
from snnconvert.simulate.kernels.layout import Packed, address, out_tensor, sample_of

VERSION = 14
NO_NEURON = 6  # instead of a model's `native`
MOST_TERMS = 8
MOST_UNITS = 127  # in an int8 spike
INSTRUCTIONS = ("portable", "avx2", "avx512")

ENTRIES = tuple(
    f"snnconvert_{name}"
    for name in (
        "layer",
        "max_pool",
        "sum_pool",
        "condense",
        "expand",
        "parts",
        "windows",
        "trials",
        "sums",
        "histogram",
    )
)

_GEOMETRY = ("in_h", "in_w", "in_c", "k_h", "k_w", "stride_h", "stride_w", "pad_h", "pad_w", "dilation_h", "dilation_w")

# what both kinds of neuron layer are told of their membranes, in the order of the C structures
MEMBRANE = (
    ("threshold", c_void_p),
    ("threshold_stride", c_int64),
    ("initial", c_void_p),
    ("initial_stride", c_int64),
)


class _Term(Structure):
    _fields_ = (
        ("kind", c_int64),
        ("spikes", c_void_p),
        ("values", c_void_p),
        ("bias", c_void_p),
        ("factor_stride", c_int64),
        *((name, c_int64) for name in (*_GEOMETRY, "groups", "depthwise", "planes", "tables")),
        ("integers", c_void_p),
        ("steps", c_void_p),
        ("columns", c_void_p),
        ("scale", c_void_p),
        ("shift", c_void_p),
        ("double_values", c_int64),
        ("double_scale", c_int64),
    )


class _Layer(Structure):
    _fields_ = (
        *((name, c_int64) for name in ("frames", "batch", "out_h", "out_w", "out_c", "terms")),
        ("term", POINTER(_Term)),
        *((name, c_int64) for name in ("model", "levels", "wait")),
        *MEMBRANE,
        ("spikes", c_void_p),
        ("current", c_void_p),
        ("counts", c_void_p),
        ("threads", c_int64),
    )


class _Pool(Structure):
    _fields_ = (
        *((name, c_int64) for name in ("frames", "batch", "in_h", "in_w", "channels", "out_h", "out_w")),
        *((name, c_int64) for name in _GEOMETRY[3:]),
        ("spikes", c_void_p),
        ("pooled", c_void_p),
        ("planes", c_int64),
        ("reach", c_int64),
        ("threads", c_int64),
    )


class _Bits(Structure):
    _fields_ = (
        ("pixels", c_int64),
        ("channels", c_int64),
        ("planes", c_int64),
        ("magnitudes", c_int64),
        ("units", c_void_p),
        ("bits", c_void_p),
        ("threads", c_int64),
    )


@dataclass(frozen=True)
class Convolution:
    """Spikes (frames first) through a packed convolution or linear layer.

    Attributes:
        spikes: bits, or int8 units.
        packed: the weights, packed for as many planes as there are bits.
        tables: whether sums may be looked up in tables, which serves bits only.
    """

    spikes: Bits | Tensor
    packed: Packed
    tables: bool = False


@dataclass(frozen=True)
class ScaledSpikes:
    """Spikes (bits, or int8 units, shaped like the output) times a factor laid out by `layout.per_element`."""

    spikes: Bits | Tensor
    factor: Tensor


@dataclass(frozen=True)
class Current:
    """A float32 current, (frames * batch, *sample), or (batch, *sample) where it is constant in time."""

    tensor: Tensor
    constant: bool


@dataclass(frozen=True)
class Shifted:
    """values * scale + shift, in the precision of scale and shift, rounded to float32.

    Attributes:
        values: float32 or float64, (frames * batch, *sample).
        scale: float32 or float64, laid out by `layout.per_element`.
        shift: the same, with as many rows.
    """

    values: Tensor
    scale: Tensor
    shift: Tensor


Summand = Convolution | ScaledSpikes | Current | Shifted


@dataclass(frozen=True)
class Membrane:
    """A neuron layer: model, levels, steps of wait, and its parameters laid out by `layout.per_element`."""

    model: NeuronModel
    levels: int
    wait: int
    threshold: Tensor
    initial: Tensor


class Native:
    """The loaded library.

    Args:
        library: handle from ctypes.
        instructions: largest instruction set to use, an index of INSTRUCTIONS; the processor's best by default.
    """

    def __init__(self, library: ctypes.CDLL, instructions: int = len(INSTRUCTIONS) - 1) -> None:
        self._library = library
        self._instructions = min(instructions, int(library.snnconvert_instructions()))

    @property
    def instructions(self) -> str:
        """Name of the instruction set in use."""
        return INSTRUCTIONS[self._instructions]

    def limited_to(self, instructions: str) -> Native:
        """The same kernels with at most this instruction set, for tests and measurements."""
        return Native(self._library, INSTRUCTIONS.index(instructions))

    def neurons(
        self, terms: Sequence[Summand], membrane: Membrane, frames: int, batch: int, shape: tuple[int, ...]
    ) -> tuple[Bits | Tensor, Tensor]:
        """Spikes of a neuron layer that receives the sum of `terms`, added in order.

        Returns:
            spikes (frames * batch, *shape), bits where a frame has at most one unit, else int8; and int64 counts
            (2, frames) of spikes and units.
        """
        planes, count = membrane.model.planes(membrane.levels), frames * batch
        out = empty_bits(count, shape, planes) if planes else out_tensor(count, shape, torch.int8)
        layer = _Layer(levels=membrane.levels, wait=membrane.wait, spikes=address(out))
        layer.model = membrane.model.native
        layer.threshold, layer.threshold_stride = _parameter(membrane.threshold)
        layer.initial, layer.initial_stride = _parameter(membrane.initial)
        return out, self._run(layer, terms, frames, batch, shape)

    def currents(self, terms: Sequence[Summand], frames: int, batch: int, shape: tuple[int, ...]) -> Tensor:
        """The sum of `terms` itself, float32 (frames * batch, *shape)."""
        out = out_tensor(frames * batch, shape, torch.float32)
        zero = torch.zeros(shape[0] if len(shape) in (1, 3) else shape[-1])
        layer = _Layer(model=NO_NEURON, current=out.data_ptr())
        layer.threshold, layer.initial = zero.data_ptr(), zero.data_ptr()
        self._run(layer, terms, frames, batch, shape)
        return out

    def _run(self, layer: _Layer, terms: Sequence[Summand], frames: int, batch: int, shape: tuple[int, ...]) -> Tensor:
        height, width, channels = physical(shape)
        kept: list[Tensor] = []
        array = (_Term * len(terms))(*(self._term(term, channels, kept) for term in terms))
        counts = torch.zeros((2, frames), dtype=torch.int64)
        layer.frames, layer.batch, layer.out_h, layer.out_w, layer.out_c = frames, batch, height, width, channels
        layer.terms, layer.term, layer.counts = len(terms), array, counts.data_ptr()
        layer.threads = torch.get_num_threads()
        self._check(self._library.snnconvert_layer(byref(layer), c_int64(self._instructions)))
        return counts

    def max_pool(self, spikes: Bits | Tensor, op: MaxPool, frames: int, shape: tuple[int, ...]) -> Bits | Tensor:
        """Increments of the running maximum (frames * batch, *shape): of bits bits, of int8 units int8."""
        planes = planes_of(spikes)
        out = empty_bits(len(spikes), shape, planes) if planes else out_tensor(len(spikes), shape, torch.int8)
        kept: list[Tensor] = []
        pool = _pool(spikes, op, frames, shape, kept)
        pool.dilation_h, pool.dilation_w = op.dilation
        pool.pooled, pool.reach = address(out), frames * (1 if planes else 128)
        self.call("snnconvert_max_pool", pool)
        return out

    def sum_pool(self, spikes: Bits, op: SumPool, frames: int, shape: tuple[int, ...]) -> Tensor:
        """Sums of windows (frames * batch, *shape): int8, or float32 of windows of more than 127 pixels."""
        dtype = torch.int8 if math.prod(op.kernel) <= MOST_UNITS else torch.float32
        out = out_tensor(len(spikes), shape, dtype)
        pool = _pool(spikes, op, frames, shape, [])
        pool.pooled = out.data_ptr()
        self.call("snnconvert_sum_pool", pool)
        return out

    def condensed(self, units: Tensor, planes: int = 1, magnitudes: int = 1) -> Bits:
        """Int8 spikes (count, *shape) as bits: of 0 and 1, or with two planes of -1, 0 and 1.

        With more `magnitudes` there is a plane for each power of two and, if there are twice as many planes, one for
        each below zero. A convolution reads these as channels of their own, for which its weights are packed; nothing
        else knows them.
        """
        kept: list[Tensor] = []
        bits = empty_bits(len(units), tuple(units.shape[1:]), planes)
        self.call("snnconvert_condense", _both(bits, memory_of(units, torch.int8, kept), magnitudes))
        return bits

    def in_planes(self, units: Tensor, planes: int) -> Bits | Tensor:
        """Int8 spikes as bits in so many planes, or as they are for none."""
        return self.condensed(units, planes) if planes else units

    def expanded(self, spikes: Bits | Tensor) -> Tensor:
        """Spikes as int8 (count, *shape)."""
        if not isinstance(spikes, Bits):
            return spikes
        units = out_tensor(len(spikes), spikes.shape, torch.int8)
        self.call("snnconvert_expand", _both(spikes, units.data_ptr()))
        return units

    def _term(self, term: Summand, channels: int, kept: list[Tensor]) -> _Term:
        if isinstance(term, Current):
            return _Term(kind=3 if term.constant else 2, values=memory_of(term.tensor, torch.float32, kept))
        if isinstance(term, Shifted):
            made = _Term(kind=4, values=memory_of(term.values, term.values.dtype, kept), shift=term.shift.data_ptr())
            made.scale, made.factor_stride = _parameter(term.scale)
            made.double_values, made.double_scale = (one.dtype == torch.float64 for one in (term.values, term.scale))
            return made
        spikes, planes = term.spikes, planes_of(term.spikes)
        if isinstance(term, ScaledSpikes):
            values, stride = _parameter(term.factor)
            return _Term(kind=1, spikes=_spikes(spikes, kept), values=values, factor_stride=stride, planes=planes)
        packed = term.packed
        height, width, inputs = physical(sample_of(spikes))
        grouped = packed.groups > 1 and not packed.depthwise
        if packed.groups == 1 and planes >= 2:
            inputs, planes = planes * 8 * bytes_for(inputs), 1  # planes as channels
        elif isinstance(spikes, Bits) and grouped and (planes == 2 or packed.inputs // packed.groups % 8):
            spikes, planes = self.expanded(spikes), 0  # a group has to begin a byte
        if packed.outputs != channels or packed.inputs != inputs:
            raise InternalError("a packed layer does not fit its input or output")
        made = _Term(kind=0, spikes=_spikes(spikes, kept), values=packed.weight.data_ptr(), bias=packed.bias.data_ptr())
        made.in_h, made.in_w, made.in_c, made.groups, made.planes = height, width, inputs, packed.groups, planes
        made.depthwise, made.tables = packed.depthwise, planes == 1 and term.tables and packed.groups == 1
        if planes and packed.integers is not None and packed.steps is not None:
            made.integers, made.steps = packed.integers.data_ptr(), packed.steps.data_ptr()
        if planes and packed.columns is not None:
            made.columns = packed.columns.data_ptr()
        (made.k_h, made.k_w), (made.stride_h, made.stride_w) = packed.kernel, packed.stride
        (made.pad_h, made.pad_w), (made.dilation_h, made.dilation_w) = packed.padding, packed.dilation
        return made

    def call(self, entry: str, layer: Structure) -> None:
        """Call an entry point of the library that takes one structure, with this instruction set."""
        self._check(getattr(self._library, entry)(byref(layer), c_int64(self._instructions)))

    @staticmethod
    def _check(status: int) -> None:
        if status:
            raise MemoryError("the native kernels ran out of memory")


def _parameter(tensor: Tensor) -> tuple[int, int]:
    return tensor.data_ptr(), tensor.shape[1] if tensor.shape[0] > 1 else 0


def memory_of(tensor: Tensor, dtype: torch.dtype, kept: list[Tensor]) -> int:
    """Address of `tensor` with channels last; a copy that has to be made lives as long as `kept`."""
    if tensor.dtype != dtype:
        raise InternalError(f"kernels expected {dtype}, not {tensor.dtype}")
    ordered = tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor.contiguous()
    kept.append(ordered)
    return ordered.data_ptr()


def planes_of(spikes: Bits | Tensor) -> int:
    """Planes of bits, 0 for units."""
    return spikes.planes if isinstance(spikes, Bits) else 0


def _spikes(spikes: Bits | Tensor, kept: list[Tensor]) -> int:
    return address(spikes) if isinstance(spikes, Bits) else memory_of(spikes, torch.int8, kept)


def _both(bits: Bits, units: int, magnitudes: int = 1) -> _Bits:
    height, width, channels = physical(bits.shape)
    pixels = len(bits) * height * width
    made = _Bits(pixels=pixels, channels=channels, planes=bits.planes, units=units, bits=address(bits))
    made.magnitudes = magnitudes
    made.threads = torch.get_num_threads()
    return made


def _pool(
    spikes: Bits | Tensor, op: MaxPool | SumPool, frames: int, shape: tuple[int, ...], kept: list[Tensor]
) -> _Pool:
    pool = _Pool(frames=frames, batch=len(spikes) // frames, threads=torch.get_num_threads())
    pool.in_h, pool.in_w, pool.channels = physical(sample_of(spikes))
    (pool.out_h, pool.out_w), (pool.k_h, pool.k_w), (pool.stride_h, pool.stride_w) = shape[1:], op.kernel, op.stride
    (pool.pad_h, pool.pad_w), pool.dilation_h, pool.dilation_w = op.padding, 1, 1
    pool.spikes, pool.planes = _spikes(spikes, kept), planes_of(spikes)
    return pool


@functools.cache
def load() -> Native | None:
    """The library beside this file, or None where there is none that loads."""
    results = {"snnconvert_instructions": c_int64, **dict.fromkeys(ENTRIES, c_int)}
    library = library_beside(__file__, "snnconvert_version", VERSION, results)
    return None if library is None else Native(library)


def library_beside(file: str, version: str, wanted: int, results: Mapping[str, Any]) -> ctypes.CDLL | None:
    """The library `_native` beside a Python file, or None where there is none that loads.

    Args:
        version: the function that says which one it is.
        wanted: the one that it has to be.
        results: what its other functions return.
    """
    for path in sorted(Path(file).parent.glob("_native*")):
        if path.suffix not in (".so", ".dylib", ".pyd"):
            continue
        try:
            library = ctypes.CDLL(str(path))
            for name, result in {version: c_int64, **results}.items():
                getattr(library, name).restype = result
            if getattr(library, version)() == wanted:
                return library
        except (OSError, AttributeError):
            continue
    return None
