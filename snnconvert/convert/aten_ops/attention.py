"""ATen operators of transformers: softmax, normalisations, attention."""

# Rules take the argument lists of ATen as they are.
# ruff: noqa: PLR0917

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import torch

from snnconvert.convert.aten_ops.context import Context, fixed_or_none, moving, operator
from snnconvert.convert.aten_ops.context import value as value_of
from snnconvert.convert.aten_ops.weighted import batch_norm
from snnconvert.convert.lowering import moves
from snnconvert.convert.lowering.elementwise import add
from snnconvert.convert.lowering.flow import Flow, Refusal
from snnconvert.convert.lowering.products import matmul
from snnconvert.convert.lowering.scope import optional
from snnconvert.graph import kinds


@operator("softmax", "_softmax")
def softmax(ctx: Context, x: Flow, dim: int, half_to_float: bool = False, log: bool = False) -> Flow:
    del half_to_float
    return ctx.apply(kinds.Softmax(dim=x.axis(dim), log=log), x)


operator("log_softmax", "_log_softmax")(partial(softmax, log=True))


@operator("layer_norm")
def layer_norm(
    ctx: Context, x: Flow, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Flow:
    shape = tuple(normalized_shape)
    for place in range(len(shape)):
        x.axis(-1 - place)
    gain, offset = (optional(fixed_or_none(part, what)) for part, what in ((weight, "weight"), (bias, "bias")))
    return ctx.apply(kinds.LayerNorm(gain, offset, shape=shape, eps=eps), x)


@operator("rms_norm")
def rms_norm(ctx: Context, x: Any, normalized_shape: Any, weight: Any = None, eps: float | None = None) -> Flow:
    flow = moving(x)
    for place in range(len(normalized_shape)):
        flow.axis(-1 - place)
    smallest = float(torch.finfo(torch.float32).eps)  # what PyTorch takes without one
    gain = fixed_or_none(weight, "weight")
    return moves.rms_norm(ctx, flow, -len(normalized_shape), gain, smallest if eps is None else eps)


@operator("group_norm")
def group_norm(ctx: Context, x: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Flow:
    gain, offset = (optional(fixed_or_none(part, what)) for part, what in ((weight, "weight"), (bias, "bias")))
    return ctx.apply(kinds.GroupNorm(gain, offset, groups=num_groups, eps=eps), moving(x).require_plain())


@operator("instance_norm")
def instance_norm(
    ctx: Context, x: Any, weight: Any, bias: Any, *, use_input_stats: bool, eps: float, **statistics: Any
) -> Flow:
    if not use_input_stats:
        return batch_norm(ctx, x, weight, bias, eps=eps, **statistics)
    return group_norm(ctx, x, moving(x).require_plain().dims[0], weight, bias, eps)


@operator("scaled_dot_product_attention")
def scaled_dot_product_attention(
    ctx: Context,
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Flow:
    if dropout_p or enable_gqa:
        raise Refusal("attention with dropout or grouped queries")
    if not isinstance(query, Flow) or not isinstance(key, Flow):
        raise Refusal("attention with constant queries or keys")
    width = query.dims[query.axis(-1) - 1]
    key.axis(-2)
    scores = matmul(ctx, query, ctx.swapped(key, -1, -2, "key_transpose"))
    if is_causal:
        rows, columns = (scores.dims[scores.axis(axis) - 1] for axis in (-2, -1))
        attn_mask = torch.ones(rows, columns, dtype=torch.bool).tril()
    shift: Any = 0.0
    if isinstance(attn_mask, torch.Tensor):
        shift = value_of(attn_mask)
        if attn_mask.dtype == torch.bool:
            shift = np.where(shift, 0.0, -np.inf)
    scores = ctx.affine(scores, 1.0 / math.sqrt(width) if scale is None else float(scale), shift, part="scale")
    if isinstance(attn_mask, Flow):
        scores = add(ctx, scores, attn_mask)
    weights = ctx.apply(kinds.Softmax(dim=scores.axis(-1)), scores, part="softmax")
    return matmul(ctx, weights, value_of(value))
