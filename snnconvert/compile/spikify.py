"""Turn a calibrated ANN into a spiking network: every activation site becomes a neuron with unit spikes.

The walk follows the data flow and knows of each value whether it is *analog* (constant in time, before the first
spikes), *spikes* (integers, with an amplitude still to be folded into whatever reads them) or a *current*.
Amplitudes and pooling factors go into the next weights, which are then rounded (see `exact`); where there are no
weights to take them, a Scale is inserted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx

from snnconvert.compile.exact import INPUT_BITS, Weighted, on_double_grid, on_grid, power_of_two_above
from snnconvert.graph.dialect import Stage, arguments, op_of, output_nodes, verify
from snnconvert.graph.edit import finish, insert_after, redirect, replace_op
from snnconvert.graph.neuron_ops import Neuron, RateNorm, Scale, Snap, SumPool
from snnconvert.graph.ops import Affine, AveragePool, Clip, Conv, ConvTranspose, Linear, Op, Pad, Role
from snnconvert.graph.schedule import Schedule
from snnconvert.graph.types import Calibrated, NeuronChoice

ANALOG_BOUND = 2.0**12
HEADROOM = 2.0**6


@dataclass(frozen=True)
class Value:
    """What the walk knows of a node's output.

    Attributes:
        domain: "analog", "spikes" or "current".
        bound: largest absolute value; for spikes the largest number of units in a frame.
        amplitude: ANN value of one unit, broadcastable to one sample; spikes only.
        signed: whether spikes may be negative.
    """

    domain: str
    bound: float
    amplitude: Tensor | None = None
    signed: bool = False


def levels_of(schedule: Schedule, neuron: NeuronChoice) -> int:
    """Units that a neuron can send in one frame."""
    return schedule.levels if schedule.kind == "bistable" else neuron.levels


def spikify(graph: fx.GraphModule, calibrated: Calibrated, schedule: Schedule, neuron: NeuronChoice) -> fx.GraphModule:
    """Replace every site of `graph` by a neuron and fold all amplitudes, in place.

    Args:
        graph: a copy of the calibrated graph, balanced for `schedule`.
        calibrated: thresholds of every site, and how large values are. Worst cases multiply along chains of layers
            without neurons until nothing is left of the values' own bits; `HEADROOM` times what was seen is enough
            (beyond that sums are rounded as any other, not wrong).
        schedule: when sites integrate and emit.
        neuron: model of the neurons at rectifying sites.
    """
    _Walk(graph, calibrated, schedule, neuron).run()
    return verify(finish(graph), Stage.SNN)


class _Walk:
    def __init__(self, graph: fx.GraphModule, calibrated: Calibrated, schedule: Schedule, neuron: NeuronChoice) -> None:
        self.graph, self.calibrated, self.schedule, self.neuron = graph, calibrated, schedule, neuron
        self.windowed = schedule.kind == "bistable"
        self.levels = levels_of(schedule, neuron)
        # what a full frame is worth stays as it was calibrated: more units are smaller ones
        self.finer = levels_of(calibrated.schedule, calibrated.neuron) / self.levels
        self.values: dict[fx.Node, Value] = {}

    def run(self) -> None:
        for node in list(self.graph.graph.nodes):
            if node.op == "placeholder":
                self.values[node] = Value("analog", self.calibrated.input_bound)
            elif node.op == "call_module":
                found = self._convert(node, op_of(node))
                self.values[node] = found if found.domain == "spikes" else self._within_reach(node, found)
        for node in output_nodes(self.graph):
            if self.values[node].domain == "spikes":
                (output,) = [user for user in node.users if user.op == "output"]
                self._as_current(node, output)

    def _within_reach(self, node: fx.Node, value: Value) -> Value:
        seen = self.calibrated.reach.get(node.name)
        return value if seen is None else replace(value, bound=min(value.bound, max(HEADROOM * seen, 1e-6)))

    def _convert(self, node: fx.Node, op: Op) -> Value:
        handlers: dict[Role, Callable[[fx.Node, Op], Value]] = {
            Role.SITE: self._site,
            Role.WEIGHTED: self._weighted,
            Role.AFFINE: self._affine,
            Role.WIRING: self._wiring,
            Role.POOL: self._pool,
            Role.MAXPOOL: self._max_pool,
            Role.JOIN: self._join,
            Role.ANALOG: self._analog,
            Role.DELAY: self._delay,
        }
        return handlers[op.role](node, op)

    # --- one handler per role ---

    def _site(self, node: fx.Node, op: Op) -> Value:
        (source,) = arguments(node)
        if self.values[source].domain == "spikes":
            self._as_current(source, node)
        elif (
            self.windowed and source.op == "placeholder"
        ):  # bits to spare for the sums of many windows, as in `_weighted`
            value = self.values[source]
            self._insert(source, node, Snap(grid=power_of_two_above(value.bound) * 2.0**-INPUT_BITS), "snapped", value)
        found = self.calibrated.sites[node.name]
        signed = type(op).__name__ == "Identity" or (isinstance(op, RateNorm) and op.signed)
        model = "signed" if signed else "bistable" if self.windowed else self.neuron.model
        threshold = found.threshold.float() * self.finer
        initial = found.initial.float() * threshold
        ceiling = op.high if isinstance(op, Clip) else None
        made = Neuron(threshold, initial, model=model, levels=self.levels, ceiling=ceiling)
        replace_op(self.graph, node, made.double() if self.windowed else made)
        may_be_negative = signed or (not self.windowed and model in ("ternary", "ternary-late", "graded"))
        return Value("spikes", float(self.levels), amplitude=threshold.double(), signed=may_be_negative)

    def _weighted(self, node: fx.Node, op: Op) -> Value:
        assert isinstance(op, Conv | ConvTranspose | Linear)
        (source,) = arguments(node)
        value = self.values[source]
        if value.domain == "spikes":
            amplitude = self._per_input(source, op)
            if amplitude is not None:
                exact = _scaled_inputs(op, amplitude)
                folded, bound = on_grid(exact, value.bound, signed=value.signed, windowed=self.windowed)
                replace_op(self.graph, node, folded)
                return Value("current", bound)
            source, value = self._as_current(source, node)
        rounded, grid, bound = on_double_grid(op, value.bound)
        bound = self._within_reach(node, Value(value.domain, bound)).bound
        self._insert(source, node, Snap(grid=grid), "snapped", value)
        replace_op(self.graph, node, rounded)
        if self.windowed:  # leave bits to spare for the sums of many windows
            coarse = Snap(grid=2.0 ** (math.ceil(math.log2(bound + 1e-30)) - 40))
            added = insert_after(self.graph, node, coarse, suffix="rounded", users=list(node.users))
            self.values[added] = Value(value.domain, bound)
        return Value(value.domain, bound)

    def _affine(self, node: fx.Node, op: Op) -> Value:
        (source,) = arguments(node)
        value = self.values[source]
        if isinstance(op, Scale | Snap):
            return value
        assert isinstance(op, Affine)
        scale = op.scale.double()
        if value.domain == "spikes":
            assert value.amplitude is not None
            amplitude = torch.as_tensor(value.amplitude * scale)
            bound = value.bound * float(amplitude.abs().max()) + float(op.shift.abs().max())
            if not op.shift.any():
                replace_op(self.graph, node, self._elementwise(Scale(amplitude.float())))
            else:
                replace_op(self.graph, node, self._elementwise(Affine(amplitude.float(), op.shift.float())))
            return Value("current", bound)
        if value.domain == "analog":
            op.double()
        else:
            self._elementwise(op)
        return Value(value.domain, value.bound * float(scale.abs().max()) + float(op.shift.abs().max()))

    def _wiring(self, node: fx.Node, op: Op) -> Value:
        sources = arguments(node)
        if type(op).__name__ == "Constant":
            op.double()
            return Value("analog", float(op.get_buffer("value").abs().max()))
        domains = {self.values[source].domain for source in sources}
        padded = isinstance(op, Pad) and op.value != 0.0
        if domains == {"spikes"} and not padded:
            values = [self.values[source] for source in sources]
            amplitudes = [self._full_amplitude(source) for source in sources]
            moved = op(*amplitudes)[0]
            if isinstance(op, Pad):
                moved = op(*amplitudes)[0]
                inside = op(*[torch.ones_like(amplitude) for amplitude in amplitudes])[0]
                moved = _fill_padding(moved, inside)
            return Value(
                "spikes",
                max(value.bound for value in values),
                amplitude=_compressed(moved),
                signed=any(value.signed for value in values),
            )
        for source in sources:
            if self.values[source].domain == "spikes":
                self._as_current(source, node)
        values = [self.values[source] for source in arguments(node)]
        bound = max([value.bound for value in values] + ([abs(op.value)] if isinstance(op, Pad) else []))
        return Value("analog" if {value.domain for value in values} == {"analog"} else "current", bound)

    def _pool(self, node: fx.Node, op: Op) -> Value:
        (source,) = arguments(node)
        value = self.values[source]
        if isinstance(op, SumPool):
            return value
        if value.domain == "spikes" and isinstance(op, AveragePool) and not op.ceil_mode:
            area = math.prod(op.kernel)
            amplitude = self._pooled_amplitude(source)
            if amplitude is not None and (op.count_include_pad or not any(op.padding)):
                made = SumPool(kernel=op.kernel, stride=op.stride, padding=op.padding)
                replace_op(self.graph, node, made)
                return Value("spikes", value.bound * area, amplitude=amplitude / area, signed=value.signed)
        if value.domain == "spikes":
            source, value = self._as_current(source, node)
        self._insert(source, node, Snap(grid=2.0 ** (math.ceil(math.log2(value.bound + 1e-30)) - 26)), "snapped", value)
        return Value(value.domain, value.bound)

    def _max_pool(self, node: fx.Node, op: Op) -> Value:
        del op
        (source,) = arguments(node)
        value = self.values[source]
        if value.domain == "spikes":
            amplitude = self._pooled_amplitude(source)
            if amplitude is None:  # counts of different worth: the engines take the maximum of sums of currents
                return self._as_current(source, node)[1]
            return Value("spikes", value.bound, amplitude=amplitude, signed=value.signed)
        return value

    def _join(self, node: fx.Node, op: Op) -> Value:
        del op
        for source in dict.fromkeys(arguments(node)):
            if self.values[source].domain == "spikes":
                self._as_current(source, node)
        values = [self.values[source] for source in arguments(node)]
        domain = "analog" if all(value.domain == "analog" for value in values) else "current"
        if self.windowed and domain == "current":
            self._in_float64(node)
        return Value(domain, sum(value.bound for value in values))

    def _in_float64(self, join: fx.Node) -> None:
        """Let a sum of float32 currents, each exact on a grid of its own, be exact too: a window's sum must not depend
        on whether its steps were added before or after the branches."""
        sources = list(dict.fromkeys(arguments(join)))
        if any(source.op == "call_module" and isinstance(op_of(source), Scale | Snap) for source in sources[:2]):
            return
        value = self.values[sources[0]]
        grid = 2.0 ** (math.ceil(math.log2(value.bound + 1e-30)) - 50)
        self._insert(sources[0], join, Snap(grid=grid), "double", value)

    def _analog(self, node: fx.Node, op: Op) -> Value:
        op.double()
        for source in dict.fromkeys(arguments(node)):
            if self.values[source].domain == "spikes":
                self._as_current(source, node)
        values = [self.values[source] for source in arguments(node)]
        return Value("analog" if all(value.domain == "analog" for value in values) else "current", ANALOG_BOUND)

    def _delay(self, node: fx.Node, op: Op) -> Value:
        del op
        return self.values[arguments(node)[0]]

    # --- helpers ---

    def _elementwise(self, op: Op) -> Op:
        return op.double() if self.windowed else op.float()

    def _insert(self, source: fx.Node, user: fx.Node, op: Op, suffix: str, value: Value) -> fx.Node:
        added = insert_after(self.graph, source, op, suffix=suffix, users=[user])
        self.values[added] = value
        return added

    def _as_current(self, source: fx.Node, user: fx.Node) -> tuple[fx.Node, Value]:
        """Let `user` read the spikes of `source` as a current; one Scale serves every reader."""
        value = self.values[source]
        assert value.amplitude is not None
        for reader in source.users:
            if reader.op == "call_module" and isinstance(op_of(reader), Scale) and reader.meta.get("amplitude"):
                redirect(user, source, reader)
                return reader, self.values[reader]
        current = Value("current", value.bound * float(value.amplitude.abs().max()))
        added = self._insert(source, user, self._elementwise(Scale(value.amplitude.float())), "scaled", current)
        added.meta["amplitude"] = True
        return added, current

    def _full_amplitude(self, node: fx.Node) -> Tensor:
        amplitude = self.values[node].amplitude
        assert amplitude is not None
        return amplitude.expand(node.meta["shape"]).unsqueeze(0)

    def _pooled_amplitude(self, node: fx.Node) -> Tensor | None:
        """The amplitude as (C, 1, ...) if it is constant over the spatial axes, else None."""
        full = self._full_amplitude(node)[0]
        first = full.flatten(1)[:, :1]
        if not bool((full.flatten(1) == first).all()):
            return None
        return first.reshape(-1, *([1] * (full.ndim - 1)))

    def _per_input(self, node: fx.Node, op: Weighted) -> Tensor | None:
        """The amplitude per input channel (convolutions) or feature (linear), or None if it varies elsewhere too."""
        if isinstance(op, Linear):
            rows = self._full_amplitude(node)[0].flatten(0, -2) if len(node.meta["shape"]) > 1 else None
            if rows is None:
                return self._full_amplitude(node)[0]
            return rows[0] if bool((rows == rows[:1]).all()) else None
        pooled = self._pooled_amplitude(node)
        return None if pooled is None else pooled.flatten()


def _scaled_inputs(op: Weighted, amplitude: Tensor) -> Weighted:
    """`op` reading unit spikes: its weights times the amplitude of each input channel, in float64."""
    weight = op.weight.double()
    if isinstance(op, Linear):
        return op.double().rebuilt(weight=weight * amplitude)
    spatial = [1] * (weight.ndim - 2)
    if isinstance(op, ConvTranspose):
        return op.double().rebuilt(weight=weight * amplitude.reshape(-1, 1, *spatial))
    grouped = weight.reshape(op.groups, -1, *weight.shape[1:]) * amplitude.reshape(op.groups, 1, -1, *spatial)
    return op.double().rebuilt(weight=grouped.reshape(weight.shape))


def _compressed(amplitude: Tensor) -> Tensor:
    """(C, 1, ...) instead of (C, H, ...) where the amplitude does not vary over the later axes."""
    if amplitude.ndim < 2:
        return amplitude
    first = amplitude.flatten(1)[:, :1]
    if bool((amplitude.flatten(1) == first).all()):
        return first.reshape(-1, *([1] * (amplitude.ndim - 1)))
    return amplitude


def _fill_padding(moved: Tensor, inside: Tensor) -> Tensor:
    """Give padded places (which never spike) the amplitude of their channel, so that amplitudes stay per channel."""
    flat, mask = moved.flatten(1), inside.flatten(1) > 0
    channel = torch.where(mask, flat, torch.zeros_like(flat)).amax(1, keepdim=True)
    return torch.where(mask, flat, channel.expand_as(flat)).reshape(moved.shape)
