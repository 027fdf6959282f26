"""The fast engine: layer by layer, all frames of a layer at once.

Time is folded into the batch for every linear operator, so a layer costs one call whatever the number of frames; only
the neurons walk through time. Values that do not change over time (the input, the first layer's current) are computed
once. With the native kernels spikes stay int8 and a layer's weights, shortcuts and neurons are one call, which touches
the weights of set spikes only. Equal to the step engine in every spike (see `convert.exact`), whichever way is taken.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from snnconvert.errors import InternalError
from snnconvert.graph.dialect import arguments, op_of, output_nodes
from snnconvert.graph.edit import copied
from snnconvert.graph.neuron_ops import Neuron, Scale, SumPool, Synchronous
from snnconvert.graph.ops import Add, Constant, Conv, Linear, MaxPool, Op, Role, Slice
from snnconvert.graph.schedule import Schedule
from snnconvert.graph.types import Snn
from snnconvert.neurons import NEURONS, State
from snnconvert.simulate.kernels import Native, choose
from snnconvert.simulate.kernels.layout import Packed, dense_from, pack, per_element
from snnconvert.simulate.kernels.native import MOST_TERMS, Convolution, Current, Membrane, ScaledSpikes, Summand
from snnconvert.simulate.result import Probe, Simulation
from snnconvert.simulate.torch_threads import threads_for, work_of
from snnconvert.simulate.window_layers import WindowLayers
from snnconvert.simulate.window_neurons import count_window_spikes, send_windows

# largest number of units in an int8 spike
PAYLOAD = 127


@dataclass
class Frames:
    """A value over time: (frames * batch, *sample), frame-major; or (batch, *sample) where it is constant in time.

    Attributes:
        tensor: float, or int8 for spikes on the native path.
        constant: whether the value is the same in all frames.
        unit: int8 spikes that are all 0 or 1.
        density: share of values that are not zero, estimated from the last neurons; only for int8 spikes.
    """

    tensor: Tensor
    constant: bool
    unit: bool = False
    density: float = 1.0

    @property
    def event(self) -> bool:
        """Whether these are spikes for the native kernels."""
        return self.tensor.dtype == torch.int8


class LayerEngine:
    """Simulates a spiking network layer by layer.

    Args:
        snn: the network; not changed.
        device: where to compute; results come back on the CPU. The native kernels serve the CPU only.

    Raises:
        OptionError: if the environment variable SNNCONVERT_KERNELS asks for what is not there.
    """

    def __init__(self, snn: Snn, device: str | torch.device = "cpu") -> None:
        self.schedule: Schedule = snn.schedule
        self.device = torch.device(device)
        self.graph = snn.graph if self.device.type == "cpu" else copied(snn.graph).to(self.device)
        self.nodes: list[fx.Node] = list(self.graph.graph.nodes)
        self.outputs = output_nodes(self.graph)
        self.ops = {node: op_of(node) for node in self.nodes if node.op == "call_module"}
        self.native: Native | None = None
        if self.device.type == "cpu" and self.schedule.kind != "bistable":
            self.native = choose()
        self.windows: WindowLayers | None = None
        windowed = choose() if self.device.type == "cpu" and self.schedule.kind == "bistable" else None
        if windowed is not None:
            self.windows = WindowLayers(windowed, self.schedule, self.ops, self._value)
        self.lazy = {node for node in self.ops if self._may_wait(node)} if self.native or self.windows else set()
        self.needs = {node: self._needs(node) for node in self.nodes}
        self.last_use = {source: node for node in self.nodes for source in self.needs[node]}
        self.packed: dict[fx.Node, Packed | None] = {}
        self.laid_out: dict[tuple[fx.Node, str], Tensor] = {}

    @torch.inference_mode()
    def run(self, batch: Tensor, probe: Probe | None = None) -> Simulation:
        """Simulate one batch of inputs, shape (batch, *sample), from a fresh state."""
        frames, values = self.schedule.frames, dict[fx.Node, Frames]()
        spikes: dict[str, Tensor] = {}
        units: dict[str, Tensor] = {}
        for node in self.nodes:
            if node.op == "placeholder":
                values[node] = Frames(batch.to(self.device, torch.float64), constant=True)
            elif node.op == "call_module" and node not in self.lazy:
                op = self.ops[node]
                fused = self._fused(node, op, values, len(batch)) if isinstance(op, Neuron) else None
                if fused is not None:
                    values[node], (spikes[node.name], units[node.name]) = fused
                else:
                    self._value(node, values)
                if op.role in (Role.NEURON, Role.DELAY):
                    by_frame = by_frames(values[node].tensor, frames)
                    source = arguments(node)[0].name
                    if op.role == Role.DELAY and source in spikes:
                        spikes[node.name], units[node.name] = spikes[source], units[source]
                    elif fused is None:
                        spikes[node.name], units[node.name] = count_spikes(by_frame, op, self.schedule)
                    if probe is not None and op.role == Role.NEURON:
                        probe(node.name, to_host(by_frame))
            self._forget(node, values)
        outputs = tuple(to_host(self._read_out(values[node])) for node in self.outputs)
        return Simulation(outputs, *({name: to_host(of[name]) for name in of} for of in (spikes, units)))

    # --- what is computed when ---

    def _may_wait(self, node: fx.Node) -> bool:
        """Whether the kernel of the neurons that read `node` may compute it in passing."""
        op = self.ops[node]
        if self.windows is not None:
            return self.windows.may_wait(node) and node not in self.outputs
        if node in self.outputs or not isinstance(op, Scale | Conv | Linear | Add):
            return False
        return isinstance(op, Scale) or len(node.users) == 1

    def _needs(self, node: fx.Node) -> list[fx.Node]:
        """The nodes whose values computing `node` may ask for."""
        return [need for source in node.all_input_nodes for need in (source, *self._needs_of_lazy(source))]

    def _needs_of_lazy(self, node: fx.Node) -> list[fx.Node]:
        return self._needs(node) if node in self.lazy else []

    def _value(self, node: fx.Node, values: dict[fx.Node, Frames]) -> Frames:
        if node not in values:
            values[node] = self._evaluate(node, [self._value(source, values) for source in arguments(node)])
        return values[node]

    def _forget(self, node: fx.Node, values: dict[fx.Node, Frames]) -> None:
        if node in self.lazy:
            return
        for source in self.needs[node]:
            if self.last_use[source] is node and source not in self.outputs:
                values.pop(source, None)

    # --- native kernels ---

    def _fused(
        self, node: fx.Node, op: Neuron, values: dict[fx.Node, Frames], batch: int
    ) -> tuple[Frames, Tensor | tuple[Tensor, Tensor]] | None:
        """Spikes and counts of a neuron layer from one native call, or None where torch has to do it."""
        if self.windows is not None:
            sent = self.windows.neurons(node, op, values, batch)
            return None if sent is None else (Frames(sent[0], constant=False), sent[1])
        if self.native is None or op.levels > PAYLOAD or op.threshold.dtype != torch.float32:
            return None
        (source,) = arguments(node)
        shape = tuple(node.meta["shape"])
        terms = self._summands(source, shape, values)
        if terms is None or len(terms) > MOST_TERMS:  # some of it is float64: torch adds it up
            current = self._value(source, values)
            terms = [Current(current.tensor.float(), current.constant)]
        if source.meta["shape"] != node.meta["shape"]:
            return None
        wait = self.schedule.wait if self.schedule.kind == "wait" else 0
        threshold = self._laid_out(node, "threshold", op.threshold, shape)
        membrane = Membrane(op.model, op.levels, wait, threshold, self._laid_out(node, "initial", op.initial, shape))
        out, counts = self.native.neurons(terms, membrane, self.schedule.frames, batch, shape)
        density = float(counts[0].sum()) / max(out.numel(), 1)
        return Frames(out, constant=False, unit=op.model == "if", density=density), counts

    def _laid_out(self, node: fx.Node, name: str, parameter: Tensor, shape: tuple[int, ...]) -> Tensor:
        if (node, name) not in self.laid_out:
            self.laid_out[node, name] = per_element(parameter, shape, parameter.dtype)
        return self.laid_out[node, name]

    def _summands(self, node: fx.Node, shape: tuple[int, ...], values: dict[fx.Node, Frames]) -> list[Summand] | None:
        """The current at `node` as summands in their order of addition; None if it is not all float32."""
        if tuple(node.meta["shape"]) != shape:
            return None
        op = self.ops.get(node)
        if node in values or node not in self.lazy:
            return _current(self._value(node, values))
        if isinstance(op, Add):
            return self._sum(node, shape, values)
        source = self._value(arguments(node)[0], values)
        if source.event and isinstance(op, Scale):
            return [ScaledSpikes(source.tensor, self._laid_out(node, "factor", op.factor, shape))]
        packed = self._pack(node) if source.event and not _one_dimensional(op) else None
        if packed is not None and source.density < dense_from(packed):
            return [Convolution(source.tensor, packed, source.unit)]
        return _current(self._value(node, values))

    def _sum(self, node: fx.Node, shape: tuple[int, ...], values: dict[fx.Node, Frames]) -> list[Summand] | None:
        first, *others = arguments(node)
        terms = self._summands(first, shape, values)
        for other in others:
            more = self._summands(other, shape, values)
            if terms is None or more is None:
                return None
            if len(more) > 1 and len(terms) > 1:  # two sums: one has to be finished first
                more = _current(self._value(other, values)) or []
            terms = [*more, *terms] if len(more) > 1 else [*terms, *more]
        return terms

    def _pack(self, node: fx.Node) -> Packed | None:
        """The weights of `node` for the kernels, or None where they do not serve."""
        if node not in self.packed:
            op, rank = self.ops[node], len(arguments(node)[0].meta["shape"])
            fits = (isinstance(op, Conv) and rank in (2, 3)) or (isinstance(op, Linear) and rank < 3)
            self.packed[node] = pack(op) if fits and isinstance(op, Conv | Linear) else None
        return self.packed[node]

    def _native_value(self, node: fx.Node, op: Op, source: Frames) -> Frames | None:
        """`op` on int8 spikes by a native kernel of its own, or None."""
        if self.native is None or not source.event:
            return None
        frames, shape = self.schedule.frames, tuple(node.meta["shape"])
        batch = source.tensor.shape[0] // frames
        if isinstance(op, Conv | Linear):
            packed = self._pack(node)
            if packed is not None and source.density < dense_from(packed):
                if _one_dimensional(op):  # an image of height 1
                    spikes, shape = source.tensor.unsqueeze(2), (shape[0], 1, shape[1])
                    terms = [Convolution(spikes, packed, source.unit)]
                    return Frames(self.native.currents(terms, frames, batch, shape).squeeze(2), constant=False)
                terms = [Convolution(source.tensor, packed, source.unit)]
                return Frames(self.native.currents(terms, frames, batch, shape), constant=False)
        elif source.tensor.ndim == 4 and isinstance(op, MaxPool):
            pooled = self.native.max_pool(source.tensor, op, frames, shape, unit=source.unit)
            return Frames(pooled, constant=False, unit=source.unit, density=_nonzero(pooled))
        elif source.tensor.ndim == 4 and isinstance(op, SumPool) and source.unit and math.prod(op.kernel) <= PAYLOAD:
            pooled = self.native.sum_pool(source.tensor, op, frames, shape)
            return Frames(pooled, constant=False, density=_nonzero(pooled))
        return None

    # --- torch ---

    def _evaluate(self, node: fx.Node, inputs: list[Frames]) -> Frames:
        op = self.ops[node]
        if isinstance(op, Synchronous):
            return inputs[0]
        if op.role == Role.WIRING and not isinstance(op, Constant) and all(value.event for value in inputs):
            return self._moved(op, inputs)
        return self._native_value(node, op, inputs[0]) or self._in_float(op, [_floating(value) for value in inputs])

    def _moved(self, op: Op, inputs: list[Frames]) -> Frames:
        tensors = [value.tensor for value in inputs]
        if isinstance(op, Slice):  # a view: whoever reads it copies it in the right order
            index = [slice(None)] * tensors[0].ndim
            index[op.dim] = slice(op.start, op.stop, op.step)
            moved = tensors[0][tuple(index)]
        else:
            with threads_for(work_of(op, tensors)):
                moved = op(*tensors)
        density = sum(value.density * value.tensor.numel() for value in inputs) / max(moved.numel(), 1)
        largest = max(value.density for value in inputs)
        return Frames(moved, False, all(value.unit for value in inputs), min(density, largest))

    def _in_float(self, op: Op, inputs: list[Frames]) -> Frames:
        constant = all(value.constant for value in inputs)
        if isinstance(op, Neuron):
            return self._neuron(op, inputs[0])
        if constant or op.role not in (Role.MAXPOOL, Role.ANALOG):
            tensors = [value.tensor if constant else self._over_time(value) for value in inputs]
            with threads_for(work_of(op, tensors)):
                return Frames(op(*_cast(op, tensors)), constant)
        if isinstance(op, MaxPool):
            return Frames(self._max_pool(op, inputs[0].tensor), constant=False)
        return Frames(self._compensated(op, [self._over_time(value) for value in inputs]), constant=False)

    def _over_time(self, value: Frames) -> Tensor:
        if not value.constant:
            return value.tensor
        return value.tensor.repeat(self.schedule.frames, *([1] * (value.tensor.ndim - 1)))

    def _neuron(self, op: Neuron, current: Frames) -> Frames:
        """Walk through the frames; with a wait the first frames are integrated before the neuron may emit."""
        model, frames = NEURONS[op.model], self.schedule.frames
        if self.schedule.kind == "bistable":
            windows = current.tensor.unsqueeze(0) if current.constant else by_frames(current.tensor, frames)
            return Frames(send_windows(op, windows, self.schedule).flatten(0, 1), constant=False)
        dtype = op.threshold.dtype
        by_frame = current.tensor.to(dtype)
        by_frame = by_frame.unsqueeze(0) if current.constant else by_frames(by_frame, frames)
        state = model.init(by_frame[0], op.initial)
        out = torch.empty((frames, *by_frame.shape[1:]), dtype=torch.float32, device=self.device)
        wait = self.schedule.wait if self.schedule.kind == "wait" else 0
        for step in range(frames + wait):
            if step < frames:
                state = State(state.v + by_frame[0 if current.constant else step], state.sent)
            if step >= wait:
                sent, state = model.fire(state, op.threshold, op.levels)
                out[step - wait] = sent
        return Frames(out.flatten(0, 1), constant=False)

    def _max_pool(self, op: MaxPool, spikes: Tensor) -> Tensor:
        """Running-maximum increment: what is sent so far equals the maximum of what was received so far, at all times.

        In a window of a bistable schedule the maximum is that of the window's values.
        """
        if self.schedule.kind == "bistable":
            pooled: Tensor = op(spikes)
            return pooled
        received = by_frames(spikes, self.schedule.frames).cumsum(0).flatten(0, 1)
        best = by_frames(op(received), self.schedule.frames)
        return torch.cat([best[:1], best[1:] - best[:-1]]).flatten(0, 1)

    def _compensated(self, op: Op, inputs: list[Tensor]) -> Tensor:
        """Exact in the mean at every t: O[t] = t f(S_t / t) - (t - 1) f(S_{t-1} / (t - 1))."""
        frames = self.schedule.frames
        steps = torch.arange(1, frames + 1, dtype=torch.float64, device=self.device)
        means = []
        for tensor in inputs:
            sums = by_frames(tensor.double(), frames).cumsum(0)
            means.append((sums / steps.reshape(-1, *([1] * (sums.ndim - 1)))).flatten(0, 1))
        result = by_frames(op(*means), frames)
        total = result * steps.reshape(-1, *([1] * (result.ndim - 1)))
        return torch.cat([total[:1], total[1:] - total[:-1]]).flatten(0, 1)

    def _read_out(self, value: Frames) -> Tensor:
        return by_frames(self._over_time(value).double(), self.schedule.frames)[self.schedule.read_from :].cumsum(0)


def to_host(tensor: Tensor) -> Tensor:
    """On the CPU, where everything that looks at a simulation computes."""
    return tensor.cpu()


def by_frames(tensor: Tensor, frames: int) -> Tensor:
    """(frames * batch, *sample) as (frames, batch, *sample), without a copy."""
    return tensor.view(frames, -1, *tensor.shape[1:])


def _one_dimensional(op: Op | None) -> bool:
    return isinstance(op, Conv) and op.weight.ndim == 3


def _nonzero(spikes: Tensor) -> float:
    """Share of values that are not zero, estimated from some 16 moments spread over time."""
    some = spikes[:: max(1, len(spikes) // 16)]
    return float(some.count_nonzero()) / max(some.numel(), 1)


def _floating(value: Frames) -> Frames:
    return Frames(value.tensor.float(), value.constant) if value.event else value


def _current(value: Frames) -> list[Summand] | None:
    return [Current(value.tensor, value.constant)] if value.tensor.dtype == torch.float32 else None


def _cast(op: Op, tensors: list[Tensor]) -> list[Tensor]:
    """Inputs in the precision of the operator's own tensors; convolutions in channels-last memory order."""
    own = next((buffer for buffer in op.buffers()), None)
    if own is None:
        return tensors
    cast = [tensor.to(own.dtype) for tensor in tensors]
    if op.role == Role.WEIGHTED and cast[0].ndim == 4:
        cast = [cast[0].contiguous(memory_format=torch.channels_last)]
    return cast


def count_spikes(by_frame: Tensor, op: Op, schedule: Schedule) -> tuple[Tensor, Tensor]:
    """Spikes and units sent in each step of the site's emission, summed over the batch (int64)."""
    if schedule.kind != "bistable":
        flat = by_frame.flatten(1).abs()
        return (flat != 0).sum(1), flat.sum(1, dtype=torch.float64).to(torch.int64)
    if not isinstance(op, Neuron | Synchronous):
        raise InternalError("only neurons send spikes")
    signed = not isinstance(op, Neuron) or op.model == "signed"
    return count_window_spikes(by_frame, schedule, signed=signed)
