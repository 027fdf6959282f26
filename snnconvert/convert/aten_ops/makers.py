"""ATen operators that make constants whose shape depends on the batch: class tokens, masks, zero branches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from snnconvert.convert.aten_ops.context import BatchSize, Context, operator, shape_of, value
from snnconvert.convert.lowering.flow import Flow, Refusal


def per_sample(ctx: Context, x: Tensor, sizes: Sequence[Any]) -> Tensor | Flow:
    """`x` expanded to `sizes`: a plain tensor, or an activation where a size holds the batch."""
    places = [axis for axis, size in enumerate(sizes) if isinstance(size, BatchSize)]
    if not places:
        return x.expand(*sizes).clone()
    axis = places[0]
    x = x.reshape((1,) * (len(sizes) - x.ndim) + tuple(x.shape))
    if len(places) > 1 or sizes[axis].multiple != 1 or x.shape[axis] != 1:
        raise Refusal("a constant differs from sample to sample")
    inner = value(x.expand(*(-1 if isinstance(size, BatchSize) else size for size in sizes)).squeeze(axis))
    assert not isinstance(inner, Flow)
    return Flow(ctx.repeated_for_each_sample(inner).node, axis)


def repeated(ctx: Context, x: Tensor, repeats: Sequence[Any]) -> Tensor | Flow:
    """A constant, repeated along its axes; a count may hold the batch."""
    copied = x.repeat(*(1 if isinstance(count, BatchSize) else count for count in repeats))
    sizes = [count if isinstance(count, BatchSize) else size for count, size in zip(repeats, copied.shape, strict=True)]
    return per_sample(ctx, copied, sizes)


@operator("full")
def full(ctx: Context, size: Sequence[Any], fill_value: float, **_: Any) -> Tensor | Flow:
    return per_sample(ctx, torch.tensor(float(fill_value)), size)


@operator("new_full")
def new_full(ctx: Context, x: Any, size: Sequence[Any], fill_value: float, **_: Any) -> Tensor | Flow:
    del x
    return full(ctx, size, fill_value)


@operator("full_like")
def full_like(ctx: Context, x: Flow, fill_value: float, **_: Any) -> Tensor | Flow:
    return full(ctx, shape_of(x), fill_value)


def _filled_with(name: str, fill: float) -> None:
    @operator(name)
    def make(ctx: Context, size: Sequence[Any], **_: Any) -> Tensor | Flow:
        return full(ctx, size, fill)

    @operator(f"new_{name}")
    def make_new(ctx: Context, x: Any, size: Sequence[Any], **_: Any) -> Tensor | Flow:
        return new_full(ctx, x, size, fill)

    @operator(f"{name}_like")
    def make_like(ctx: Context, x: Flow, **_: Any) -> Tensor | Flow:
        return full_like(ctx, x, fill)


_filled_with("zeros", 0.0)
_filled_with("ones", 1.0)
