"""Layers of spikes by the native kernels: a layer's weights, shortcuts and neurons are one call.

Equal to `over_time`, which serves where the kernels were not built, and to the oracle, in every spike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from torch import Tensor, fx

from snnconvert.graph.dialect import arguments
from snnconvert.graph.kinds import Affine, MaxPool, Neuron, Op, Role, Scale, Slice, SumPool, Weighted
from snnconvert.graph.schedule import Schedule
from snnconvert.simulate.frames import Frames, Spikes, Value, density_of
from snnconvert.simulate.kernels import Native
from snnconvert.simulate.kernels.bits import Bits, moved
from snnconvert.simulate.kernels.layout import Packed, by_tables, pack, per_element
from snnconvert.simulate.kernels.native import (
    MOST_TERMS,
    MOST_UNITS,
    Convolution,
    Current,
    Membrane,
    ScaledSpikes,
    Shifted,
    Summand,
    planes_of,
)
from snnconvert.simulate.kernels.native_parts import sums_of_parts
from snnconvert.threads import threads_for

# of spikes of several units: more make as many look-ups as a dense convolution has sums
MOST_PLANES = 8

Evaluate = Callable[[fx.Node, dict[fx.Node, Value]], Value]


class LaidOut:
    """Parameters of the neurons of one network as kernels want them, made once."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.parameters: dict[tuple[fx.Node, str], Tensor] = {}

    def parameter(self, node: fx.Node, name: str, tensor: Tensor) -> Tensor:
        """`tensor`, a parameter of the operator at `node`, by `layout.per_element`."""
        if (node, name) not in self.parameters:
            self.parameters[node, name] = per_element(tensor, tuple(node.meta["shape"]), tensor.dtype)
        return self.parameters[node, name]

    def membrane(self, node: fx.Node, op: Neuron) -> Membrane:
        """What kernels have to know of the neurons at `node`."""
        threshold, initial = (self.parameter(node, name, getattr(op, name)) for name in ("threshold", "initial"))
        return Membrane(op.row, op.levels, self.schedule.waited, threshold, initial)


class SpikeLayers:
    """The layers of one network whose inputs or outputs are spikes.

    Args:
        native: the kernels.
        laid_out: the network's parameters, and its schedule, which is not a bistable one.
        ops: the operators of the network's nodes.
        outputs: the network's outputs.
        value: computes the value of a node, given what is known already.

    Attributes:
        lazy: nodes that the kernel of the neurons that read them may compute in passing.
    """

    def __init__(
        self,
        native: Native,
        laid_out: LaidOut,
        ops: Mapping[fx.Node, Op],
        outputs: Collection[fx.Node],
        value: Evaluate,
    ) -> None:
        self.native, self.laid_out, self.ops, self.value = native, laid_out, ops, value
        self.schedule = laid_out.schedule
        self.lazy = {node for node, op in ops.items() if may_wait(node, op)} - set(outputs)
        self.packed: dict[tuple[fx.Node, int, int], Packed | None] = {}
        self.on_sums: dict[fx.Node, tuple[Weighted, Tensor] | None] = {}

    def neurons(
        self, node: fx.Node, op: Neuron, values: dict[fx.Node, Value], batch: int
    ) -> tuple[Spikes, tuple[Tensor, Tensor]] | None:
        """What the neurons at `node` send, and their spikes and units in each frame; None where torch has to do it."""
        if op.row.native is None or op.levels > MOST_UNITS or op.threshold.dtype != torch.float32:
            return None
        (source,) = arguments(node)
        shape = tuple(node.meta["shape"])
        terms = self._shifted(source, shape, values) or self._summands(source, shape, values)
        if terms is None or len(terms) > MOST_TERMS:  # some of it is float64: torch adds it up
            current = self.real(self.value(source, values))
            terms = [Current(current.tensor.float(), current.constant)]
        if source.meta["shape"] != node.meta["shape"]:
            return None
        membrane = self.laid_out.membrane(node, op)
        sent, counts = self.native.neurons(terms, membrane, self.schedule.frames, batch, shape)
        spikes, units = counts.unbind()
        return Spikes(sent, int(spikes.sum()) / max(len(sent) * math.prod(shape), 1)), (spikes, units)

    def evaluated(self, node: fx.Node, op: Op, inputs: Sequence[Value]) -> Value | None:
        """`op` on spikes by a kernel of its own, or by moving them; None where torch has to do it on real values."""
        spikes = [value for value in inputs if isinstance(value, Spikes)]
        if not spikes or len(spikes) < len(inputs):
            return None
        if op.role == Role.WIRING and op.keeps_spikes:
            return self._moved(op, spikes, tuple(node.meta["shape"]))
        source, shape = spikes[0], tuple(node.meta["shape"])
        if op.gathers:
            return self._weighted(node, op, source, shape) or self._in_parts(node, source)
        return self._pooled(op, source, shape) if len(arguments(node)[0].meta["shape"]) == 3 else None

    def units(self, spikes: Spikes) -> Tensor:
        """Spikes as int8 (frames * batch, *sample)."""
        return self.native.expanded(spikes.sent)

    def of_units(self, units: Tensor) -> Spikes:
        """Int8 spikes of no negative units, (frames * batch, *sample): as bits where they are 0 and 1."""
        binary = not units.numel() or int(units.max()) <= 1
        return Spikes(self.native.in_planes(units, int(binary)), float(units.count_nonzero()) / max(units.numel(), 1))

    def real(self, value: Value) -> Frames:
        """A value in floating point."""
        return Frames(self.units(value).float(), constant=False) if isinstance(value, Spikes) else value

    # --- currents ---

    def _summands(self, node: fx.Node, shape: tuple[int, ...], values: dict[fx.Node, Value]) -> list[Summand] | None:
        """The current at `node` as summands in their order of addition; None if it is not all float32."""
        if tuple(node.meta["shape"]) != shape:
            return None
        op = self.ops.get(node)
        if node in values or node not in self.lazy or op is None:
            return self._one(node, values)
        if op.role == Role.JOIN:
            return self._sum(node, shape, values)
        source = self.value(arguments(node)[0], values)
        if isinstance(source, Spikes) and isinstance(op, Scale):
            return [ScaledSpikes(source.sent, self.laid_out.parameter(node, "factor", op.factor))]
        by_spikes = self._by_spikes(node, source) if isinstance(source, Spikes) and not _one_dimensional(op) else None
        return self._one(node, values) if by_spikes is None else [by_spikes]

    def _shifted(self, node: fx.Node, shape: tuple[int, ...], values: dict[fx.Node, Value]) -> list[Summand] | None:
        """An elementwise scale and shift that waits, as a summand that nothing may follow: it may be in float64."""
        op = self.ops.get(node)
        if node in values or node not in self.lazy or not isinstance(op, Affine):
            return None
        (before,) = arguments(node)
        if not shape == tuple(node.meta["shape"]) == tuple(before.meta["shape"]):
            return None
        value = self.real(self.value(before, values))
        scale, shift = (self.laid_out.parameter(node, name, getattr(op, name)) for name in ("scale", "shift"))
        fits = scale.dtype == shift.dtype and len(scale) == len(shift)
        return [Shifted(value.tensor, scale, shift)] if fits and not value.constant else None

    def _one(self, node: fx.Node, values: dict[fx.Node, Value]) -> list[Summand] | None:
        value = self.real(self.value(node, values))
        return [Current(value.tensor, value.constant)] if value.tensor.dtype == torch.float32 else None

    def _sum(self, node: fx.Node, shape: tuple[int, ...], values: dict[fx.Node, Value]) -> list[Summand] | None:
        first, *others = arguments(node)
        terms = self._summands(first, shape, values)
        for other in others:
            more = self._summands(other, shape, values)
            if terms is None or more is None:
                return None
            if len(more) > 1 and len(terms) > 1:  # two sums: one has to be finished first
                more = self._one(other, values) or []
            terms = [*more, *terms] if len(more) > 1 else [*terms, *more]
        return terms

    def _weighted(self, node: fx.Node, op: Op, source: Spikes, shape: tuple[int, ...]) -> Frames | None:
        line = _one_dimensional(op)
        if line:  # an image of height 1
            units = self.units(source).unsqueeze(2)
            source = Spikes(self.native.in_planes(units, planes_of(source.sent)), source.density)
            shape = (shape[0], 1, shape[1])
        term = self._by_spikes(node, source)
        if term is None:
            return None
        frames = self.schedule.frames
        currents = self.native.currents([term], frames, len(source.sent) // frames, shape)
        return Frames(currents.squeeze(2) if line else currents, constant=False)

    def _in_parts(self, node: fx.Node, source: Spikes) -> Frames | None:
        """The operator at `node` on the sums of its input's parts, which a kernel adds up; None for other operators."""
        if node not in self.on_sums:
            self.on_sums[node] = _on_sums(node, self.ops[node])
        if (found := self.on_sums[node]) is None:
            return None
        op, factors = found
        sums = sums_of_parts(self.native, self.units(source), factors).to(op.weight.dtype)
        with threads_for(op.work(sums)):
            return Frames(op(sums), constant=False)

    def _by_spikes(self, node: fx.Node, source: Spikes) -> Convolution | None:
        """The convolution or linear layer at `node` by a kernel for spikes, or None where it is faster dense."""
        planes = max(planes_of(source.sent), 1)
        packed = self._pack(node, planes)
        if packed is None:
            return None
        in_planes = None if isinstance(source.sent, Bits) else self._by_magnitudes(node, source.sent)
        return in_planes or self._convolution(node, source.sent, packed, source.density, planes)

    def _by_magnitudes(self, node: fx.Node, units: Tensor) -> Convolution | None:
        """The operator at `node` on spikes of several units as planes of bits, or None where those do not serve."""
        low, high = (int(one) for one in units.aminmax()) if units.numel() else (0, 0)
        magnitudes = max(-low, high).bit_length()
        planes = magnitudes * (2 if low < 0 else 1)
        packed = self._pack(node, planes, magnitudes) if 1 < planes <= MOST_PLANES else None
        if packed is None or packed.groups > 1:
            return None
        bits = self.native.condensed(units, planes, magnitudes)
        return self._convolution(node, bits, packed, bits.density(), planes)

    def _convolution(
        self, node: fx.Node, sent: Bits | Tensor, packed: Packed, density: float, planes: int
    ) -> Convolution | None:
        """Spikes of a density, all planes together, through packed weights; None where a dense operator is faster."""
        in_bits = planes if isinstance(sent, Bits) else 0
        tables = by_tables(packed, density, in_bits, len(sent) * math.prod(node.meta["shape"]))
        return None if tables is None else Convolution(sent, packed, tables)

    def _pack(self, node: fx.Node, planes: int, magnitudes: int = 1) -> Packed | None:
        """The weights of `node` for the kernels, or None where they do not serve."""
        key = node, planes, magnitudes
        if key not in self.packed:
            op, rank = self.ops[node], len(arguments(node)[0].meta["shape"])
            packed = None
            if isinstance(op, Weighted) and (rank < 3 if op.features_last else rank in (2, 3)):
                packed = pack(op, planes, magnitudes)
            self.packed[key] = packed
        return self.packed[key]

    # --- pools and wiring ---

    def _pooled(self, op: Op, source: Spikes, shape: tuple[int, ...]) -> Value | None:
        frames = self.schedule.frames
        if isinstance(op, MaxPool):
            pooled = self.native.max_pool(source.sent, op, frames, shape)
            return Spikes(pooled, density_of(pooled))
        if isinstance(op, SumPool) and source.bits is not None:
            sums = self.native.sum_pool(source.bits, op, frames, shape)
            return Frames(sums, constant=False) if sums.is_floating_point() else Spikes(sums, density_of(sums))
        return None

    def _moved(self, op: Op, inputs: Sequence[Spikes], shape: tuple[int, ...]) -> Spikes:
        size = max(len(inputs[0].sent) * math.prod(shape), 1)
        total = sum(value.density * _elements(value.sent) for value in inputs)
        density = min(total / size, max(value.density for value in inputs))
        bits = [value.sent for value in inputs if isinstance(value.sent, Bits)]
        if len(bits) == len(inputs):
            with threads_for(len(bits[0].memory)):
                together = moved(op, bits, shape)
            if together is not None:
                return Spikes(together, density)
        units = [self.units(value) for value in inputs]
        if isinstance(op, Slice):  # a view: whoever reads it copies it in the right order
            index = [slice(None)] * units[0].ndim
            index[op.dim] = slice(op.start, op.stop, op.step)
            result = units[0][tuple(index)]
        else:
            with threads_for(op.work(*units)):
                result = op(*units)
        planes = max(planes_of(value.sent) for value in inputs) if len(bits) == len(inputs) else 0
        return Spikes(self.native.in_planes(result, planes), density)


def may_wait(node: fx.Node, op: Op) -> bool:
    """Whether the kernel of the neurons that read `node` may compute it in passing."""
    return op.repeatable or ((op.gathers or op.role == Role.JOIN or isinstance(op, Affine)) and len(node.users) == 1)


def _on_sums(node: fx.Node, op: Op) -> tuple[Weighted, Tensor] | None:
    """For an operator whose inputs are parts: itself on sums of parts, and their factors; None where no kernel adds."""
    rank = len(arguments(node)[0].meta["shape"])
    if not isinstance(op, Weighted) or not op.in_parts or not (rank < 3 if op.features_last else rank == 3):
        return None
    return op.on_sums(), op.part()[0].float()


def _elements(sent: Bits | Tensor) -> int:
    return sent.elements if isinstance(sent, Bits) else sent.numel()


def _one_dimensional(op: Op | None) -> bool:
    return op is not None and op.role == Role.WEIGHTED and op.get_buffer("weight").ndim == 3
