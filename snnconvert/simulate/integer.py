"""Simulate a network as a chip with few bits would: integer weights, integer membranes that saturate.

Weights, biases, thresholds and initial membranes become integers in a unit that everything summed into the same
neurons shares. By default every output channel has a unit of its own, which costs a chip nothing if thresholds may
differ from neuron to neuron: the unit never leaves the channel, because spikes carry no unit. Where wiring (a
concatenation, a reshape) lies between a weighted sum and its neurons, the layer has one unit. Where everything is
exactly representable in the given bits (on a power of two) the integer network is the network itself; else the unit is
the largest weight over the largest integer, coarser still if a threshold would not fit into half of the membrane's
range. An identity shortcut adds one number per channel and spike; it is no kernel, and as wide as a membrane (or as
many synapses side by side as `shortcut_synapses` says), because it would else set the unit of the kernels beside it.
Real-valued operators before the first spikes, and analogue ones, keep real values with weights rounded to the
same number of bits, with a step per channel or layer likewise; what they send to a neuron is rounded to its unit.
Membranes saturate after each step, not after each synaptic event.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from snnconvert.compile.exact import finest_grids
from snnconvert.errors import OptionError
from snnconvert.graph.dialect import arguments, calls, neurons_of, op_of, output_nodes, role_of
from snnconvert.graph.flow import Flow, flows
from snnconvert.graph.kinds import Neuron, Op, Role, Scale, Weighted
from snnconvert.graph.types import Snn
from snnconvert.graph.walk import walk
from snnconvert.simulate.frames import Frames, over_time
from snnconvert.simulate.over_time import by_frames, compensated, running_maximum, send

FLOAT32_EXACT = 2**24
# units in one step (pooled, graded) up to which float32 may be exact
PEAK = 64
# a threshold is at most so many times as large as the largest weight that is kept apart from 0
FARTHEST = 64
SCALES = ("channel", "layer")


@dataclass(frozen=True, eq=False)
class Unit:
    """What 1 stands for: `sizes` (channels) along `axis` of a sample (0 or -1), or (1) for all channels."""

    sizes: Tensor
    axis: int = 0

    def along(self, rank: int) -> Tensor:
        """Shaped to broadcast against a sample of that rank, or against a batch of them."""
        shape = [1] * max(1, rank)
        shape[self.axis] = -1
        return self.sizes.reshape(shape)


@dataclass(frozen=True)
class Value:
    """A value over time, (frames * batch, *sample) or (batch, *sample) where it is constant; in units, or real."""

    tensor: Tensor
    constant: bool
    unit: Unit | None = None

    def real(self) -> Tensor:
        return self.tensor if self.unit is None else self.tensor * self.unit.along(self.tensor.ndim - 1)


@dataclass(frozen=True)
class IntegerRun:
    """One batch: running sums of the first output (answers, batch, classes), spikes by site, membranes saturated."""

    outputs: Tensor
    spikes: dict[str, int]
    saturated: int


class IntegerEngine:
    """Layer by layer, in integers.

    Args:
        snn: a streaming or waiting network.
        weight_bits, state_bits: of a weight and of a membrane, sign included.
        scale_per: "channel" or "layer", what has a unit of its own.

    Raises:
        OptionError: for schedules with windows, bits outside 2 to 53, or another `scale_per`.
    """

    def __init__(self, snn: Snn, *, weight_bits: int, state_bits: int, scale_per: str = "channel") -> None:
        if snn.schedule.windowed:
            raise OptionError(
                "a chip's integers are simulated for streaming and waiting networks only",
                hint="convert with --schedule streaming or wait",
            )
        for name, bits in (("weight_bits", weight_bits), ("state_bits", state_bits)):
            if not 2 <= bits <= 53:
                raise OptionError(f"{name} = {bits} is outside 2 to 53", hint="8 and 16 are common")
        if scale_per not in SCALES:
            raise OptionError(f"scale_per = {scale_per!r} is not known", hint=f"choose {' or '.join(SCALES)}")
        self.snn, self.schedule, self.per_channel = snn, snn.schedule, scale_per == "channel"
        self.largest_weight: int = 2 ** (weight_bits - 1) - 1
        self.low, self.high = -(2.0 ** (state_bits - 1)), 2.0 ** (state_bits - 1) - 1
        self.domains = flows(snn.graph)
        self.units, self.shortcut_synapses = self._units(), 1
        self.ops: dict[fx.Node, Op] = {node: self._quantised(node, op) for node, op in calls(snn.graph)}

    @torch.inference_mode()
    def run(self, batch: Tensor) -> IntegerRun:
        """Simulate one batch of inputs, shape (batch, *sample)."""
        (output, *_), spikes, self.saturated = output_nodes(self.snn.graph), dict[str, int](), 0
        for node, _, value in walk(self.snn.graph, Value(batch.double(), constant=True), self._evaluate):
            if role_of(node) == Role.NEURON:
                spikes[node.name] = int(value.tensor.count_nonzero())
            if node is output:
                answer = value
        read = by_frames(self._over_time(answer).real(), self.schedule.frames)[self.schedule.read_from :]
        return IntegerRun(read.cumsum(0).flatten(2), spikes, self.saturated)

    # --- integers ---

    def _units(self) -> dict[fx.Node, Unit]:
        """One unit for everything that is summed into the same neurons."""
        groups: dict[fx.Node, set[fx.Node]] = {}
        for end in [*neurons_of(self.snn.graph), *output_nodes(self.snn.graph)]:
            found, todo = {end}, arguments(end) if role_of(end) == Role.NEURON else [end]
            while todo:
                node = todo.pop()
                if node.op != "call_module" or self.domains[node] != "current":
                    continue
                found.add(node)
                if op_of(node).passes_units:
                    todo += arguments(node)
            merged = set(found).union(*(groups[node] for node in found if node in groups))
            for node in merged:
                groups[node] = merged
        units = {id(group): self._unit(group) for group in groups.values()}
        return {node: units[id(group)] for node, group in groups.items()}

    def _unit(self, group: set[fx.Node]) -> Unit:
        axis = channel_axis(group) if self.per_channel else None
        weights, states = list[Tensor](), list[Tensor]()
        for node in group:
            op, shape = op_of(node), tuple(node.meta["shape"])
            fed = self.domains[arguments(node)[0]] == "spikes"
            if isinstance(op, Neuron):
                states += [channel_rows(tensor, shape, axis) for tensor in (op.threshold, op.initial)]
            elif isinstance(op, Weighted) and fed:
                rows = op.by_rows(op.weight.double())
                weights.append(rows.reshape(1, -1) if axis is None else rows)
                states += [] if op.bias is None else [op.bias.double().reshape(len(weights[-1]), -1)]
            elif isinstance(op, Scale) and fed:
                states.append(channel_rows(op.factor, shape, axis))
        channels = torch.zeros(max(len(rows) for rows in weights + states) if weights or states else 1, 1).double()
        every, states_only = torch.cat([channels, *weights, *states], 1), torch.cat([channels, *states], 1)
        largest = torch.cat([channels, *weights], 1).abs().amax(1)
        # Where no weights set the unit, thresholds take half of the membrane's bits: currents may be far above them.
        coarsest = torch.where(largest > 0, 2.0, max(2.0, (2 * (self.high + 1)) ** 0.5 / 2))
        finest = torch.maximum(largest / self.largest_weight, coarsest * states_only.abs().amax(1) / (self.high + 1))
        # Weights that are all far below the threshold (a pruned channel) need no finer unit.
        finest = torch.maximum(finest, states_only.abs().amax(1) / (FARTHEST * self.largest_weight)).clamp(min=1e-30)
        grid = exact_grids(every)
        # Real values that join the sum are rounded to the unit: half of the bits to spare make it finer.
        exact = grid / 2.0 ** (grid / finest).clamp(min=1.0).log2().floor().div(2).floor()
        return Unit(torch.where(grid < finest, finest, exact), axis or 0)

    def _quantised(self, node: fx.Node, op: Op) -> Op:
        unit = self.units.get(node)
        if isinstance(op, Neuron):
            assert unit is not None
            size = unit.along(len(node.meta["shape"]))
            return op.rebuilt(
                threshold=(op.threshold.double() / size).round().clamp(min=1.0),
                initial=(op.initial.double() / size).round(),
            )
        integers = unit is not None and bool(arguments(node)) and self.domains[arguments(node)[0]] == "spikes"
        if isinstance(op, Weighted):
            rows = op.by_rows(op.weight.double())
            if not integers or unit is None:
                steps = op.by_output(self._steps(rows))
                return op.rebuilt(
                    weight=(op.weight.double() / steps).round().clamp(-self.largest_weight, self.largest_weight)
                    * steps,
                    bias=None if op.bias is None else op.bias.double(),
                )
            sizes = unit.sizes.expand(len(rows))
            weight = (op.weight.double() / op.by_output(sizes)).round()
            weight = weight.clamp(-self.largest_weight, self.largest_weight)
            bias = None if op.bias is None else (op.bias.double() / sizes).round().clamp(self.low, self.high)
            made = op.rebuilt(weight=weight, bias=bias)
            return made.float() if float(made.by_rows(weight.abs()).sum(1).max()) < FLOAT32_EXACT / PEAK else made
        if isinstance(op, Scale):
            factor = op.factor.double()
            if integers and unit is not None:
                factor = (factor / unit.along(len(node.meta["shape"]))).round()
                factor = factor.clamp(self.low, self.high)
                side_by_side = math.ceil(float(factor.abs().max()) / self.largest_weight)
                self.shortcut_synapses = max(self.shortcut_synapses, side_by_side)
            return Scale(factor)
        return op.rebuilt().double()

    def _steps(self, rows: Tensor) -> Tensor:
        """Of weights on real values, per output channel: exact where the bits suffice."""
        apart = rows if self.per_channel else rows.reshape(1, -1)
        largest, grid = apart.abs().amax(1), exact_grids(apart)
        steps = torch.where(largest <= grid * self.largest_weight, grid, largest / self.largest_weight)
        return torch.where(steps > 0, steps, 1.0).expand(len(rows))

    # --- values ---

    def _evaluate(self, node: fx.Node, inputs: list[Value]) -> Value:  # noqa: PLR0911 (one line for each kind)
        op, unit, constant = self.ops[node], self.units.get(node), all(value.constant for value in inputs)
        if isinstance(op, Neuron):
            return self._neuron(node, op, inputs[0])
        if not constant:
            inputs = [self._over_time(value) for value in inputs]
        domain = self.domains[arguments(node)[0]] if arguments(node) else Flow.CONSTANT
        if domain == Flow.SPIKES and isinstance(op, Weighted | Scale):
            spikes = inputs[0].tensor
            if max(-float(spikes.amin()), float(spikes.amax())) > PEAK:
                op = op.double()
            return Value(op(spikes.to(next(op.buffers()).dtype)).double(), constant, unit)
        if domain == Flow.SPIKES and op.role == Role.MAXPOOL:
            return Value(running_maximum(op, inputs[0].tensor, self.schedule.frames), constant)
        if self.domains[node] == Flow.SPIKES:
            return Value(op(*(value.tensor for value in inputs)), constant)
        if unit is not None and op.role in (Role.JOIN, Role.POOL, Role.WIRING):
            return Value(op(*(self._in_unit(value, unit) for value in inputs)), constant, unit)
        if op.role == Role.ANALOG and not constant:
            return Value(compensated(op, [value.real() for value in inputs], self.schedule.frames), constant)
        return Value(op(*(value.real().double() for value in inputs)), constant)

    def _in_unit(self, value: Value, unit: Unit) -> Tensor:
        if value.unit is unit:
            return value.tensor
        return (value.real().double() / unit.along(value.tensor.ndim - 1)).round()

    def _over_time(self, value: Value) -> Value:
        moving = over_time(Frames(value.tensor, value.constant), self.schedule.frames)
        return Value(moving, constant=False, unit=value.unit)

    def _neuron(self, node: fx.Node, op: Neuron, current: Value) -> Value:
        moving, frames = self._in_unit(current, self.units[node]).round(), self.schedule.frames
        by_frame = moving.unsqueeze(0) if current.constant else by_frames(moving, frames)
        return Value(send(op, by_frame, frames, self.schedule.waited, self._saturating), constant=False)

    def _saturating(self, v: Tensor) -> Tensor:
        held = v.clamp(self.low, self.high)
        self.saturated += int((held != v).sum())
        return held


def channel_axis(group: set[fx.Node]) -> int | None:
    """The axis of a sample (0, or -1 behind Linear) along which all of `group` keeps its channels apart, else None."""
    weighted = [op for op in map(op_of, group) if isinstance(op, Weighted)]
    last = any(op.features_last for op in weighted)
    axis = -1 if last and any(len(node.meta["shape"]) > 1 for node in group) else 0
    if axis and not all(op.features_last for op in weighted):
        return None
    sizes = set[int]()
    for node in group:
        op, shape = op_of(node), tuple(node.meta["shape"])
        if op.role == Role.WIRING or not shape:
            return None
        rank = len(arguments(node)[0].meta["shape"]) if arguments(node) else 0
        if op.role == Role.POOL and (1 if axis == 0 else rank) in op.pooled_axes(rank):
            return None
        sizes.add(shape[axis])
    return axis if len(sizes) == 1 else None


def channel_rows(tensor: Tensor, shape: tuple[int, ...], axis: int | None) -> Tensor:
    """What broadcasts against a sample, as (channels, values of one) or, without an axis, as (1, values)."""
    if axis is None:
        return tensor.double().reshape(1, -1)
    # Only the channels are spread out: a threshold per channel stays one value.
    padded = tensor.double().reshape([1] * (len(shape) - tensor.ndim) + list(tensor.shape)).movedim(axis, 0)
    return padded.reshape(len(padded), -1).expand(shape[axis], -1)


def exact_grids(rows: Tensor) -> Tensor:
    """Per row the largest power of two, up to 2^40, of which all values are multiples; 0 if it is below 2^-60."""
    grids = finest_grids(rows)
    return torch.where(grids < 2.0**-60, 0.0, grids.clamp(max=2.0**40))


@dataclass(frozen=True)
class IntegerCurve:
    """Right answers after each step (None before the first), spikes and saturations per image.

    `shortcut_synapses`: how many weights side by side the largest factor of an identity shortcut would take.
    """

    weight_bits: int
    state_bits: int
    samples: int
    correct: list[int | None]
    spikes: float
    saturations: float
    shortcut_synapses: int


def integer_curve(
    snn: Snn,
    batches: Iterable[tuple[Tensor, NDArray[np.int64]]],
    *,
    weight_bits: int,
    state_bits: int,
    scale_per: str = "channel",
    size: int = 4,
) -> IntegerCurve:
    """Accuracy of `snn` over time with integers of the given widths, on labelled batches."""
    engine = IntegerEngine(snn, weight_bits=weight_bits, state_bits=state_bits, scale_per=scale_per)
    schedule = snn.schedule
    right = np.zeros(len(schedule.answer_steps), np.int64)
    samples = spikes = saturated = 0
    for images, labels in batches:
        for start in range(0, len(images), size):
            seen = engine.run(images[start : start + size])
            right += (seen.outputs.argmax(2).numpy() == labels[start : start + size]).sum(1)
            spikes, saturated = spikes + sum(seen.spikes.values()), saturated + seen.saturated
            samples += len(images[start : start + size])
    by_step: list[int | None] = [None] * schedule.timesteps
    for step, count in zip(schedule.answer_steps, right.tolist(), strict=True):
        by_step[step - 1] = count
    count = max(1, samples)
    return IntegerCurve(
        weight_bits, state_bits, samples, by_step, spikes / count, saturated / count, engine.shortcut_synapses
    )
