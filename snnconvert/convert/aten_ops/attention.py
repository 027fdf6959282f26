"""ATen operators of transformers: softmax, normalisations, attention."""

# Rules take the argument lists of ATen as they are.
# ruff: noqa: PLR0917

from __future__ import annotations

import math
from typing import Any

import torch

from snnconvert.convert.aten_ops.lowering import (
    Activation,
    Context,
    Rule,
    UnsupportedNodeError,
    batch_first,
    constant_tensor,
)
from snnconvert.convert.aten_ops.pointwise import add
from snnconvert.convert.aten_ops.weighted import batch_norm, matmul, swap_last_two
from snnconvert.graph import analog_ops


def softmax(ctx: Context, x: Activation, dim: int, half_to_float: bool = False, log: bool = False) -> Any:
    del half_to_float
    return ctx.map(analog_ops.Softmax(dim=x.dim(dim), log=log), x)


def log_softmax(ctx: Context, x: Activation, dim: int, half_to_float: bool = False) -> Any:
    return softmax(ctx, x, dim, half_to_float, log=True)


def _optional(value: Any, what: str) -> Any:
    return None if value is None else constant_tensor(value, what)


def layer_norm(
    ctx: Context,
    x: Activation,
    normalized_shape: Any,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
) -> Any:
    shape = tuple(normalized_shape)
    for place in range(len(shape)):
        x.dim(-1 - place)
    op = analog_ops.LayerNorm(_optional(weight, "weight"), _optional(bias, "bias"), shape=shape, eps=eps)
    return ctx.map(op, x)


def group_norm(
    ctx: Context,
    x: Any,
    num_groups: int,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
) -> Any:
    op = analog_ops.GroupNorm(_optional(weight, "weight"), _optional(bias, "bias"), groups=num_groups, eps=eps)
    return ctx.map(op, batch_first(x))


def instance_norm(
    ctx: Context,
    x: Any,
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_var: Any,
    use_input_stats: bool,
    momentum: float,
    eps: float,
) -> Any:
    if not use_input_stats:
        return batch_norm(ctx, x, weight, bias, running_mean, running_var, False, momentum, eps)
    return group_norm(ctx, x, batch_first(x).sample_shape[0], weight, bias, eps)


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
) -> Any:
    if dropout_p or enable_gqa:
        raise UnsupportedNodeError("attention with dropout or grouped queries")
    if not isinstance(query, Activation) or not isinstance(key, Activation):
        raise UnsupportedNodeError("attention with constant queries or keys")
    width = query.size(-1)
    scores = matmul(ctx, query, swap_last_two(ctx, key, "key_transpose"))
    factor = torch.tensor(1.0 / math.sqrt(width) if scale is None else float(scale))
    shift = torch.zeros(())
    if is_causal:
        rows, columns = scores.size(-2), scores.size(-1)
        attn_mask = torch.ones(rows, columns, dtype=torch.bool).tril()
    if isinstance(attn_mask, torch.Tensor):
        if attn_mask.dtype == torch.bool:
            attn_mask = torch.zeros(attn_mask.shape).masked_fill(attn_mask.logical_not(), float("-inf"))
        shift = ctx.aligned(attn_mask, scores)
    scores = ctx.affine(scores, factor, shift, part="scale")
    if isinstance(attn_mask, Activation):
        scores = add(ctx, scores, attn_mask)
    weights = ctx.map(analog_ops.Softmax(dim=scores.dim(-1)), scores, part="softmax")
    return matmul(ctx, weights, value)


OPERATORS: dict[str, Rule] = {
    "softmax": softmax,
    "_softmax": softmax,
    "log_softmax": log_softmax,
    "_log_softmax": log_softmax,
    "layer_norm": layer_norm,
    "group_norm": group_norm,
    "instance_norm": instance_norm,
    "scaled_dot_product_attention": scaled_dot_product_attention,
}
