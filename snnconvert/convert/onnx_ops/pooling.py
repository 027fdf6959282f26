"""Pooling, reductions and resizing."""

# ruff: noqa: N802, ARG001, PLR0917 (functions are named, and take inputs and attributes, as ONNX has it)

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from snnconvert.convert.onnx_ops.activations import function
from snnconvert.convert.onnx_ops.flow import BATCH, Flow, Refusal, Value
from snnconvert.convert.onnx_ops.layout import Integers, take
from snnconvert.convert.onnx_ops.scope import LARGEST, Scope, fixed, integers, moving
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


def _source(position: float, size: int, out: int, scale: float, coordinates: str) -> float:
    """Input coordinate of output `position`, by the ONNX coordinate_transformation_mode."""
    if coordinates == "align_corners":
        return 0.0 if out == 1 else position * (size - 1) / (out - 1)
    if coordinates == "asymmetric":
        return position / scale
    if coordinates == "pytorch_half_pixel" and out == 1:
        return 0.0
    return (position + 0.5) / scale - 0.5


def _nearest(size: int, out: int, scale: float, coordinates: str, rounding: str) -> list[int]:
    """Which input entry each of `out` outputs copies."""
    found = []
    for position in range(out):
        value = _source(position, size, out, scale, coordinates)
        index = {
            "floor": math.floor(value),
            "ceil": math.ceil(value),
            "round_prefer_floor": math.ceil(value - 0.5),
            "round_prefer_ceil": math.floor(value + 0.5),
        }[rounding]
        found.append(min(max(index, 0), size - 1))
    return found


def Resize(
    scope: Scope,
    x: Value,
    roi: Value | None = None,
    scales: Value | None = None,
    sizes: Value | None = None,
    *,
    antialias: int = 0,
    axes: tuple[int, ...] | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Flow:
    flow = moving(x).require_plain()
    if scope.opset < 11 and sizes is None:
        coordinate_transformation_mode, nearest_mode, scales = (
            "asymmetric",
            "floor",
            scales if scales is not None else roi,
        )
    if antialias and mode != "nearest":
        raise Refusal("antialias is not supported")
    if keep_aspect_ratio_policy != "stretch":
        raise Refusal(f"keep_aspect_ratio_policy {keep_aspect_ratio_policy!r}; only 'stretch' is supported")
    supported = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
    if coordinate_transformation_mode not in supported:
        raise Refusal(f"coordinate_transformation_mode {coordinate_transformation_mode!r} is not one of {supported}")
    along = list(range(flow.rank)) if axes is None else [flow.normal(axis) for axis in axes]
    inputs = dict(zip(range(1, flow.rank), flow.dims, strict=True))
    if sizes is not None and fixed(sizes, "its sizes").size:
        given = dict(zip(along, integers(sizes, "its sizes"), strict=True))
        if given.get(0, 1) not in (1, scope.batch) and given[0] % BATCH:
            raise Refusal("it resizes the batch")
        ratios = {axis: given[axis] / inputs[axis] for axis in along if axis in inputs}
    else:
        factors = np.ravel(fixed(scales, "its scales"))
        ratios = {axis: float(factor) for axis, factor in zip(along, factors, strict=True) if axis in inputs}
        given = {axis: math.floor(inputs[axis] * ratio + 1e-6) for axis, ratio in ratios.items()}
        if 0 in along and factors[along.index(0)] != 1:
            raise Refusal("it resizes the batch")
    out = {axis: given.get(axis, size) for axis, size in inputs.items()}
    if mode == "nearest":
        return _resize_nearest(scope, flow, out, ratios, coordinate_transformation_mode, nearest_mode)
    if mode != "linear":
        raise Refusal(f"mode {mode!r} is not one of nearest, linear")
    spatial = tuple(out[axis] for axis in range(2, flow.rank))
    exact = all(abs(out[axis] / inputs[axis] - ratio) < 1e-6 for axis, ratio in ratios.items())
    aligned = coordinate_transformation_mode == "align_corners"
    if coordinate_transformation_mode == "asymmetric" or out[1] != inputs[1] or not exact or len(spatial) > 2:
        raise Refusal(
            f"linear interpolation with {coordinate_transformation_mode} coordinates; half_pixel, pytorch_half_pixel "
            "and align_corners over 1 or 2 spatial axes are supported"
        )
    kind = "linear" if len(spatial) == 1 else "bilinear"
    return scope.apply(ops.Resize(size=spatial, mode=kind, align_corners=aligned), flow)


def _resize_nearest(
    scope: Scope, flow: Flow, out: dict[int, int], ratios: dict[int, float], coordinates: str, rounding: str
) -> Flow:
    """A Resize where torch picks the same entries, else one Select per axis."""
    picked = {
        axis: _nearest(flow.dims[axis - 1], out[axis], ratio, coordinates, rounding) for axis, ratio in ratios.items()
    }
    spatial = tuple(out[axis] for axis in range(2, flow.rank))
    same = out[1] == flow.dims[0] and len(spatial) in (1, 2)
    for axis, size in enumerate(spatial, start=2) if same else ():
        line = torch.arange(flow.dims[axis - 1], dtype=torch.float32)[None, None]
        copied = torch.nn.functional.interpolate(line, size=size, mode="nearest")[0, 0].int().tolist()
        same = same and copied == picked.get(axis, list(range(size)))
    if same:
        return scope.apply(ops.Resize(size=spatial, mode="nearest"), flow)
    for axis, indices in picked.items():
        flow = take(scope, flow, axis, indices)
    return flow


def Upsample(
    scope: Scope,
    x: Value,
    scales: Value | tuple[float, ...],
    *,
    mode: str = "nearest",
) -> Flow:
    factors = np.array(scales, dtype=np.float32) if isinstance(scales, tuple) else scales
    return Resize(
        scope,
        x,
        None,
        factors,
        mode=mode,
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
