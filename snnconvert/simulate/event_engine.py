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
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, fx

from snnconvert.errors import InternalError
from snnconvert.graph.dialect import arguments, op_of, output_nodes
from snnconvert.graph.edit import copied
from snnconvert.graph.kinds import Neuron, Op, Role
from snnconvert.graph.schedule.timing import site_depths
from snnconvert.graph.types import Snn
from snnconvert.simulate.bistable_engine import without_spikes
from snnconvert.simulate.synapses import Floats, Places, Reached, Synapses, synapses

# the operators between a site and what its spikes reach, each with the number of its input that they come in by
Path = tuple[tuple[fx.Node, int], ...]


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
    neurons: Places
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
        self.synapses: dict[tuple[fx.Node, int], Synapses] = {}

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
        if op.role == Role.DELAY:  # every spike that comes in, a window later
            arrived = self._arriving(source, events)
            return replace(arrived, times=arrived.times + 1.0)
        if op.role == Role.MAXPOOL:
            return self._first_of_each(node, self._arriving(source, events))
        neuron = op_of(node, Neuron)
        v = self._integrated(source, events, constant)
        threshold = np.broadcast_to(neuron.threshold.numpy(), node.meta["shape"]).reshape(-1)
        share = v / threshold
        spikes = np.abs(share) > 0 if neuron.row.negative else share > 0
        times = self.depths[node.name] + 1.0 - np.minimum(np.abs(share[spikes]), 1.0)
        order = np.argsort(times, kind="stable")
        which = np.flatnonzero(spikes)[order]
        return Events(times[order], which, np.sign(share[which]), tuple(node.meta["shape"]))

    def _arriving(self, node: fx.Node, events: dict[fx.Node, Events]) -> Events:
        """Spikes at the places of `node`, to which wiring has moved them, sorted by time."""
        if node in events:
            return events[node]
        times, neurons, signs = [], [], []
        for start, path in self._paths(node):
            sent = events[start]
            for time, neuron, sign in zip(sent.times.tolist(), sent.neurons.tolist(), sent.signs, strict=True):
                for place in self._pushed(path, neuron)[0]:
                    times.append(time)
                    neurons.append(place)
                    signs.append(sign)
        order = np.argsort(times, kind="stable")
        which = np.array(neurons, np.int64)[order]
        return Events(np.array(times)[order], which, np.array(signs)[order], tuple(node.meta["shape"]))

    def _first_of_each(self, node: fx.Node, arrived: Events) -> Events:
        """Max pooling: the first spike of each window passes, the others do not."""
        passed = np.zeros(math.prod(node.meta["shape"]), bool)
        times, neurons = [], []
        for time, neuron in zip(arrived.times.tolist(), arrived.neurons.tolist(), strict=True):
            for index in self._pushed(((node, 0),), neuron)[0]:
                if not passed[index]:
                    passed[index] = True
                    times.append(time)
                    neurons.append(index)
        return Events(np.array(times), np.array(neurons, np.int64), np.ones(len(times)), tuple(node.meta["shape"]))

    def _integrated(self, node: fx.Node, events: dict[fx.Node, Events], constant: dict[fx.Node, Tensor]) -> Floats:
        """The membrane, flat, that the value of `node` makes by the end of the window in which it arrives.

        A membrane is looked at when a spike reaches it, and at the end: since it was last, it has grown by its slope.
        """
        v = constant[node].numpy().reshape(-1).copy()
        paths = self._paths(node)
        if not paths:
            return v
        end = float(self.depths[node.name] + 1)
        slope, seen = np.zeros_like(v), np.full_like(v, end - 1.0)
        arriving = [(events[start], path) for start, path in paths]
        times = np.concatenate([of.times for of, _ in arriving])
        which = np.repeat(np.arange(len(arriving)), [len(of.times) for of, _ in arriving])
        place = np.concatenate([np.arange(len(of.times)) for of, _ in arriving])
        for index in np.argsort(times, kind="stable").tolist():
            spikes, path = arriving[which[index]]
            at = place[index]
            where, weights = self._pushed(path, int(spikes.neurons[at]))
            now = spikes.times[at]
            v[where] += slope[where] * (now - seen[where])
            seen[where] = now
            slope[where] += spikes.signs[at] * weights
        return v + slope * (end - seen)

    def _paths(self, node: fx.Node) -> list[tuple[fx.Node, Path]]:
        """Every way that spikes take to `node`: where it begins, and the operators on it."""
        if node.op != "call_module" or self.depths[node.name] == 0:
            return []
        if self._carries(node):
            return [(node, ())]
        return [
            (start, (*path, (node, number)))
            for number, source in enumerate(arguments(node))
            for start, path in self._paths(source)
        ]

    def _pushed(self, path: Path, neuron: int) -> Reached:
        """The places that one spike reaches, each once, and by which weights."""
        where, weights = np.array([neuron]), np.ones(1)
        for node, number in path:
            behind = self.synapses.get((node, number))
            if behind is None:
                shapes = [tuple(source.meta["shape"]) for source in arguments(node)]
                behind = self.synapses[node, number] = synapses(op_of(node), shapes, tuple(node.meta["shape"]), number)
            where, weights = behind.spread(where, weights)
        return where, weights
