"""ATen operators with weights: convolutions, linear layers, batch norm, matrix products."""

# Rules take the argument lists of ATen as they are.
# ruff: noqa: PLR0917

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from snnconvert.convert.aten_ops.lowering import (
    Activation,
    Context,
    Rule,
    UnsupportedNodeError,
    batch_first,
    constant_tensor,
    integers,
)
from snnconvert.graph import analog_ops, ops


def _bias(bias: Any) -> Tensor | None:
    return None if bias is None else constant_tensor(bias, "bias")


def conv(ctx: Context, x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> Any:
    x, weight = batch_first(x), constant_tensor(weight, "weight")
    rank = weight.ndim - 2
    if len(x.sample_shape) != rank + 1:
        raise UnsupportedNodeError("its input has no batch axis")
    dilations = integers(dilation, rank)
    if isinstance(padding, str):
        spans = [d * (k - 1) for d, k in zip(dilations, weight.shape[2:], strict=True)]
        if padding == "valid":
            spans = [0] * rank
        padding = [span // 2 for span in spans]
        if any(span % 2 for span in spans):
            pads = [side for span in reversed(spans) for side in (0, span % 2)]
            x = ctx.map(ops.Pad(pads=tuple(pads)), x, part="pad")
    op = ops.Conv(
        weight,
        _bias(bias),
        stride=integers(stride, rank),
        padding=integers(padding, rank),
        dilation=dilations,
        groups=groups,
    )
    return ctx.map(op, x)


def convnd(
    ctx: Context,
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    return conv(ctx, x, weight, bias, stride, padding, dilation, groups)


def conv_transpose(
    ctx: Context,
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Any:
    weight = constant_tensor(weight, "weight")
    rank = weight.ndim - 2
    op = ops.ConvTranspose(
        weight,
        _bias(bias),
        stride=integers(stride, rank),
        padding=integers(padding, rank),
        output_padding=integers(output_padding, rank),
        dilation=integers(dilation, rank),
        groups=groups,
    )
    return ctx.map(op, batch_first(x))


def convolution(
    ctx: Context,
    x: Any,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
) -> Any:
    if transposed:
        return conv_transpose(ctx, x, weight, bias, stride, padding, output_padding, groups, dilation)
    return conv(ctx, x, weight, bias, stride, padding, dilation, groups)


def linear(ctx: Context, x: Any, weight: Any, bias: Any = None) -> Any:
    if not isinstance(x, Activation):
        raise UnsupportedNodeError("its weight depends on the data; only constants can become weights")
    x.dim(-1)
    return ctx.map(ops.Linear(constant_tensor(weight, "weight"), _bias(bias)), x)


def batch_norm(
    ctx: Context,
    x: Any,
    weight: Any = None,
    bias: Any = None,
    running_mean: Any = None,
    running_var: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    del momentum
    if training or running_mean is None or running_var is None:
        raise UnsupportedNodeError(
            "batch norm uses the statistics of the batch; call eval() and keep track_running_stats=True"
        )
    mean, var = constant_tensor(running_mean, "mean").double(), constant_tensor(running_var, "variance").double()
    scale = torch.rsqrt(var + eps)
    if weight is not None:
        scale = scale * constant_tensor(weight, "weight")
    shift = -mean * scale
    if bias is not None:
        shift = shift + constant_tensor(bias, "bias")
    x.dim(1)
    shape = (1, -1) + (1,) * (x.rank - 2)
    return ctx.affine(x, ctx.aligned(scale.reshape(shape), x), ctx.aligned(shift.reshape(shape), x))


def legit_batch_norm(
    ctx: Context,
    x: Any,
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_var: Any,
    momentum: float,
    eps: float,
) -> Any:
    return (batch_norm(ctx, x, weight, bias, running_mean, running_var, False, momentum, eps), None, None)


def addmm(ctx: Context, x: Any, mat1: Any, mat2: Any, *, beta: float = 1, alpha: float = 1) -> Any:
    weight = constant_tensor(mat2, "weight").t() * alpha
    if isinstance(x, Tensor) and x.ndim == 1:
        return linear(ctx, mat1, weight, x * beta)
    raise UnsupportedNodeError("addmm with a bias that is not a constant vector")


def matmul(ctx: Context, x: Any, other: Any) -> Any:
    if isinstance(x, Activation) and isinstance(other, Tensor):
        if other.ndim == 1:
            product = linear(ctx, x, other.reshape(1, -1))
            return ctx.relayout(product, product.shape[:-1], part="squeeze")
        if other.ndim == 2:
            return linear(ctx, x, other.t())
        return _product(ctx, x, ctx.same_layout(other, x))
    if isinstance(other, Activation) and isinstance(x, Tensor):
        if x.ndim == 2 and other.rank >= 2:
            turned = swap_last_two(ctx, other, "transpose")
            return swap_last_two(ctx, linear(ctx, turned, x), "transpose_back")
        return _product(ctx, ctx.same_layout(x, other), other)
    return _product(ctx, x, other)


def mm(ctx: Context, x: Any, mat2: Any) -> Any:
    return matmul(ctx, x, mat2)


def swap_last_two(ctx: Context, x: Activation, part: str) -> Activation:
    """The transpose of the last two ATen axes, neither of which may be the batch."""
    x.dim(-1)
    x.dim(-2)
    rank = len(x.sample_shape) + 1
    dims = (*range(rank - 2), rank - 1, rank - 2)
    return ctx.map(ops.Permute(dims=dims), x, part=part)


def _product(ctx: Context, a: Any, b: Any) -> Activation:
    for operand in (a, b):
        if operand.rank < 3:
            raise UnsupportedNodeError("it multiplies across the batch axis, which would mix samples")
        operand.dim(-1)
        operand.dim(-2)
    b = ctx.same_layout(b, a)
    wide = a if a.rank >= b.rank else b
    narrow_rank = min(a.rank, b.rank)
    if narrow_rank != wide.rank:
        raise UnsupportedNodeError("its operands differ in rank")
    return ctx.map(analog_ops.MatMul(), a, b)


def baddbmm(ctx: Context, x: Any, batch1: Any, batch2: Any, *, beta: float = 1, alpha: float = 1) -> Any:
    product = matmul(ctx, batch1, batch2)
    if not isinstance(x, Tensor):
        raise UnsupportedNodeError("baddbmm with an addend that depends on the data")
    shift = ctx.aligned(x * beta, product)
    return ctx.affine(product, torch.full_like(shift, float(alpha)), shift, part="add")


def adaptive_average_matrix(inputs: int, outputs: int) -> Tensor:
    """The (outputs, inputs) matrix of adaptive average pooling along one axis."""
    eye = torch.eye(inputs, dtype=torch.float64).unsqueeze(0)
    return F.adaptive_avg_pool1d(eye, outputs).squeeze(0).t().contiguous()


OPERATORS: dict[str, Rule] = {
    "conv1d": convnd,
    "conv2d": convnd,
    "conv3d": convnd,
    "conv_transpose1d": conv_transpose,
    "conv_transpose2d": conv_transpose,
    "conv_transpose3d": conv_transpose,
    "convolution": convolution,
    "linear": linear,
    "batch_norm": batch_norm,
    "_native_batch_norm_legit_no_training": legit_batch_norm,
    "addmm": addmm,
    "matmul": matmul,
    "mm": mm,
    "bmm": mm,
    "baddbmm": baddbmm,
}
