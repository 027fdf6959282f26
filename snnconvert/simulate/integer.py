"""Simulate a network as a chip with few bits would: integer weights, integer membranes that saturate.

Every group of neurons that shares its inputs gets one unit; weights, biases, thresholds and initial membranes become
integers in that unit. Where all of them are exactly representable in the given bits (on a power of two) the integer
network is the network itself; else the unit is the largest weight over the largest integer, coarser still if a
threshold would not fit into half of the membrane's range. Real-valued operators before the first spikes, and analogue
ones, keep real values with weights rounded to the same number of bits; what they send to a neuron is rounded to its
unit. Membranes saturate after each step, not after each synaptic event.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from snnconvert.convert.exact import finest_grids
from snnconvert.errors import OptionError
from snnconvert.graph.dialect import arguments, calls, op_of, output_nodes
from snnconvert.graph.neuron_ops import Neuron, Scale, Snap
from snnconvert.graph.ops import Affine, Conv, ConvTranspose, Linear, MaxPool, Op, Role
from snnconvert.graph.types import Snn
from snnconvert.neurons import NEURONS, State
from snnconvert.simulate.flow import domains, increments

FLOAT32_EXACT = 2**24
# a membrane holds so many thresholds where no weights set the unit
HEADROOM = 16


@dataclass(frozen=True)
class Value:
    """A value over time, (frames * batch, *sample) or (batch, *sample) where it is constant; in units, or real."""

    tensor: Tensor
    constant: bool
    unit: float | None = None

    def real(self) -> Tensor:
        return self.tensor if self.unit is None else self.tensor * self.unit


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

    Raises:
        OptionError: for schedules with windows, or bits outside 2 to 53.
    """

    def __init__(self, snn: Snn, *, weight_bits: int, state_bits: int) -> None:
        if snn.schedule.kind == "bistable":
            raise OptionError(
                "a chip's integers are simulated for streaming and waiting networks only",
                hint="convert with --schedule streaming or wait",
            )
        for name, bits in (("weight_bits", weight_bits), ("state_bits", state_bits)):
            if not 2 <= bits <= 53:
                raise OptionError(f"{name} = {bits} is outside 2 to 53", hint="8 and 16 are common")
        self.snn, self.schedule = snn, snn.schedule
        self.largest_weight: int = 2 ** (weight_bits - 1) - 1
        self.low, self.high = -(2.0 ** (state_bits - 1)), 2.0 ** (state_bits - 1) - 1
        self.domains = domains(snn)
        self.units = self._units()
        self.ops: dict[fx.Node, Op] = {node: self._quantised(node, op) for node, op in calls(snn.graph)}

    @torch.inference_mode()
    def run(self, batch: Tensor) -> IntegerRun:
        """Simulate one batch of inputs, shape (batch, *sample)."""
        nodes, values = list(self.snn.graph.graph.nodes), dict[fx.Node, Value]()
        last = {source: node for node in nodes for source in node.all_input_nodes}
        spikes: dict[str, int] = {}
        self.saturated = 0
        for node in nodes:
            if node.op == "placeholder":
                values[node] = Value(batch.double(), constant=True)
            elif node.op == "call_module":
                values[node] = self._evaluate(node, [values[source] for source in arguments(node)])
                if isinstance(self.ops[node], Neuron):
                    spikes[node.name] = int(values[node].tensor.count_nonzero())
            for source in node.all_input_nodes:
                if last[source] is node and node.op != "output":
                    values.pop(source, None)
        answer = values[output_nodes(self.snn.graph)[0]]
        read = self._by_frame(self._over_time(answer).real())[self.schedule.read_from :]
        return IntegerRun(read.cumsum(0).flatten(2), spikes, self.saturated)

    # --- integers ---

    def _units(self) -> dict[fx.Node, float]:
        """One unit for everything that is summed into the same neurons."""
        groups: dict[fx.Node, set[fx.Node]] = {}
        for end in [node for node, op in calls(self.snn.graph) if isinstance(op, Neuron)] + output_nodes(
            self.snn.graph
        ):
            found, todo = {end}, arguments(end) if isinstance(op_of(end), Neuron) else [end]
            while todo:
                node = todo.pop()
                if node.op != "call_module" or self.domains[node] != "current":
                    continue
                found.add(node)
                if op_of(node).role in (Role.JOIN, Role.POOL, Role.WIRING) or isinstance(op_of(node), Snap):
                    todo += arguments(node)
            merged = set(found).union(*(groups[node] for node in found if node in groups))
            for node in merged:
                groups[node] = merged
        units = {id(group): self._unit(group) for group in groups.values()}
        return {node: units[id(group)] for node, group in groups.items()}

    def _unit(self, group: set[fx.Node]) -> float:
        weights, states = [torch.zeros(1).double()], [torch.zeros(1).double()]
        for node in group:
            op = op_of(node)
            fed = self.domains[arguments(node)[0]] == "spikes"
            if isinstance(op, Neuron):
                states += [op.threshold.double().flatten(), op.initial.double().flatten()]
            elif isinstance(op, Conv | ConvTranspose | Linear) and fed:
                weights.append(op.weight.double().flatten())
                states += [] if op.bias is None else [op.bias.double()]
            elif isinstance(op, Scale) and fed:
                weights.append(op.factor.double().flatten())
        every, states_only = torch.cat(weights), torch.cat(states)
        largest, widest = float(every.abs().max()), float(states_only.abs().max())
        coarsest = HEADROOM if len(weights) == 1 else 2
        finest = max(largest / self.largest_weight, coarsest * widest / (self.high + 1), 1e-30)
        grid = exact_grid(torch.cat([every, states_only]))
        if grid is None or grid < finest:
            return finest
        # Real values that join the sum are rounded to the unit: half of the bits to spare make it finer.
        return grid / float(2.0 ** (math.floor(math.log2(grid / finest)) // 2))

    def _quantised(self, node: fx.Node, op: Op) -> Op:
        unit = self.units.get(node)
        integers = unit is not None and bool(arguments(node)) and self.domains[arguments(node)[0]] == "spikes"
        if isinstance(op, Neuron):
            assert unit is not None
            threshold = (op.threshold.double() / unit).round().clamp(min=1.0)
            return op.rebuilt(threshold=threshold, initial=(op.initial.double() / unit).round())
        if isinstance(op, Conv | ConvTranspose | Linear):
            step = unit if integers and unit is not None else float(op.weight.abs().max()) / self.largest_weight
            grid = None if integers else exact_grid(op.weight.double().flatten())
            if grid is not None and float(op.weight.abs().max()) / grid <= self.largest_weight:
                step = grid
            step = step or 1.0
            weight = (op.weight.double() / step).round().clamp(-self.largest_weight, self.largest_weight)
            bias = op.bias
            if integers:
                bias = None if bias is None else (bias.double() / step).round().clamp(self.low, self.high)
                reach = float(weight.abs().sum())
                made = op.rebuilt(weight=weight, bias=bias)
                return made.float() if reach < FLOAT32_EXACT / 64 else made
            return op.rebuilt(weight=weight * step, bias=None if bias is None else bias.double())
        if isinstance(op, Scale):
            factor = op.factor.double()
            if integers and unit is not None:
                factor = (factor / unit).round().clamp(-self.largest_weight, self.largest_weight)
            return Scale(factor)
        return op.rebuilt().double()

    # --- values ---

    def _evaluate(self, node: fx.Node, inputs: list[Value]) -> Value:  # noqa: PLR0911 (one line for each kind)
        op, unit, constant = self.ops[node], self.units.get(node), all(value.constant for value in inputs)
        if isinstance(op, Neuron):
            return self._neuron(node, op, inputs[0])
        if not constant:
            inputs = [self._over_time(value) for value in inputs]
        domain = self.domains[arguments(node)[0]] if arguments(node) else "constant"
        if domain == "spikes" and isinstance(op, Conv | ConvTranspose | Linear | Scale):
            own = next(op.buffers())
            return Value(op(inputs[0].tensor.to(own.dtype)).double(), constant, unit)
        if domain == "spikes" and isinstance(op, MaxPool):
            return Value(increments(op, inputs[0].tensor, self.schedule.frames, self.schedule), constant)
        if op.role == Role.DELAY or (self.domains[node] == "spikes"):
            return Value(op(*(value.tensor for value in inputs)), constant)
        if unit is not None and op.role in (Role.JOIN, Role.POOL, Role.WIRING) and not isinstance(op, Affine):
            return Value(op(*(self._in_unit(value, unit) for value in inputs)), constant, unit)
        if op.role == Role.ANALOG and not constant:
            return Value(self._compensated(op, [value.real() for value in inputs]), constant)
        return Value(op(*(value.real().double() for value in inputs)), constant)

    def _in_unit(self, value: Value, unit: float) -> Tensor:
        return value.tensor if value.unit == unit else (value.real().double() / unit).round()

    def _over_time(self, value: Value) -> Value:
        if not value.constant:
            return value
        repeated = value.tensor.repeat(self.schedule.frames, *([1] * (value.tensor.ndim - 1)))
        return Value(repeated, constant=False, unit=value.unit)

    def _by_frame(self, tensor: Tensor) -> Tensor:
        return tensor.reshape(self.schedule.frames, -1, *tensor.shape[1:])

    def _neuron(self, node: fx.Node, op: Neuron, current: Value) -> Value:
        model, frames = NEURONS[op.model], self.schedule.frames
        moving = current.tensor if current.unit == self.units[node] else self._in_unit(current, self.units[node])
        by_frame = moving.round().unsqueeze(0) if current.constant else self._by_frame(moving.round())
        state = model.init(by_frame[0], op.initial)
        out = torch.empty((frames, *by_frame.shape[1:]), dtype=torch.float32)
        wait = self.schedule.wait if self.schedule.kind == "wait" else 0
        for step in range(frames + wait):
            if step < frames:
                v = state.v + by_frame[0 if current.constant else step]
                held = v.clamp(self.low, self.high)
                self.saturated += int((held != v).sum())
                state = State(held, state.sent)
            if step >= wait:
                sent, state = model.fire(state, op.threshold, op.levels)
                out[step - wait] = sent
        return Value(out.flatten(0, 1), constant=False)

    def _compensated(self, op: Op, inputs: list[Tensor]) -> Tensor:
        """Exact in the mean at every t, as in the layer engine."""
        steps = torch.arange(1, self.schedule.frames + 1, dtype=torch.float64)

        def along(like: Tensor) -> Tensor:
            return steps.reshape(-1, *([1] * (like.ndim - 1)))

        sums = [self._by_frame(tensor.double()).cumsum(0) for tensor in inputs]
        total = self._by_frame(op(*((part / along(part)).flatten(0, 1) for part in sums)))
        total = total * along(total)
        return torch.cat([total[:1], total[1:] - total[:-1]]).flatten(0, 1)


def exact_grid(values: Tensor) -> float | None:
    """The largest power of two, up to 2^40, of which all `values` are multiples; None if it is below 2^-60."""
    grid = float(finest_grids(values.reshape(1, -1)))
    return None if grid < 2.0**-60 else min(grid, 2.0**40)


@dataclass(frozen=True)
class IntegerCurve:
    """Right answers after each step (None before the first), spikes per image, and saturations per image."""

    weight_bits: int
    state_bits: int
    samples: int
    correct: list[int | None]
    spikes: float
    saturations: float


def integer_curve(
    snn: Snn,
    batches: Iterable[tuple[Tensor, NDArray[np.int64]]],
    *,
    weight_bits: int,
    state_bits: int,
    size: int = 16,
) -> IntegerCurve:
    """Accuracy of `snn` over time with integers of the given widths, on labelled batches."""
    engine, schedule = IntegerEngine(snn, weight_bits=weight_bits, state_bits=state_bits), snn.schedule
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
    return IntegerCurve(
        weight_bits, state_bits, samples, by_step, spikes / max(1, samples), saturated / max(1, samples)
    )
