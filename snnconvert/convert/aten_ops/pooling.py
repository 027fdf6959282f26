"""ATen operators that pool, reduce or resize."""

# Rules take the argument lists of ATen as they are.

from __future__ import annotations

from functools import reduce as folded
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from snnconvert.convert.aten_ops.context import Context, Rule, integers, moving, operator, window
from snnconvert.convert.aten_ops.pointwise import add, maximum, minimum
from snnconvert.convert.lowering import windows
from snnconvert.convert.lowering.elementwise import function
from snnconvert.convert.lowering.flow import Array, Flow, Refusal
from snnconvert.convert.lowering.moves import reduce, take
from snnconvert.convert.lowering.products import along_axis, linear
from snnconvert.graph import kinds

_LARGEST_ADAPTIVE_MATRIX = 16_000_000


def _spatial(x: Any, rank: int) -> Flow:
    flow = moving(x).require_plain()
    if flow.rank != rank + 2:
        raise Refusal(f"its input is not (batch, channel, {rank} spatial axes)")
    return flow


def _pooled(rank: int) -> None:
    """Rules for the largest value in windows over `rank` axes."""

    @operator(f"max_pool{rank}d")
    def max_pool(ctx: Context, x: Any, kernel_size: Any, stride: Any = (), **sliding: Any) -> Flow:
        return windows.max_pool(ctx, _spatial(x, rank), window(kernel_size, rank, stride, **sliding))

    @operator(f"max_pool{rank}d_with_indices")
    def max_pool_with_indices(ctx: Context, x: Any, kernel_size: Any, **options: Any) -> tuple[Flow, None]:
        return max_pool(ctx, x, kernel_size, **options), None


def _averaged(rank: int) -> None:
    """The rule for averages of windows over `rank` axes."""

    @operator(f"avg_pool{rank}d")
    def avg_pool(
        ctx: Context,
        x: Any,
        kernel_size: Any,
        stride: Any = (),
        *,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
        **sliding: Any,
    ) -> Flow:
        over, flow = window(kernel_size, rank, stride, **sliding), _spatial(x, rank)
        if divisor_override is not None and (over.ceil_mode or (not count_include_pad and any(over.pads or ()))):
            raise Refusal("divisor_override together with ceil_mode or count_include_pad=False")
        pooled = windows.average_pool(ctx, flow, over, count_include_pad=count_include_pad)
        factor = 1.0 if divisor_override is None else prod(over.kernel) / divisor_override
        return ctx.affine(pooled, factor, part="divisor")


def _adaptively_pooled(rank: int) -> None:
    """Rules for adaptive windows over `rank` axes."""

    @operator(f"adaptive_avg_pool{rank}d", *(("_adaptive_avg_pool2d",) if rank == 2 else ()))
    def adaptive_average(ctx: Context, x: Any, output_size: Any) -> Flow:
        flow, present, wanted = _adaptive(x, output_size, rank)
        if present == wanted:
            return flow
        if set(wanted) == {1}:
            return reduce(ctx, flow, range(2, 2 + rank), "mean", keep=True)
        if all(now % size == 0 for now, size in zip(present, wanted, strict=True)):
            kernel = tuple(now // size for now, size in zip(present, wanted, strict=True))
            return windows.average_pool(ctx, flow, windows.Window(kernel, kernel))
        if all(size % now == 0 for now, size in zip(present, wanted, strict=True)):
            return ctx.apply(kinds.Resize(size=wanted, mode="nearest"), flow)
        if prod(present) * prod(wanted) > _LARGEST_ADAPTIVE_MATRIX:
            raise Refusal(f"{present} does not divide evenly into {wanted}, and is too large for a matrix")
        eyes = (torch.eye(now, dtype=torch.float64)[None] for now in present)
        axes = zip(eyes, wanted, strict=True)
        matrix = folded(torch.kron, (F.adaptive_avg_pool1d(eye, size)[0].t().contiguous() for eye, size in axes))
        flat = ctx.reshape(flow, [*flow.sizes[:2], prod(present)], part="flatten")
        pooled = linear(ctx, flat, matrix.numpy())
        return ctx.reshape(pooled, [*flow.sizes[:2], *wanted], part="unflatten")

    @operator(f"adaptive_max_pool{rank}d")
    def adaptive_max(ctx: Context, x: Any, output_size: Any) -> tuple[Flow, None]:
        flow, present, wanted = _adaptive(x, output_size, rank)
        kernel = []
        for axis, (now, size) in enumerate(zip(present, wanted, strict=True), start=2):
            spans = [(place * now // size, -(-(place + 1) * now // size)) for place in range(size)]
            longest = max(end - start for start, end in spans)
            # windows that overlap or differ in size are laid side by side, a shorter one with its last entry repeated
            laid = [min(start + step, end - 1) for start, end in spans for step in range(longest)]
            flow = take(ctx, flow, axis, laid, part="windows")
            kernel.append(longest)
        return windows.max_pool(ctx, flow, windows.Window(tuple(kernel), tuple(kernel))), None


def _adaptive(x: Any, output_size: Any, rank: int) -> tuple[Flow, tuple[int, ...], tuple[int, ...]]:
    flow = _spatial(x, rank)
    present = flow.dims[1:]
    sizes = [output_size] * rank if output_size is None or isinstance(output_size, int) else list(output_size)
    wanted = [now if size is None else size for now, size in zip(present, sizes, strict=True)]
    return flow, present, integers(wanted, rank)


for _rank in (1, 2, 3):
    _pooled(_rank)
    _adaptively_pooled(_rank)
    _averaged(_rank)


def _reduced(ctx: Context, x: Flow, dim: Any, how: str, keepdim: bool) -> Flow:
    if dim is None or (not isinstance(dim, int) and not list(dim)):
        raise Refusal("it reduces over the batch axis, which would mix samples")
    return reduce(ctx, x, [dim] if isinstance(dim, int) else dim, how, keep=keepdim)


def _reduction(how: str) -> Rule:
    def rule(ctx: Context, x: Flow, dim: Any = None, keepdim: bool = False) -> Flow:
        return _reduced(ctx, x, dim, how, keepdim)

    return rule


for _name, _how in (("mean", "mean"), ("sum", "sum"), ("amax", "max"), ("amin", "min")):
    operator(_name)(_reduction(_how))


@operator("max")
def max_or_maximum(ctx: Context, x: Any, other: Any = None, *, dim: Any = None, keepdim: bool = False) -> Any:
    return maximum(ctx, x, other) if other is not None else (_reduced(ctx, x, dim, "max", keepdim), None)


@operator("min")
def min_or_minimum(ctx: Context, x: Any, other: Any = None, *, dim: Any = None, keepdim: bool = False) -> Any:
    return minimum(ctx, x, other) if other is not None else (_reduced(ctx, x, dim, "min", keepdim), None)


@operator("var")
def var(ctx: Context, x: Flow, dim: Any = None, *, correction: Any = 1, keepdim: bool = False, **old: Any) -> Flow:
    """The mean square of the distance from the mean, over one less than all (`correction`)."""
    axes = [dim] if isinstance(dim, int) else dim
    centre = _reduced(ctx, x, axes, "mean", True)
    count = prod(x.dims[x.axis(axis) - 1] for axis in axes)
    less = int(old["unbiased"]) if "unbiased" in old else 1 if correction is None else correction
    if count <= less:
        raise Refusal("a variance over too few values")
    square = function(ctx, add(ctx, x, ctx.affine(centre, -1.0, part="minus")), "square", "square")
    return ctx.affine(_reduced(ctx, square, axes, "mean", keepdim), count / (count - less), part="unbiased")


@operator("std")
def std(ctx: Context, x: Flow, dim: Any = None, **options: Any) -> Flow:
    return function(ctx, var(ctx, x, dim, **options), "sqrt", "root")


@operator("logsumexp")
def logsumexp(ctx: Context, x: Flow, dim: Any, keepdim: bool = False) -> Flow:
    return function(ctx, _reduced(ctx, function(ctx, x, "exp"), dim, "sum", keepdim), "log", "log")


@operator("linalg_vector_norm")
def vector_norm(ctx: Context, x: Flow, ord: Any = 2, dim: Any = None, keepdim: bool = False) -> Flow:
    if ord not in (1, 2):
        raise Refusal(f"a norm of order {ord}; only 1 and 2 are known")
    return _reduced(ctx, x, dim, f"l{int(ord)}", keepdim)


@operator("norm")
def norm(ctx: Context, x: Flow, p: Any = 2, dim: Any = None, keepdim: bool = False) -> Flow:
    return vector_norm(ctx, x, 2 if p is None else p, dim, keepdim)


def _resized(flow: Flow, output_size: Any, scale_factors: Any) -> tuple[int, ...]:
    present = flow.require_plain().dims[1:]
    if output_size is not None:
        return integers(output_size, len(present))
    exact = [now * factor for now, factor in zip(present, scale_factors, strict=True)]
    if any(size != int(size) for size in exact):
        raise Refusal(f"scale factors {list(scale_factors)} do not give whole sizes of {present}")
    return tuple(int(size) for size in exact)


@operator("upsample_nearest2d")
def upsample_nearest(ctx: Context, x: Flow, output_size: Any = None, scale_factors: Any = None, **_: Any) -> Flow:
    return ctx.apply(kinds.Resize(size=_resized(x, output_size, scale_factors), mode="nearest"), x)


@operator("upsample_bilinear2d")
def upsample_bilinear(
    ctx: Context, x: Flow, output_size: Any = None, align_corners: bool = False, scale_factors: Any = None, **_: Any
) -> Flow:
    size = _resized(x, output_size, scale_factors)
    return ctx.apply(kinds.Resize(size=size, mode="bilinear", align_corners=align_corners), x)


def _interpolated(ctx: Context, x: Flow, sizes: tuple[int, ...], **how: Any) -> Flow:
    """Resizing that is linear and works on one axis after the other: two matrices."""

    def matrix(now: int, wanted: int) -> Array:
        eye = torch.eye(now, dtype=torch.float64).reshape(1, now, now, 1)
        resized: Tensor = F.interpolate(eye, size=(wanted, 1), **how)
        return resized.reshape(now, wanted).t().numpy()

    columns = linear(ctx, x, matrix(x.dims[2], sizes[1]), part="columns")
    return along_axis(ctx, columns, 2, matrix(x.dims[1], sizes[0]))


@operator("upsample_bicubic2d")
def upsample_bicubic(
    ctx: Context, x: Flow, output_size: Any = None, align_corners: bool = False, scale_factors: Any = None, **_: Any
) -> Flow:
    sizes = _resized(x, output_size, scale_factors)
    return _interpolated(ctx, x, sizes, mode="bicubic", align_corners=align_corners)


@operator("_upsample_nearest_exact2d")
def upsample_nearest_exact(ctx: Context, x: Flow, output_size: Any = None, scale_factors: Any = None, **_: Any) -> Flow:
    """Each pixel is repeated where sizes are multiples; else it differs from `upsample_nearest` by half a pixel."""
    sizes = _resized(x, output_size, scale_factors)
    if all(wanted % now == 0 for now, wanted in zip(x.dims[1:], sizes, strict=True)):
        return ctx.apply(kinds.Resize(size=sizes, mode="nearest"), x)
    return _interpolated(ctx, x, sizes, mode="nearest-exact")
