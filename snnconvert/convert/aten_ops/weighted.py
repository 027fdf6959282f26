"""ATen operators with weights: convolutions, linear layers, batch norm, matrix products."""

# Rules take the argument lists of ATen as they are.
# ruff: noqa: PLR0917

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from snnconvert.convert.aten_ops.context import (
    Context,
    fixed,
    fixed_or_none,
    integers,
    moving,
    of_values,
    operator,
    value,
    window,
)
from snnconvert.convert.lowering import elementwise, products, windows
from snnconvert.convert.lowering.flow import Flow, Refusal
from snnconvert.convert.lowering.scope import optional, tensor
from snnconvert.graph import kinds


@operator("conv1d", "conv2d", "conv3d")
def conv(ctx: Context, x: Any, weight: Any, bias: Any = None, *, groups: int = 1, **sliding: Any) -> Flow:
    kernel = fixed(weight, "weight")
    over = window(kernel.shape[2:], kernel.ndim - 2, **sliding)
    return windows.conv(ctx, moving(x), kernel, fixed_or_none(bias, "bias"), over, groups)


@operator("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
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
) -> Flow:
    kernel = fixed(weight, "weight")
    rank = kernel.ndim - 2
    op = kinds.ConvTranspose(
        tensor(kernel),
        optional(fixed_or_none(bias, "bias")),
        stride=integers(stride, rank),
        padding=integers(padding, rank),
        output_padding=integers(output_padding, rank),
        dilation=integers(dilation, rank),
        groups=groups,
    )
    return ctx.apply(op, moving(x).require_plain())


@operator("convolution")
def convolution(ctx: Context, x: Any, *, transposed: bool, output_padding: Any, **options: Any) -> Flow:
    return conv_transpose(ctx, x, output_padding=output_padding, **options) if transposed else conv(ctx, x, **options)


@operator("linear")
def linear(ctx: Context, x: Any, weight: Any, bias: Any = None) -> Flow:
    if not isinstance(x, Flow):
        raise Refusal("its weight depends on the data; only constants can become weights")
    return products.linear(ctx, x, fixed(weight, "weight"), fixed_or_none(bias, "bias"))


@operator("batch_norm")
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
) -> Flow:
    del momentum
    if training or running_mean is None or running_var is None:
        raise Refusal("batch norm uses the statistics of the batch; call eval() and keep track_running_stats=True")
    mean = fixed(running_mean, "mean")
    return elementwise.batch_norm(
        ctx,
        moving(x),
        scale=np.ones_like(mean) if weight is None else fixed(weight, "weight"),
        bias=np.zeros_like(mean) if bias is None else fixed(bias, "bias"),
        mean=mean,
        variance=fixed(running_var, "variance"),
        eps=eps,
    )


@operator("_native_batch_norm_legit_no_training")
def legit_batch_norm(ctx: Context, x: Any, **options: Any) -> tuple[Flow, None, None]:
    return batch_norm(ctx, x, **options), None, None


@operator("addmm", "baddbmm")
def addmm(ctx: Context, x: Any, *, beta: float = 1, alpha: float = 1, **factors: Any) -> Flow:
    first, second = map(value, factors.values())
    return products.gemm(ctx, first, second, value(x), alpha=alpha, beta=beta)


matmul = of_values(products.matmul, "matmul", "mm", "bmm")


@operator("einsum")
def einsum(ctx: Context, equation: str, tensors: Sequence[Any], path: Any = None) -> Flow:
    del path
    return products.einsum(ctx, equation, *map(value, tensors))
