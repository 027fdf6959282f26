"""Phase coding without its cures: what bistable and synchronous neurons are compared with.

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

import math
from typing import NamedTuple

import torch
from torch import Tensor, fx

from snnconvert.errors import InternalError
from snnconvert.graph.dialect import arguments, calls, op_of, origin_of, output_nodes
from snnconvert.graph.edit import copied
from snnconvert.graph.kinds import Neuron, Role
from snnconvert.graph.schedule.timing import site_depths
from snnconvert.graph.types import Snn
from snnconvert.graph.walk import walk
from snnconvert.neurons.bistable import fire_phase
from snnconvert.simulate.bistable_engine import BistableEngine
from snnconvert.simulate.kernels import Native, choose
from snnconvert.simulate.kernels.layout import per_element
from snnconvert.simulate.kernels.native_windows import Emitter, Values, send_by_step
from snnconvert.simulate.result import Simulation, joined

TARGET_BYTES = 32 * 2**20


class Train(NamedTuple):
    """What a node sends in `steps` (global, ascending) and nowhere else: (steps * batch, *sample)."""

    steps: list[int]
    tensor: Tensor


def rigid_operators(snn: Snn) -> list[str]:
    """Origins of the operators that `PhaseCoding` cannot serve."""
    depths = site_depths(snn.graph)
    return [str(origin_of(node)) for node, op in calls(snn.graph) if depths[node.name] > 0 and op.linear_part() is None]


class PhaseCoding(BistableEngine):
    """Simulates a bistable network with one or both cures switched off, all steps of a layer at once.

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
        if rigid := rigid_operators(snn):
            raise InternalError("plain phase coding serves linear operators only", causes=tuple(rigid))
        originals = zip(copied(snn.graph).graph.nodes, self.graph.graph.nodes, strict=True)
        self.fast = {own: op_of(node).linear_part() for node, own in originals if node.op == "call_module"}
        self.native, self.steps = choose(), range(self.schedule.timesteps)
        widest = max(math.prod(node.meta["shape"]) for node in self.graph.graph.nodes if "shape" in node.meta)
        self.chunk = max(1, min(64, TARGET_BYTES // (4 * widest * len(self.steps))))

    @torch.inference_mode()
    def run(self, batch: Tensor) -> Simulation:
        """Simulate one batch; outputs are read after every period (or window), spikes are per global step.

        Outputs have shape (answers, batch, *classes), counts (timesteps,).
        """
        starts = range(0, len(batch), self.chunk)
        return joined([self._run_chunk(batch[start : start + self.chunk]) for start in starts])

    def answer_steps(self) -> list[int]:
        """The steps (1-based) after which outputs are read."""
        if self.bistable:
            return self.schedule.answer_steps
        return list(range(self.window, len(self.steps) + 1, self.window))

    def _run_chunk(self, images: Tensor) -> Simulation:
        self.images, self.constant = len(images), self._constants(images)
        counts: dict[str, Tensor] = {}
        outputs: dict[fx.Node, Tensor] = {}
        for node, _, train in walk(self.graph, None, self._train):
            if node.op == "call_module" and self._spikes(node):
                counts[node.name] = torch.zeros(len(self.steps), dtype=torch.int64)
                for step, sent in self._by_step(train).items():
                    counts[node.name][step] = sent.count_nonzero()
            if node in output_nodes(self.graph):
                outputs[node] = self._read_out(node, train)
        carried = torch.tensor([self.weights[step % self.window] for step in self.steps])
        units = {name: fired * carried for name, fired in counts.items()}
        return Simulation(tuple(outputs[node] for node in output_nodes(self.graph)), counts, units)

    # --- what happens when ---

    def _may_send(self, node: fx.Node, step: int) -> bool:
        depth = self.depths[node.name]
        moment = self._moment(depth, step)
        early = not self.gated and moment.frame < 0 and (step // self.window - depth) % 2 == 0
        return moment.sends or early or not self.bistable

    def _takes_constants(self, node: fx.Node, step: int) -> bool:
        return not self.bistable or self._moment(self.depths[node.name], step).integrates

    # --- values ---

    def _train(self, node: fx.Node, inputs: list[Train | None]) -> Train | None:
        """What `node` sends; None where it never sends anything."""
        op = op_of(node)
        if isinstance(op, Neuron):
            return self._neurons(node, op, inputs[0])
        if op.role == Role.DELAY:
            return self._delayed(inputs[0])
        return self._linear(node, inputs) if self.depths[node.name] > 0 else None

    def _neurons(self, node: fx.Node, op: Neuron, arriving: Train | None) -> Train | None:
        sending = [self.weights[step % self.window] * self._may_send(node, step) for step in self.steps]
        steps = [step for step in self.steps if sending[step]]
        if not steps:
            return None
        if self.native is not None:
            return Train(steps, self._by_kernel(self.native, node, op, arriving, sending))
        constant, arrived, sent = self.constant[arguments(node)[0]], self._by_step(arriving), []
        v = torch.zeros_like(constant) + op.initial
        for step in self.steps:
            if self._takes_constants(node, step):
                v = v + self._share(constant, step % self.window)
            if step in arrived:
                v = v + arrived[step]
            if sending[step]:
                units, v = fire_phase(v, op.threshold, sending[step], negative=op.row.negative)
                sent.append(units.float())
        return Train(steps, torch.cat(sent))

    def _by_kernel(
        self, native: Native, node: fx.Node, op: Neuron, arriving: Train | None, sending: list[int]
    ) -> Tensor:
        (source,), shape, terms = arguments(node), tuple(node.meta["shape"]), list[Values]()
        if arriving is not None:
            places = {step: place for place, step in enumerate(arriving.steps)}
            at = None if len(places) == len(self.steps) else [places.get(step, -1) for step in self.steps]
            unread = op_of(source).role == Role.WEIGHTED and len(source.users) == 1
            terms.append(Values(arriving.tensor, at=at, ours=unread))
        if bool(self.constant[source].any()):
            shares = torch.cat([self._share(self.constant[source], phase) for phase in (0, self.window - 1)])
            last = [int(step % self.window == self.window - 1) for step in self.steps]
            terms.append(Values(shares, at=[last[t] if self._takes_constants(node, t) else -1 for t in self.steps]))
        threshold, initial = (per_element(p.double(), shape, torch.float64) for p in (op.threshold, op.initial))
        emitter = Emitter(self.images, shape, threshold, initial, op.row.negative, op.levels)
        return send_by_step(native, terms, emitter, sending)[0]

    def _delayed(self, train: Train | None) -> Train | None:
        """A window later, or at once where synchronous neurons are switched off."""
        if train is None or not self.synchronous:
            return train
        steps = [step + self.window for step in train.steps if step + self.window < len(self.steps)]
        return Train(steps, train.tensor[: len(steps) * self.images]) if steps else None

    def _linear(self, node: fx.Node, inputs: list[Train | None]) -> Train | None:
        linear, steps = self.fast[node], sorted({step for train in inputs if train for step in train.steps})
        assert linear is not None
        if not steps:
            return None
        own, given = next(linear.buffers(), None), []
        for train, source in zip(inputs, arguments(node), strict=True):
            tensor = self._spread(train, steps, source)
            given.append(tensor if own is None else tensor.to(own.dtype))
        moved: Tensor = linear(*given)
        return Train(steps, moved)

    def _spread(self, train: Train | None, steps: list[int], source: fx.Node) -> Tensor:
        """What arrives in each of `steps`, with zeros where nothing does."""
        if train is not None and train.steps == steps:
            return train.tensor
        like = self.constant[source]
        spread = torch.zeros(len(steps), *like.shape, dtype=torch.float32 if train is None else train.tensor.dtype)
        if train is not None:
            spread[[steps.index(step) for step in train.steps]] = train.tensor.view(-1, *like.shape)
        return spread.flatten(0, 1)

    def _by_step(self, train: Train | None) -> dict[int, Tensor]:
        if train is None:
            return {}
        return dict(zip(train.steps, train.tensor.view(-1, self.images, *train.tensor.shape[1:]), strict=True))

    def _read_out(self, node: fx.Node, train: Train | None) -> Tensor:
        """The running sum of an output, whenever a period or window has been read."""
        arrived = self._by_step(train)
        read, outputs = torch.zeros_like(self.constant[node]), []
        for step in self.steps:
            moment = self._moment(self.depths[node.name], step)
            if moment.sends or not self.bistable:
                read = read + self._share(self.constant[node], moment.phase) + arrived.get(step, 0.0)
                if moment.phase == self.window - 1:
                    outputs.append(read)
        return torch.stack(outputs)
