"""The oracle of time to first spike on a grid of slots: one slot after the other, every slope and membrane spelled out.

A spike switches its synapses on until the window ends: each then adds its weight to the membrane in every slot. At
global step t the window is w = t // L and the slot k = t % L. A site at depth d
    integrates  in window d - 1; what is the same in all steps (biases, the input) is there from the start;
    sends       in window d: in the first slot k in which the membrane reaches L - k thresholds, one spike (of a neuron
                for values below zero: in the first in which it lies below -(L - k - 1) thresholds), and then no more.
An output grows in the last window as a membrane does, and can be read after every slot.

Slow and literal on purpose; everything is float64. The layer engine must equal it in every spike and every answer.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx

from snnconvert.errors import InternalError
from snnconvert.graph.dialect import arguments, calls, op_of, output_nodes
from snnconvert.graph.edit import copied
from snnconvert.graph.kinds import Neuron, Op, Role, Snap
from snnconvert.graph.schedule.timing import site_depths
from snnconvert.graph.types import Snn
from snnconvert.simulate.bistable_engine import without_spikes
from snnconvert.simulate.result import Simulation


class FirstSpikeEngine:
    """Simulates a network of first spikes slot by slot.

    Args:
        snn: the network; not changed.
    """

    def __init__(self, snn: Snn) -> None:
        if not snn.schedule.once or snn.schedule.continuous:
            raise InternalError("only time to first spike with bits has slots")
        self.slots, self.timesteps = snn.schedule.steps_per_frame, snn.schedule.timesteps
        self.graph = copied(snn.graph).double()
        self.depths = site_depths(self.graph)
        self.calls = [node for node in self.graph.graph.nodes if node.op == "call_module"]
        self.snaps = {node for node, _ in calls(self.graph, Snap)}
        self.linear = {node: op_of(node).linear_part() for node in self.calls}

    @torch.inference_mode()
    def run(self, batch: Tensor) -> Simulation:
        """Simulate one batch of inputs, shape (batch, *sample), from a fresh state."""
        self.constant = without_spikes(self.graph, batch, self._sends)
        self.membrane: dict[fx.Node, Tensor] = {}
        self.on: dict[fx.Node, Tensor] = {}
        self.snapped: dict[fx.Node, Tensor] = {}
        self.counts: dict[str, list[Tensor]] = {}
        outputs = output_nodes(self.graph)
        read = [self.constant[node] for node in outputs]
        answers: list[list[Tensor]] = [[] for _ in outputs]
        for step in range(self.timesteps):
            window, slot = divmod(step, self.slots)
            values: dict[fx.Node, Tensor] = {}
            for node in self.calls:
                inputs = [self._switched_on(source, values) for source in arguments(node)]
                values[node] = self._step(node, op_of(node), inputs, window - self.depths[node.name], slot)
            for index, node in enumerate(outputs):
                if window == self.depths[node.name]:
                    read[index] = read[index] + values[node]
                    answers[index].append(read[index] * (slot + 1))
        worth = torch.arange(self.slots, 0, -1)
        spikes = {name: torch.stack(steps) for name, steps in self.counts.items()}
        units = {name: steps * worth for name, steps in spikes.items()}
        return Simulation(tuple(torch.stack(kept) for kept in answers), spikes, units)

    def _switched_on(self, node: fx.Node, values: dict[fx.Node, Tensor]) -> Tensor:
        return values[node] if node in values else torch.zeros_like(self.constant[node])

    def _sends(self, node: fx.Node) -> bool:
        return op_of(node).role in (Role.NEURON, Role.DELAY) or self._maximum(node)

    def _maximum(self, node: fx.Node) -> bool:
        return op_of(node).role == Role.MAXPOOL and self.depths[node.name] > 0

    def _step(self, node: fx.Node, op: Op, inputs: list[Tensor], window: int, slot: int) -> Tensor:
        """What flows at a node in this slot; `window` is 0 where the sites of its depth send, -1 the one before."""
        if op.role in (Role.NEURON, Role.DELAY):
            return self._neuron(node, op, inputs[0], window, slot)
        if self.depths[node.name] == 0 or window != 0:
            return torch.zeros_like(self.constant[node])
        if node in self.snaps:
            return self._snap(node, op, inputs[0], slot)
        linear = op if self._maximum(node) else self.linear[node]
        if linear is None:
            raise InternalError(f"{node.name} is not linear")
        value: Tensor = linear(*inputs)
        return value

    def _snap(self, node: fx.Node, op: Op, current: Tensor, slot: int) -> Tensor:
        """By how much the rounded sum of the window has grown."""
        before = self.constant[arguments(node)[0]] if slot == 0 else self.snapped[node]
        self.snapped[node] = before + current
        grown: Tensor = op(before + current) - op(before)
        return grown

    def _neuron(self, node: fx.Node, op: Op, current: Tensor, window: int, slot: int) -> Tensor:
        """1 or -1 from the slot on in which it has spiked."""
        if op.role == Role.NEURON:
            neuron = op_of(node, Neuron)
            threshold, initial, negative = neuron.threshold, neuron.initial, neuron.row.negative
        else:  # holds spikes back by a window
            threshold, initial, negative = current.new_ones(()), current.new_zeros(()), True
        if node not in self.membrane:
            self.membrane[node] = self.constant[arguments(node)[0]] + initial
            self.on[node] = torch.zeros_like(current)
        if window == -1:
            self.membrane[node] = self.membrane[node] + current
        if window != 0:
            return torch.zeros_like(current)
        v, worth = self.membrane[node], self.slots - slot
        spikes = (v >= worth * threshold).double()
        if negative:
            spikes = spikes - (v < -(worth - 1) * threshold).double()
        spikes = spikes * (self.on[node] == 0)
        self.on[node] = self.on[node] + spikes
        self.counts.setdefault(node.name, []).append((spikes != 0).sum())
        return self.on[node]
