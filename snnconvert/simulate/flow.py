"""What flows where in a spiking network: spikes or real values, who reads whose spikes, and through how many synapses.

Because fan-out is linear, the synapses of every single neuron follow from one backward pass through each weighted
operator with ones for weights; borders, strides, groups and pooling are all considered, and padding is no synapse.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, fx

from snnconvert.graph.dialect import arguments, calls, op_of
from snnconvert.graph.neuron_ops import Neuron, Scale
from snnconvert.graph.ops import Affine, Constant, Conv, ConvTranspose, Linear, MaxPool, Op, Pad, Role
from snnconvert.graph.schedule import Schedule, site_depths
from snnconvert.graph.types import Snn

READ_OUT = "read-out"
Weighted = Conv | ConvTranspose | Linear


def domains(snn: Snn) -> dict[fx.Node, str]:
    """What flows at every node: "constant" (the same in all steps), "spikes", or "current" (real values, moving)."""
    depths, found = site_depths(snn.graph), dict[fx.Node, str]()
    for node in snn.graph.graph.nodes:
        if node.op == "output":
            continue
        op = op_of(node) if node.op == "call_module" else None
        if op is None or isinstance(op, Constant) or depths[node.name] == 0:
            found[node] = "constant"
            continue
        passes = op.role in (Role.WIRING, Role.MAXPOOL, Role.DELAY) or type(op).__name__ == "SumPool"
        passes = passes and not (isinstance(op, Pad) and op.value != 0.0)
        spikes = passes and all(found[source] == "spikes" for source in arguments(node))
        found[node] = "spikes" if isinstance(op, Neuron) or spikes else "current"
    return found


def increments(op: MaxPool, spikes: Tensor, frames: int, schedule: Schedule) -> Tensor:
    """What a max pool passes on of `spikes` (frames * batch, *sample): how much its running maximum grows."""
    if schedule.kind == "bistable":
        pooled: Tensor = op(spikes)
        return pooled
    best = op(spikes.reshape(frames, -1, *spikes.shape[1:]).cumsum(0).flatten(0, 1))
    best = best.reshape(frames, -1, *best.shape[1:])
    return torch.cat([best[:1], best[1:] - best[:-1]]).flatten(0, 1)


def ones_like(op: Weighted, *, only_nonzero: bool = False) -> Weighted:
    """`op` with 1 for every weight (or only for those that are not 0) and without bias, in float64: counts synapses."""
    weight = op.weight.detach().to("cpu", torch.float64)
    ones = (weight != 0).double() if only_nonzero else torch.ones_like(weight)
    return op.rebuilt(weight=ones, bias=None)


def spike_sources(node: fx.Node) -> list[fx.Node]:
    """The neurons whose spikes reach `node` unchanged, or moved and pooled only."""
    found: list[fx.Node] = []
    for source in arguments(node):
        if source.op == "call_module":
            found += [source] if isinstance(op_of(source), Neuron) else spike_sources(source)
    return list(dict.fromkeys(found))


def layer_of(node: fx.Node, op: Op) -> fx.Node | None:
    """The neurons that `node` feeds (synchronous neurons belong to those before them); None for the read-out."""
    if op.role == Role.DELAY:
        return spike_sources(node)[0]
    return node if isinstance(op, Neuron) else _first_reader(node)


def _first_reader(node: fx.Node) -> fx.Node | None:
    """The first neuron layer that the value of `node` reaches, or None if only the output reads it."""
    todo, seen = [node], set[fx.Node]()
    while todo:
        current = todo.pop(0)
        for user in current.users:
            if user.op == "call_module" and user not in seen:
                if isinstance(op_of(user), Neuron):
                    return user
                seen.add(user)
                todo.append(user)
    return None


@dataclass(frozen=True)
class Reach:
    """What a spike of each neuron of a source causes in one layer.

    Attributes:
        layer: name of the layer.
        kind: "synapses", or "spikes" for the spike itself and for synchronous neurons that repeat it.
        depth: depth of the value that is read, which says when.
        each: number per neuron of the source, flat, float64.
    """

    layer: str
    kind: str
    depth: int
    each: Tensor


def reaches(snn: Snn, flow: dict[fx.Node, str]) -> dict[fx.Node, list[Reach]]:
    """For every source of spikes (neurons, and max pools that read spikes) what its spikes cause, and where."""
    depths, found = site_depths(snn.graph), dict[fx.Node, list[Reach]]()
    operators = list(calls(snn.graph))
    for node, op in operators:
        if isinstance(op, Neuron) or (isinstance(op, MaxPool) and flow[node] == "spikes"):
            found[node] = []
    with torch.inference_mode(False), torch.enable_grad():
        for node, op in operators:
            if isinstance(op, Neuron):
                ones = torch.ones(1, *node.meta["shape"], dtype=torch.float64).flatten()
                found[node].append(Reach(node.name, "spikes", depths[node.name], ones))
                continue
            if not (isinstance(op, Weighted | Scale | Affine) or op.role == Role.DELAY):
                continue
            source = arguments(node)[0]
            if flow[source] != "spikes":
                continue
            leaves: dict[fx.Node, Tensor] = {}
            value = _moved(source, found, leaves)
            layer, depth, kind = layer_of(node, op), depths[source.name], "synapses"
            if isinstance(op, Weighted):
                total = ones_like(op)(value).sum()
            elif op.role == Role.DELAY:
                total, kind, depth = value.sum(), "spikes", depths[node.name]
            else:
                total = value.sum() * max(1, len(node.users))
            for leaf, each in zip(leaves, torch.autograd.grad(total, list(leaves.values())), strict=True):
                name = READ_OUT if layer is None else layer.name
                found[leaf].append(Reach(name, kind, depth, each.detach().flatten()))
    return found


def _moved(node: fx.Node, sources: dict[fx.Node, list[Reach]], leaves: dict[fx.Node, Tensor]) -> Tensor:
    """The value at `node` as a linear function of its sources, which are added to `leaves`."""
    if node in sources:
        if node not in leaves:
            leaves[node] = torch.zeros(1, *node.meta["shape"], dtype=torch.float64, requires_grad=True)
        return leaves[node]
    value: Tensor = op_of(node)(*(_moved(source, sources, leaves) for source in arguments(node)))
    return value
