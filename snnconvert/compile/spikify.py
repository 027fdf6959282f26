"""Turn a calibrated ANN into a spiking network: every activation site becomes a neuron with unit spikes.

The walk follows the data flow and knows what flows at each node (see `graph.flow`); spikes have an amplitude that is
still to be folded into whatever reads them.
Amplitudes and pooling factors go into the next weights, which are then rounded (see `exact`); where there are no
weights to take them, a Scale is inserted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx

from snnconvert.compile.exact import FLOAT64_BITS, INPUT_BITS, on_double_grid, on_grid, power_of_two_above
from snnconvert.errors import InternalError, OptionError
from snnconvert.graph.dialect import arguments, op_of, origin_of, output_nodes, verify
from snnconvert.graph.edit import finish, insert_after, redirect, replace_op
from snnconvert.graph.flow import Flow, flows, through
from snnconvert.graph.kinds import Activation, Affine, Events, Neuron, Op, Role, Scale, Snap, Stage, Weighted
from snnconvert.graph.schedule import Schedule
from snnconvert.graph.types import Calibrated, NeuronChoice
from snnconvert.neurons import SIGNED, NeuronModel, sending

HEADROOM = 2.0**6


@dataclass(frozen=True)
class Value:
    """What the walk knows of a node's output.

    Attributes:
        domain: what flows.
        bound: largest absolute value; for spikes the largest number of units in a frame.
        amplitude: ANN value of one unit, broadcastable to one sample; spikes only.
        signed: whether spikes may be negative.
        measured: whether `bound` is not proved, but what calibration images showed with headroom.
    """

    domain: Flow
    bound: float
    amplitude: Tensor | None = None
    signed: bool = False
    measured: bool = False


def neuron_in(schedule: Schedule, asked: NeuronChoice) -> NeuronChoice:
    """The neuron that replaces the activations in `schedule`: the one that is asked for, unless it brings its own."""
    return asked if schedule.own_neuron is None else NeuronChoice(schedule.own_neuron, schedule.levels)


def neuron_at(site: fx.Node, neuron: NeuronChoice) -> tuple[NeuronModel, int]:
    """What `site` becomes, `neuron` or a signed one where a sum may be negative, and its units in a frame."""
    levels = neuron.units_at(site.name)
    return (SIGNED if op_of(site).signed else sending(neuron.model, levels)), levels


def spikify(graph: fx.GraphModule, calibrated: Calibrated, schedule: Schedule, neuron: NeuronChoice) -> fx.GraphModule:
    """Replace every site of `graph` by a neuron and fold all amplitudes, in place.

    Args:
        graph: a copy of the calibrated graph, balanced for `schedule`.
        calibrated: thresholds of every site, and how large values are. Worst cases multiply along chains of layers
            without neurons until nothing is left of the values' own bits, and nothing bounds an analog function:
            `HEADROOM` times what was seen is enough. What lies beyond is cut off where sums begin, and said.
        schedule: when sites integrate and emit.
        neuron: model of the neurons at rectifying sites.
    """
    _Walk(graph, calibrated, schedule, neuron).run()
    flows(finish(graph))
    return verify(graph, Stage.SNN)


class _Walk:
    def __init__(self, graph: fx.GraphModule, calibrated: Calibrated, schedule: Schedule, neuron: NeuronChoice) -> None:
        self.graph, self.calibrated, self.neuron = graph, calibrated, neuron_in(schedule, neuron)
        self.windowed, self.frames, self.whole = schedule.windowed, schedule.frames, schedule.whole
        self.window, self.fitted_window = schedule.steps_per_frame, calibrated.schedule.steps_per_frame
        self.once = schedule.once
        self.continuous = schedule.continuous  # nothing is a whole number of anything: float64 has to do
        self.fitted = neuron_in(calibrated.schedule, calibrated.neuron)
        self.values: dict[fx.Node, Value] = {}

    def run(self) -> None:
        for node in list(self.graph.graph.nodes):
            if node.op == "placeholder":
                self.values[node] = Value(Flow.CONSTANT, self.calibrated.input_bound)
            elif node.op == "call_module":
                found = self._convert(node, op_of(node))
                self.values[node] = found if found.domain == Flow.SPIKES else self._within_reach(node, found)
        for node in output_nodes(self.graph):
            if self.values[node].domain == Flow.SPIKES:
                (output,) = [user for user in node.users if user.op == "output"]
                self._as_current(node, output)

    def _within_reach(self, node: fx.Node, value: Value) -> Value:
        """`value` with the bound that was measured, where that is lower."""
        seen = self.calibrated.reach.get(node.name)
        if seen is None and math.isinf(value.bound):
            raise InternalError(f"nobody measured how large the values of {node.name} are")
        if seen == 0.0:  # silent on all images, which says nothing
            seen = max(self.calibrated.reach.values())
        bound = math.inf if seen is None else max(HEADROOM * seen, 1e-6)
        return replace(value, bound=bound, measured=True) if bound < value.bound else value

    def _convert(self, node: fx.Node, op: Op) -> Value:
        handlers: dict[Role, Callable[[fx.Node, Op], Value]] = {
            Role.SITE: self._site,
            Role.WEIGHTED: self._weighted,
            Role.AFFINE: self._affine,
            Role.WIRING: self._wiring,
            Role.POOL: self._pool,
            Role.MAXPOOL: self._pool,
            Role.JOIN: self._join,
            Role.PRODUCT: self._product,
            Role.ANALOG: self._analog,
            Role.DELAY: self._delay,
            Role.EVENTS: self._events,
        }
        return handlers[op.role](node, op)

    # --- one handler per role ---

    def _site(self, node: fx.Node, _: Op) -> Value:
        source, *others = arguments(node)
        if self.values[source].domain == Flow.SPIKES:
            self._as_current(source, node)
        elif (
            self.windowed and source.op == "placeholder"
        ):  # bits to spare for the sums of many windows, as in `_weighted`
            value = self.values[source]
            self._snap(source, node, power_of_two_above(value.bound) * 2.0**-INPUT_BITS, value)
        found = self.calibrated.sites[node.name]
        site, (model, usual) = op_of(node, Activation), neuron_at(node, self.neuron)
        levels = site.levels_in(self.window, usual)
        # what a full frame is worth stays as it was calibrated: more units are smaller ones
        finer = site.levels_in(self.fitted_window, self.fitted.units_at(node.name)) / levels
        threshold = found.threshold.float() * finer
        initial = found.initial.float() * threshold
        ceiling = None if math.isinf(site.ceiling) else site.ceiling
        usually = Neuron(threshold, initial, model=model.name, levels=levels, ceiling=ceiling)
        second = [self.values[one].amplitude for one in others]
        made = site.neuron(usually, self.window, next((one for one in second if one is not None), torch.ones(1)))
        if not made.plain:
            self._refuse_unless_whole(node)
        replace_op(self.graph, node, made.double() if self.windowed else made)
        worth = threshold if found.amplitude is None else found.amplitude.float() * finer
        return Value(Flow.SPIKES, made.largest(), amplitude=worth.double(), signed=made.row.negative)

    def _weighted(self, node: fx.Node, _: Op) -> Value:
        op = op_of(node, Weighted)
        (source,) = arguments(node)
        value = self.values[source]
        if value.domain == Flow.SPIKES:
            amplitude = self._per_input(source, op)
            if amplitude is not None and self.continuous:
                replace_op(self.graph, node, op.double().reading(amplitude))
                return Value(Flow.CURRENT, math.inf)
            if amplitude is not None:
                folded, bound = on_grid(op.reading(amplitude), value.bound, signed=value.signed, windowed=self.windowed)
                replace_op(self.graph, node, folded)
                return Value(Flow.CURRENT, bound)
            source, value = self._as_current(source, node)
        if self.continuous:
            replace_op(self.graph, node, op.double())
            return self._within_reach(node, Value(value.domain, math.inf, measured=value.measured))
        rounded, grid, largest = on_double_grid(op, value.bound)
        found = self._within_reach(node, Value(value.domain, largest, measured=value.measured))
        self._snap(source, node, grid, value)
        replace_op(self.graph, node, rounded)
        if self.windowed:  # leave bits to spare for the sums of many windows: 12, and more where sums may be far larger
            spared = FLOAT64_BITS - 1 - math.ceil(math.log2(self.frames))
            bits = math.ceil(math.log2(found.bound + 1e-30)) - 40, math.ceil(math.log2(largest + 1e-30)) + 1 - spared
            coarse = Snap(grid=2.0 ** max(bits))
            added = insert_after(self.graph, node, coarse, suffix="rounded", users=list(node.users))
            self.values[added] = found
        return found

    def _affine(self, node: fx.Node, _: Op) -> Value:
        op, (source,) = op_of(node, Affine), arguments(node)
        value = self.values[source]
        scale = op.scale.double()
        if value.domain == Flow.SPIKES:
            assert value.amplitude is not None
            amplitude = torch.as_tensor(value.amplitude * scale)
            bound = value.bound * float(amplitude.abs().max()) + float(op.shift.abs().max())
            if not op.shift.any():
                replace_op(self.graph, node, self._elementwise(Scale(self._kept(amplitude))))
            else:
                replace_op(self.graph, node, self._elementwise(Affine(self._kept(amplitude), self._kept(op.shift))))
            return Value(Flow.CURRENT, bound)
        if value.domain == Flow.CONSTANT:
            op.double()
        else:
            self._elementwise(op)
        bound = value.bound * float(scale.abs().max()) + float(op.shift.abs().max())
        return Value(value.domain, bound, measured=value.measured)

    def _wiring(self, node: fx.Node, op: Op) -> Value:
        if not op.reads:
            op.double()
            return Value(Flow.CONSTANT, op.brings)
        sources = arguments(node)
        values = [self.values[source] for source in sources]
        if through(op, [value.domain for value in values]) == Flow.SPIKES:
            moved = op.moved_amplitude(*(self._full_amplitude(source) for source in sources))[0]
            return Value(
                Flow.SPIKES,
                max(value.bound for value in values),
                amplitude=_compressed(moved),
                signed=any(value.signed for value in values),
            )
        values = self._real_inputs(node)
        return self._real(op, values, max(op.brings, *(value.bound for value in values)))

    def _pool(self, node: fx.Node, op: Op) -> Value:
        (source,) = arguments(node)
        value, form = self.values[source], op.on_spikes()
        if (
            self.once
            and op.role == Role.MAXPOOL
            and value.domain != Flow.CONSTANT
            and (value.signed or value.domain == Flow.CURRENT)
        ):
            raise self._no_times(node, "a largest value below zero is no first spike")
        if value.domain == Flow.SPIKES:
            amplitude = self._pooled_amplitude(source)
            if amplitude is not None and form is not None:
                made, area = form
                if made is not op:
                    replace_op(self.graph, node, made)
                return Value(Flow.SPIKES, value.bound * area, amplitude=amplitude / area, signed=value.signed)
            # counts of different worth: the engines take the maximum of sums of currents
            source, value = self._as_current(source, node)
        if op.role == Role.MAXPOOL:
            return value
        self._snap(source, node, 2.0 ** (math.ceil(math.log2(value.bound + 1e-30)) - INPUT_BITS), value)
        return Value(value.domain, value.bound, measured=value.measured)

    def _join(self, node: fx.Node, op: Op) -> Value:
        values = self._real_inputs(node)
        found = self._real(op, values, sum(value.bound for value in values))
        if self.windowed and found.domain == Flow.CURRENT:
            self._in_float64(node)
        return found

    def _product(self, node: fx.Node, op: Op) -> Value:
        self._refuse_unless_whole(node)
        sources = arguments(node)
        if any(self.values[source].domain != Flow.SPIKES for source in sources):
            raise InternalError(f"{node.name} reads what is no spikes")
        made = op.on_units(*(self._full_amplitude(source)[0] for source in sources))
        if made is None:
            raise OptionError(
                f"the thresholds around {origin_of(node)} differ where its spikes are multiplied one by one",
                hint="leave --calibration out: --schedule serial brings the one that knows such products",
            )
        replace_op(self.graph, node, made.double())
        return Value(Flow.CURRENT, math.inf)

    def _refuse_unless_whole(self, node: fx.Node) -> None:
        if not self.whole:
            raise OptionError(
                f"{origin_of(node)} was converted for --schedule serial: it needs all that it reads before it sends",
                hint="run it in that schedule, with another --window if you like; or convert the model for this one",
            )

    def _in_float64(self, join: fx.Node) -> None:
        """Let a sum of float32 currents, each exact on a grid of its own, be exact too: a window's sum must not depend
        on whether its steps were added before or after the branches."""
        sources = list(dict.fromkeys(arguments(join)))
        if self.continuous or any(
            source.op == "call_module" and isinstance(op_of(source), Scale | Snap) for source in sources[:2]
        ):
            return
        value = self.values[sources[0]]
        grid = 2.0 ** (math.ceil(math.log2(value.bound + 1e-30)) - 50)
        self._insert(sources[0], join, Snap(grid=grid), "double", value)

    def _analog(self, node: fx.Node, op: Op) -> Value:
        if self.once and any(self.values[source].domain != Flow.CONSTANT for source in arguments(node)):
            raise self._no_times(node, f"{op.plain_name} works on real values")
        op.double()
        return self._real(op, self._real_inputs(node), math.inf)

    def _events(self, node: fx.Node, _: Op) -> Value:
        op = op_of(node, Events)
        made = Events(op.amplitude.float(), **{**op.arguments(), "units": True})  # type: ignore[arg-type]
        replace_op(self.graph, node, made)
        return Value(Flow.SPIKES, float(op.levels), amplitude=made.amplitude.double())

    def _delay(self, node: fx.Node, op: Op) -> Value:
        del op
        return self.values[arguments(node)[0]]

    # --- helpers ---

    def _no_times(self, node: fx.Node, why: str) -> OptionError:
        return OptionError(
            f"--schedule ttfs: {origin_of(node)} has no form in which the time of one spike is a value: {why}",
            hint="networks of rectifiers, convolutions, linear layers, pools and joins have one; for this one choose "
            "--schedule streaming",
        )

    def _real(self, op: Op, values: list[Value], bound: float) -> Value:
        """What `op` makes of real values."""
        domain = through(op, [value.domain for value in values])
        return Value(domain, bound, measured=any(value.measured for value in values))

    def _snap(self, source: fx.Node, user: fx.Node, grid: float, value: Value) -> None:
        """Let `user` read `source` on a grid, and nothing beyond what its sums are exact for."""
        if self.continuous:
            return
        limit = grid * 2.0**INPUT_BITS if value.measured else None
        self._insert(source, user, Snap(grid=grid, limit=limit), "snapped", value)

    def _real_inputs(self, node: fx.Node) -> list[Value]:
        """What flows into `node` once spikes have become currents."""
        for source in dict.fromkeys(arguments(node)):
            if self.values[source].domain == Flow.SPIKES:
                self._as_current(source, node)
        return [self.values[source] for source in arguments(node)]

    def _elementwise(self, op: Op) -> Op:
        return op.double() if self.windowed else op.float()

    def _kept(self, tensor: Tensor) -> Tensor:
        return tensor.double() if self.continuous else tensor.float()

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
        current = Value(Flow.CURRENT, value.bound * float(value.amplitude.abs().max()))
        added = self._insert(source, user, self._elementwise(Scale(self._kept(value.amplitude))), "scaled", current)
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
        if op.features_last:
            rows = self._full_amplitude(node)[0].flatten(0, -2) if len(node.meta["shape"]) > 1 else None
            if rows is None:
                return self._full_amplitude(node)[0]
            return rows[0] if bool((rows == rows[:1]).all()) else None
        pooled = self._pooled_amplitude(node)
        return None if pooled is None else pooled.flatten()


def _compressed(amplitude: Tensor) -> Tensor:
    """(C, 1, ...) instead of (C, H, ...) where the amplitude does not vary over the later axes."""
    if amplitude.ndim < 2:
        return amplitude
    first = amplitude.flatten(1)[:, :1]
    if bool((amplitude.flatten(1) == first).all()):
        return first.reshape(-1, *([1] * (amplitude.ndim - 1)))
    return amplitude
