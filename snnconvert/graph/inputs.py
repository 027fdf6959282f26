"""The inputs of the original network in a graph of the dialect: where they are cut out, which tables they index, and
where events come in."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, fx

from snnconvert.graph.dialect import arguments, calls, op_of, origin_of
from snnconvert.graph.kinds import Embedding, Events, Op, Reshape, Role, Slice
from snnconvert.graph.parts import MOST_WHOLE, Part, places
from snnconvert.graph.types import Ann, Snn


def inputs_of(network: Ann | Snn) -> tuple[Part, ...]:
    """The inputs of the original network; one of them is called as in the original."""
    (entry,) = (node for node in network.graph.graph.nodes if node.op == "placeholder")
    return network.inputs or (Part(origin_of(entry).name, network.input_shape),)


def events_of(graph: fx.GraphModule) -> Events | None:
    """Where events come into `graph`; None where its input is real numbers."""
    return next((op for _, op in calls(graph, Events)), None)


def cut_out(parts: Sequence[Part], source: fx.Node, call: Callable[[Op, fx.Node, Part], fx.Node]) -> dict[str, fx.Node]:
    """The nodes of the inputs, cut out of the vector `source`; `call(op, node)` appends to the graph."""
    if len(parts) == 1:
        return {parts[0].name: source}
    found = {}
    for part, start, stop in places(parts):
        node = call(Slice(dim=1, start=start, stop=stop), source, part)
        found[part.name] = node if part.shape == (part.size,) else call(Reshape(shape=part.shape), node, part)
    return found


def with_rows(parts: Sequence[Part], graph: fx.GraphModule) -> tuple[Part, ...]:
    """`parts` with the tables of `graph` that their values index."""
    least: dict[int, int] = {}  # by place in the vector
    reached: dict[fx.Node, Tensor] = {}
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            reached[node] = torch.arange(1.0, 1.0 + math.prod(node.meta["shape"])).reshape(1, *node.meta["shape"])
        elif node.op == "call_module":
            op, sources = op_of(node), arguments(node)
            if isinstance(op, Embedding):
                for place in reached.get(sources[0], torch.zeros(0)).reshape(-1).long().tolist():
                    least[place - 1] = min(least.get(place - 1, MOST_WHOLE), len(op.weight))
            elif op.role == Role.WIRING and all(source in reached for source in sources):
                reached[node] = op(*(reached[source] for source in sources))
    found = []
    for part, start, stop in places(parts):
        rows = [least[place] for place in range(start, stop) if place in least]
        found.append(replace(part, whole=part.whole or bool(rows), rows=min(rows, default=0)))
    return tuple(found)
