"""A network that goes on where it stopped: steps in pieces of any length, the state carried from one to the next.

In each piece time is folded into the batch for all operators but those that remember, which take up what they hold in
the state. Equal to the layer engine in every spike, whose memory grows with the number of steps; this one's does not.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, fx

from snnconvert.data.moving import OverTime
from snnconvert.errors import DataError
from snnconvert.graph.dialect import arguments, calls, op_of, output_nodes
from snnconvert.graph.kinds import Events, Neuron, Op, Role
from snnconvert.graph.schedule.timing import site_depths
from snnconvert.graph.types import Snn
from snnconvert.graph.walk import Plan
from snnconvert.neurons import State
from snnconvert.simulate.chunks import pieces
from snnconvert.simulate.moving_input import moving_nodes, refuse_moving
from snnconvert.simulate.over_time import by_frames, cast
from snnconvert.simulate.result import Simulation, one_after_the_other
from snnconvert.threads import threads_for


@dataclass(frozen=True)
class Carried:
    """Where a network has stopped.

    Attributes:
        step: steps that it has done.
        kept: what each node holds, by name: membranes and the spikes sent, sums of what came in, spikes held back.
    """

    step: int = 0
    kept: dict[str, tuple[Tensor, ...]] = field(default_factory=dict)


class StreamEngine:
    """Simulates a streaming or waiting network piece by piece.

    Args:
        snn: the network; not changed.

    Attributes:
        events_beyond: at how many places and steps more events came in than the network takes in.

    Raises:
        OptionError: the network's schedule needs an input that does not change.
    """

    def __init__(self, snn: Snn) -> None:
        refuse_moving(snn.graph, snn.schedule)
        self.snn, self.schedule = snn, snn.schedule
        self.nodes: list[fx.Node] = [node for node in snn.graph.graph.nodes if node.op != "output"]
        self.outputs = output_nodes(snn.graph)
        self.ops = dict(calls(snn.graph))
        self.depths = site_depths(snn.graph)
        self.moving = moving_nodes(snn.graph, moves=True)
        self.plan = Plan(self.nodes, kept=self.outputs)
        self.events_beyond = 0

    @torch.inference_mode()
    def run(self, inputs: Tensor, state: Carried, last: int | None = None) -> tuple[Simulation, Carried]:
        """Go on by as many steps as `inputs` has.

        Args:
            inputs: what comes in in each step, (steps, batch, *sample).
            state: where to go on.
            last: the frames of the whole run, after which no site takes in or sends any; None if there is no end.

        Returns:
            What happened in these steps (the sums of the outputs go on), and where the network has stopped.

        Raises:
            DataError: the state is that of another batch.
        """
        self.steps, self.batch, self.last = range(state.step, state.step + len(inputs)), inputs.shape[1], last
        self.before, self.kept = state.kept, dict[str, tuple[Tensor, ...]]()
        spikes, units, values = dict[str, Tensor](), dict[str, Tensor](), dict[fx.Node, Tensor]()
        for node in self.nodes:
            if node.op == "placeholder":
                values[node] = inputs.flatten(0, 1)
                continue
            op = self.ops[node]
            values[node] = self._value(node, op, [values[one] for one in arguments(node)])
            if op.role in (Role.NEURON, Role.DELAY):
                sent = by_frames(values[node], len(inputs))[self._own(self.depths[node.name])].flatten(1)
                spikes[node.name] = sent.count_nonzero(1)
                units[node.name] = sent.abs().sum(1, dtype=torch.float64).to(torch.int64)
            self.plan.forget(node, values)
        found = tuple(self._read_out(index, values[node]) for index, node in enumerate(self.outputs))
        return Simulation(found, spikes, units), Carried(self.steps.stop, self.kept)

    def _own(self, depth: int, *, late: int = 0) -> slice:
        """Of these steps those in which a site at `depth` sends its frames, from the `late`-th on."""
        first, begin = self.schedule.start(depth), self.steps.start
        end = None if self.last is None else max(0, first + self.last - begin)
        return slice(max(0, first + late - begin), end)

    def _known(self, name: str, like: Tensor) -> tuple[Tensor, ...] | None:
        found = self.before.get(name)
        if found is not None and found[0].shape != like.shape:
            raise DataError(
                f"the state is that of {len(found[0])} inputs, and there are {len(like)}",
                hint="go on with as many inputs as before, or begin anew",
            )
        return found

    # --- what remembers ---

    def _value(self, node: fx.Node, op: Op, inputs: list[Tensor]) -> Tensor:
        if op.role == Role.EVENTS:
            received, beyond = op_of(node, Events).received(inputs[0])
            self.events_beyond += beyond
            return received.float()
        if isinstance(op, Neuron):
            return self._neuron(node, op, by_frames(inputs[0], len(self.steps)))
        if op.role == Role.DELAY:
            return self._delayed(node, by_frames(inputs[0], len(self.steps)))
        if node in self.moving and op.role == Role.MAXPOOL:
            return self._of_sums(node, op, inputs, mean=False)
        if node in self.moving and op.role == Role.ANALOG:
            return self._of_sums(node, op, inputs, mean=True)
        with threads_for(op.work(*inputs)):
            value: Tensor = op(*cast(op, inputs))
            return value

    def _neuron(self, node: fx.Node, op: Neuron, current: Tensor) -> Tensor:
        current = current.to(op.threshold.dtype)
        known = self._known(node.name, current[0])
        state = op.row.init(current[0], op.initial) if known is None else State(known[0], *(known[1:] or (None,)))
        sent = torch.zeros(current.shape, dtype=torch.float32)
        depth = self.depths[node.name]
        taking, sending = (range(len(current))[self._own(each)] for each in (depth - 1, depth))
        for index, arriving in enumerate(current):
            if index in taking:
                state = State(state.v + arriving, state.sent)
            if index in sending:
                sent[index], state = op.row.fire(state, op.threshold, op.levels)
        self.kept[node.name] = (state.v,) if state.sent is None else (state.v, state.sent)
        return sent.flatten(0, 1)

    def _delayed(self, node: fx.Node, spikes: Tensor) -> Tensor:
        waited = self.schedule.waited
        held = self._known(node.name, spikes[:1].expand(waited, *spikes.shape[1:]))
        before = spikes.new_zeros((waited, *spikes.shape[1:])) if held is None else held[0]
        whole = torch.cat([before, spikes])
        self.kept[node.name] = (whole[len(spikes) :],)
        return whole[: len(spikes)].flatten(0, 1)

    def _of_sums(self, node: fx.Node, op: Op, inputs: list[Tensor], *, mean: bool) -> Tensor:
        """By how much `op` of all that came in so far, or t times `op` of its mean, has grown in each step."""
        known, steps, first = self.before.get(node.name), len(self.steps), self.schedule.start(self.depths[node.name])
        times = torch.arange(self.steps.start, self.steps.stop, dtype=torch.float64) + 1 - first
        sums = list[Tensor]()
        for index, value in enumerate(inputs):
            each = by_frames(value.double(), steps) * _along(times > 0, value)
            if known is not None:
                each = torch.cat([(known[index] + each[0]).unsqueeze(0), each[1:]])
            sums.append(each.cumsum(0))
        weights = times.clamp(min=1) if mean else torch.ones_like(times)
        parts = [(each / _along(weights, each[0])).flatten(0, 1) for each in sums]
        total = by_frames(op(*cast(op, parts)).double(), steps)
        total = total * _along(weights * (times > 0), total[0])
        before = torch.zeros_like(total[:1]) if known is None else known[-1].unsqueeze(0)
        self.kept[node.name] = (*(each[-1] for each in sums), total[-1])
        return (total - torch.cat([before, total[:-1]])).flatten(0, 1)

    def _read_out(self, index: int, value: Tensor) -> Tensor:
        own = self._own(self.snn.schedule.depth, late=self.schedule.read_from)
        read = by_frames(value, len(self.steps))[own].double()
        known = self.before.get(f"output {index}")
        if known is not None and len(read):
            read = torch.cat([(known[0] + read[0]).unsqueeze(0), read[1:]])
        read = read.cumsum(0)
        if len(read) or known is not None:
            self.kept[f"output {index}"] = (read[-1],) if len(read) else (known or ())
        return read


def in_pieces(snn: Snn, inputs: OverTime) -> tuple[Simulation, int]:
    """A whole run, as many steps at a time as take a fixed amount of memory.

    Returns:
        The same as the layer engine does, and `events_beyond`.
    """
    engine, state, parts = StreamEngine(snn), Carried(), list[Simulation]()
    for start, stop in pieces(snn, len(inputs), snn.schedule.timesteps):
        part, state = engine.run(inputs.frames(start, stop), state, snn.schedule.frames)
        parts.append(part)
    return one_after_the_other(parts), engine.events_beyond


def _along(by_step: Tensor, like: Tensor) -> Tensor:
    """One number a step, shaped to multiply (steps, *shape of `like`)."""
    return by_step.reshape(-1, *[1] * like.ndim)
