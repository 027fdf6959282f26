"""The oracle of bistable schedules: one global time step after the other, both states of every membrane spelled out.

At global step t the window is w = t // K and the phase k = t % K. A site at depth d
    sends       in windows d, d + 2, ...: at phase k one spike of P_k units if the membrane reaches P_k thresholds;
    integrates  in windows d - 1, d + 1, ...: what arrives in this step, and a K-th of every constant current
                (biases, the analog input), and sends nothing;
    idles       before that.
A synchronous neuron is a bistable neuron with weight 1, no bias and threshold 1 on the units it receives.

Slow and literal on purpose; everything is float64. The layer engine must equal it in every spike count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, fx

from snnconvert.errors import InternalError
from snnconvert.graph.dialect import arguments, calls, op_of, output_nodes
from snnconvert.graph.edit import copied
from snnconvert.graph.kinds import MaxPool, Neuron, Op, Role, Snap
from snnconvert.graph.schedule import Windowed
from snnconvert.graph.schedule.timing import site_depths
from snnconvert.graph.types import Snn
from snnconvert.neurons.bistable import fire_phase, phase_weights
from snnconvert.simulate.result import Simulation
from snnconvert.simulate.window_pooling import bit_serial_step, first_candidates, members, running_maximum_step


class Moment(NamedTuple):
    """A global step as a site sees it: the index of its frame, the phase, and what the site does."""

    frame: int
    phase: int
    sends: bool
    integrates: bool


class BistableEngine:
    """Simulates a bistable network step by step.

    Args:
        snn: the network; not changed.
    """

    def __init__(self, snn: Snn) -> None:
        if not isinstance(snn.schedule, Windowed):
            raise InternalError("only bistable schedules have windows")
        self.schedule = snn.schedule
        self.window, self.frames = snn.schedule.window, snn.schedule.frames
        self.weights = phase_weights(self.window, snn.schedule.phases)
        self.graph = copied(snn.graph).double()
        self.depths = site_depths(self.graph)
        self.linear = {node: op_of(node).linear_part() for node in self._calls()}
        self.spiking = spike_values(self.graph)

    @torch.inference_mode()
    def run(self, batch: Tensor) -> Simulation:
        """Simulate one batch of inputs, shape (batch, *sample), from a fresh state."""
        self.constant = self._constants(batch)
        self.membrane: dict[fx.Node, Tensor] = {}
        self.memory: dict[fx.Node, tuple[Tensor, ...]] = {}
        self.totals: dict[fx.Node, Tensor] = {}
        sent: dict[str, list[Tensor]] = {}
        read = [torch.zeros_like(self.constant[node]) for node in output_nodes(self.graph)]
        outputs: list[list[Tensor]] = [[] for _ in read]
        for step in range(self.schedule.timesteps):
            values: dict[fx.Node, Tensor] = {}
            for node in self._calls():
                values[node] = self._step(node, [self._moving(s, values) for s in arguments(node)], step)
                if self._spikes(node) and self._moment(self.depths[node.name], step).sends:
                    sent.setdefault(node.name, []).append(values[node])
            for index, node in enumerate(output_nodes(self.graph)):
                moment = self._moment(self.depths[node.name], step)
                if moment.sends:
                    arrived = self._moving(node, values) + self._share(self.constant[node], moment.phase)
                    read[index] = read[index] + arrived
                    if moment.phase == self.window - 1:
                        outputs[index].append(read[index])
        spikes = {name: torch.stack([(s != 0).sum() for s in steps]) for name, steps in sent.items()}
        units = {name: torch.stack([s.abs().sum().long() for s in steps]) for name, steps in sent.items()}
        return Simulation(tuple(torch.stack(kept) for kept in outputs), spikes, units)

    def residual(self, name: str) -> Tensor:
        """The membrane of a site after the last run."""
        (node,) = [node for node in self.graph.graph.nodes if node.name == name]
        return self.membrane[node]

    # --- time ---

    def _moment(self, depth: int, step: int) -> Moment:
        window, phase = divmod(step, self.window)
        frame, resting = divmod(window - depth, 2)
        sends = resting == 0 and 0 <= frame < self.frames
        integrates = resting == 1 and 0 <= frame + 1 < self.frames
        return Moment(frame, phase, sends, integrates)

    def _share(self, constant: Tensor, phase: int) -> Tensor:
        """A K-th of a constant current; short shares first, the rest last, so that a window's sum is exact."""
        part = (constant / self.window).float().double()
        return part if phase < self.window - 1 else constant - (self.window - 1) * part

    # --- values ---

    def _calls(self) -> list[fx.Node]:
        return [node for node in self.graph.graph.nodes if node.op == "call_module"]

    def _spikes(self, node: fx.Node) -> bool:
        return op_of(node).role in (Role.NEURON, Role.DELAY)

    def _moving(self, node: fx.Node, values: dict[fx.Node, Tensor]) -> Tensor:
        return values[node] if node in values else torch.zeros_like(self.constant[node])

    def _constants(self, batch: Tensor) -> dict[fx.Node, Tensor]:
        """Analog inputs and biases, per window."""

        def silent(node: fx.Node) -> bool:
            return self._spikes(node) or (self.depths[node.name] > 0 and self.linear[node] is None)

        return without_spikes(self.graph, batch, silent)

    def _step(self, node: fx.Node, inputs: list[Tensor], step: int) -> Tensor:
        op, depth = op_of(node), self.depths[node.name]
        if self._spikes(node):
            return self._neuron(node, op, inputs[0], self._moment(depth, step))
        moment = self._moment(depth, step)
        if depth == 0 or not moment.sends:
            return torch.zeros_like(self.constant[node])
        if isinstance(op, MaxPool) and arguments(node)[0] in self.spiking:
            return self._max_pool(node, op, inputs[0], moment)
        if isinstance(op, Snap):
            return self._snap(node, op, inputs[0], moment)
        linear = self.linear[node]
        if linear is None:
            return self._at_end(node, op, inputs, moment)
        value: Tensor = linear(*inputs)
        return value

    def _neuron(self, node: fx.Node, op: Op, current: Tensor, moment: Moment) -> Tensor:
        constant = self.constant[arguments(node)[0]]
        if isinstance(op, Neuron):
            threshold, initial, negative = op.threshold, op.initial, op.row.negative
        else:
            threshold, initial, negative = current.new_ones(()), current.new_zeros(()), True
        v = self.membrane.get(node)
        if v is None:
            v = torch.zeros_like(current) + initial
        out = torch.zeros_like(current)
        if moment.integrates:
            v = v + (current + self._share(constant, moment.phase))
        elif moment.sends:
            out, v = fire_phase(v, threshold, self.weights[moment.phase], negative=negative)
            if moment.phase == self.window - 1 and isinstance(op, Neuron):
                v = self._after_window(v, op)
        self.membrane[node] = v
        return out

    def _after_window(self, v: Tensor, op: Neuron) -> Tensor:
        if self.schedule.residual == "clear":
            return torch.zeros_like(v) + op.initial
        return torch.minimum(v, op.threshold) if self.schedule.residual == "clamp" else v

    def _max_pool(self, node: fx.Node, op: MaxPool, spikes: Tensor, moment: Moment) -> Tensor:
        if self.schedule.phases == "uniform":
            received = torch.zeros_like(spikes) if moment.phase == 0 else self.memory[node][0]
            grown, received = running_maximum_step(received, op, spikes)
            self.memory[node] = (received,)
            return grown
        candidates = first_candidates(op, spikes) if moment.phase == 0 else self.memory[node][0]
        sent, candidates = bit_serial_step(candidates, members(op, spikes, 0.0))
        self.memory[node] = (candidates,)
        return sent

    def _snap(self, node: fx.Node, op: Snap, current: Tensor, moment: Moment) -> Tensor:
        """By how much the rounded sum of the window has grown."""
        constant = self.constant[arguments(node)[0]]
        before = constant if moment.phase == 0 else self.memory[node][0]
        self.memory[node] = (before + current,)
        grown: Tensor = op(before + current) - op(before)
        return grown

    def _at_end(self, node: fx.Node, op: Op, inputs: list[Tensor], moment: Moment) -> Tensor:
        """A non-linear operator waits for the whole window; exact in the mean over all windows so far."""
        started = moment.phase > 0 or (moment.frame > 0 and op.role == Role.ANALOG)
        before = self.memory[node] if started else tuple(torch.zeros_like(tensor) for tensor in inputs)
        self.memory[node] = tuple(b + i for b, i in zip(before, inputs, strict=True))
        out = torch.zeros_like(self.constant[node])
        if moment.phase == self.window - 1:
            count = moment.frame + 1 if op.role == Role.ANALOG else 1
            constants = [self.constant[source] for source in arguments(node)]
            sums = [value + count * constant for value, constant in zip(self.memory[node], constants, strict=True)]
            total = op(*[value / count for value in sums]) * count
            out = total - self.totals[node] if count > 1 else total
            self.totals[node] = total
        return out


def without_spikes(graph: fx.GraphModule, batch: Tensor, silent: Callable[[fx.Node], bool]) -> dict[fx.Node, Tensor]:
    """What flows at every node, float64, when no neuron sends anything; 0 at those that are `silent` then."""
    constant: dict[fx.Node, Tensor] = {}
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            constant[node] = batch.double()
        elif node.op == "call_module":
            value = op_of(node)(*[constant[source] for source in arguments(node)])
            constant[node] = torch.zeros_like(value) if silent(node) else value
    return constant


def spike_values(graph: fx.GraphModule) -> set[fx.Node]:
    """The nodes that carry spikes of one neuron per element."""
    found: set[fx.Node] = set()
    for node, op in calls(graph):
        moves = op.role in (Role.MAXPOOL, Role.WIRING) and op.keeps_spikes
        from_spikes = bool(arguments(node)) and all(source in found for source in arguments(node))
        if op.role in (Role.NEURON, Role.DELAY) or (moves and from_spikes):
            found.add(node)
    return found
