"""What flows at a node: a value that is the same in all steps, spikes, or a current.

One answer for everybody: conversion, which folds amplitudes by it, the engines and everything that counts. On a graph
of the ANN stage it says what would flow once its sites are neurons.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum

from torch import fx

from snnconvert.graph.dialect import arguments, op_of
from snnconvert.graph.kinds import Op


class Flow(StrEnum):
    """What flows at a node."""

    CONSTANT = "constant"  # real values, the same in all steps: the input, and what is computed from it alone
    SPIKES = "spikes"  # whole numbers of units, moving
    CURRENT = "current"  # real values, moving


def through(op: Op, inputs: Collection[Flow]) -> Flow:
    """What flows behind `op`, given what flows into it."""
    found = set(inputs)
    if found <= {Flow.CONSTANT} and not op.sends:
        return Flow.CONSTANT
    if op.sends or (found == {Flow.SPIKES} and op.keeps_spikes):
        return Flow.SPIKES
    return Flow.CURRENT


def flows(graph: fx.GraphModule) -> dict[fx.Node, Flow]:
    """What flows at every node of `graph`; it is kept in `node.meta["flow"]` as well."""
    found: dict[fx.Node, Flow] = {}
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            found[node] = Flow.CONSTANT
        elif node.op == "call_module":
            op = op_of(node)
            # a constant does not depend on what it is called with
            found[node] = through(op, [found[source] for source in arguments(node)] if op.reads else [])
        else:
            continue
        node.meta["flow"] = found[node]
    return found
