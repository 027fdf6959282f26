"""The oracle of serial schedules: one global time step after the other, every count, product and threshold spelled out.

At global step t the window is w = t // K and the phase k = t % K. A site at depth d
    integrates  in all windows before d what arrives, and in window d - 1 a K-th of every constant current in each step;
    sends       in window d, phase by phase: of plain neurons P_k units if the membrane reaches P_k thresholds; of those
                with two inputs the same with thresholds times what the second has sent; of those that send a function
                of their membrane the power of two of the slot, where that is the nearest to what is left.
A product of two streams adds, for the spikes a and b of a step, S <- S + a B + A b with the counts A before the step
and B after it; a square grows by s (2 n + s).

Slow and literal on purpose; everything is float64. The layer engine must equal it in every spike count.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx

from snnconvert.graph.dialect import arguments, op_of, output_nodes
from snnconvert.graph.edit import kind_of
from snnconvert.graph.kinds import CodedNeuron, MaxPool, Neuron, Op, Product, Role, Squares
from snnconvert.neurons.bistable import fire_phase
from snnconvert.neurons.power_of_two import fire_slot
from snnconvert.simulate.bistable_engine import BistableEngine, Moment, without_spikes
from snnconvert.simulate.result import Simulation


class SerialEngine(BistableEngine):
    """Simulates a serial network step by step."""

    @torch.inference_mode()
    def run(self, batch: Tensor) -> Simulation:
        """Simulate one batch of inputs, shape (batch, *sample), from a fresh state."""
        self.constant = self._constants(batch)
        self.membrane: dict[fx.Node, Tensor] = {}
        self.memory: dict[fx.Node, tuple[Tensor, ...]] = {}
        self.sending: dict[fx.Node, tuple[Tensor, Tensor]] = {}
        sent: dict[str, list[tuple[int, int]]] = {}
        outputs = output_nodes(self.graph)
        read = [self.constant[node] for node in outputs]
        for step in range(self.schedule.timesteps):
            values: dict[fx.Node, Tensor] = {}
            for node in self._calls():
                moment = self._moment(self.depths[node.name], step)
                inputs = [self._moving(source, values) for source in arguments(node)]
                values[node] = self._at(node, op_of(node), inputs, moment)
                if self._spikes(node) and moment.sends:
                    units = values[node].abs()
                    sent.setdefault(node.name, []).append((int(units.count_nonzero()), int(units.sum())))
            read = [total + self._moving(node, values) for total, node in zip(read, outputs, strict=True)]
        counts = {name: torch.tensor(steps, dtype=torch.int64).T for name, steps in sent.items()}
        answers = tuple(total.unsqueeze(0) for total in read)
        return Simulation(answers, *({name: one[row] for name, one in counts.items()} for row in (0, 1)))

    def _constants(self, batch: Tensor) -> dict[fx.Node, Tensor]:
        """What flows without spikes; what is added to squares is there then, other functions wait."""

        def silent(node: fx.Node) -> bool:
            waits = self.linear[node] is None and op_of(node).role != Role.PRODUCT
            return self._spikes(node) or (self.depths[node.name] > 0 and waits)

        return without_spikes(self.graph, batch, silent)

    def _moment(self, depth: int, step: int) -> Moment:
        window, phase = divmod(step, self.window)
        return Moment(0, phase, sends=window == depth, integrates=window == depth - 1)

    def _at(self, node: fx.Node, op: Op, inputs: list[Tensor], moment: Moment) -> Tensor:
        if op.role == Role.NEURON:
            return self._fire(node, op_of(node, Neuron), inputs, moment)
        if self.depths[node.name] == 0:
            return torch.zeros_like(self.constant[node])
        if op.role == Role.PRODUCT:
            return self._multiplied(node, inputs)
        if op.role == Role.MAXPOOL and arguments(node)[0] in self.spiking:
            if not moment.sends:
                return torch.zeros_like(self.constant[node])
            return self._max_pool(node, op_of(node, MaxPool), inputs[0], moment)
        linear = None if kind_of(node) == "Snap" else self.linear[node]
        return self._as_a_whole(node, op, inputs, moment) if linear is None else linear(*inputs)

    def _fire(self, node: fx.Node, op: Neuron, inputs: list[Tensor], moment: Moment) -> Tensor:
        """What a neuron sends in this step, in units."""
        if not moment.sends:
            before = self.memory.get(node, tuple(torch.zeros_like(one) for one in inputs))
            if moment.integrates:
                inputs = [
                    one + self._share(self.constant[source], moment.phase)
                    for one, source in zip(inputs, arguments(node), strict=True)
                ]
            self.memory[node] = tuple(total + one for total, one in zip(before, inputs, strict=True))
            return torch.zeros_like(self.constant[node])
        membrane, *others = self.memory[node]
        threshold, initial = op.scaled(*others)
        if moment.phase == 0:
            self.membrane[node] = membrane + initial
        if not op.slots:
            sent, self.membrane[node] = fire_phase(
                self.membrane[node], threshold, self.weights[moment.phase], negative=op.row.negative
            )
            return sent.clamp(-op.levels, op.levels)
        return self._fire_slot(node, op_of(node, CodedNeuron), moment.phase)

    def _fire_slot(self, node: fx.Node, op: CodedNeuron, phase: int) -> Tensor:
        if phase == 0:
            left = torch.full_like(self.membrane[node], op.spikes)
            self.sending[node] = op.shaped(self.membrane[node]), left
        power = op.slots - 1 - phase
        if power < 0:
            return torch.zeros_like(self.membrane[node])
        sent, *rest = fire_slot(*self.sending[node], power)
        self.sending[node] = rest[0], rest[1]
        return sent * 2.0**power

    def _multiplied(self, node: fx.Node, inputs: list[Tensor]) -> Tensor:
        """By how much a product of counts, or a sum of squares, grows in this step."""
        counted = self.memory.get(node, tuple(torch.zeros_like(one) for one in inputs))
        after = tuple(total + one for total, one in zip(counted, inputs, strict=True))
        self.memory[node] = after
        if kind_of(node) == "Squares":
            (spikes,), (count,) = inputs, counted
            weight = op_of(node, Squares).weight
            assert weight is not None
            return torch.sum(spikes * (2 * count + spikes) * weight, -1, keepdim=True)
        return op_of(node, Product).worth(inputs[0] @ after[1] + counted[0] @ inputs[1])

    def _as_a_whole(self, node: fx.Node, op: Op, inputs: list[Tensor], moment: Moment) -> Tensor:
        """A rounding of a sum grows with it; another function is there once all that it reads is."""
        before = self.memory.get(node, tuple(self.constant[source] for source in arguments(node)))
        after = tuple(total + one for total, one in zip(before, inputs, strict=True))
        self.memory[node] = after
        if kind_of(node) == "Snap":
            grown: Tensor = op(*after) - op(*before)
            return grown
        last = moment.sends and moment.phase == self.window - 1
        value: Tensor = op(*after)
        return value if last else torch.zeros_like(value)
