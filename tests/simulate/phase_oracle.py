"""The oracle of `study/phase_coding`: one global time step after the other."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from snnconvert.errors import InternalError
from snnconvert.graph.dialect import arguments, neurons_of, op_of, output_nodes
from snnconvert.graph.edit import copied
from snnconvert.graph.kinds import Neuron, Op, Role
from snnconvert.graph.types import Snn
from snnconvert.neurons.bistable import fire_phase
from snnconvert.simulate.bistable_engine import BistableEngine
from snnconvert.simulate.result import Simulation
from snnconvert.study.phase_coding import rigid_operators


class PhaseEngine(BistableEngine):
    """As `PhaseCoding`, step by step; args and errors are the same."""

    def __init__(self, snn: Snn, *, bistable: bool, synchronous: bool, gated: bool = True) -> None:
        super().__init__(snn)
        self.bistable, self.synchronous, self.gated = bistable, synchronous, gated
        originals = zip(copied(snn.graph).graph.nodes, self.graph.graph.nodes, strict=True)
        self.fast = {own: op_of(node).linear_part() for node, own in originals if node.op == "call_module"}
        if rigid := rigid_operators(snn):
            raise InternalError("plain phase coding serves linear operators only", causes=tuple(rigid))

    @torch.inference_mode()
    def run(self, batch: Tensor) -> Simulation:
        """Simulate one batch; outputs are read after every period (or window), spikes are per global step.

        Outputs have shape (answers, batch, *classes), counts (timesteps,).
        """
        self.constant = self._constants(batch)
        self.membrane = {
            node: torch.zeros_like(self.constant[node]) + op.initial for node, op in neurons_of(self.graph).items()
        }
        self.held: dict[fx.Node, list[Tensor | None]] = {}
        steps = self.schedule.timesteps
        spikes = {n.name: torch.zeros(steps, dtype=torch.int64) for n in self._calls() if self._spikes(n)}
        units = {name: torch.zeros_like(counts) for name, counts in spikes.items()}
        read = [torch.zeros_like(self.constant[node]) for node in output_nodes(self.graph)]
        outputs: list[list[Tensor]] = [[] for _ in read]
        for step in range(steps):
            sent: dict[fx.Node, Tensor | None] = {}
            for node in self._calls():
                inputs = [sent.get(source) for source in arguments(node)]
                sent[node] = self._advance(node, op_of(node), inputs, step)
                value = sent[node]
                if node.name in spikes and value is not None:
                    spikes[node.name][step] = value.count_nonzero()
                    units[node.name][step] = int(value.abs().sum(dtype=torch.float64))
            for index, node in enumerate(output_nodes(self.graph)):
                moment = self._moment(self.depths[node.name], step)
                if moment.sends or not self.bistable:
                    read[index] = read[index] + self._share(self.constant[node], moment.phase)
                    arrived = sent[node]
                    read[index] = read[index] if arrived is None else read[index] + arrived
                    if moment.phase == self.window - 1:
                        outputs[index].append(read[index])
        return Simulation(tuple(torch.stack(kept) for kept in outputs), spikes, units)

    def may_send(self, node: fx.Node, step: int) -> bool:
        """Whether the neurons at `node` may send in this step."""
        depth = self.depths[node.name]
        moment = self._moment(depth, step)
        early = not self.gated and moment.frame < 0 and (step // self.window - depth) % 2 == 0
        return moment.sends or early or not self.bistable

    def _advance(self, node: fx.Node, op: Op, inputs: list[Tensor | None], step: int) -> Tensor | None:
        """What moves at `node` in this step; None where nothing does."""
        if isinstance(op, Neuron):
            return self._phase_neuron(node, op, inputs[0], step)
        if op.role == Role.DELAY:
            if not self.synchronous:
                return inputs[0]
            held = self.held.setdefault(node, [None] * self.window)
            held.append(inputs[0])
            return held.pop(0)
        if all(value is None for value in inputs):
            return None
        linear = self.fast[node]
        assert linear is not None
        own = next(linear.buffers(), None)
        given = []
        for value, source in zip(inputs, arguments(node), strict=True):
            present = torch.zeros_like(self.constant[source]) if value is None else value
            given.append(present if own is None else present.to(own.dtype))
        moved: Tensor = linear(*given)
        return moved

    def _phase_neuron(self, node: fx.Node, op: Neuron, current: Tensor | None, step: int) -> Tensor | None:
        moment, v = self._moment(self.depths[node.name], step), self.membrane[node]
        if moment.integrates or not self.bistable:
            share = self._share(self.constant[arguments(node)[0]], moment.phase)
            current = share if current is None else current + share
        if current is not None:
            v = v + current
        out: Tensor | None = None
        if self.may_send(node, step):
            out, v = fire_phase(v, op.threshold, self.weights[moment.phase], negative=op.row.negative)
            out = out.float()
        self.membrane[node] = v
        return out
