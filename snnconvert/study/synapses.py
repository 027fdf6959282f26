"""Who reads whose spikes, and through how many synapses.

Because fan-out is linear, the synapses of every single neuron follow from one backward pass through each weighted
operator with ones for weights; borders, strides, groups and pooling are all considered, and padding is no synapse.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, fx

from snnconvert.graph.dialect import arguments, calls, role_of
from snnconvert.graph.flow import Flow
from snnconvert.graph.kinds import Op, Role, Weighted
from snnconvert.graph.schedule.timing import site_depths
from snnconvert.graph.types import Snn
from snnconvert.graph.walk import Pull, applied

READ_OUT = "read-out"
SOURCES = (Role.NEURON, Role.EVENTS)


def spike_sources(node: fx.Node) -> list[fx.Node]:
    """The neurons (or events that come in) whose spikes reach `node` unchanged, or moved and pooled only."""
    found: list[fx.Node] = []
    for source in arguments(node):
        if source.op == "call_module":
            found += [source] if role_of(source) in SOURCES else spike_sources(source)
    return list(dict.fromkeys(found))


def layer_of(node: fx.Node, op: Op) -> fx.Node | None:
    """The neurons that `node` feeds (synchronous neurons belong to those before them); None for the read-out."""
    if op.role == Role.DELAY:
        return spike_sources(node)[0]
    return node if op.role == Role.NEURON else _first_reader(node)


def _first_reader(node: fx.Node) -> fx.Node | None:
    """The first neuron layer that the value of `node` reaches, or None if only the output reads it."""
    todo, seen = [node], set[fx.Node]()
    while todo:
        current = todo.pop(0)
        for user in current.users:
            if user.op == "call_module" and user not in seen:
                if role_of(user) == Role.NEURON:
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


def reaches(snn: Snn, flow: dict[fx.Node, Flow]) -> dict[fx.Node, list[Reach]]:
    """For every source of spikes (neurons, events, and max pools that read spikes) what its spikes cause, and where."""
    depths, found = site_depths(snn.graph), dict[fx.Node, list[Reach]]()
    operators = list(calls(snn.graph))
    for node, op in operators:
        if op.role in SOURCES or (op.role == Role.MAXPOOL and flow[node] == Flow.SPIKES):
            found[node] = []
    with torch.inference_mode(False), torch.enable_grad():
        for node, op in operators:
            if op.role == Role.NEURON:
                ones = torch.ones(1, *node.meta["shape"], dtype=torch.float64).flatten()
                found[node].append(Reach(node.name, "spikes", depths[node.name], ones))
            if op.role == Role.PRODUCT or (op.role == Role.NEURON and len(arguments(node)) > 1):
                _count_factors(node, op, depths, found, flow)
                continue
            if op.role not in (Role.WEIGHTED, Role.AFFINE, Role.DELAY) or flow[arguments(node)[0]] != Flow.SPIKES:
                continue
            source = arguments(node)[0]
            leaves: dict[fx.Node, Tensor] = {}
            value = Pull(applied, partial(_leaf, found, leaves))(source)
            layer, depth, kind = layer_of(node, op), depths[source.name], "synapses"
            if isinstance(op, Weighted):
                total = op.counting()(value).sum()
            elif op.role == Role.DELAY:
                total, kind, depth = value.sum(), "spikes", depths[node.name]
            else:
                total = value.sum() * max(1, len(node.users))
            for leaf, each in zip(leaves, torch.autograd.grad(total, list(leaves.values())), strict=True):
                name = READ_OUT if layer is None else layer.name
                found[leaf].append(Reach(name, kind, depth, each.detach().flatten()))
    return found


def _count_factors(
    node: fx.Node, op: Op, depths: dict[str, int], found: dict[fx.Node, list[Reach]], flow: dict[fx.Node, Flow]
) -> None:
    """What spikes cause that are multiplied with counts, or raise the thresholds of other neurons.

    A factor that is complete before the other begins meets no counts: it is only counted itself.
    """
    sources, layer = arguments(node), layer_of(node, op)
    shapes = [source.meta["shape"] for source in sources]
    latest = max(depths[source.name] for source in sources)
    for index, source in enumerate(sources):
        product, depth = op.role == Role.PRODUCT, depths[source.name]
        if flow[source] != Flow.SPIKES or (index == 0 and not product):
            continue
        leaves: dict[fx.Node, Tensor] = {}
        value = Pull(applied, partial(_leaf, found, leaves))(source)
        each = op.reached(index, shapes) if depth == latest else 1
        # thresholds: of all neurons that one value is for
        total = value.sum() * each if product else value.expand(1, *node.meta["shape"]).sum()
        for leaf, one in zip(leaves, torch.autograd.grad(total, list(leaves.values())), strict=True):
            name = READ_OUT if layer is None else layer.name
            found[leaf].append(Reach(name, "synapses", depth, one.detach().flatten()))


def _leaf(sources: dict[fx.Node, list[Reach]], leaves: dict[fx.Node, Tensor], node: fx.Node) -> Tensor | None:
    """The unknown that stands for what a source sends, one of `leaves`; None for what is no source."""
    if node in sources and node not in leaves:
        leaves[node] = torch.zeros(1, *node.meta["shape"], dtype=torch.float64, requires_grad=True)
    return leaves.get(node)
