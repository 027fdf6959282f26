"""ATen operators that make constants whose shape depends on the batch: class tokens, masks, zero branches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from snnconvert.convert.aten_ops.lowering import Activation, BatchSize, Context, Rule, UnsupportedNodeError


def per_sample(ctx: Context, value: Tensor, sizes: Sequence[Any]) -> Any:
    """`value` expanded to `sizes`: a plain tensor, or an activation where a size holds the batch."""
    places = [axis for axis, size in enumerate(sizes) if isinstance(size, BatchSize)]
    if not places:
        return value.expand(*sizes).clone()
    axis = places[0]
    value = value.reshape((1,) * (len(sizes) - value.ndim) + tuple(value.shape))
    if len(places) > 1 or sizes[axis].multiple != 1 or value.shape[axis] != 1:
        raise UnsupportedNodeError("a constant differs from sample to sample")
    inner = value.expand(*(-1 if isinstance(size, BatchSize) else size for size in sizes)).squeeze(axis)
    made = ctx.constant(inner.contiguous())
    return Activation(made.node, axis)


def expand(ctx: Context, x: Tensor, size: Sequence[Any], *, implicit: bool = False) -> Any:
    del implicit
    return per_sample(ctx, x, size)


def expand_as(ctx: Context, x: Tensor, other: Activation) -> Any:
    return per_sample(ctx, x, other.shape)


def repeat(ctx: Context, x: Tensor, repeats: Sequence[Any]) -> Any:
    counts = [1 if isinstance(count, BatchSize) else count for count in repeats]
    value = x.repeat(*counts)
    batch = [axis for axis, count in enumerate(repeats) if isinstance(count, BatchSize)]
    sizes = [repeats[axis] if axis in batch else size for axis, size in enumerate(value.shape)]
    return per_sample(ctx, value, sizes)


def full(ctx: Context, size: Sequence[Any], fill_value: float, **_: Any) -> Any:
    return per_sample(ctx, torch.tensor(float(fill_value)), size)


def zeros(ctx: Context, size: Sequence[Any], **_: Any) -> Any:
    return full(ctx, size, 0.0)


def ones(ctx: Context, size: Sequence[Any], **_: Any) -> Any:
    return full(ctx, size, 1.0)


def new_zeros(ctx: Context, x: Any, size: Sequence[Any], **_: Any) -> Any:
    del x
    return zeros(ctx, size)


def new_ones(ctx: Context, x: Any, size: Sequence[Any], **_: Any) -> Any:
    del x
    return ones(ctx, size)


def new_full(ctx: Context, x: Any, size: Sequence[Any], fill_value: float, **_: Any) -> Any:
    del x
    return full(ctx, size, fill_value)


def zeros_like(ctx: Context, x: Activation, **_: Any) -> Any:
    return zeros(ctx, x.shape)


def ones_like(ctx: Context, x: Activation, **_: Any) -> Any:
    return ones(ctx, x.shape)


def full_like(ctx: Context, x: Activation, fill_value: float, **_: Any) -> Any:
    return full(ctx, x.shape, fill_value)


# Rules for a constant first argument; the same names on activations are in wiring.py.
ON_CONSTANTS: dict[str, Rule] = {"expand": expand, "expand_as": expand_as, "repeat": repeat}

OPERATORS: dict[str, Rule] = {
    "full": full,
    "zeros": zeros,
    "ones": ones,
    "new_zeros": new_zeros,
    "new_ones": new_ones,
    "new_full": new_full,
    "zeros_like": zeros_like,
    "ones_like": ones_like,
    "full_like": full_like,
}
