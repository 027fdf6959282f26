"""The rewrites of the ANN stage, in order. Each keeps the function of the network (up to rounding).

A pass is a function that edits a graph in place, keeps the shapes in `node.meta` right, and returns how many places it
changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import fx

from snnconvert.convert.passes.fold_affine import fold_affine
from snnconvert.convert.passes.leaky import split_leaky
from snnconvert.convert.passes.max_pool import swap_max_pool
from snnconvert.convert.passes.merge_weights import merge_weights
from snnconvert.convert.passes.pointwise import name_functions
from snnconvert.convert.passes.redundant import drop_redundant_activation, mean_to_pool
from snnconvert.convert.passes.sink_affine import sink_affine
from snnconvert.convert.passes.spread import spread_units
from snnconvert.graph.dialect import verify
from snnconvert.graph.edit import copied, finish
from snnconvert.graph.kinds import Stage
from snnconvert.graph.types import Ann
from snnconvert.graph.walk import propagate_shapes

Pass = Callable[[fx.GraphModule], int]

PASSES: tuple[Pass, ...] = (
    name_functions,
    split_leaky,
    mean_to_pool,
    drop_redundant_activation,
    swap_max_pool,
    fold_affine,
    sink_affine,
    merge_weights,
    spread_units,
)


def canonicalize(ann: Ann) -> Ann:
    """Run every pass until none changes anything; the result is verified after each."""
    graph = copied(ann.graph)
    changed = True
    while changed:
        changed = False
        for rewrite in PASSES:
            if rewrite(graph):
                changed = True
                verify(finish(graph), Stage.ANN)
    propagate_shapes(graph, ann.input_shape)
    return replace(ann, graph=graph)
