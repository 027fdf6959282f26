"""Drop a softmax or sigmoid at the very end of a classifier: the largest logit is the largest probability."""

from __future__ import annotations

from dataclasses import replace

from torch import fx

from snnconvert.graph.dialect import arguments, op_of, origin_of, output_nodes, verify
from snnconvert.graph.edit import bypass, copied, finish, kind_of
from snnconvert.graph.kinds import Stage
from snnconvert.graph.types import Ann
from snnconvert.tasks import TaskChoice


def keep_logits(ann: Ann) -> Ann:
    """`ann` with logits instead of probabilities where its task is to decide, and a note of each.

    That is at every output that is one vector of classes, or one number, or in segmentation one class for each pixel.
    The decision is the same at every step; logits are sums of spikes, which probabilities are not. Of other tasks the
    outputs themselves count, and nothing is changed.
    """
    if ann.task.kind in ("regression", "raw"):
        return ann
    graph = copied(ann.graph)
    notes = []
    for output in output_nodes(graph):
        node = output
        while kind_of(node) == "Reshape" and len(node.users) == 1:
            (node,) = arguments(node)
        if _ends_a_classifier(node, ann.task):
            notes.append(f"{origin_of(node)} at the end was left out: the output is logits, the decision the same")
            bypass(node)
    if not notes:
        return ann
    source = replace(ann.source, notes=(*ann.source.notes, *notes))
    return replace(ann, graph=verify(finish(graph), Stage.ANN), source=source)


def _ends_a_classifier(node: fx.Node, task: TaskChoice) -> bool:
    kind = kind_of(node)
    if kind not in ("Softmax", "Elementwise") or len(node.users) != 1:
        return False
    shape = node.meta["shape"]
    sizes = [size for size in shape if size > 1]
    pixels = task.kind == "segmentation"
    if len(sizes) > 1 and not pixels:
        return False
    if kind == "Softmax":
        classes = shape[task.axis] if pixels else max(sizes, default=0)
        return bool(shape[op_of(node).arguments()["dim"] - 1] == classes)  # type: ignore[operator]
    return op_of(node).arguments()["function"] in ("sigmoid", "hardsigmoid")
