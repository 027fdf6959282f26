"""Pooling and reductions."""

# ruff: noqa: N802, ARG001 (functions are named, and take inputs and attributes, as ONNX has it)

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from snnconvert.convert.onnx_ops.activations import function
from snnconvert.convert.onnx_ops.flow import Flow, Refusal, Value
from snnconvert.convert.onnx_ops.layout import Integers
from snnconvert.convert.onnx_ops.scope import LARGEST, Scope, integers, moving
from snnconvert.convert.onnx_ops.weighted import Conv, padded, window
from snnconvert.graph import analog_ops, ops


def _outputs(size: int, reach: int, stride: int, padding: int, ceil_mode: bool) -> int:
    """Number of windows along one axis, as ONNX and torch count them."""
    free = size + padding - reach
    return (math.ceil(free / stride) if ceil_mode else free // stride) + 1


def MaxPool(
    scope: Scope,
    x: Value,
    *,
    kernel_shape: tuple[int, ...],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: tuple[int, ...] | None = None,
    pads: tuple[int, ...] | None = None,
    storage_order: int = 0,
    strides: tuple[int, ...] | None = None,
) -> Flow:
    """Padding that is symmetric, or at the end only and reproduced by ceil_mode, is the pool's own (minus infinity).

    Any other padding becomes a Pad node: of 0 where the input is provably non-negative (the same maximum, and a
    silent neuron when spiking), else of the most negative float.
    """
    flow, kernel = moving(x).require_plain(), tuple(kernel_shape)
    if len(kernel) > 2:
        raise Refusal(f"max pooling over {len(kernel)} axes; 1 and 2 are supported")
    stride, dilation, begin, end = window(flow.dims[1:], kernel, strides, dilations, pads, auto_pad)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    axes = list(zip(flow.dims[1:], reach, stride, begin, end, strict=True))
    small = all(2 * amount <= k for amount, k in zip(begin, kernel, strict=True))
    ceil = bool(ceil_mode)
    if begin != end or not small:
        as_ceil = [_outputs(size, r, s, 2 * b, True) for size, r, s, b, _ in axes]
        wanted = [_outputs(size, r, s, b + e, ceil) for size, r, s, b, e in axes]
        # A window may start in the padding at the end only where torch would drop it.
        whole = all((n - 1) * s < size + b for n, (size, _, s, b, _) in zip(wanted, axes, strict=True))
        if small and as_ceil == wanted and whole and all(e >= b for *_, b, e in axes):
            ceil = True
        else:
            fill = 0.0 if scope.non_negative(flow.node) else -LARGEST
            flow, begin = padded(scope, flow, begin, end, fill), (0,) * len(kernel)
    op = ops.MaxPool(kernel=kernel, stride=stride, padding=begin, dilation=dilation, ceil_mode=ceil)
    return scope.apply(op, flow)


def AveragePool(
    scope: Scope,
    x: Value,
    *,
    kernel_shape: tuple[int, ...],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: tuple[int, ...] | None = None,
    pads: tuple[int, ...] | None = None,
    strides: tuple[int, ...] | None = None,
) -> Flow:
    flow, kernel = moving(x).require_plain(), tuple(kernel_shape)
    rank = len(kernel)
    stride, dilation, begin, end = window(flow.dims[1:], kernel, strides, dilations, pads, auto_pad)
    if (
        rank <= 2
        and set(dilation) <= {1}
        and begin == end
        and all(2 * b <= k for b, k in zip(begin, kernel, strict=True))
    ):
        op = ops.AveragePool(
            kernel=kernel,
            stride=stride,
            padding=begin,
            ceil_mode=bool(ceil_mode),
            count_include_pad=bool(count_include_pad) or not any(begin),
        )
        return scope.apply(op, flow)
    # The sum over each window (a depthwise convolution or an average of the padded input), divided by how many
    # elements of the window count.
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    counts = np.ones(())
    more = list(end)
    for axis, (size, r, s, d, k) in enumerate(zip(flow.dims[1:], reach, stride, dilation, kernel, strict=True)):
        windows = _outputs(size, r, s, begin[axis] + end[axis], bool(ceil_mode))
        if ceil_mode and (windows - 1) * s >= size + begin[axis]:
            windows -= 1
        more[axis] = max(end[axis], (windows - 1) * s + r - size - begin[axis])
        inside = np.arange(size + begin[axis] + more[axis]) - begin[axis]
        low, high = (-begin[axis], size + end[axis]) if count_include_pad else (0, size)
        counted = (inside >= low) & (inside < high)
        row = np.array([counted[i * s : i * s + r : d].sum() for i in range(windows)])
        counts = np.multiply.outer(counts, row / k)
    flow = padded(scope, flow, begin, tuple(more))
    if rank <= 2 and set(dilation) <= {1}:
        flow = scope.apply(ops.AveragePool(kernel=kernel, stride=stride, padding=(0,) * rank), flow)
    else:
        weight = np.full((flow.dims[0], 1, *kernel), 1.0 / math.prod(kernel))
        flow = Conv(scope, flow, weight, group=flow.dims[0], strides=stride, dilations=dilation)
    cropped = tuple(slice(0, size) for size in flow.dims[1:])
    return scope.affine(flow, 1.0 / np.maximum(counts[cropped], 1e-30)[None, None])


def _spatial(flow: Flow) -> tuple[int, ...]:
    return tuple(range(2, len(flow.dims) + 1))


def GlobalAveragePool(scope: Scope, x: Value) -> Flow:
    flow = moving(x).require_plain()
    return scope.apply(ops.Mean(dims=_spatial(flow), keepdim=True), flow)


def GlobalMaxPool(scope: Scope, x: Value) -> Flow:
    flow = moving(x).require_plain()
    if len(flow.dims) - 1 <= 2:
        return MaxPool(scope, flow, kernel_shape=flow.dims[1:])
    return scope.apply(analog_ops.Reduce(function="max", dims=_spatial(flow), keepdim=True), flow)


def _reduced(scope: Scope, x: Value, axes: Integers | None, noop: int) -> tuple[Flow, tuple[int, ...], tuple[int, ...]]:
    """The flow, the ONNX axes reduced and their axes in the dialect."""
    flow = moving(x)
    along = () if axes is None else integers(axes, "its axes")
    if not along and not noop:
        along = tuple(range(flow.rank))
    chosen = tuple(flow.normal(axis) for axis in along)
    return flow, chosen, tuple(sorted(flow.axis(axis) for axis in chosen))


def _reduction(build: Callable[[Scope, Flow, tuple[int, ...], bool], Flow]) -> Callable[..., Value]:
    def operator(
        scope: Scope,
        x: Value,
        axes: Integers | None = None,
        *,
        keepdims: int = 1,
        noop_with_empty_axes: int = 0,
    ) -> Value:
        flow, chosen, dims = _reduced(scope, x, axes, noop_with_empty_axes)
        if not dims:
            return flow
        result = build(scope, flow, dims, bool(keepdims))
        return result if keepdims else flow.dropped(result.node, chosen)

    return operator


def _mean(scope: Scope, flow: Flow, dims: tuple[int, ...], keepdim: bool) -> Flow:
    return scope.apply(ops.Mean(dims=dims, keepdim=keepdim), flow)


def _sum(scope: Scope, flow: Flow, dims: tuple[int, ...], keepdim: bool) -> Flow:
    count = math.prod(flow.dims[dim - 1] for dim in dims)
    mean = scope.emit(ops.Mean(dims=dims, keepdim=keepdim), flow.node)
    factor = ops.Affine(torch.tensor(float(count)), torch.tensor(0.0))
    return flow.on(scope.emit(factor, mean))


def _reduce(name: str) -> Callable[[Scope, Flow, tuple[int, ...], bool], Flow]:
    def build(scope: Scope, flow: Flow, dims: tuple[int, ...], keepdim: bool) -> Flow:
        return scope.apply(analog_ops.Reduce(function=name, dims=dims, keepdim=keepdim), flow)

    return build


def _sum_of(inner: str, outer: str | None = None) -> Callable[[Scope, Flow, tuple[int, ...], bool], Flow]:
    def build(scope: Scope, flow: Flow, dims: tuple[int, ...], keepdim: bool) -> Flow:
        total = _sum(scope, function(scope, flow, inner), dims, keepdim)
        return total if outer is None else function(scope, total, outer)

    return build


REDUCTIONS: dict[str, Callable[..., Value]] = {
    "ReduceMean": _reduction(_mean),
    "ReduceSum": _reduction(_sum),
    "ReduceMax": _reduction(_reduce("max")),
    "ReduceMin": _reduction(_reduce("min")),
    "ReduceL2": _reduction(_reduce("l2")),
    "ReduceL1": _reduction(_sum_of("abs")),
    "ReduceSumSquare": _reduction(_sum_of("square")),
    "ReduceLogSumExp": _reduction(_sum_of("exp", "log")),
}


def LpNormalization(scope: Scope, x: Value, *, axis: int = -1, p: int = 2) -> Flow:
    flow = moving(x)
    build = _reduce("l2") if p == 2 else _sum_of("abs")
    length = build(scope, flow, (flow.axis(axis),), True)
    return flow.on(scope.emit(analog_ops.Divide(), flow.node, length.node))
