"""The fast engine: layer by layer, all frames of a layer at once.

Time is folded into the batch for every linear operator, so a layer costs one call whatever the number of frames; only
the neurons walk through time. Values that do not change over time (the input, the first layer's current) are computed
once. Equal to the step engine in every spike (see `convert.exact`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, fx

from snnconvert.errors import InternalError
from snnconvert.graph.dialect import arguments, op_of, output_nodes
from snnconvert.graph.neuron_ops import Neuron, Synchronous
from snnconvert.graph.ops import MaxPool, Op, Role
from snnconvert.graph.schedule import Schedule
from snnconvert.graph.types import Snn
from snnconvert.neurons import NEURONS, State
from snnconvert.simulate.result import Probe, Simulation


@dataclass
class Frames:
    """A value over time: (frames * batch, *sample), frame-major; or (batch, *sample) where it is constant in time."""

    tensor: Tensor
    constant: bool


class LayerEngine:
    """Simulates a spiking network layer by layer.

    Args:
        snn: the network; not changed.
        device: where to compute.
    """

    def __init__(self, snn: Snn, device: str | torch.device = "cpu") -> None:
        self.schedule: Schedule = snn.schedule
        self.device = torch.device(device)
        self.graph = snn.graph.to(self.device)
        self.nodes: list[fx.Node] = list(self.graph.graph.nodes)
        self.outputs = output_nodes(self.graph)
        self.last_use = {source: node for node in self.nodes for source in node.all_input_nodes}

    @torch.inference_mode()
    def run(self, batch: Tensor, probe: Probe | None = None) -> Simulation:
        """Simulate one batch of inputs, shape (batch, *sample), from a fresh state."""
        frames, values = self.schedule.frames, dict[fx.Node, Frames]()
        spikes: dict[str, Tensor] = {}
        units: dict[str, Tensor] = {}
        for node in self.nodes:
            if node.op == "placeholder":
                values[node] = Frames(batch.to(self.device, torch.float64), constant=True)
            elif node.op == "call_module":
                op = op_of(node)
                values[node] = self._evaluate(op, [values[source] for source in arguments(node)])
                if op.role in (Role.NEURON, Role.DELAY):
                    by_frame = by_frames(values[node].tensor, frames)
                    spikes[node.name], units[node.name] = count_spikes(by_frame, op, self.schedule)
                    if probe is not None and op.role == Role.NEURON:
                        probe(node.name, by_frame)
            self._forget(node, values)
        return Simulation(tuple(self._read_out(values[node]) for node in self.outputs), spikes, units)

    def _forget(self, node: fx.Node, values: dict[fx.Node, Frames]) -> None:
        for source in node.all_input_nodes:
            if self.last_use[source] is node and source not in self.outputs:
                del values[source]

    def _evaluate(self, op: Op, inputs: list[Frames]) -> Frames:
        constant = all(value.constant for value in inputs)
        if isinstance(op, Neuron):
            return self._neuron(op, inputs[0])
        if isinstance(op, Synchronous):
            return inputs[0]
        if constant or op.role not in (Role.MAXPOOL, Role.ANALOG):
            tensors = [value.tensor if constant else self._over_time(value) for value in inputs]
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
            model = NEURONS["signed" if model.negative else "burst"]
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
                state = self._after_window(op, state)
        return Frames(out.flatten(0, 1), constant=False)

    def _after_window(self, op: Neuron, state: State) -> State:
        if self.schedule.kind != "bistable" or self.schedule.residual == "keep":
            return state
        if self.schedule.residual == "clear":
            return State(torch.zeros_like(state.v) + op.initial, state.sent)
        return State(torch.minimum(state.v, op.threshold), state.sent)

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
        return by_frames(self._over_time(value).double(), self.schedule.frames).cumsum(0)


def by_frames(tensor: Tensor, frames: int) -> Tensor:
    """(frames * batch, *sample) as (frames, batch, *sample), without a copy."""
    return tensor.view(frames, -1, *tensor.shape[1:])


def _cast(op: Op, tensors: list[Tensor]) -> list[Tensor]:
    """Inputs in the precision of the operator's own tensors; float32 convolutions in channels-last memory order."""
    own = next((buffer for buffer in op.buffers()), None)
    if own is None:
        return tensors
    cast = [tensor.to(own.dtype) for tensor in tensors]
    if op.role == Role.WEIGHTED and cast[0].ndim == 4:
        cast = [cast[0].contiguous(memory_format=torch.channels_last)]
    return cast


def count_spikes(by_frame: Tensor, op: Op, schedule: Schedule) -> tuple[Tensor, Tensor]:
    """Spikes and units sent in each step of the site's emission, summed over the batch (int64)."""
    flat = by_frame.flatten(1).abs()
    if schedule.kind != "bistable":
        return (flat != 0).sum(1), flat.sum(1, dtype=torch.float64).to(torch.int64)
    if not isinstance(op, Neuron | Synchronous):
        raise InternalError("only neurons send spikes")
    window, codes = schedule.window, flat.to(torch.int64)
    if schedule.phases == "uniform":
        phases = torch.stack([codes > phase for phase in range(window)], 1).flatten(2).sum(2)
        return phases.flatten(), phases.flatten()
    bits = torch.stack([(codes >> (window - 1 - phase)) & 1 for phase in range(window)], 1).flatten(2).sum(2)
    weights = torch.tensor([2 ** (window - 1 - phase) for phase in range(window)], device=by_frame.device)
    return bits.flatten(), (bits * weights).flatten()
