"""Write a leaky rectifier as two rectifiers, each of which becomes a neuron.

leaky(x) = relu(x) - slope * relu(-x)
"""

from __future__ import annotations

import torch
from torch import fx

from snnconvert.graph.dialect import arguments, calls
from snnconvert.graph.edit import insert_after, replace_op
from snnconvert.graph.kinds import Add, Affine, LeakyRelu, Relu


def split_leaky(graph: fx.GraphModule) -> int:
    """Split every LeakyRelu; returns how many were."""
    split = 0
    for node, op in list(calls(graph, LeakyRelu)):
        (source,) = arguments(node)
        zero, one = torch.zeros(1), torch.ones(1)
        negated = insert_after(graph, source, Affine(-one, zero), suffix="negated", users=[])
        negative = insert_after(graph, negated, Relu(), suffix="negative", users=[])
        scaled = insert_after(graph, negative, Affine(-op.slope, torch.zeros_like(op.slope)), suffix="scaled", users=[])
        positive = insert_after(graph, source, Relu(), suffix="positive", users=[])
        for added in (negated, negative, scaled, positive):
            added.meta["origin"] = node.meta["origin"]
        node.args = (positive, scaled)
        replace_op(graph, node, Add())
        split += 1
    return split
