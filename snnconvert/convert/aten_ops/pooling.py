"""ATen operators that pool, reduce or resize."""

# Rules take the argument lists of ATen as they are.
# ruff: noqa: PLR0917

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch.nn import functional as F

from snnconvert.convert.aten_ops.lowering import Activation, Context, Rule, UnsupportedNodeError, batch_first, integers
from snnconvert.convert.aten_ops.weighted import adaptive_average_matrix
from snnconvert.graph import analog_ops, ops

_LARGEST_ADAPTIVE_MATRIX = 16_000_000


def _spatial(value: Any, rank: int) -> Activation:
    x = batch_first(value)
    if len(x.sample_shape) != rank + 1:
        raise UnsupportedNodeError(f"its input is not (batch, channel, {rank} spatial axes)")
    return x


def _max_pool(
    ctx: Context, x: Any, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool, rank: int
) -> Activation:
    kernel = integers(kernel_size, rank)
    op = ops.MaxPool(
        kernel=kernel,
        stride=integers(stride, rank) if stride not in (None, []) else kernel,
        padding=integers(padding, rank),
        dilation=integers(dilation, rank),
        ceil_mode=ceil_mode,
    )
    return ctx.map(op, _spatial(x, rank))


def max_pool1d(
    ctx: Context,
    x: Any,
    kernel_size: Any,
    stride: Any = (),
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> Any:
    return _max_pool(ctx, x, kernel_size, list(stride), padding, dilation, ceil_mode, 1)


def max_pool2d(
    ctx: Context,
    x: Any,
    kernel_size: Any,
    stride: Any = (),
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> Any:
    return _max_pool(ctx, x, kernel_size, list(stride), padding, dilation, ceil_mode, 2)


def max_pool2d_with_indices(ctx: Context, x: Any, kernel_size: Any, **options: Any) -> Any:
    return max_pool2d(ctx, x, kernel_size, **options), None


def avg_pool1d(
    ctx: Context,
    x: Any,
    kernel_size: Any,
    stride: Any = (),
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Any:
    kernel = integers(kernel_size, 1)
    step = integers(stride, 1) if list(stride) else kernel
    op = ops.AveragePool(
        kernel=kernel,
        stride=step,
        padding=integers(padding, 1),
        ceil_mode=ceil_mode,
        count_include_pad=count_include_pad,
    )
    return ctx.map(op, _spatial(x, 1))


def avg_pool2d(
    ctx: Context,
    x: Any,
    kernel_size: Any,
    stride: Any = (),
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    kernel = integers(kernel_size, 2)
    step = integers(stride, 2) if list(stride) else kernel
    x = _spatial(x, 2)
    if divisor_override is not None and (ceil_mode or (not count_include_pad and any(integers(padding, 2)))):
        raise UnsupportedNodeError("divisor_override together with ceil_mode or count_include_pad=False")
    if kernel == x.sample_shape[1:] and not any(integers(padding, 2)) and divisor_override is None:
        return ctx.map(ops.Mean(dims=(2, 3), keepdim=True), x)
    op = ops.AveragePool(
        kernel=kernel,
        stride=step,
        padding=integers(padding, 2),
        ceil_mode=ceil_mode,
        count_include_pad=count_include_pad,
    )
    pooled = ctx.map(op, x)
    if divisor_override is None:
        return pooled
    factor = torch.tensor(prod(kernel) / divisor_override)
    return ctx.affine(pooled, factor, torch.zeros(()), part="divisor")


def _adaptive(x: Any, output_size: Any, rank: int) -> tuple[Activation, tuple[int, ...], tuple[int, ...]]:
    x = _spatial(x, rank)
    present = x.sample_shape[1:]
    sizes = [output_size] * rank if output_size is None or isinstance(output_size, int) else list(output_size)
    wanted = tuple(now if size is None else size for now, size in zip(present, sizes, strict=True))
    return x, present, integers(wanted, rank)


def _adaptive_average(ctx: Context, x: Any, output_size: Any, rank: int) -> Any:
    x, present, wanted = _adaptive(x, output_size, rank)
    if present == wanted:
        return x
    if all(size == 1 for size in wanted):
        return ctx.map(ops.Mean(dims=tuple(range(2, 2 + rank)), keepdim=True), x)
    if all(now % size == 0 for now, size in zip(present, wanted, strict=True)):
        kernel = tuple(now // size for now, size in zip(present, wanted, strict=True))
        return ctx.map(ops.AveragePool(kernel=kernel, stride=kernel, padding=(0,) * rank), x)
    if all(size % now == 0 for now, size in zip(present, wanted, strict=True)):
        return ctx.map(ops.Resize(size=wanted, mode="nearest"), x)
    if prod(present) * prod(wanted) > _LARGEST_ADAPTIVE_MATRIX:
        raise UnsupportedNodeError(f"{present} does not divide evenly into {wanted}, and is too large for a matrix")
    matrices = [adaptive_average_matrix(now, size) for now, size in zip(present, wanted, strict=True)]
    matrix = matrices[0]
    for other in matrices[1:]:
        matrix = torch.kron(matrix, other)
    flat = ctx.emit(ops.Reshape(shape=(x.sample_shape[0], prod(present))), x.node, part="flatten")
    pooled = ctx.emit(ops.Linear(matrix.to(torch.float32)), flat)
    return Activation(ctx.emit(ops.Reshape(shape=(x.sample_shape[0], *wanted)), pooled, part="unflatten"))


def adaptive_avg_pool1d(ctx: Context, x: Any, output_size: Any) -> Any:
    return _adaptive_average(ctx, x, output_size, 1)


def adaptive_avg_pool2d(ctx: Context, x: Any, output_size: Any) -> Any:
    return _adaptive_average(ctx, x, output_size, 2)


def _adaptive_max(ctx: Context, x: Any, output_size: Any, rank: int) -> Any:
    x, present, wanted = _adaptive(x, output_size, rank)
    if any(now % size for now, size in zip(present, wanted, strict=True)):
        raise UnsupportedNodeError(f"{present} does not divide evenly into {wanted}")
    kernel = tuple(now // size for now, size in zip(present, wanted, strict=True))
    pooled = _max_pool(ctx, x, list(kernel), list(kernel), 0, 1, False, rank)
    return pooled, None


def adaptive_max_pool1d(ctx: Context, x: Any, output_size: Any) -> Any:
    return _adaptive_max(ctx, x, output_size, 1)


def adaptive_max_pool2d(ctx: Context, x: Any, output_size: Any) -> Any:
    return _adaptive_max(ctx, x, output_size, 2)


def _axes(x: Activation, dim: Any) -> tuple[int, ...]:
    """Dialect axes of a reduction; all but the batch axis must be named."""
    if dim is None or (not isinstance(dim, int) and not list(dim)):
        raise UnsupportedNodeError("it reduces over the batch axis, which would mix samples")
    return tuple(sorted(x.dim(d) for d in ([dim] if isinstance(dim, int) else dim)))


def _reduced(ctx: Context, x: Any, op: ops.Op, axes: tuple[int, ...], keepdim: bool) -> Activation:
    node = ctx.emit(op, x.node)
    lost = 0 if keepdim else sum(axis <= x.axis for axis in axes)
    return Activation(node, x.axis - lost, x.before, x.after)


def mean(ctx: Context, x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    axes = _axes(x, dim)
    return _reduced(ctx, x, ops.Mean(dims=axes, keepdim=keepdim), axes, keepdim)


def total(ctx: Context, x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    axes = _axes(x, dim)
    count = prod(x.sample_shape[axis - 1] for axis in axes)
    averaged = _reduced(ctx, x, ops.Mean(dims=axes, keepdim=keepdim), axes, keepdim)
    return ctx.affine(averaged, torch.tensor(float(count)), torch.zeros(()), part="count")


def amax(ctx: Context, x: Any, dim: Any = (), keepdim: bool = False) -> Any:
    axes = _axes(x, dim)
    return _reduced(ctx, x, analog_ops.Reduce(function="max", dims=axes, keepdim=keepdim), axes, keepdim)


def amin(ctx: Context, x: Any, dim: Any = (), keepdim: bool = False) -> Any:
    axes = _axes(x, dim)
    return _reduced(ctx, x, analog_ops.Reduce(function="min", dims=axes, keepdim=keepdim), axes, keepdim)


def max_or_maximum(ctx: Context, x: Any, other: Any = None, *, dim: Any = None, keepdim: bool = False) -> Any:
    from snnconvert.convert.aten_ops.pointwise import maximum

    if other is not None:
        return maximum(ctx, x, other)
    return amax(ctx, x, dim, keepdim), None


def min_or_minimum(ctx: Context, x: Any, other: Any = None, *, dim: Any = None, keepdim: bool = False) -> Any:
    from snnconvert.convert.aten_ops.pointwise import minimum

    if other is not None:
        return minimum(ctx, x, other)
    return amin(ctx, x, dim, keepdim), None


def vector_norm(ctx: Context, x: Any, ord: Any = 2, dim: Any = None, keepdim: bool = False) -> Any:
    if ord != 2:
        raise UnsupportedNodeError(f"a norm of order {ord}; only 2 is known")
    axes = _axes(x, dim)
    return _reduced(ctx, x, analog_ops.Reduce(function="l2", dims=axes, keepdim=keepdim), axes, keepdim)


def norm(ctx: Context, x: Any, p: Any = 2, dim: Any = None, keepdim: bool = False) -> Any:
    return vector_norm(ctx, x, 2 if p is None else p, dim, keepdim)


def _resize(
    ctx: Context, x: Any, output_size: Any, scale_factors: Any, mode: str, align_corners: bool = False
) -> Activation:
    x = batch_first(x)
    size = _resized(x.sample_shape[1:], output_size, scale_factors)
    return ctx.map(ops.Resize(size=size, mode=mode, align_corners=align_corners), x)


def _resized(present: tuple[int, ...], output_size: Any, scale_factors: Any) -> tuple[int, ...]:
    if output_size is not None:
        return integers(output_size, len(present))
    exact = [now * factor for now, factor in zip(present, scale_factors, strict=True)]
    if any(size != int(size) for size in exact):
        raise UnsupportedNodeError(f"scale factors {list(scale_factors)} do not give whole sizes of {present}")
    return tuple(int(size) for size in exact)


def upsample_nearest(
    ctx: Context, x: Any, output_size: Any = None, scale_factors: Any = None, scales_h: Any = None, scales_w: Any = None
) -> Any:
    del scales_h, scales_w
    return _resize(ctx, x, output_size, scale_factors, "nearest")


def upsample_bilinear(
    ctx: Context,
    x: Any,
    output_size: Any = None,
    align_corners: bool = False,
    scale_factors: Any = None,
    scales_h: Any = None,
    scales_w: Any = None,
) -> Any:
    del scales_h, scales_w
    return _resize(ctx, x, output_size, scale_factors, "bilinear", align_corners)


def upsample_bicubic(
    ctx: Context,
    x: Any,
    output_size: Any = None,
    align_corners: bool = False,
    scale_factors: Any = None,
    scales_h: Any = None,
    scales_w: Any = None,
) -> Any:
    """Bicubic resizing is linear and works on one axis after the other: two matrices."""
    del scales_h, scales_w
    x = batch_first(x)
    _, height, width = x.sample_shape
    sizes = _resized(x.sample_shape[1:], output_size, scale_factors)

    def matrix(now: int, wanted: int) -> torch.Tensor:
        eye = torch.eye(now, dtype=torch.float64).reshape(1, now, now, 1)
        resized = F.interpolate(eye, size=(wanted, 1), mode="bicubic", align_corners=align_corners)
        return resized.reshape(now, wanted).t().to(torch.float32)

    node = ctx.emit(ops.Linear(matrix(width, sizes[1])), x.node, part="columns")
    node = ctx.emit(ops.Permute(dims=(0, 1, 3, 2)), node, part="transpose")
    node = ctx.emit(ops.Linear(matrix(height, sizes[0])), node, part="rows")
    return Activation(ctx.emit(ops.Permute(dims=(0, 1, 3, 2)), node, part="transpose_back"))


OPERATORS: dict[str, Rule] = {
    "max_pool1d": max_pool1d,
    "max_pool2d": max_pool2d,
    "max_pool2d_with_indices": max_pool2d_with_indices,
    "avg_pool1d": avg_pool1d,
    "avg_pool2d": avg_pool2d,
    "adaptive_avg_pool1d": adaptive_avg_pool1d,
    "adaptive_avg_pool2d": adaptive_avg_pool2d,
    "_adaptive_avg_pool2d": adaptive_avg_pool2d,
    "adaptive_max_pool1d": adaptive_max_pool1d,
    "adaptive_max_pool2d": adaptive_max_pool2d,
    "mean": mean,
    "sum": total,
    "amax": amax,
    "amin": amin,
    "max": max_or_maximum,
    "min": min_or_minimum,
    "linalg_vector_norm": vector_norm,
    "norm": norm,
    "upsample_nearest2d": upsample_nearest,
    "upsample_bilinear2d": upsample_bilinear,
    "upsample_bicubic2d": upsample_bicubic,
}
