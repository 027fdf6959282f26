"""The fast engine: layer by layer, all frames of a layer at once.

Time is folded into the batch for every linear operator, so a layer costs one call whatever the number of frames; only
the neurons walk through time. Values that do not change over time (the input, the first layer's current) are computed
once. With the native kernels (see `spike_layers`) spikes are bits, and a layer's weights, shortcuts and neurons are one
call. Equal to the step engine in every spike (see `compile.exact`), whichever way is taken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, fx

from snnconvert.data.moving import Moving, OverTime, Part
from snnconvert.errors import InternalError, listed
from snnconvert.graph.dialect import arguments, calls, op_of, origin_of, output_nodes
from snnconvert.graph.edit import copied
from snnconvert.graph.inputs import events_of
from snnconvert.graph.kinds import Events, Neuron, Op, Role, Snap
from snnconvert.graph.schedule import Schedule, Windowed
from snnconvert.graph.schedule.timing import site_depths
from snnconvert.graph.types import Snn
from snnconvert.graph.walk import Plan, Pull, upstream
from snnconvert.simulate.chunks import is_long
from snnconvert.simulate.exact_products import applied, exact_arithmetic
from snnconvert.simulate.frames import Frames, Spikes, Value, over_time
from snnconvert.simulate.kernels import FusedNeurons, choose, choose_fused
from snnconvert.simulate.kernels.native import MOST_UNITS, Current
from snnconvert.simulate.moving_input import check_input
from snnconvert.simulate.over_time import by_frames, cast, compensated, running_maximum, send
from snnconvert.simulate.result import Probe, Simulation, one_after_the_other
from snnconvert.simulate.spike_layers import LaidOut, SpikeLayers
from snnconvert.simulate.stream_engine import in_pieces
from snnconvert.simulate.window_layers import WindowLayers
from snnconvert.simulate.window_neurons import count_window_spikes, send_whole, send_windows
from snnconvert.threads import threads_for


class LayerEngine:
    """Simulates a spiking network layer by layer.

    Args:
        snn: the network; not changed.
        device: where to compute; results come back on the CPU. The native kernels serve the CPU only; on a CUDA device
            neurons are one kernel where there is Triton, and sums are kept exact (see `exact_products`).
        moved: what becomes of the spikes that a layer of neurons sends on their way, (frames * batch, *sample) of what
            each frame is worth; for studies of noise, without kernels.

    Raises:
        OptionError: if the environment variable SNNCONVERT_KERNELS asks for what is not there.
    """

    def __init__(
        self, snn: Snn, device: str | torch.device = "cpu", moved: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        self.snn, self.schedule = snn, snn.schedule
        self.device = torch.device(device)
        self.graph = snn.graph if self.device.type == "cpu" else copied(snn.graph).to(self.device)
        self.nodes: list[fx.Node] = list(self.graph.graph.nodes)
        self.outputs = output_nodes(self.graph)
        self.ops = {node: op_of(node) for node in self.nodes if node.op == "call_module"}
        self.snaps = dict(calls(self.graph, Snap))
        for snap in self.snaps.values():
            snap.cut_off = False
        self.laid_out = LaidOut(self.schedule)
        self.moved = moved
        self.beyond: list[Tensor] = []
        self.events_beyond = 0
        self.shorter: dict[int, LayerEngine] = {}
        in_torch = moved is not None or self.schedule.continuous
        native = choose() if self.device.type == "cpu" and not in_torch else None
        self.windows: WindowLayers | None = None
        self.spiking: SpikeLayers | None = None
        self.lazy = set[fx.Node]()
        if native is not None and isinstance(self.schedule, Windowed):
            self.windows = WindowLayers(native, self.schedule, self.ops, self._frames)
            self.lazy = {node for node in self.ops if self.windows.may_wait(node) and node not in self.outputs}
        elif native is not None:
            self.spiking = SpikeLayers(native, self.laid_out, self.ops, self.outputs, self._value)
            self.lazy = self.spiking.lazy
        self.last = self._last_sites() if self.schedule.once and not self.schedule.continuous else ()
        self.plan = Plan(self.nodes, lazy=self.lazy, kept=(*self.outputs, *self.last))
        self.fused: FusedNeurons | None = None if self.schedule.windowed else choose_fused(self.device)
        self.apply: Callable[[Op, list[Tensor]], Tensor] = applied if self.device.type == "cuda" else _called

    @property
    def notes(self) -> tuple[str, ...]:
        """What users should know about how the runs so far were computed."""
        cut = [str(origin_of(node)) for node, snap in self.snaps.items() if snap.cut_off]
        far = f"values far beyond those of all calibration images were cut off in front of {listed(cut, 3)}"
        often = f"{self.events_beyond:,} times more events came in at one place in one step than are taken in"
        failure = self.fused.failure if self.fused is not None else ""
        return tuple(
            note for note in (failure, far if cut else "", often if self.events_beyond else "", self._beyond()) if note
        )

    def _beyond(self) -> str:
        """On how many inputs a value did not fit into its layer's window of continuous time."""
        inputs = torch.cat(self.beyond) if self.beyond else torch.zeros(0, dtype=torch.bool)
        if not inputs.any():
            return ""
        return (
            f"on {int(inputs.sum())} of {len(inputs)} inputs a value lies beyond its layer's window and is cut off "
            "(--calibration first-spike --zeta makes windows longer)"
        )

    @torch.inference_mode()
    def run(self, batch: Tensor, probe: Probe | None = None) -> Simulation:
        """Simulate one batch of inputs, shape (batch, *sample), from a fresh state; they may vary over time."""
        incoming = check_input(self.graph, self.schedule, batch)
        with exact_arithmetic(self.device):
            if incoming is None:
                return self._run(batch, probe, None)
            events = events_of(self.graph)
            if events is not None and 0 < events.reset < self.schedule.frames:
                return self._with_resets(incoming, events.reset, probe)
            if is_long(self.snn, len(batch)) and probe is None and self.moved is None:
                found, beyond = in_pieces(self.snn, incoming)
                self.events_beyond += beyond
                return found
            return self._run(batch, probe, incoming)

    def _run(self, batch: Tensor, probe: Probe | None, incoming: OverTime | None) -> Simulation:
        frames, values = self.schedule.frames, dict[fx.Node, Value]()
        if self.schedule.continuous:
            self.beyond.append(torch.zeros(len(batch), dtype=torch.bool))
        spikes: dict[str, Tensor] = {}
        units: dict[str, Tensor] = {}
        for node in self.nodes:
            if node.op == "placeholder":
                given = batch.to(torch.float64) if incoming is None else incoming.frames(0, frames).flatten(0, 1)
                values[node] = Frames(given.to(self.device), constant=incoming is None)
            elif node.op == "call_module" and node not in self.lazy:
                op = self.ops[node]
                fused = self._fused(node, op, values, len(batch)) if isinstance(op, Neuron) else None
                if fused is not None:
                    values[node], (spikes[node.name], units[node.name]) = fused
                else:
                    self._value(node, values)
                if op.role in (Role.NEURON, Role.DELAY):
                    source = arguments(node)[0].name
                    if op.role == Role.DELAY and source in spikes:
                        spikes[node.name], units[node.name] = spikes[source], units[source]
                    elif fused is None:
                        by_frame = by_frames(self._units(values[node]), frames)
                        spikes[node.name], units[node.name] = count_spikes(by_frame, op, self.schedule)
                    if probe is not None and op.role == Role.NEURON:
                        probe(node.name, to_host(by_frames(self._units(values[node]), frames)))
            self.plan.forget(node, values)
        read = self._slot_by_slot(values) if self.last else [self._read_out(values[node]) for node in self.outputs]
        outputs = tuple(map(to_host, read))
        return Simulation(outputs, *({name: to_host(of[name]) for name in of} for of in (spikes, units)))

    def _with_resets(self, incoming: OverTime, reset: int, probe: Probe | None) -> Simulation:
        """A run whose state is given up every `reset` steps: the answer is then the mean since the last time."""
        parts, seen, frames = list[Simulation](), dict[str, list[Tensor]](), self.schedule.frames
        for start in range(0, frames, reset):
            length = min(reset, frames - start)
            if length not in self.shorter:
                shorter = replace(self.schedule, timesteps=length)
                self.shorter[length] = LayerEngine(replace(self.snn, schedule=shorter), self.device, self.moved)
            engine = self.shorter[length]
            part = Part(incoming, start, length)
            inputs = Moving.of(part.frames(0, 0).new_zeros(len(incoming)), part)
            watch = None if probe is None else lambda name, sent: seen.setdefault(name, []).append(sent)
            found = engine.run(inputs, watch)
            share = torch.arange(start + 1, start + length + 1) / torch.arange(1, length + 1)
            scaled = tuple(each * share.double().view(-1, *[1] * (each.ndim - 1)) for each in found.outputs)
            parts.append(replace(found, outputs=scaled))
        self.events_beyond = sum(engine.events_beyond for engine in self.shorter.values())
        if probe is not None:
            for name, trains in seen.items():
                probe(name, torch.cat(trains))
        return one_after_the_other(parts)

    # --- what is computed when ---

    def _value(self, node: fx.Node, values: dict[fx.Node, Value]) -> Value:
        if node not in values:
            values[node] = self._evaluate(node, [self._value(source, values) for source in arguments(node)])
        return values[node]

    def _frames(self, node: fx.Node, values: dict[fx.Node, Value]) -> Frames:
        return self._real(self._value(node, values))

    def _real(self, value: Value) -> Frames:
        if isinstance(value, Frames):
            return value
        if self.spiking is None:
            raise InternalError("spikes of native kernels without native kernels")
        return self.spiking.real(value)

    def _units(self, value: Value) -> Tensor:
        """What neurons sent, as a tensor."""
        return self.spiking.units(value) if self.spiking and isinstance(value, Spikes) else self._real(value).tensor

    # --- neurons as one kernel ---

    def _fused(
        self, node: fx.Node, op: Neuron, values: dict[fx.Node, Value], batch: int
    ) -> tuple[Value, tuple[Tensor, Tensor] | Tensor] | None:
        """Spikes and counts of a neuron layer from one call, or None where torch has to do it."""
        if not op.plain:
            return self._whole(node, op, values)
        if self.windows is not None:
            sent = self.windows.neurons(node, op, values, batch)
            return None if sent is None else (Frames(sent[0], constant=False), sent[1])
        if self.fused is not None:
            return self._on_device(self.fused, node, op, values, batch)
        return None if self.spiking is None else self.spiking.neurons(node, op, values, batch)

    def _whole(self, node: fx.Node, op: Neuron, values: dict[fx.Node, Value]) -> tuple[Frames, tuple[Tensor, Tensor]]:
        """What neurons send that have several inputs, or send a function of their membrane: one frame of one window."""
        inputs = [self._frames(source, values).tensor for source in arguments(node)]
        sent, counts = send_whole(op, inputs, self.schedule)  # type: ignore[arg-type]
        return Frames(sent if self.moved is None else self.moved(sent), constant=False), counts

    def _on_device(
        self, fused: FusedNeurons, node: fx.Node, op: Neuron, values: dict[fx.Node, Value], batch: int
    ) -> tuple[Frames, Tensor] | None:
        (source,) = arguments(node)
        if op.threshold.dtype != torch.float32 or source.meta["shape"] != node.meta["shape"]:
            return None
        value, shape = self._frames(source, values), tuple(node.meta["shape"])
        current, membrane = Current(value.tensor.float(), value.constant), self.laid_out.membrane(node, op)
        sent = fused.neurons(current, membrane, self.schedule.frames, batch, shape)
        return None if sent is None else (Frames(sent[0], constant=False), sent[1])

    # --- torch ---

    def _evaluate(self, node: fx.Node, inputs: list[Value]) -> Value:
        op = self.ops[node]
        if op.role == Role.DELAY:
            return inputs[0]
        if op.role == Role.EVENTS:
            return self._received(op_of(node, Events), self._real(inputs[0]).tensor)
        by_spikes = None if self.spiking is None else self.spiking.evaluated(node, op, inputs)
        return by_spikes or self._in_float(op, [self._real(value) for value in inputs])

    def _received(self, op: Events, events: Tensor) -> Value:
        """What of `events`, whole numbers (frames * batch, *sample), the network takes in."""
        received, beyond = op.received(events)
        self.events_beyond += beyond
        if self.spiking is not None and op.levels <= MOST_UNITS:
            return self.spiking.of_units(received.to(torch.int8))
        return Frames(received.float(), constant=False)

    def _in_float(self, op: Op, inputs: list[Frames]) -> Frames:
        constant = all(value.constant for value in inputs)
        if isinstance(op, Neuron):
            return self._neuron(op, inputs[0])
        if constant or op.role not in (Role.MAXPOOL, Role.ANALOG):
            tensors = [value.tensor if constant else over_time(value, self.schedule.frames) for value in inputs]
            with threads_for(op.work(*tensors)):
                return Frames(self.apply(op, cast(op, tensors)), constant)
        frames = self.schedule.frames
        if op.role == Role.MAXPOOL:  # of frames that are windows the maximum is that of the windows' sums
            spikes = inputs[0].tensor
            pooled = op(spikes) if self.schedule.windowed else running_maximum(op, spikes, frames)
            return Frames(pooled, constant=False)
        return Frames(
            compensated(op, [over_time(value, self.schedule.frames) for value in inputs], frames), constant=False
        )

    def _neuron(self, op: Neuron, current: Frames) -> Frames:
        """Walk through the frames; with a wait the first frames are integrated before the neuron may emit."""
        frames = self.schedule.frames
        by_frame = current.tensor.unsqueeze(0) if current.constant else by_frames(current.tensor, frames)
        if self.schedule.continuous:
            sent = self._in_continuous_time(op, by_frame[0])
        elif isinstance(self.schedule, Windowed):
            sent = send_windows(op, by_frame, self.schedule).flatten(0, 1)
        else:
            sent = send(op, by_frame, frames, self.schedule.waited)
        return Frames(sent if self.moved is None else self.moved(sent), constant=False)

    def _in_continuous_time(self, op: Neuron, current: Tensor) -> Tensor:
        """What each spike is worth, as a share of the window; see `neurons.first_spike`."""
        share = current / op.threshold
        low, high = (-1.0 if op.row.negative else 0.0), 1.0
        if not op.saturates:
            over = (share > high) | (share < low) if op.row.negative else share > high
            self.beyond[-1] |= over.flatten(1).any(1).cpu()
        return share.clamp(low, high)

    def _read_out(self, value: Value) -> Tensor:
        moving = over_time(self._real(value), self.schedule.frames).double()
        return by_frames(moving, self.schedule.frames)[self.schedule.read_from :].cumsum(0)

    # --- answers after every slot of the last window ---

    def _last_sites(self) -> tuple[fx.Node, ...]:
        """What outputs are made of: the last sites that send, and values that are the same in all steps."""
        depths = site_depths(self.graph)
        spiking = {node for node, op in self.ops.items() if op.role in (Role.NEURON, Role.DELAY)}
        until = {node for node in self.nodes if node in spiking or depths.get(node.name) == 0}
        return tuple(node for node in upstream(self.outputs, until=until) if node in until)

    def _slot_by_slot(self, values: dict[fx.Node, Value]) -> list[Tensor]:
        """The running sums of the outputs after every slot, (slots, batch, *sample).

        A spike worth n of L units has counted for n - (L - k - 1) of them when slot k ends. An output is complete with
        the last slot; as a running sum it counts as many times as there have been slots.
        """
        slots = self.schedule.steps_per_frame
        left = torch.arange(slots - 1, -1, -1, device=self.device)

        def known(node: fx.Node) -> Tensor | None:
            if node not in self.last:
                return None
            value = self._real(values[node])
            if value.constant:
                return value.tensor.repeat(slots, *[1] * (value.tensor.dim() - 1))
            units = value.tensor
            grown = (units.abs() - left.view(-1, *[1] * units.dim())).clamp(min=0) * units.sign()
            return grown.flatten(0, 1)

        def rule(node: fx.Node, inputs: list[Tensor]) -> Tensor:
            return self.apply(self.ops[node], cast(self.ops[node], inputs))

        pull = Pull(rule, known)
        seen = torch.arange(1, slots + 1, dtype=torch.float64, device=self.device)
        found = [pull(node).double() for node in self.outputs]
        return [one.view(slots, -1, *one.shape[1:]) * seen.view(-1, *[1] * one.dim()) for one in found]


def to_host(tensor: Tensor) -> Tensor:
    """On the CPU, where everything that looks at a simulation computes."""
    return tensor.cpu()


def _called(op: Op, tensors: list[Tensor]) -> Tensor:
    value: Tensor = op(*tensors)
    return value


def count_spikes(by_frame: Tensor, op: Op, schedule: Schedule) -> tuple[Tensor, Tensor]:
    """Spikes and units sent in each step of the site's emission, summed over the batch (int64)."""
    if schedule.continuous or not isinstance(schedule, Windowed):
        flat = by_frame.flatten(1).abs()
        return (flat != 0).sum(1), flat.sum(1, dtype=torch.float64).to(torch.int64)
    return count_window_spikes(by_frame, schedule, signed=op.sends_negative)
