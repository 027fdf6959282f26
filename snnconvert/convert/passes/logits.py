"""Drop a softmax or sigmoid at the very end of a classifier: the largest logit is the largest probability."""

from __future__ import annotations

from dataclasses import replace

from torch import fx

from snnconvert.graph.dialect import arguments, op_of, origin_of, output_nodes, verify
from snnconvert.graph.edit import bypass, copied, finish, kind_of
from snnconvert.graph.kinds import Stage
from snnconvert.graph.types import Ann


def keep_logits(ann: Ann) -> Ann:
    """`ann` with logits instead of probabilities at every output that is one vector of classes, and a note of each.

    The decision is the same at every step; logits are sums of spikes, which probabilities are not.
    """
    graph = copied(ann.graph)
    notes = []
    for output in output_nodes(graph):
        node = output
        while kind_of(node) == "Reshape" and len(node.users) == 1:
            (node,) = arguments(node)
        if _ends_a_classifier(node):
            notes.append(f"{origin_of(node)} at the end was left out: the output is logits, the decision the same")
            bypass(node)
    if not notes:
        return ann
    source = replace(ann.source, notes=(*ann.source.notes, *notes))
    return replace(ann, graph=verify(finish(graph), Stage.ANN), source=source)


def _ends_a_classifier(node: fx.Node) -> bool:
    kind = kind_of(node)
    if kind not in ("Softmax", "Elementwise") or len(node.users) != 1:
        return False
    sizes = [size for size in node.meta["shape"] if size > 1]
    if len(sizes) != 1:
        return False
    if kind == "Softmax":
        return bool(node.meta["shape"][op_of(node).arguments()["dim"] - 1] == sizes[0])  # type: ignore[operator]
    return op_of(node).arguments()["function"] in ("sigmoid", "hardsigmoid")
