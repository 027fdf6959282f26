"""Fold batch norm and other per-channel affine maps into the weights beside them, by data flow.

affine after weights:   a (W x + b) + c  =  (a W) x + (a b + c)
affine after affine:    a (d x + e) + c  =  (a d) x + (a e + c)
affine before weights:  W (a x + c) + b  =  (W a) x + (W c + b)      only where no zero padding meets c
"""

from __future__ import annotations

import numpy as np
from torch import Tensor, fx

from snnconvert.graph.dialect import arguments, calls, op_of, role_of
from snnconvert.graph.edit import bypass, only_user, replace_op
from snnconvert.graph.kinds import Affine, Op, Role, Weighted


def fold_affine(graph: fx.GraphModule) -> int:
    """Fold every affine that can be folded; returns how many were."""
    folded = 0
    for node, op in list(calls(graph, Affine)):
        if _into_previous(graph, node, op) or _into_next(graph, node, op):
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
    if role_of(source) not in (Role.WEIGHTED, Role.AFFINE) or only_user(source) is not node:
        return False
    op = op_of(source)
    if isinstance(op, Affine):
        if not _broadcast(op, affine):
            return False
        replace_op(graph, source, Affine(op.scale * affine.scale, op.shift * affine.scale + affine.shift))
        bypass(node)
        return True
    merged = _after_weights(op_of(source, Weighted), affine, len(source.meta["shape"]))
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


def _after_weights(op: Weighted, affine: Affine, rank: int) -> Op | None:
    axis = 1 if op.features_last else rank
    scale, shift = (per_channel(part, axis, op.outputs) for part in (affine.scale, affine.shift))
    if scale is None or shift is None:
        return None
    bias = shift if op.bias is None else op.bias * scale + shift
    return op.rebuilt(weight=op.weight * op.by_output(scale), bias=bias)


def _into_next(graph: fx.GraphModule, node: fx.Node, affine: Affine) -> bool:
    user = only_user(node)
    if user is None or role_of(user) != Role.WEIGHTED:
        return False
    op = op_of(user, Weighted)
    if not op.gathers or (any(op.padding) and bool(affine.shift.any())):
        return False
    axis = 1 if op.features_last else len(node.meta["shape"])
    scale, shift = (per_channel(part, axis, op.inputs) for part in (affine.scale, affine.shift))
    if scale is None or shift is None:
        return False
    extra = op.weight @ shift if op.features_last else (op.weight * op.by_input(shift)).flatten(1).sum(1)
    bias = extra if op.bias is None else op.bias + extra
    replace_op(graph, user, op.rebuilt(weight=op.weight * op.by_input(scale), bias=bias))
    bypass(node)
    return True
