"""Drop a softmax or sigmoid at the very end of a classifier: the largest logit is the largest probability."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import fx

from snnconvert.graph.dialect import arguments, op_of, origin_of, output_nodes, verify
from snnconvert.graph.edit import bypass, copied, finish, kind_of, replace_op
from snnconvert.graph.kinds import Affine, Stage
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
        if ann.task.kind == "classification" and _of_two_classes(node):
            notes.append(
                f"{origin_of(arguments(node)[1])} at the end was left out: the output is its input and the "
                "opposite of that, the decision the same"
            )
            negative, positive = arguments(node)
            (logit,) = arguments(positive)
            replace_op(graph, negative, Affine(torch.tensor([-1.0]), torch.zeros(1)))
            node.args, negative.args = (negative, logit), (logit,)
        elif _ends_a_classifier(node, ann.task):
            notes.append(f"{origin_of(node)} at the end was left out: the output is logits, the decision the same")
            bypass(node)
    if not notes:
        return ann
    source = replace(ann.source, notes=(*ann.source.notes, *notes))
    return replace(ann, graph=verify(finish(graph), Stage.ANN), source=source)


def _of_two_classes(node: fx.Node) -> bool:
    """1 - sigmoid(x) and sigmoid(x) side by side, as classifiers of two classes with one logit give them."""
    if kind_of(node) != "Concat" or len(arguments(node)) != 2:
        return False
    negative, positive = arguments(node)
    if kind_of(negative) != "Affine" or list(arguments(negative)) != [positive] or kind_of(positive) != "Elementwise":
        return False
    op = op_of(negative, Affine)
    opposite = bool((op.scale == -1).all()) and bool((op.shift == 1).all()) and node.meta["shape"] == (2,)
    return opposite and len(node.users) == 1 and op_of(positive).arguments()["function"] == "sigmoid"


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
