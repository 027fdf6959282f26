"""`einsum` of two tensors, as one batched matrix product between permutations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from snnconvert.convert.aten_ops.lowering import Activation, Context, Rule, UnsupportedNodeError
from snnconvert.graph import analog_ops, ops


@dataclass(frozen=True)
class _Plan:
    """Which letters of an equation are the batch, shared and kept, of one side only, or summed; and every size."""

    batch: str
    both: list[str]
    left: list[str]
    right: list[str]
    summed: list[str]
    sizes: dict[str, int]

    def span(self, labels: Sequence[str]) -> int:
        return prod(self.sizes[label] for label in labels)

    @property
    def lead(self) -> tuple[int, ...]:
        return tuple(self.sizes[label] for label in self.both)


def einsum(ctx: Context, equation: str, tensors: Sequence[Any], path: Any = None) -> Any:
    del path
    if len(tensors) != 2 or "." in equation or "->" not in equation:
        raise UnsupportedNodeError(f"einsum {equation!r} is not a product of two tensors with an explicit result")
    operands, result = equation.replace(" ", "").split("->")
    first, second = operands.split(",")
    a, b = tensors
    if isinstance(a, Tensor):
        a, b, first, second = b, a, second, first
    plan = _planned((a, b), (first, second), result)
    left_shape = (*plan.lead, plan.span(plan.left), plan.span(plan.summed))
    left = _arranged(ctx, a, _inner(first, plan), [*plan.both, *plan.left, *plan.summed], left_shape)
    order = [*plan.both, *plan.summed, *plan.right]
    right_shape = (*plan.lead, plan.span(plan.summed), plan.span(plan.right))
    if isinstance(b, Tensor):
        matrix = b.permute([second.index(label) for label in order]).reshape(right_shape).to(torch.float32)
        if plan.both:
            product = ctx.map(analog_ops.MatMul(), left, ctx.constant(matrix, a))
        else:
            product = ctx.map(ops.Linear(matrix.t()), left)
    else:
        right = _arranged(ctx, b, _inner(second, plan), order, right_shape)
        product = ctx.map(analog_ops.MatMul(), left, right)
    current = [*plan.both, *plan.left, *plan.right]
    node = product.node
    shape = tuple(plan.sizes[label] for label in current)
    if tuple(node.meta["shape"]) != shape:
        node = ctx.emit(ops.Reshape(shape=shape), node, part="reshape")
    wanted = _inner(result, plan)
    turned = _arranged(ctx, Activation(node), current, wanted, tuple(plan.sizes[label] for label in wanted))
    return Activation(turned.node, result.index(plan.batch))


def _planned(tensors: tuple[Any, Any], operands: tuple[str, str], result: str) -> _Plan:
    (a, b), (first, second) = tensors, operands
    equation = f"{first},{second}->{result}"
    if any(len(set(labels)) != len(labels) for labels in (first, second, result)):
        raise UnsupportedNodeError(f"einsum {equation!r} takes a diagonal")
    if not isinstance(a, Activation) or a.width:
        raise UnsupportedNodeError("einsum without an input that has a plain batch axis")
    batch = first[a.axis]
    place = None if isinstance(b, Tensor) or b.width else b.axis
    if batch not in result or [index for index, label in enumerate(second) if label == batch] != (
        [] if place is None else [place]
    ):
        raise UnsupportedNodeError("einsum works along the batch axis, which would mix samples")
    shared = [label for label in first if label in second and label != batch]
    left = [label for label in first if label not in second and label != batch]
    right = [label for label in second if label not in first]
    summed = [label for label in shared if label not in result]
    if set(result) != {batch, *left, *right} | (set(shared) - set(summed)):
        raise UnsupportedNodeError(f"einsum {equation!r} sums over an axis of one tensor alone")
    sizes = {label: a.size(place) for place, label in enumerate(first) if label != batch}
    for place, label in enumerate(second):
        if label != batch:
            sizes[label] = b.size(place)
    return _Plan(batch, [label for label in shared if label in result], left, right, summed, sizes)


def _inner(labels: str, plan: _Plan) -> list[str]:
    return [label for label in labels if label != plan.batch]


def _arranged(ctx: Context, x: Activation, labels: list[str], order: list[str], shape: tuple[int, ...]) -> Activation:
    """`x`, whose sample axes bear `labels`, permuted to `order` and reshaped to `shape`."""
    node = x.node
    if labels != order:
        node = ctx.emit(ops.Permute(dims=(0, *(labels.index(label) + 1 for label in order))), node, part="permute")
    if tuple(node.meta["shape"]) != shape:
        node = ctx.emit(ops.Reshape(shape=shape), node, part="reshape")
    return Activation(node)


OPERATORS: dict[str, Rule] = {"einsum": einsum}
