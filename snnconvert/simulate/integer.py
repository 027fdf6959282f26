"""Simulate a network as a chip with few bits would: integer weights, integer membranes that saturate.

What is computed are the integers of `compile.integers`, layer by layer, one sending step after the other: in windows a
spike at phase k carries P_k units, all at once, and what is constant in time (biases, the input's currents) arrives at
the first step of each window. Membranes saturate after each step, not after each synaptic event. Of time to first spike
that is the same network as one whose synapses, once switched on, add their weight in every slot that is left; only
there membranes grow little by little.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from snnconvert.compile.integers import Integers, Unit
from snnconvert.errors import OptionError
from snnconvert.graph.dialect import arguments, output_nodes, role_of
from snnconvert.graph.flow import Flow
from snnconvert.graph.kinds import Neuron, Op, Role, Weighted
from snnconvert.graph.schedule.timing import site_depths
from snnconvert.graph.types import Snn
from snnconvert.graph.walk import walk
from snnconvert.neurons import State
from snnconvert.neurons.bistable import fire_phase, phase_weights
from snnconvert.simulate.frames import Frames, over_time
from snnconvert.simulate.over_time import by_frames, compensated, running_maximum

FLOAT32_EXACT = 2**24
# called with (site, step, membranes, spikes), (batch, *sample) each, after each step in which the site does something
Watch = Callable[[str, int, Tensor, Tensor], None]


@dataclass(frozen=True)
class Value:
    """A value over time, (steps * batch, *sample) or (batch, *sample) where it is constant; in units, or real.

    `source` is the node that it comes from.
    """

    tensor: Tensor
    constant: bool
    unit: Unit | None = None
    source: fx.Node | None = None

    def real(self) -> Tensor:
        return self.tensor if self.unit is None else self.tensor * self.unit.along(self.tensor.ndim - 1)


@dataclass(frozen=True)
class IntegerRun:
    """One batch: running sums of the first output (answers, batch, classes), spikes by site, membranes saturated.

    `scores` is the first output at the end in its own integers, (batch, classes).
    """

    outputs: Tensor
    spikes: dict[str, int]
    saturated: int
    scores: Tensor


class IntegerEngine:
    """Layer by layer, in integers.

    Args:
        snn: a network.
        weight_bits, state_bits, input_bits, scale_per: as of `Integers`.

    Raises:
        OptionError: as `Integers`, and for other windows than bistable ones.
    """

    def __init__(
        self, snn: Snn, *, weight_bits: int, state_bits: int, input_bits: int | None = None, scale_per: str = "channel"
    ) -> None:
        self.integers = Integers(
            snn, weight_bits=weight_bits, state_bits=state_bits, input_bits=input_bits, scale_per=scale_per
        )
        if snn.schedule.continuous:
            raise OptionError(
                "the spikes of this network have real times, which a chip's steps have not",
                hint="convert with slots: --schedule ttfs --time-bits 4",
            )
        self.snn, self.schedule, self.domains = snn, snn.schedule, self.integers.domains
        self.depths, self.units = site_depths(snn.graph), self.integers.units
        # what one site sends, step by step
        self.per_frame = self.schedule.steps_per_frame
        self.steps = self.schedule.frames * self.per_frame
        self.weights = phase_weights(self.per_frame, getattr(self.schedule, "phases", "uniform"))
        self.residual = getattr(self.schedule, "residual", "keep")
        self.ops = {node: self._cast(node, op) for node, op in self.integers.ops.items()}

    @torch.inference_mode()
    def run(self, batch: Tensor, watch: Watch | None = None) -> IntegerRun:
        """Simulate one batch of inputs, shape (batch, *sample)."""
        (output, *_), spikes, self.saturated, self.watch = output_nodes(self.snn.graph), dict[str, int](), 0, watch
        (entry,) = [node for node in self.domains if node.op == "placeholder"]
        start = Value(self.whole_input(batch), constant=True, unit=self.units.get(entry), source=entry)
        for node, _, value in walk(self.snn.graph, start, self._evaluate):
            if role_of(node) == Role.NEURON:
                spikes[node.name] = int(value.tensor.count_nonzero())
            if node is output:
                answer = value
        read = by_frames(self._over_time(answer).tensor, self.steps)
        if not self.schedule.once:  # of one frame there is an answer after every slot
            read = read.reshape(-1, self.per_frame, *read.shape[1:]).sum(1)[self.schedule.read_from :]
        read = read.cumsum(0)
        real = Value(read.flatten(0, 1), constant=False, unit=answer.unit).real().reshape(read.shape)
        return IntegerRun(real.flatten(2), spikes, self.saturated, read[-1].flatten(1))

    def whole_input(self, batch: Tensor) -> Tensor:
        """Inputs in their integers, as float64; as they are where the input is real."""
        (entry,) = [node for node in self.domains if node.op == "placeholder"]
        if entry not in self.units or self.integers.largest_input is None:
            return batch.double()
        most = self.integers.largest_input
        return (batch.double() / self.units[entry].sizes).round().clamp(-most, most)

    # --- values ---

    def _cast(self, node: fx.Node, op: Op) -> Op:
        """Weights that spikes meet in float32, where single spikes then stay exact."""
        fed = op.role == Role.WEIGHTED and self.domains[arguments(node)[0]] == Flow.SPIKES
        return op.rebuilt().float() if fed and _reach(op) < FLOAT32_EXACT else op

    def _evaluate(self, node: fx.Node, inputs: list[Value]) -> Value:  # noqa: PLR0911 (one line for each kind)
        op, unit, constant = self.ops[node], self.units.get(node), all(value.constant for value in inputs)
        if op.role == Role.NEURON:
            return Value(self._neuron(node, inputs[0]), constant=False, source=node)
        if constant and node in self.integers.bounds:
            return Value(op(*(value.tensor for value in inputs)), constant, unit, node)
        if not constant:
            inputs = [self._over_time(value) for value in inputs]
        domain = self.domains[arguments(node)[0]] if arguments(node) else Flow.CONSTANT
        if domain == Flow.SPIKES and (op.role == Role.WEIGHTED or op.repeatable):
            return Value(self._synapses(op, inputs[0].tensor), constant, unit, node)
        if domain == Flow.SPIKES and op.role == Role.MAXPOOL:
            return Value(self._maximum(op, inputs[0].tensor), constant, source=node)
        if self.domains[node] == Flow.SPIKES:
            return Value(op(*(value.tensor for value in inputs)), constant, source=node)
        if unit is not None and op.passes_units:
            moved = [self._in_unit(value, unit) for value in inputs]
            only_rounds = op.role == Role.AFFINE
            return Value(moved[0] if only_rounds else op(*moved), constant, unit, node)
        real = [value.real().double() for value in inputs]
        return Value(op(*real) if constant else self._frame_by_frame(op, real), constant, source=node)

    def _synapses(self, op: Op, spikes: Tensor) -> Tensor:
        """What spikes bring; a bias comes once in a frame."""
        peak = max(-float(spikes.amin()), float(spikes.amax())) if spikes.numel() else 0.0
        if op.repeatable or peak * _reach(op) >= FLOAT32_EXACT:
            op = op.rebuilt().double()
        value: Tensor = op(spikes.to(next(op.buffers()).dtype)).double()
        if self.per_frame > 1:
            silent = op(spikes.new_zeros(1, *spikes.shape[1:]).to(next(op.buffers()).dtype)).double()
            value.reshape(self.schedule.frames, self.per_frame, -1, *value.shape[1:])[:, 1:] -= silent
        return value

    def _maximum(self, op: Op, spikes: Tensor) -> Tensor:
        """What a max pool lets through: it remembers its sums for a frame of a window, and else for good."""
        if self.per_frame == 1:
            return running_maximum(op, spikes, self.steps)
        frames = spikes.reshape(self.schedule.frames, -1, *spikes.shape[1:])
        return torch.cat([running_maximum(op, frame, self.per_frame) for frame in frames])

    def _frame_by_frame(self, op: Op, inputs: list[Tensor]) -> Tensor:
        """An operator on real values, which in windows waits for all that a frame brings."""
        frames, windowed = self.schedule.frames, self.per_frame > 1
        if windowed:
            inputs = [one.reshape(frames, self.per_frame, -1, *one.shape[1:]).sum(1).flatten(0, 1) for one in inputs]
        value: Tensor = compensated(op, inputs, frames) if op.role == Role.ANALOG else op(*inputs)
        return self._at_first_steps(value) if windowed else value

    def _at_first_steps(self, frames: Tensor) -> Tensor:
        """(frames * batch, *sample) as (steps * batch, *sample): all of a frame at its first step."""
        by_frame = by_frames(frames, self.schedule.frames)
        spread = by_frame.new_zeros(len(by_frame), self.per_frame, *by_frame.shape[1:])
        spread[:, 0] = by_frame
        return spread.flatten(0, 2)

    def _in_unit(self, value: Value, unit: Unit) -> Tensor:
        if value.unit is unit:
            return value.tensor
        rescale = None if value.source is None else self.integers.rescale(value.source, unit)
        if rescale is not None:
            return rescale(value.tensor)
        return (value.real().double() / unit.along(value.tensor.ndim - 1)).round()

    def _over_time(self, value: Value) -> Value:
        """A value at every step; what is constant arrives at the first of each frame."""
        if not value.constant:
            return value
        frames = over_time(Frames(value.tensor, constant=True), self.schedule.frames)
        return Value(self._at_first_steps(frames), constant=False, unit=value.unit, source=value.source)

    def _neuron(self, node: fx.Node, current: Value) -> Tensor:
        """What neurons send at each of their steps, (steps * batch, *sample), one global step after the other."""
        op = self.ops[node]
        assert isinstance(op, Neuron)
        moving = self._over_time(Value(self._in_unit(current, self.units[node]).round(), current.constant)).tensor
        arriving, depth = by_frames(moving, self.steps), self.depths[node.name]
        taken, sent = self.moments(depth - 1), self.moments(depth)
        state, out = op.row.init(arriving[0], op.initial), torch.zeros_like(arriving)
        nothing = torch.zeros_like(arriving[0])
        for step in sorted(taken.keys() | sent.keys()):
            spikes = nothing
            if step in taken:
                state = State(self._saturating(state.v + arriving[taken[step]]), state.sent)
            if step in sent:
                spikes, state = self._fire(op, state, sent[step] % self.per_frame)
                out[sent[step]] = spikes
            if self.watch is not None:
                self.watch(node.name, step, state.v, spikes)
        return out.flatten(0, 1)

    def moments(self, depth: int) -> dict[int, int]:
        """By global step which of its own steps a site at `depth` is at."""
        return {
            self.schedule.emission_step(depth, frame, phase): frame * self.per_frame + phase
            for frame in range(self.schedule.frames)
            for phase in range(self.per_frame)
        }

    def _fire(self, op: Neuron, state: State, phase: int) -> tuple[Tensor, State]:
        if not self.schedule.windowed:
            return op.row.fire(state, op.threshold, op.levels)
        spikes, v = fire_phase(state.v, op.threshold, self.weights[phase], negative=op.row.negative)
        if self.schedule.once:  # nothing is left to send: the spike said it all
            v = torch.where(spikes != 0, torch.zeros_like(v), v)
        if phase == self.per_frame - 1:
            if self.residual == "clear":
                v = torch.zeros_like(v) + op.initial
            elif self.residual == "clamp":
                v = torch.minimum(v, op.threshold)
        return spikes, State(v, state.sent)

    def _saturating(self, v: Tensor) -> Tensor:
        held = v.clamp(self.integers.low, self.integers.high)
        self.saturated += int((held != v).sum())
        return held


def _reach(op: Op) -> float:
    """The largest sum of absolute weights of an output."""
    assert isinstance(op, Weighted)
    return float(op.by_rows(op.weight.double().abs()).sum(1).max())


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
    input_bits: int | None = None,
    scale_per: str = "channel",
    size: int = 4,
) -> IntegerCurve:
    """Accuracy of `snn` over time with integers of the given widths, on labelled batches."""
    engine = IntegerEngine(
        snn, weight_bits=weight_bits, state_bits=state_bits, input_bits=input_bits, scale_per=scale_per
    )
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
        weight_bits, state_bits, samples, by_step, spikes / count, saturated / count, engine.integers.shortcut_synapses
    )
