"""Weights drawn anew: a student that knows nothing, whose currents are as large as its thresholds.

Weights are normal; layer by layer every output channel is then scaled and moved so that its currents on some training
images have the mean 0, and the first threshold behind it as their spread, divided by sqrt(2) where a join adds two of
them. After Mishkin & Matas, ICLR 2016 (arXiv 1511.06422), with the threshold in place of 1 as in Zheng et al. 2021.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, fx

from snnconvert.graph.dialect import calls, op_of
from snnconvert.graph.kinds import Role, Weighted
from snnconvert.train.student import Student


@torch.no_grad()
def draw(student: Student, images: Tensor, seed: int) -> None:
    """Replace weights and biases; thresholds, membrane starts and fixed scales stay.

    Args:
        images: some training images (n, *sample).
        seed: of the weights.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = [node for node, _ in calls(student.graph, Weighted)]
    for node in drawn:
        op = op_of(node, Weighted)
        op.weight.copy_(torch.randn(op.weight.shape, generator=generator))
        if op.bias is not None:
            op.bias.zero_()
        student.after[node] = partial(_fitted, op, _aim(student, node))
    student(images)
    for node in drawn:
        del student.after[node]


def _aim(student: Student, node: fx.Node) -> float:
    """How far the currents of a layer are to spread."""
    share = 1.0
    while node not in student.sites and len(node.users) == 1:
        (node,) = node.users
        if node.op == "call_module" and op_of(node).role == Role.JOIN:
            share /= 2**0.5
    return share * (float(student.sites[node].start.mean()) if node in student.sites else 1.0)


def _fitted(op: Weighted, aim: float, value: Tensor) -> Tensor:
    """What the operator computes once its weights are scaled, which they are."""
    axis = (-1 if op.features_last else 1) % value.ndim
    others = [one for one in range(value.ndim) if one != axis]
    variance, mean = torch.var_mean(value.float(), others, correction=0)
    scale = aim / variance.sqrt().clamp(min=1e-12)
    op.weight.mul_(op.by_output(scale))
    moved = torch.zeros_like(mean)
    if op.bias is not None:
        moved = -mean * scale
        op.bias.copy_(moved)
    shape = [-1 if one == axis else 1 for one in range(value.ndim)]
    return (value * scale.view(shape) + moved.view(shape)).to(value.dtype)
