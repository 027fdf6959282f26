"""One pass over calibration images: what every activation site sees.

Images are put in an order of their own (by content) and run in batches of a fixed size, so that neither the order in
which they were read nor the user's batch size can change a statistic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from snnconvert.data.sampling import canonical_order
from snnconvert.graph.dialect import arguments, op_of, output_nodes, sites
from snnconvert.graph.kinds import Activation, Role, Weighted
from snnconvert.graph.types import Ann
from snnconvert.graph.walk import batch_of, walk
from snnconvert.progress import Progress, silent
from snnconvert.tasks.scores import answer_of

# the name of a site, and a batch of what its activation gives
See = Callable[[str, Tensor], None]


def in_canonical_order(images: Tensor) -> Tensor:
    """The images sorted by the hash of their content."""
    return images[torch.from_numpy(canonical_order(images))]


@torch.inference_mode()
def observed(
    graph: fx.GraphModule, images: Tensor, what: str, progress: Progress = silent, *, see: See | None = None
) -> Iterator[tuple[Tensor, ...]]:
    """Run the ANN on `images` batch by batch: yields its outputs, and shows `see` every site on the way."""
    wanted = {node for node, _ in sites(graph)} if see is not None else set()
    size = batch_of(graph)
    returned = output_nodes(graph)
    for start in range(0, len(images), size):
        outputs: dict[fx.Node, Tensor] = {}
        for node, _, value in walk(graph, images[start : start + size]):
            if see is not None and node in wanted:
                see(node.name, value)
            if node in returned:
                outputs[node] = value
        yield tuple(outputs[node] for node in returned)
        progress(what, min(start + size, len(images)), len(images))


def answers(ann: Ann, images: Tensor, progress: Progress = silent) -> NDArray[Any]:
    """What the ANN answers, (n, ...), as `tasks.scores.answer_of` gives it."""
    found = [
        answer_of(ann.task, [output.numpy() for output in outputs])
        for outputs in observed(ann.graph, images, "reference", progress)
    ]
    return np.concatenate(found)


def channel_axis(node: fx.Node) -> int:
    """The axis of one sample that holds the channels: the first, or the last after a matrix product on tokens."""
    if len(node.meta["shape"]) == 1:
        return 0
    source = node
    while source.op == "call_module":
        op = op_of(source)
        if isinstance(op, Weighted):
            return len(node.meta["shape"]) - 1 if op.features_last else 0
        if op.role in (Role.WIRING, Role.POOL, Role.MAXPOOL):
            return 0
        source = arguments(source)[0]
    return 0


def by_channel(values: Tensor, axis: int) -> Tensor:
    """(batch, *sample) as (channels, everything else)."""
    return values.movedim(axis + 1, 0).flatten(1)


def broadcastable(vector: Tensor, axis: int, rank: int) -> Tensor:
    """(channels,) shaped to broadcast against one sample of `rank` axes, channels at `axis`."""
    shape = [1] * rank
    shape[axis] = -1
    return vector.reshape(shape)


@dataclass(frozen=True)
class Range:
    """Largest activation of a site per channel (silent channels take the layer's), and its channel axis.

    `site` is its name, `ceiling` where the activation saturates of itself.
    """

    site: str
    largest: Tensor
    axis: int
    rank: int
    dead: int
    ceiling: float = math.inf

    def followed(self, headroom: float) -> Tensor:
        """`headroom` times the largest activation, but nothing that the activation itself cuts off, (channels,)."""
        return (self.largest * headroom).clamp(max=self.ceiling)

    def shaped(self, vector: Tensor) -> Tensor:
        """(channels,) broadcastable to one sample, float32."""
        return broadcastable(vector.float(), self.axis, self.rank)


def ranges(graph: fx.GraphModule, images: Tensor, progress: Progress = silent) -> tuple[dict[str, Range], Tensor]:
    """The global maximum per channel of every site, and the network's (first) outputs on all images."""
    largest: dict[str, Tensor] = {}
    axes = {node.name: channel_axis(node) for node, _ in sites(graph)}
    never_negative = {node.name for node, op in sites(graph) if op.rectifies}

    def see(name: str, values: Tensor) -> None:
        others = [axis for axis in range(values.ndim) if axis != axes[name] + 1]
        maximum = values.amax(others)
        if name not in never_negative:
            maximum = torch.maximum(maximum, -values.amin(others))
        largest[name] = torch.maximum(largest[name], maximum) if name in largest else maximum

    outputs = [first.flatten(1) for first, *_ in observed(graph, images, "ranges", progress, see=see)]
    found = {}
    for node, _ in sites(graph):
        maximum = rounded_up(largest[node.name].double())
        layer = float(maximum.max()) or 1.0
        filled = torch.where(maximum > 0, maximum, torch.full_like(maximum, layer))
        dead = int((maximum <= 0).sum())
        ceiling = op_of(node, Activation).ceiling
        found[node.name] = Range(node.name, filled, axes[node.name], len(node.meta["shape"]), dead, ceiling)
    return found, torch.cat(outputs)


def rounded_up(values: Tensor, bits: int = 12) -> Tensor:
    """Up to the next value with `bits` significant bits, so that the last bits of float32 sums cannot matter."""
    mantissa, exponent = torch.frexp(values)
    return torch.ldexp(torch.ceil(mantissa * 2.0**bits), exponent - bits)
