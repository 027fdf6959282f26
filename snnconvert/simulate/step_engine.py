"""The oracle: the whole network, one global time step after the other, every state update spelled out.

Slow and literal on purpose. The layer engine must equal it in every spike count.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx

from snnconvert.errors import InternalError
from snnconvert.graph.dialect import arguments, op_of, output_nodes
from snnconvert.graph.kinds import Events, MaxPool, Neuron, Op, Role
from snnconvert.graph.schedule.timing import site_depths
from snnconvert.graph.types import Snn
from snnconvert.neurons import State, integrate
from snnconvert.simulate.moving_input import check_input, moving_nodes
from snnconvert.simulate.result import Simulation


class StepEngine:
    """Simulates a streaming or waiting network step by step.

    Args:
        snn: the network; not changed.
    """

    def __init__(self, snn: Snn) -> None:
        if snn.schedule.windowed:
            raise InternalError("schedules with windows have an oracle of their own")
        self.snn, self.schedule = snn, snn.schedule
        self.nodes: list[fx.Node] = list(snn.graph.graph.nodes)
        self.depths = site_depths(snn.graph)

    @torch.inference_mode()
    def run(self, batch: Tensor) -> Simulation:
        """Simulate one batch of inputs, shape (batch, *sample), from a fresh state; they may vary over time."""
        incoming = check_input(self.snn.graph, self.schedule, batch)
        self.moving = moving_nodes(self.snn.graph, moves=incoming is not None)
        self.states: dict[str, State] = {}
        self.sums: dict[str, list[Tensor]] = {}
        self.delayed: dict[tuple[str, int], Tensor] = {}
        sent: dict[str, list[Tensor]] = {}
        outputs: list[list[Tensor]] = [[] for _ in output_nodes(self.snn.graph)]
        for step in range(self.schedule.timesteps):
            values: dict[fx.Node, Tensor] = {}
            for node in self.nodes:
                if node.op == "placeholder":
                    values[node] = batch.double() if incoming is None else incoming.frames(step, step + 1)[0].double()
                elif node.op == "call_module":
                    values[node] = self._step(node, op_of(node), [values[s] for s in arguments(node)], step)
                    if op_of(node).role in (Role.NEURON, Role.DELAY) and self._emits(node, step):
                        sent.setdefault(node.name, []).append(values[node])
            for kept, node in zip(outputs, output_nodes(self.snn.graph), strict=True):
                if self._is_read(node, step):
                    value = values[node].double()
                    kept.append(value + kept[-1] if kept else value)
        spikes = {name: torch.stack([(s != 0).sum() for s in steps]) for name, steps in sent.items()}
        units = {name: torch.stack([s.double().abs().sum().long() for s in steps]) for name, steps in sent.items()}
        return Simulation(tuple(torch.stack(kept) for kept in outputs), spikes, units)

    def _emits(self, node: fx.Node, step: int) -> bool:
        first = self.schedule.emission_step(self.depths[node.name], 0)
        return first <= step < first + self.schedule.frames

    def _is_read(self, node: fx.Node, step: int) -> bool:
        """An output is read while the sites before it send, after as many of their frames as are left out."""
        left_out = self.schedule.read_from
        return self._emits(node, step) and self._emits(node, step - left_out)

    def _integrates(self, node: fx.Node, step: int) -> bool:
        first = self.schedule.integration_step(self.depths[node.name], 0)
        return first <= step < first + self.schedule.frames

    def _step(self, node: fx.Node, op: Op, inputs: list[Tensor], step: int) -> Tensor:
        if isinstance(op, Neuron):
            return self._neuron(node, op, inputs[0], step)
        if op.role == Role.EVENTS:
            return op_of(node, Events).received(inputs[0])[0]
        if op.role == Role.DELAY:
            self.delayed[node.name, step] = inputs[0]
            return self.delayed.pop((node.name, step - self.schedule.waited), torch.zeros_like(inputs[0]))
        if isinstance(op, MaxPool) and node in self.moving:
            return self._max_pool(node, op, inputs[0])
        if op.role == Role.ANALOG and node in self.moving:
            return self._compensated(node, op, inputs, step)
        own = next(op.buffers(), None)
        cast = inputs if own is None else [tensor.to(own.dtype) for tensor in inputs]
        value: Tensor = op(*cast)
        return value

    def _neuron(self, node: fx.Node, op: Neuron, current: Tensor, step: int) -> Tensor:
        model = op.row
        current = current.to(op.threshold.dtype)
        state = self.states.get(node.name) or model.init(current, op.initial)
        spikes = torch.zeros_like(current)
        if self._integrates(node, step):
            state = integrate(state, current)
        if self._emits(node, step):
            spikes, state = model.fire(state, op.threshold, op.levels)
        self.states[node.name] = state
        return spikes

    def _max_pool(self, node: fx.Node, op: MaxPool, spikes: Tensor) -> Tensor:
        received, best = self.sums.get(node.name, [torch.zeros_like(spikes), torch.zeros(())])
        received = received + spikes
        now: Tensor = op(received)
        self.sums[node.name] = [received, now]
        return now - best

    def _compensated(self, node: fx.Node, op: Op, inputs: list[Tensor], step: int) -> Tensor:
        frame = step - self.schedule.integration_step(self.depths[node.name] + 1, 0) + 1
        if frame < 1:
            shaped: Tensor = torch.zeros_like(op(*[tensor.double() for tensor in inputs]))
            return shaped
        before = self.sums.get(node.name)
        sums = [tensor.double() + (before[i] if before else 0) for i, tensor in enumerate(inputs)]
        total = op(*[s / frame for s in sums]) * frame
        self.sums[node.name] = [*sums, total]
        result: Tensor = total - before[-1] if before else total
        return result
