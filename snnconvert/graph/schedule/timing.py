"""When the sites of a graph integrate and emit."""

from __future__ import annotations

from typing import Any

from torch import fx

from snnconvert.graph.dialect import calls, origin_of, output_nodes
from snnconvert.graph.kinds import Constant, Role
from snnconvert.graph.schedule.base import Schedule
from snnconvert.graph.types import Snn

SPIKING = (Role.SITE, Role.NEURON, Role.DELAY)


def site_depths(graph: fx.GraphModule) -> dict[str, int]:
    """Depth of the value at every node: the largest number of spiking sites on a path from the input to it.

    A synchronous neuron counts as a site; a constant does not depend on what it is called with.
    """
    depths: dict[fx.Node, int] = {}
    operators = dict(calls(graph))
    for node in graph.graph.nodes:
        op = operators.get(node)
        deepest = max((depths[source] for source in node.all_input_nodes), default=0)
        spiking = op is not None and op.role in SPIKING
        depths[node] = 0 if isinstance(op, Constant) else deepest + spiking
    return {node.name: depth for node, depth in depths.items()}


def plan(snn: Snn, windows: int = 4) -> list[dict[str, Any]]:
    """When each site of `snn` integrates and emits, in data-flow order; steps are 0-based and half open.

    Each row holds site, origin, depth, kind ("neuron" or "synchronous") and the first `windows` intervals of
    `integrates` and `emits`; the last row, of kind "read-out", only integrates. Frames that are steps follow each
    other without a pause: one interval.
    """
    depths, schedule = site_depths(snn.graph), snn.schedule
    rows = [
        {
            "site": node.name,
            "origin": str(origin_of(node)),
            "depth": depths[node.name],
            "kind": "synchronous" if op.role == Role.DELAY else "neuron",
            "integrates": schedule.intervals(depths[node.name] - 1)[:windows],
            "emits": schedule.intervals(depths[node.name])[:windows],
        }
        for node, op in calls(snn.graph)
        if op.role in SPIKING
    ]
    for node in output_nodes(snn.graph):
        rows.append(
            {
                "site": node.name,
                "origin": str(origin_of(node)),
                "depth": depths[node.name] + 1,
                "kind": "read-out",
                "integrates": _read(schedule, depths[node.name])[:windows],
                "emits": [],
            }
        )
    return rows


def _read(schedule: Schedule, depth: int) -> list[tuple[int, int]]:
    """The steps [from, to) in which an output at `depth` is read."""
    (first, last), *others = schedule.intervals(depth)
    return [(first + schedule.read_from, last), *others]
