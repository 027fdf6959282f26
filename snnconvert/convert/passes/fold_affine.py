"""Fold batch norm and other per-channel affine maps into the weights beside them, by data flow.

affine after weights:   a (W x + b) + c  =  (a W) x + (a b + c)
affine after affine:    a (d x + e) + c  =  (a d) x + (a e + c)
affine before weights:  W (a x + c) + b  =  (W a) x + (W c + b)      only where no zero padding meets c
"""

from __future__ import annotations

import numpy as np
from torch import Tensor, fx

from snnconvert.graph.dialect import arguments, calls, op_of
from snnconvert.graph.edit import bypass, kind_of, only_user, replace_op
from snnconvert.graph.kinds import Affine, Conv, ConvTranspose, Linear, Op


def fold_affine(graph: fx.GraphModule) -> int:
    """Fold every affine that can be folded; returns how many were."""
    folded = 0
    for node, op in list(calls(graph)):
        if isinstance(op, Affine) and (_into_previous(graph, node, op) or _into_next(graph, node, op)):
            folded += 1
    return folded


def per_channel(tensor: Tensor, axis_from_end: int, channels: int) -> Tensor | None:
    """`tensor` as a (channels,) vector if it varies along that axis only, else None."""
    if tensor.numel() == 1:
        return tensor.reshape(1).expand(channels)
    if tensor.ndim < axis_from_end or tensor.shape[-axis_from_end] != channels or tensor.numel() != channels:
        return None
    return tensor.reshape(channels)


def _into_previous(graph: fx.GraphModule, node: fx.Node, affine: Affine) -> bool:
    (source,) = arguments(node)
    if kind_of(source) not in ("Conv", "ConvTranspose", "Linear", "Affine") or only_user(source) is not node:
        return False
    op = op_of(source)
    if isinstance(op, Affine):
        if not _broadcast(op, affine):
            return False
        replace_op(graph, source, Affine(op.scale * affine.scale, op.shift * affine.scale + affine.shift))
        bypass(node)
        return True
    merged = _after_weights(op, affine, len(source.meta["shape"]))
    if merged is None:
        return False
    replace_op(graph, source, merged)
    bypass(node)
    return True


def _broadcast(first: Affine, second: Affine) -> bool:
    try:
        np.broadcast_shapes(first.scale.shape, first.shift.shape, second.scale.shape, second.shift.shape)
    except ValueError:
        return False
    return True


def _after_weights(op: Op, affine: Affine, rank: int) -> Op | None:
    assert isinstance(op, Conv | ConvTranspose | Linear)
    if isinstance(op, Linear):
        channels, axis = op.weight.shape[0], 1
    elif isinstance(op, Conv):
        channels, axis = op.weight.shape[0], rank
    else:
        channels, axis = op.weight.shape[1] * op.groups, rank
    scale, shift = (per_channel(part, axis, channels) for part in (affine.scale, affine.shift))
    if scale is None or shift is None:
        return None
    bias = shift if op.bias is None else op.bias * scale + shift
    if isinstance(op, ConvTranspose):
        grouped = scale.reshape(op.groups, 1, -1)
        weight = op.weight.reshape(op.groups, -1, *op.weight.shape[1:])
        weight = weight * grouped.reshape(op.groups, 1, -1, *([1] * (op.weight.ndim - 2)))
        return op.rebuilt(weight=weight.reshape(op.weight.shape), bias=bias)
    weight = op.weight * scale.reshape(-1, *([1] * (op.weight.ndim - 1)))
    return op.rebuilt(weight=weight, bias=bias)


def _into_next(graph: fx.GraphModule, node: fx.Node, affine: Affine) -> bool:
    user = only_user(node)
    if kind_of(user) not in ("Conv", "Linear"):
        return False
    assert user is not None
    op = op_of(user)
    rank = len(node.meta["shape"])
    if isinstance(op, Linear):
        inputs, axis = op.weight.shape[1], 1
    else:
        assert isinstance(op, Conv)
        inputs, axis = op.weight.shape[1] * op.groups, rank
        if any(op.padding) and bool(affine.shift.any()):
            return False
    scale, shift = (per_channel(part, axis, inputs) for part in (affine.scale, affine.shift))
    if scale is None or shift is None:
        return False
    if isinstance(op, Linear):
        extra = op.weight @ shift
        merged: Op = Linear(op.weight * scale, extra if op.bias is None else op.bias + extra)
    else:
        weight = op.weight.reshape(op.groups, -1, *op.weight.shape[1:])
        spatial = [1] * (op.weight.ndim - 2)
        by_group = scale.reshape(op.groups, 1, -1, *spatial)
        extra = (weight * shift.reshape(by_group.shape)).flatten(2).sum(2).reshape(-1)
        weight = (weight * by_group).reshape(op.weight.shape)
        merged = op.rebuilt(weight=weight, bias=extra if op.bias is None else op.bias + extra)
    replace_op(graph, user, merged)
    bypass(node)
    return True
