"""ATen operators with weights: convolutions, linear layers, batch norm, matrix products."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from snnconvert.convert.aten_ops.lowering import (
    Activation,
    Context,
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
    x = batch_first(x)
    mean, var = constant_tensor(running_mean, "mean").double(), constant_tensor(running_var, "variance").double()
    scale = torch.rsqrt(var + eps)
    if weight is not None:
        scale = scale * constant_tensor(weight, "weight")
    shift = -mean * scale
    if bias is not None:
        shift = shift + constant_tensor(bias, "bias")
    shape = (-1,) + (1,) * (len(x.sample_shape) - 1)
    return ctx.affine(x, scale.reshape(shape), shift.reshape(shape))


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


def einsum(ctx: Context, equation: str, tensors: Any, path: Any = None) -> Any:
    """`einsum` of one activation and one constant, or of two activations, as a batched matrix product."""
    del path
    if not isinstance(equation, str) or len(tensors) != 2 or "." in equation or "->" not in equation:
        raise UnsupportedNodeError(f"einsum {equation!r} is not a product of two tensors with an explicit result")
    left, result = equation.replace(" ", "").split("->")
    first, second = left.split(",")
    a, b = tensors
    for labels in (first, second, result):
        if len(set(labels)) != len(labels):
            raise UnsupportedNodeError(f"einsum {equation!r} takes a diagonal")
    if isinstance(a, Tensor):
        a, b, first, second = b, a, second, first
    if not isinstance(a, Activation):
        raise UnsupportedNodeError("einsum without an input that depends on the data")
    batch = first[a.axis]
    shared = [label for label in first if label in second]
    summed = [label for label in shared if label not in result]
    if any(label not in first + second for label in result) or any(
        label not in result and label not in shared for label in first + second
    ):
        raise UnsupportedNodeError(f"einsum {equation!r} sums over an axis of one tensor alone")
    if a.width or batch not in result:
        raise UnsupportedNodeError("einsum works along the batch axis, which would mix samples")
    both = [label for label in shared if label in result and label != batch]
    only_a = [label for label in first if label not in shared and label != batch]
    only_b = [label for label in second if label not in shared and label != batch]
    sizes = {label: a.size(index) for index, label in enumerate(first) if label != batch}
    if isinstance(b, Activation):
        if b.width or second[b.axis] != batch:
            raise UnsupportedNodeError("einsum with the batch on different axes")
        sizes |= {label: b.size(index) for index, label in enumerate(second) if label != batch}
    else:
        if batch in second:
            raise UnsupportedNodeError("a constant differs from sample to sample")
        sizes |= dict(zip(second, b.shape, strict=True))

    def arranged(x: Activation, labels: str, order: list[str], shape: tuple[int, ...]) -> Activation:
        inner = [label for label in labels if label != batch]
        node = x.node
        if inner != order:
            node = ctx.emit(ops.Permute(dims=(0, *(inner.index(label) + 1 for label in order))), node, part="permute")
        if tuple(node.meta["shape"]) != shape:
            node = ctx.emit(ops.Reshape(shape=shape), node, part="reshape")
        return Activation(node)

    def span(labels: list[str]) -> int:
        return int(torch.tensor([sizes[label] for label in labels]).prod()) if labels else 1

    lead = tuple(sizes[label] for label in both)
    left_side = arranged(a, first, [*both, *only_a, *summed], (*lead, span(only_a), span(summed)))
    if isinstance(b, Tensor):
        matrix = b.permute([second.index(label) for label in [*both, *summed, *only_b]])
        matrix = matrix.reshape(*lead, span(summed), span(only_b)).to(torch.float32)
        if not both:
            product = ctx.map(ops.Linear(matrix.t()), left_side)
        else:
            product = ctx.map(analog_ops.MatMul(), left_side, ctx.constant(matrix, a))
    else:
        right_side = arranged(b, second, [*both, *summed, *only_b], (*lead, span(summed), span(only_b)))
        product = ctx.map(analog_ops.MatMul(), left_side, right_side)
    current = [*both, *only_a, *only_b]
    shape = tuple(sizes[label] for label in current)
    node = product.node
    if tuple(node.meta["shape"]) != shape:
        node = ctx.emit(ops.Reshape(shape=shape), node, part="reshape")
    wanted = [label for label in result if label != batch]
    if wanted != current:
        node = ctx.emit(ops.Permute(dims=(0, *(current.index(label) + 1 for label in wanted))), node, part="permute")
    return Activation(node, result.index(batch))


def adaptive_average_matrix(inputs: int, outputs: int) -> Tensor:
    """The (outputs, inputs) matrix of adaptive average pooling along one axis."""
    eye = torch.eye(inputs, dtype=torch.float64).unsqueeze(0)
    return F.adaptive_avg_pool1d(eye, outputs).squeeze(0).t().contiguous()


OPERATORS = {
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
    "mm": matmul,
    "bmm": matmul,
    "baddbmm": baddbmm,
    "einsum": einsum,
}
