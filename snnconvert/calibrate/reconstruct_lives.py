"""Which stored values are alive when: what a visit reads last is dropped after it, and how much there is at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from torch import fx

from snnconvert.calibrate.live_values import Chunk
from snnconvert.calibrate.packed_units import bits_per_frame
from snnconvert.calibrate.reconstruct_networks import Networks
from snnconvert.calibrate.sent_spikes import finds_means
from snnconvert.compile.spikify import neuron_at
from snnconvert.graph.dialect import op_of
from snnconvert.graph.kinds import Events, Role
from snnconvert.graph.types import NeuronChoice
from snnconvert.graph.walk import upstream
from snnconvert.neurons.base import planes


class Lives:
    """From when to when each stored value is kept.

    Args:
        networks: what is stored.
        visited: the nodes in the order in which they are calibrated, or stored.
        read: the nodes whose values a visit looks at.
        neuron: what sites become.
    """

    def __init__(
        self,
        networks: Networks,
        visited: Sequence[fx.Node],
        read: Callable[[fx.Node], Iterable[fx.Node]],
        neuron: NeuronChoice,
    ) -> None:
        self.networks, self.visited, self.neuron = networks, visited, neuron
        kept = networks.stored - networks.remade
        self.spiking = self._last(read, networks.stored)
        self.original = self._last(read, kept)

    def _last(self, read: Callable[[fx.Node], Iterable[fx.Node]], kept: set[fx.Node]) -> dict[int, list[fx.Node]]:
        """Those of `kept` from which what is read is computed, by the index of the last visit that reads them."""
        last: dict[fx.Node, int] = {}
        for index, node in enumerate(self.visited):
            last.update(dict.fromkeys(kept.intersection(upstream(read(node), until=kept)), index))
        by_visit: dict[int, list[fx.Node]] = {}
        for node, index in last.items():
            by_visit.setdefault(index, []).append(node)
        return by_visit

    def forget(self, index: int, chunks: Iterable[Chunk]) -> None:
        """Drop what the visit of this index was the last to read."""
        for chunk in chunks:
            for node in self.spiking.get(index, ()):
                chunk.mean.pop(node)
                chunk.frames.pop(node)
            for node in self.original.get(index, ()):
                chunk.ann.pop(node)

    def bytes_at_once(self) -> int:
        """The most that stored values take of one image."""
        alive, peak = 0, 1
        for index, node in enumerate(self.visited):
            if node in self.networks.stored:
                alive += self._sent(node) + self._original(node)
            peak = max(peak, alive)
            alive -= sum(self._sent(one) for one in self.spiking.get(index, ()) if one.op != "placeholder")
            alive -= sum(self._original(one) for one in self.original.get(index, ()) if one.op != "placeholder")
        return peak

    def _original(self, node: fx.Node) -> int:
        return 0 if node in self.networks.remade else 4 * _size(node)

    def _sent(self, node: fx.Node) -> int:
        """Bytes of what the spiking network has at `node`, and of its means."""
        networks, frames, size = self.networks, self.networks.schedule.frames, _size(node)
        means = 4 * len(networks.read_at)
        if op_of(node).role == Role.EVENTS:
            low, high, bits = 0, op_of(node, Events).levels, False
        else:
            sites = networks.sites_of(node) or ([node] if op_of(node).role == Role.SITE else [])
            if not sites:
                return size * (means + 4 * frames)
            found = [neuron_at(site, self.neuron) for site in sites]
            lows, highs = zip(*(model.range(levels) for model, levels in found), strict=True)
            low, high = min(lows), max(highs)
            bits = networks.native is not None and planes(low, high) > 0
        kept = 0 if finds_means(frames, (low, high), bits=bits) else means
        return size * (kept + math.ceil(frames * bits_per_frame(low, high) / 8))


def _size(node: fx.Node) -> int:
    return math.prod(int(one) for one in node.meta["shape"])
