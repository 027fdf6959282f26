"""The fast engine: layer by layer, all frames of a layer at once.

Time is folded into the batch for every linear operator, so a layer costs one call whatever the number of frames; only
the neurons walk through time. Values that do not change over time (the input, the first layer's current) are computed
once. With the native kernels spikes stay int8 and a layer's weights, shortcuts and neurons are one call, which touches
the weights of set spikes only. Equal to the step engine in every spike (see `convert.exact`), whichever way is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable
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
from snnconvert.simulate.exact_products import applied, exact_arithmetic
from snnconvert.simulate.kernels import FusedNeurons, Native, choose, choose_fused
from snnconvert.simulate.kernels.layout import Packed, dense_from, pack, per_element
from snnconvert.simulate.kernels.native import MOST_TERMS, Convolution, Current, Membrane, ScaledSpikes, Summand
from snnconvert.simulate.over_time import by_frames, compensated, running_maximum, walk
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
        device: where to compute; results come back on the CPU. The native kernels serve the CPU only; on a CUDA device
            neurons are one kernel where there is Triton, and sums are kept exact (see `exact_products`).

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
        self.fused: FusedNeurons | None = choose_fused(self.device) if self.schedule.kind != "bistable" else None
        self.apply: Callable[[Op, list[Tensor]], Tensor] = applied if self.device.type == "cuda" else _called
        self.packed: dict[fx.Node, Packed | None] = {}
        self.laid_out: dict[tuple[fx.Node, str], Tensor] = {}

    @property
    def notes(self) -> tuple[str, ...]:
        """What users should know about how the runs so far were computed."""
        return (self.fused.failure,) if self.fused is not None and self.fused.failure else ()

    @torch.inference_mode()
    def run(self, batch: Tensor, probe: Probe | None = None) -> Simulation:
        """Simulate one batch of inputs, shape (batch, *sample), from a fresh state."""
        with exact_arithmetic(self.device):
            return self._run(batch, probe)

    def _run(self, batch: Tensor, probe: Probe | None) -> Simulation:
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
        if self.fused is not None:
            return self._on_device(self.fused, node, op, values, batch)
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
        out, counts = self.native.neurons(terms, self._membrane(node, op), self.schedule.frames, batch, shape)
        density = float(counts[0].sum()) / max(out.numel(), 1)
        return Frames(out, constant=False, unit=op.model == "if", density=density), counts

    def _on_device(
        self, fused: FusedNeurons, node: fx.Node, op: Neuron, values: dict[fx.Node, Frames], batch: int
    ) -> tuple[Frames, Tensor] | None:
        (source,) = arguments(node)
        if op.threshold.dtype != torch.float32 or source.meta["shape"] != node.meta["shape"]:
            return None
        value, shape = self._value(source, values), tuple(node.meta["shape"])
        current = Current(value.tensor.float(), value.constant)
        sent = fused.neurons(current, self._membrane(node, op), self.schedule.frames, batch, shape)
        return None if sent is None else (Frames(sent[0], constant=False), sent[1])

    @property
    def _wait(self) -> int:
        return self.schedule.wait if self.schedule.kind == "wait" else 0

    def _membrane(self, node: fx.Node, op: Neuron) -> Membrane:
        shape = tuple(node.meta["shape"])
        threshold = self._laid_out(node, "threshold", op.threshold, shape)
        return Membrane(op.model, op.levels, self._wait, threshold, self._laid_out(node, "initial", op.initial, shape))

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
                return Frames(self.apply(op, _cast(op, tensors)), constant)
        frames = self.schedule.frames
        if isinstance(op, MaxPool):  # in a window of a bistable schedule the maximum is that of the window's values
            spikes = inputs[0].tensor
            pooled = op(spikes) if self.schedule.kind == "bistable" else running_maximum(op, spikes, frames)
            return Frames(pooled, constant=False)
        return Frames(compensated(op, [self._over_time(value) for value in inputs], frames), constant=False)

    def _over_time(self, value: Frames) -> Tensor:
        if not value.constant:
            return value.tensor
        return value.tensor.repeat(self.schedule.frames, *([1] * (value.tensor.ndim - 1)))

    def _neuron(self, op: Neuron, current: Frames) -> Frames:
        """Walk through the frames; with a wait the first frames are integrated before the neuron may emit."""
        frames = self.schedule.frames
        by_frame = current.tensor.unsqueeze(0) if current.constant else by_frames(current.tensor, frames)
        if self.schedule.kind == "bistable":
            return Frames(send_windows(op, by_frame, self.schedule).flatten(0, 1), constant=False)
        return Frames(walk(op, by_frame, frames, self._wait), constant=False)

    def _read_out(self, value: Frames) -> Tensor:
        return by_frames(self._over_time(value).double(), self.schedule.frames)[self.schedule.read_from :].cumsum(0)


def to_host(tensor: Tensor) -> Tensor:
    """On the CPU, where everything that looks at a simulation computes."""
    return tensor.cpu()


def _called(op: Op, tensors: list[Tensor]) -> Tensor:
    value: Tensor = op(*tensors)
    return value


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
