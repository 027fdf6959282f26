"""Operators with weights: convolutions and matrix products."""

# ruff: noqa: N802, N803, PLR0917 (functions are named, and take inputs and attributes, as ONNX has it)

from __future__ import annotations

import math

import numpy as np

from snnconvert.convert.onnx_ops.flow import Array, Flow, Refusal, Value
from snnconvert.convert.onnx_ops.scope import Scope, fixed, moving, tensor
from snnconvert.graph import analog_ops, ops


def window(
    dims: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...] | None,
    dilation: tuple[int, ...] | None,
    pads: tuple[int, ...] | None,
    auto_pad: str,
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Stride, dilation, and begin and end padding of a sliding window over spatial sizes `dims`."""
    rank = len(kernel)
    if len(dims) != rank:
        raise Refusal(f"a kernel over {rank} axes meets an input with {len(dims)} spatial axes")
    stride, dilation = tuple(stride or (1,) * rank), tuple(dilation or (1,) * rank)
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        begin, end = [], []
        for size, k, s, d in zip(dims, kernel, stride, dilation, strict=True):
            total = max((math.ceil(size / s) - 1) * s + (k - 1) * d + 1 - size, 0)
            small, large = total // 2, total - total // 2
            begin.append(small if auto_pad == "SAME_UPPER" else large)
            end.append(large if auto_pad == "SAME_UPPER" else small)
        return stride, dilation, tuple(begin), tuple(end)
    if auto_pad not in ("NOTSET", "VALID", ""):
        raise Refusal(f"auto_pad {auto_pad} is not one of NOTSET, VALID, SAME_UPPER, SAME_LOWER")
    padding = (0,) * (2 * rank) if auto_pad == "VALID" or not pads else tuple(pads)
    if len(padding) != 2 * rank or len(stride) != rank or len(dilation) != rank:
        raise Refusal(f"pads, strides or dilations do not fit a kernel over {rank} axes")
    return stride, dilation, padding[:rank], padding[rank:]


def padded(scope: Scope, flow: Flow, begin: tuple[int, ...], end: tuple[int, ...], value: float = 0.0) -> Flow:
    """`flow` padded on its trailing axes."""
    if not any(begin) and not any(end):
        return flow
    pairs = [amount for pair in zip(reversed(begin), reversed(end), strict=True) for amount in pair]
    return scope.apply(ops.Pad(pads=tuple(pairs), value=value), flow)


def Conv(
    scope: Scope,
    x: Value,
    weight: Value,
    bias: Value | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: tuple[int, ...] | None = None,
    group: int = 1,
    kernel_shape: tuple[int, ...] | None = None,
    pads: tuple[int, ...] | None = None,
    strides: tuple[int, ...] | None = None,
) -> Flow:
    flow, kernel = moving(x).require_plain(), fixed(weight, "its weight")
    rank = kernel.ndim - 2
    if not 1 <= rank <= 3:
        raise Refusal(f"convolution over {rank} axes; 1, 2 and 3 are supported")
    if kernel_shape and tuple(kernel_shape) != kernel.shape[2:]:
        raise Refusal(f"kernel_shape {tuple(kernel_shape)} differs from the weight's {kernel.shape[2:]}")
    stride, dilation, begin, end = window(flow.dims[1:], kernel.shape[2:], strides, dilations, pads, auto_pad)
    if begin != end:
        flow, begin = padded(scope, flow, begin, end), (0,) * rank
    offset = None if bias is None else tensor(fixed(bias, "its bias"))
    op = ops.Conv(tensor(kernel), offset, stride=stride, padding=begin, dilation=dilation, groups=group)
    return scope.apply(op, flow)


def ConvTranspose(
    scope: Scope,
    x: Value,
    weight: Value,
    bias: Value | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: tuple[int, ...] | None = None,
    group: int = 1,
    kernel_shape: tuple[int, ...] | None = None,
    output_padding: tuple[int, ...] | None = None,
    output_shape: tuple[int, ...] | None = None,
    pads: tuple[int, ...] | None = None,
    strides: tuple[int, ...] | None = None,
) -> Flow:
    flow, kernel = moving(x).require_plain(), fixed(weight, "its weight")
    rank = kernel.ndim - 2
    if not 1 <= rank <= 3 or len(flow.dims) != rank + 1:
        raise Refusal(f"transposed convolution over {rank} axes of an input with {len(flow.dims) - 1}")
    if kernel_shape and tuple(kernel_shape) != kernel.shape[2:]:
        raise Refusal(f"kernel_shape {tuple(kernel_shape)} differs from the weight's {kernel.shape[2:]}")
    stride, dilation = tuple(strides or (1,) * rank), tuple(dilations or (1,) * rank)
    extra = tuple(output_padding or (0,) * rank)
    whole = [
        (size - 1) * s + (k - 1) * d + 1 + e
        for size, s, k, d, e in zip(flow.dims[1:], stride, kernel.shape[2:], dilation, extra, strict=True)
    ]
    if output_shape is not None or auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        wanted = output_shape or [size * s for size, s in zip(flow.dims[1:], stride, strict=True)]
        totals = [full - size for full, size in zip(whole, wanted[-rank:], strict=True)]
        small, large = [total // 2 for total in totals], [total - total // 2 for total in totals]
        begin, end = (small, large) if auto_pad != "SAME_LOWER" else (large, small)
        if auto_pad == "NOTSET":
            begin, end = large, small
    else:
        padding = list(pads or (0,) * (2 * rank)) if auto_pad == "NOTSET" else [0] * (2 * rank)
        begin, end = padding[:rank], padding[rank:]
    offset = None if bias is None else tensor(fixed(bias, "its bias"))
    symmetric = (
        begin == end and min(begin) >= 0 and all(e < max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True))
    )
    op = ops.ConvTranspose(
        tensor(kernel),
        offset,
        stride=stride,
        padding=tuple(begin) if symmetric else (0,) * rank,
        output_padding=extra if symmetric else (0,) * rank,
        dilation=dilation,
        groups=group,
    )
    flow = scope.apply(op, flow)
    if symmetric:
        return flow
    if any(extra) and offset is not None:
        raise Refusal("output_padding with asymmetric pads and a bias")
    crop = tuple(-amount for amount in begin)
    return padded(scope, flow, crop, tuple(e - amount for e, amount in zip(extra, end, strict=True)))


def Gemm(
    scope: Scope,
    a: Value,
    b: Value,
    c: Value | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Flow:
    if transA:
        a = scope.transpose(a, (1, 0)) if isinstance(a, Flow) else a.T
    if isinstance(b, Flow) or isinstance(a, np.ndarray):
        b = b if not transB else (scope.transpose(b, (1, 0)) if isinstance(b, Flow) else b.T)
        product = scope.affine(MatMul(scope, a, b), alpha)
    else:
        weight = b if transB else b.T
        if isinstance(c, np.ndarray) and c.size == weight.shape[0] and c.shape[-1:] == (weight.shape[0],):
            return linear(scope, a, alpha * weight, beta * c.reshape(-1))
        product = linear(scope, a, alpha * weight)
    if c is None:
        return product
    if isinstance(c, np.ndarray):
        return scope.affine(product, shift=beta * c)
    first, second = scope.together(product, scope.affine(c, beta))
    return first.on(scope.emit(ops.Add(), first.node, second.node))


def linear(scope: Scope, flow: Flow, weight: Array, bias: Array | None = None) -> Flow:
    """Matrix product of the last axis with `weight` (out, in)."""
    if flow.axis(-1) != len(flow.dims) or flow.dims[-1] != weight.shape[1]:
        raise Refusal(f"a weight of shape {weight.shape} meets a last axis of size {flow.dims[-1:]}")
    return scope.apply(ops.Linear(tensor(weight), None if bias is None else tensor(bias)), flow)


def MatMul(scope: Scope, a: Value, b: Value) -> Flow:
    if isinstance(a, Flow) and not isinstance(b, Flow):
        weight = _matrix(b, a.rank)
        if weight.ndim == 2:
            return linear(scope, a, weight.T)
        if weight.ndim == 1:
            flow = linear(scope, a, weight[None])
            return flow.dropped(scope.sample_reshape(flow.node, flow.dims[:-1]), (flow.rank - 1,))
    if isinstance(b, Flow) and not isinstance(a, Flow) and b.rank >= 2:
        weight = _matrix(a, b.rank)
        if weight.ndim == 1:
            flow = linear(scope, _swapped(scope, b), weight[None])
            return flow.dropped(scope.sample_reshape(flow.node, flow.dims[:-1]), (flow.rank - 1,))
        if weight.ndim == 2:
            return _swapped(scope, linear(scope, _swapped(scope, b), weight))
    if min(value.rank if isinstance(value, Flow) else value.ndim for value in (a, b)) < 2:
        raise Refusal("a product with a vector of activations")
    first, second = scope.together(a, b)
    for flow in (first, second):
        flow.axis(-1)
        flow.axis(-2)
    return first.on(scope.emit(analog_ops.MatMul(), first.node, second.node))


def _matrix(weight: Array, rank: int) -> Array:
    """`weight` without leading axes of size 1 that the other operand, of `rank` axes, has anyway."""
    while weight.ndim > 2 and weight.shape[0] == 1 and rank >= weight.ndim:
        weight = weight[0]
    return weight


def _swapped(scope: Scope, flow: Flow) -> Flow:
    """`flow` with its last two ONNX axes exchanged."""
    return scope.transpose(flow, (*range(flow.rank - 2), flow.rank - 1, flow.rank - 2))


def Einsum(scope: Scope, *inputs: Value, equation: str) -> Flow:
    """Two operands: batched matrix products, after reordering axes (no repeated letters, no ellipsis)."""
    left, arrow, result = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow or len(terms) != 2 or len(inputs) != 2 or "." in equation:
        raise Refusal(f"equation {equation!r}; only two operands with '->' and plain letters are supported")
    one, two = terms
    if any(len(set(term)) != len(term) for term in (one, two, result)):
        raise Refusal(f"equation {equation!r} repeats a letter")
    both = [letter for letter in result if letter in one and letter in two]
    summed = [letter for letter in one if letter in two and letter not in result]
    rows = [letter for letter in result if letter in one and letter not in two]
    columns = [letter for letter in result if letter in two and letter not in one]
    if len(summed) != 1 or len(rows) != 1 or len(columns) != 1 or set(one + two) != set(both + summed + rows + columns):
        if isinstance(inputs[1], np.ndarray) and len(summed) == 1 and len(columns) == 1 and not both:
            flow = scope.transpose(moving(inputs[0]), [one.index(letter) for letter in [*rows, *summed]])
            weight = np.transpose(inputs[1], [two.index(letter) for letter in [*columns, *summed]])
            order = [*rows, *columns]
            return scope.transpose(linear(scope, flow, weight), [order.index(letter) for letter in result])
        raise Refusal(f"equation {equation!r} is not a matrix product of two inputs")

    def ordered(value: Value, term: str, letters: list[str]) -> Value:
        axes = [term.index(letter) for letter in letters]
        return scope.transpose(value, axes) if isinstance(value, Flow) else np.transpose(value, axes)

    first, second = (
        ordered(inputs[0], one, [*both, *rows, *summed]),
        ordered(inputs[1], two, [*both, *summed, *columns]),
    )
    order = [*both, *rows, *columns]
    return scope.transpose(MatMul(scope, first, second), [order.index(letter) for letter in result])
