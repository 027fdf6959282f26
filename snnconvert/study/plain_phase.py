"""Phase coding without its cures: what benchmarks compare bistable and synchronous neurons with.

Plain phase coding (Kim et al. 2018, weighted spikes): a spike at phase k of a period of K steps carries 2^(K-1-k)
units, and every neuron integrates and fires in every step. A neuron may then fire at a phase before all inputs of the
period are in, and cannot take it back. Either cure can be switched on by itself:

    bistable      neurons send in every second window only; what arrives while they send (a shortcut that is not held
                  back) is integrated on arrival. `gated` neurons send nothing before their own first window, so that
                  what comes too early for it waits in the membrane; others alternate from the start.
    synchronous   shortcuts are held back by one window per site they skip

With both, this is the bistable network itself (tested against its oracle).
"""

from __future__ import annotations

import torch
from torch import Tensor, fx

from snnconvert.errors import InternalError
from snnconvert.graph.dialect import arguments, calls, neurons_of, op_of, origin_of, output_nodes
from snnconvert.graph.edit import copied
from snnconvert.graph.kinds import Neuron, Op, Role
from snnconvert.graph.schedule.timing import site_depths
from snnconvert.graph.types import Snn
from snnconvert.neurons.bistable import fire_phase
from snnconvert.simulate.bistable_engine import BistableEngine
from snnconvert.simulate.result import Simulation


def rigid_operators(snn: Snn) -> list[str]:
    """Origins of the operators that `PhaseEngine` cannot serve."""
    depths = site_depths(snn.graph)
    return [str(origin_of(node)) for node, op in calls(snn.graph) if depths[node.name] > 0 and op.linear_part() is None]


class PhaseEngine(BistableEngine):
    """Simulates a bistable network with one or both cures switched off, step by step.

    Args:
        snn: a network in a bistable schedule, without max pooling or non-linear operators after the first neurons.
        bistable: whether neurons keep apart integrating and sending.
        synchronous: whether synchronous neurons hold spikes back.
        gated: whether bistable neurons keep still until their first window.

    Raises:
        InternalError: for operators that are not linear.
    """

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

    def answer_steps(self) -> list[int]:
        """The steps (1-based) after which outputs are read."""
        if self.bistable:
            return self.schedule.answer_steps
        return list(range(self.window, self.schedule.timesteps + 1, self.window))

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
