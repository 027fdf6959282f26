"""The oracle of time to first spike in continuous time: spikes sorted by time, one after the other.

Every layer's window is one unit of time long. A neuron of depth d starts at t = d - 1 with what is the same in all
steps (biases, the input). A spike that arrives at t_j adds its weights to the slopes of the membranes that it reaches;
between spikes membranes grow by their slopes. At t = d the slope becomes the threshold, so that v reaches it at

    t_i = d + 1 - v / threshold     where v > 0, and at the window's start where v exceeds the threshold

(Stanojevic et al. 2023 and 2024, the mapping with a constant slope at the threshold; `neurons.first_spike`). Of a value
that may be negative a second neuron of opposite weights sends -1. Slow and literal on purpose.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from snnconvert.errors import InternalError
from snnconvert.graph.dialect import arguments, op_of, output_nodes
from snnconvert.graph.edit import copied
from snnconvert.graph.kinds import Conv, Linear, Neuron, Op, Role
from snnconvert.graph.schedule.timing import site_depths
from snnconvert.graph.types import Snn
from snnconvert.simulate.bistable_engine import without_spikes

Floats = NDArray[np.float64]
AT_ONCE = 256


@dataclass(frozen=True)
class Events:
    """The spikes of one site for one input, sorted by time.

    Attributes:
        times: of each spike.
        neurons: flat index of each neuron that spikes.
        signs: 1, or -1 of the neurons for values below zero.
        shape: of the site's sample.
    """

    times: Floats
    neurons: NDArray[np.int64]
    signs: Floats
    shape: tuple[int, ...]


class EventEngine:
    """Simulates one input after the other, spike by spike.

    Args:
        snn: a network of first spikes in continuous time; not changed.
    """

    def __init__(self, snn: Snn) -> None:
        if not snn.schedule.continuous:
            raise InternalError("only continuous time has events")
        self.graph = copied(snn.graph).double()
        self.depths = site_depths(self.graph)
        self.calls = [node for node in self.graph.graph.nodes if node.op == "call_module"]
        self.reach: dict[fx.Node, _Reach] = {}

    @torch.inference_mode()
    def run(self, batch: Tensor) -> tuple[list[Floats], list[dict[str, Events]]]:
        """Each output (batch, *sample), and for each input the spikes of every site by name."""
        outputs: list[list[Floats]] = [[] for _ in output_nodes(self.graph)]
        sent: list[dict[str, Events]] = []
        for image in batch:
            constant = without_spikes(self.graph, image.unsqueeze(0), self._carries)
            events: dict[fx.Node, Events] = {}
            for node in self.calls:
                found = self._events(node, op_of(node), events, constant)
                if found is not None:
                    events[node] = found
            sent.append({node.name: one for node, one in events.items() if op_of(node).role == Role.NEURON})
            for kept, node in zip(outputs, output_nodes(self.graph), strict=True):
                kept.append(self._integrated(node, events, constant).reshape(node.meta["shape"]))
        return [np.stack(kept) for kept in outputs], sent

    def _carries(self, node: fx.Node) -> bool:
        """Whether spikes leave it one by one."""
        op = op_of(node)
        return op.role in (Role.NEURON, Role.DELAY) or (op.role == Role.MAXPOOL and self.depths[node.name] > 0)

    def _events(
        self, node: fx.Node, op: Op, events: dict[fx.Node, Events], constant: dict[fx.Node, Tensor]
    ) -> Events | None:
        if not self._carries(node):
            return None
        (source,) = arguments(node)
        if op.role == Role.DELAY:
            held = events[source]
            return Events(held.times + 1.0, held.neurons, held.signs, held.shape)
        if op.role == Role.MAXPOOL:
            return self._first_of_each(node, op, events[source])
        neuron = op_of(node, Neuron)
        v = self._integrated(source, events, constant)
        threshold = np.broadcast_to(neuron.threshold.numpy(), node.meta["shape"]).reshape(-1)
        share = v / threshold
        spikes = np.abs(share) > 0 if neuron.row.negative else share > 0
        times = self.depths[node.name] + 1.0 - np.minimum(np.abs(share[spikes]), 1.0)
        order = np.argsort(times, kind="stable")
        which = np.flatnonzero(spikes)[order]
        return Events(times[order], which, np.sign(share[which]), tuple(node.meta["shape"]))

    def _first_of_each(self, node: fx.Node, op: Op, arrived: Events) -> Events:
        """Max pooling: the first spike of each window passes, the others do not."""
        reach = self.reach.setdefault(node, _Reach(op, arrived.shape))
        passed = np.zeros(math.prod(node.meta["shape"]), bool)
        times, neurons = [], []
        for time, neuron in zip(arrived.times.tolist(), arrived.neurons.tolist(), strict=True):
            for index in reach(neuron)[0]:
                if not passed[index]:
                    passed[index] = True
                    times.append(time)
                    neurons.append(index)
        return Events(np.array(times), np.array(neurons, np.int64), np.ones(len(times)), tuple(node.meta["shape"]))

    def _integrated(self, node: fx.Node, events: dict[fx.Node, Events], constant: dict[fx.Node, Tensor]) -> Floats:
        """The membrane, flat, that the value of `node` makes by the end of the window in which it arrives."""
        v = constant[node].numpy().reshape(-1).copy()
        slope = np.zeros_like(v)
        paths = self._paths(node)
        if not paths:
            return v
        sources = list(dict.fromkeys(source for source, _ in paths))
        times = np.concatenate([events[source].times for source in sources])
        which = np.concatenate([np.full(len(events[source].times), at) for at, source in enumerate(sources)])
        place = np.concatenate([np.arange(len(events[source].times)) for source in sources])
        end = float(self.depths[node.name] + 1)
        now = end - 1.0
        for index in np.argsort(times, kind="stable").tolist():
            source = sources[which[index]]
            sign = events[source].signs[place[index]]
            v += slope * (times[index] - now)
            now = times[index]
            for start, path in paths:
                if start is source:
                    where, weights = self._pushed(path, int(events[source].neurons[place[index]]), source)
                    np.add.at(slope, where, sign * weights)
        return v + slope * (end - now)

    def _paths(self, node: fx.Node) -> list[tuple[fx.Node, tuple[fx.Node, ...]]]:
        """Every way that spikes take to `node`: where it begins, and the operators on it."""
        if node.op != "call_module" or self.depths[node.name] == 0:
            return []
        if self._carries(node):
            return [(node, ())]
        return [(start, (*path, node)) for source in arguments(node) for start, path in self._paths(source)]

    def _pushed(self, path: tuple[fx.Node, ...], neuron: int, source: fx.Node) -> tuple[NDArray[np.int64], Floats]:
        """Where one spike arrives, and with which weights."""
        where, weights, shape = np.array([neuron]), np.ones(1), tuple(source.meta["shape"])
        for node in path:
            op = op_of(node)
            if op.role != Role.JOIN:
                reach = self.reach.get(node)
                if reach is None:
                    linear = op.linear_part()
                    if linear is None:
                        raise InternalError(f"{node.name} is not linear")
                    reach = self.reach[node] = _Reach(linear, shape)
                parts = [reach(int(one)) for one in where]
                weights = np.concatenate([by * each for by, (_, each) in zip(weights, parts, strict=True)])
                where = np.concatenate([there for there, _ in parts])
            shape = tuple(node.meta["shape"])
        return where, weights


class _Reach:
    """The places that one input of a linear operator reaches, with their weights; each input's are found once."""

    def __init__(self, op: Op, shape: tuple[int, ...]) -> None:
        self.op, self.shape = op, shape
        self.known: dict[int, tuple[NDArray[np.int64], Floats]] = {}

    def __call__(self, index: int) -> tuple[NDArray[np.int64], Floats]:
        if index not in self.known:
            match self.op:
                case Conv() if len(self.shape) == 3:
                    self.known[index] = self._of_convolution(self.op, index)
                case Linear() if len(self.shape) == 1:
                    column = self.op.weight[:, index].numpy()
                    self.known[index] = np.arange(len(column)), column
                case _:
                    self._of_some(index)
        return self.known[index]

    def _of_convolution(self, op: Conv, index: int) -> tuple[NDArray[np.int64], Floats]:
        _, height, width = self.shape
        channel, at = divmod(index, height * width)
        weight = op.weight.numpy()
        made = [
            (size + 2 * pad - step * (kernel - 1) - 1) // stride + 1
            for size, pad, step, kernel, stride in zip(
                (height, width), op.padding, op.dilation, weight.shape[2:], op.stride, strict=True
            )
        ]
        per_group, inner = weight.shape[0] // op.groups, weight.shape[1]
        outputs = np.arange(per_group) + channel // inner * per_group
        where, weights = [], []
        for taps in product(*map(range, weight.shape[2:])):
            places = []
            for axis, tap in enumerate(taps):
                position = divmod(at, width)[axis] + op.padding[axis] - tap * op.dilation[axis]
                place, rest = divmod(position, op.stride[axis])
                places.append(place if rest == 0 and 0 <= place < made[axis] else -1)
            if min(places) >= 0:
                where.append(outputs * (made[0] * made[1]) + places[0] * made[1] + places[1])
                weights.append(weight[outputs, channel % inner, taps[0], taps[1]])
        none = np.zeros(0, np.int64), np.zeros(0)
        return (np.concatenate(where), np.concatenate(weights)) if where else none

    @torch.inference_mode()
    def _of_some(self, index: int) -> None:
        """Of this input and those that follow it, by what the operator makes of ones at each alone."""
        size = math.prod(self.shape)
        first = index - index % AT_ONCE
        chosen = range(first, min(size, first + AT_ONCE))
        ones = torch.zeros(len(chosen), size, dtype=torch.float64)
        ones[torch.arange(len(chosen)), torch.tensor(chosen)] = 1.0
        made = self.op(ones.view(-1, *self.shape)).flatten(1).numpy()
        for one, row in zip(chosen, made, strict=True):
            places = np.flatnonzero(row)
            self.known[one] = places, row[places]
