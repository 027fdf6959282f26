"""`plain_phase` layer by layer: all steps of a layer at once, neurons by the native kernel.

Equal to the step-by-step engine in every spike. A value holds only the steps in which anything can arrive, so the
variants in which most layers are silent most of the time cost little.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from snnconvert.graph.dialect import arguments, op_of, output_nodes, role_of
from snnconvert.graph.kinds import Neuron, Role, Scale, Snap
from snnconvert.graph.types import Snn
from snnconvert.simulate.kernels import Native, choose
from snnconvert.simulate.kernels.layout import per_element
from snnconvert.simulate.kernels.native_windows import Emitter, Values, send_by_step
from snnconvert.simulate.result import Simulation, joined
from snnconvert.simulate.window_layers import in_order
from snnconvert.study.plain_phase import PhaseEngine

TARGET_BYTES = 32 * 2**20


@dataclass
class Train:
    """What flows at a node in `steps` (global, ascending) and nowhere else: (steps * batch, *sample), or None."""

    steps: list[int]
    tensor: Tensor | None

    def at(self, timesteps: int) -> list[int]:
        """For every global step the index of what arrives, or -1."""
        index = {step: i for i, step in enumerate(self.steps)}
        return [index.get(step, -1) for step in range(timesteps)]


NOTHING = Train([], None)


class PhaseLayers(PhaseEngine):
    """As `PhaseEngine`, in a fraction of its time where the native kernels are there, else the same step by step.

    Args and errors are those of `PhaseEngine`.
    """

    def __init__(self, snn: Snn, *, bistable: bool, synchronous: bool, gated: bool = True) -> None:
        super().__init__(snn, bistable=bistable, synchronous=synchronous, gated=gated)
        self.native = choose()
        self.waiting = {node for node in self._calls() if self._may_wait(node)}
        self.busy = [node for node in self._calls() if node not in self.waiting and self.depths[node.name] > 0]
        self.last_use = {source: node for node in self.busy for source in self._needs(node)}
        self.last_use = {node: user for node, user in self.last_use.items() if node not in output_nodes(self.graph)}
        self.rows: dict[tuple[fx.Node, str], Tensor] = {}
        widest = max(math.prod(node.meta["shape"]) for node in self.graph.graph.nodes if "shape" in node.meta)
        self.chunk = max(1, min(64, TARGET_BYTES // (4 * widest * self.schedule.timesteps)))
        self.still = self._constants(torch.zeros(1, *snn.input_shape))  # biases: the same for every image

    @torch.inference_mode()
    def run(self, batch: Tensor) -> Simulation:
        """Simulate one batch; see `PhaseEngine.run`."""
        if self.native is None:
            return super().run(batch)
        starts = range(0, len(batch), self.chunk)
        return joined([self._run_chunk(batch[start : start + self.chunk], self.native) for start in starts])

    def _run_chunk(self, images: Tensor, native: Native) -> Simulation:
        self.images = len(images)
        self.constant = self._with_images(images)
        trains: dict[fx.Node, Train] = {}
        spikes: dict[str, Tensor] = {}
        for node in self.busy:
            op = op_of(node)
            if isinstance(op, Neuron):
                trains[node], spikes[node.name] = self._neurons(node, op, native, trains)
            elif op.role == Role.DELAY:
                trains[node], spikes[node.name] = self._delayed(node, spikes, trains)
            else:
                self._train(node, trains)
            for source in [source for source in trains if self.last_use.get(source) is node]:
                del trains[source]
        phases = torch.tensor([self.weights[step % self.window] for step in range(self.schedule.timesteps)])
        outputs = tuple(self._read_out(node, trains[node]) for node in output_nodes(self.graph))
        return Simulation(outputs, spikes, {name: counts * phases for name, counts in spikes.items()})

    def _with_images(self, images: Tensor) -> dict[fx.Node, Tensor]:
        """What flows without any spike: computed for these images only where it depends on them."""
        constant: dict[fx.Node, Tensor] = {}
        own = set[fx.Node]()
        for node in self.graph.graph.nodes:
            if node.op == "placeholder":
                constant[node] = images.double()
                own.add(node)
            elif node.op == "call_module" and not self._spikes(node) and any(s in own for s in arguments(node)):
                constant[node] = op_of(node)(*[constant[source] for source in arguments(node)])
                own.add(node)
            elif node.op == "call_module":
                constant[node] = self.still[node].expand(len(images), *self.still[node].shape[1:])
        return constant

    # --- what is computed when ---

    def _may_wait(self, node: fx.Node) -> bool:
        """Whether the kernel of the neurons that read `node` computes it in passing."""
        readers = [user for user in node.users if user.op == "call_module"]
        op = op_of(node)
        summed = op.passes_units and op.role in (Role.JOIN, Role.AFFINE)
        if len(readers) != len(node.users) or not (op.repeatable or summed):
            return False
        single = len(readers) == 1 or op.repeatable  # what is read once may be overwritten
        return single and all(role_of(user) == Role.NEURON or self._may_wait(user) for user in readers)

    def _needs(self, node: fx.Node) -> list[fx.Node]:
        """The nodes whose trains computing `node` asks for."""
        sources = arguments(node)
        return [n for s in sources for n in ([s] if s not in self.waiting else self._needs(s))]

    # --- values ---

    def _neurons(self, node: fx.Node, op: Neuron, native: Native, trains: dict[fx.Node, Train]) -> tuple[Train, Tensor]:
        (source,), shape, steps = arguments(node), tuple(node.meta["shape"]), self.schedule.timesteps
        sending = [self.weights[step % self.window] * self.may_send(node, step) for step in range(steps)]
        terms = [*self._terms(source, trains), *self._shares(node)]
        threshold, initial = self._rows(node, "threshold", op.threshold), self._rows(node, "initial", op.initial)
        emitter = Emitter(self.images, shape, threshold, initial, op.row.negative, op.levels)
        units, counts = send_by_step(native, terms, emitter, sending)
        return Train([step for step in range(steps) if sending[step]], units), counts

    def _shares(self, node: fx.Node) -> list[Values]:
        """The constant current, spread over the steps in which the neurons take it in."""
        constant, last = self.constant[arguments(node)[0]], self.window - 1
        if not bool(constant.any()):
            return []
        at = []
        for step in range(self.schedule.timesteps):
            taken = not self.bistable or self._moment(self.depths[node.name], step).integrates
            at.append(int(step % self.window == last) if taken else -1)
        return [Values(torch.cat([self._share(constant, 0 if last else 1), self._share(constant, last)]), at=at)]

    def _terms(self, node: fx.Node, trains: dict[fx.Node, Train]) -> list[Values]:
        """What arrives at `node` as summands in their order."""
        op, steps = op_of(node) if node in self.waiting else None, self.schedule.timesteps
        if op is not None and op.role == Role.JOIN:
            parts = [part for part in (self._terms(source, trains) for source in arguments(node)) if part]
            found = in_order(parts) if len(parts) > 1 else (parts or [[]])[0]
            if found is not None:
                return found
        elif op is not None:
            (source,) = arguments(node)
            if isinstance(op, Snap):
                below = self._terms(source, trains)
                if len(below) <= 1 and not any(term.grid for term in below):
                    return [Values(term.tensor, term.factor, op.grid, term.at) for term in below]
            else:
                train = self._train(source, trains)
                if train.tensor is None or train.tensor.dtype == torch.float32:
                    assert isinstance(op, Scale)
                    factor = self._rows(node, "factor", op.factor)
                    return [] if train.tensor is None else [Values(train.tensor, factor, at=train.at(steps))]
        train = self._train(node, trains)
        if train.tensor is None:
            return []
        return [Values(train.tensor, at=train.at(steps) if len(train.steps) < steps else None, ours=self._ours(node))]

    def _ours(self, node: fx.Node) -> bool:
        return op_of(node).role == Role.WEIGHTED and len(node.users) == 1

    def _rows(self, node: fx.Node, name: str, parameter: Tensor) -> Tensor:
        if (node, name) not in self.rows:
            self.rows[node, name] = per_element(parameter.double(), tuple(node.meta["shape"]), torch.float64)
        return self.rows[node, name]

    def _delayed(self, node: fx.Node, spikes: dict[str, Tensor], trains: dict[fx.Node, Train]) -> tuple[Train, Tensor]:
        """A window later, or at once where synchronous neurons are switched off."""
        (source,), delay = arguments(node), self.window if self.synchronous else 0
        train, steps = self._train(source, trains), self.schedule.timesteps
        counts = torch.zeros(steps, dtype=torch.int64)
        if train.tensor is None:
            return NOTHING, counts
        kept = [step + delay for step in train.steps if step + delay < steps]
        tensor = train.tensor[: len(kept) * self.images]
        if source.name in spikes:
            counts[delay:] = spikes[source.name][: steps - delay]
        else:
            counts[kept] = tensor.view(len(kept), -1).count_nonzero(1)
        return (Train(kept, tensor) if kept else NOTHING), counts

    def _train(self, node: fx.Node, trains: dict[fx.Node, Train]) -> Train:
        if node not in trains:
            if node.op != "call_module" or self.depths[node.name] == 0:
                return NOTHING
            trains[node] = self._linear(node, [self._train(source, trains) for source in arguments(node)])
        return trains[node]

    def _linear(self, node: fx.Node, inputs: list[Train]) -> Train:
        linear, steps = self.fast[node], sorted({step for train in inputs for step in train.steps})
        assert linear is not None
        if not steps:
            return NOTHING
        own = next(linear.buffers(), None)
        given = []
        for train, source in zip(inputs, arguments(node), strict=True):
            tensor = self._at_steps(train, steps, tuple(source.meta["shape"]))
            given.append(tensor if own is None else tensor.to(own.dtype))
        if linear.role == Role.WEIGHTED and given[0].ndim == 4:
            given = [given[0].contiguous(memory_format=torch.channels_last)]
        moved: Tensor = linear(*given)
        return Train(steps, moved)

    def _at_steps(self, train: Train, steps: list[int], shape: tuple[int, ...]) -> Tensor:
        if train.tensor is None:
            return torch.zeros(len(steps) * self.images, *shape)
        if train.steps == steps:
            return train.tensor
        spread = train.tensor.new_zeros(len(steps), self.images, *shape)
        spread[[steps.index(step) for step in train.steps]] = train.tensor.view(-1, self.images, *shape)
        return spread.flatten(0, 1)

    def _read_out(self, node: fx.Node, train: Train) -> Tensor:
        """The running sum of an output, whenever a period or window has been read."""
        at, outputs = train.at(self.schedule.timesteps), []
        read = torch.zeros_like(self.constant[node])
        arrived = None if train.tensor is None else train.tensor.view(-1, self.images, *train.tensor.shape[1:])
        for step, index in enumerate(at):
            moment = self._moment(self.depths[node.name], step)
            if moment.sends or not self.bistable:
                read = read + self._share(self.constant[node], moment.phase)
                read = read if arrived is None or index < 0 else read + arrived[index]
                if moment.phase == self.window - 1:
                    outputs.append(read)
        return torch.stack(outputs)
