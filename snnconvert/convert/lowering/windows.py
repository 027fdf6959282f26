"""Convolutions and pooling: the geometry of sliding windows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from snnconvert.convert.lowering.flow import Array, Flow, Refusal
from snnconvert.convert.lowering.scope import LARGEST, Scope, optional, tensor
from snnconvert.graph import kinds

Sizes = tuple[int, ...]


@dataclass(frozen=True)
class Window:
    """How a kernel slides over spatial axes, with the attributes of ONNX; those that are None are 1, and pads 0."""

    kernel: Sizes
    strides: Sizes | None = None
    dilations: Sizes | None = None
    pads: Sizes | None = None
    auto_pad: str = "NOTSET"
    ceil_mode: int = 0

    def over(self, dims: Sizes) -> tuple[Sizes, Sizes, Sizes, Sizes]:
        """Stride, dilation, and begin and end padding over spatial sizes `dims`."""
        rank = len(self.kernel)
        if len(dims) != rank:
            raise Refusal(f"a kernel over {rank} axes meets an input with {len(dims)} spatial axes")
        stride, dilation = tuple(self.strides or (1,) * rank), tuple(self.dilations or (1,) * rank)
        if self.auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            begin, end = [], []
            for size, k, s, d in zip(dims, self.kernel, stride, dilation, strict=True):
                total = max((math.ceil(size / s) - 1) * s + (k - 1) * d + 1 - size, 0)
                small, large = total // 2, total - total // 2
                begin.append(small if self.auto_pad == "SAME_UPPER" else large)
                end.append(large if self.auto_pad == "SAME_UPPER" else small)
            return stride, dilation, tuple(begin), tuple(end)
        if self.auto_pad not in ("NOTSET", "VALID", ""):
            raise Refusal(f"auto_pad {self.auto_pad} is not one of NOTSET, VALID, SAME_UPPER, SAME_LOWER")
        padding = (0,) * (2 * rank) if self.auto_pad == "VALID" or not self.pads else tuple(self.pads)
        if len(padding) != 2 * rank or len(stride) != rank or len(dilation) != rank:
            raise Refusal(f"pads, strides or dilations do not fit a kernel over {rank} axes")
        return stride, dilation, padding[:rank], padding[rank:]


def padded(scope: Scope, flow: Flow, begin: tuple[int, ...], end: tuple[int, ...], value: float = 0.0) -> Flow:
    """`flow` padded on its trailing axes."""
    if not any(begin) and not any(end):
        return flow
    pairs = [amount for pair in zip(reversed(begin), reversed(end), strict=True) for amount in pair]
    return scope.apply(kinds.Pad(pads=tuple(pairs), value=value), flow)


def conv(  # noqa: PLR0917
    scope: Scope, flow: Flow, kernel: Array, bias: Array | None = None, window: Window | None = None, groups: int = 1
) -> Flow:
    """A convolution with `kernel` (out, in / groups, *spatial); step by step without a `window`."""
    rank = kernel.ndim - 2
    if not 1 <= rank <= 3:
        raise Refusal(f"convolution over {rank} axes; 1, 2 and 3 are supported")
    flow.require_plain()
    stride, dilation, begin, end = (window or Window(kernel.shape[2:])).over(flow.dims[1:])
    if begin != end:
        flow, begin = padded(scope, flow, begin, end), (0,) * rank
    op = kinds.Conv(tensor(kernel), optional(bias), stride=stride, padding=begin, dilation=dilation, groups=groups)
    return scope.apply(op, flow)


def _outputs(size: int, reach: int, stride: int, begin: int, end: int, ceil_mode: bool) -> int:  # noqa: PLR0917
    """Number of windows along one axis, as ONNX and torch count them."""
    free = size + begin + end - reach
    if not ceil_mode:
        return free // stride + 1
    count = -(-free // stride) + 1
    # Of windows that reach over the end, one that starts in the padding there is dropped.
    return count - 1 if (count - 1) * stride >= size + begin else count


def _explicit(size: int, reach: int, stride: int, begin: int, end: int, ceil_mode: bool) -> tuple[int, int]:  # noqa: PLR0917
    """Number of windows along one axis, and the end padding with which they are all that fit without ceil_mode."""
    count = _outputs(size, reach, stride, begin, end, ceil_mode)
    if count == _outputs(size, reach, stride, begin, end, False):
        return count, end
    return count, (count - 1) * stride + reach - size - begin


def max_pool(scope: Scope, flow: Flow, window: Window) -> Flow:
    """Padding that is symmetric, or at the end only and reproduced by ceil_mode, is the pool's own (minus infinity).

    Any other padding becomes a Pad node: of 0 where the input is provably non-negative (the same maximum, and a
    silent neuron when spiking), else of the most negative float.
    """
    kernel, ceil = window.kernel, bool(window.ceil_mode)
    if len(kernel) > 3:
        raise Refusal(f"max pooling over {len(kernel)} axes; 1, 2 and 3 are supported")
    flow.require_plain()
    if len(kernel) == 3:
        return _max_pool_of_volumes(scope, flow, window)
    stride, dilation, begin, end = window.over(flow.dims[1:])
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    axes = list(zip(flow.dims[1:], reach, stride, begin, end, strict=True))
    small = all(2 * amount <= k for amount, k in zip(begin, kernel, strict=True))
    if begin != end or not small:
        as_ceil = [_outputs(size, r, s, b, b, True) for size, r, s, b, _ in axes]
        wanted = [_outputs(size, r, s, b, e, ceil) for size, r, s, b, e in axes]
        if small and as_ceil == wanted and all(e >= b for *_, b, e in axes):
            ceil = True
        else:
            fill = 0.0 if scope.non_negative(flow.node) else -LARGEST
            # The pool cannot tell this padding from the input: which windows there are is settled here.
            end = tuple(_explicit(size, r, s, b, e, ceil)[1] for size, r, s, b, e in axes)
            flow, begin, ceil = padded(scope, flow, begin, end, fill), (0,) * len(kernel), False
    op = kinds.MaxPool(kernel=kernel, stride=stride, padding=begin, dilation=dilation, ceil_mode=ceil)
    return scope.apply(op, flow)


def _max_pool_of_volumes(scope: Scope, flow: Flow, window: Window) -> Flow:
    """The largest over windows of planes, and then over the depth of those, which is the largest of the volume."""
    sides = list(zip(window.kernel, *window.over(flow.dims[1:]), strict=True))

    def over(*axes: tuple[int, ...]) -> Window:
        kernel, strides, dilations, begin, end = zip(*axes, strict=True)
        return Window(kernel, strides, dilations, begin + end, ceil_mode=window.ceil_mode)

    channels, depth, *plane = flow.dims
    planes = flow.on(scope.sample_reshape(flow.node, (channels * depth, *plane), "planes"))
    planes = max_pool(scope, planes, over(*sides[1:]))
    _, *plane = planes.dims
    columns = planes.on(scope.sample_reshape(planes.node, (channels, depth, math.prod(plane)), "columns"))
    columns = max_pool(scope, columns, over(sides[0], (1, 1, 1, 0, 0)))
    return columns.on(scope.sample_reshape(columns.node, (*columns.dims[:2], *plane), "volumes"))


def average_pool(scope: Scope, flow: Flow, window: Window, *, count_include_pad: bool = False) -> Flow:
    """The dialect's own average where it has that form, else sums divided by how many elements count."""
    flow.require_plain()
    kernel, ceil_mode = window.kernel, bool(window.ceil_mode)
    rank = len(kernel)
    stride, dilation, begin, end = window.over(flow.dims[1:])
    if (
        rank <= 2
        and set(dilation) <= {1}
        and begin == end
        and all(2 * b <= k for b, k in zip(begin, kernel, strict=True))
    ):
        op = kinds.AveragePool(
            kernel=kernel,
            stride=stride,
            padding=begin,
            ceil_mode=ceil_mode,
            count_include_pad=count_include_pad or not any(begin),
        )
        return scope.apply(op, flow)
    return _counted_average(scope, flow, kernel, (stride, dilation, begin, end), ceil_mode, count_include_pad)


def _counted_average(  # noqa: PLR0917
    scope: Scope,
    flow: Flow,
    kernel: Sizes,
    geometry: tuple[Sizes, Sizes, Sizes, Sizes],
    ceil_mode: bool,
    count_include_pad: bool,
) -> Flow:
    """The sum over each window (a depthwise convolution or an average of the padded input), divided by its count."""
    rank, (stride, dilation, begin, end) = len(kernel), geometry
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    sizes = flow.dims[1:]
    found = [_explicit(*axis, ceil_mode) for axis in zip(sizes, reach, stride, begin, end, strict=True)]
    windows, more = zip(*found, strict=True)
    if min(windows) < 1:
        raise Refusal(f"a kernel of {kernel} reaches over more than its input of {sizes}, padded")
    flow = padded(scope, flow, begin, more)
    if rank <= 2 and set(dilation) <= {1}:
        flow = scope.apply(kinds.AveragePool(kernel=kernel, stride=stride, padding=(0,) * rank), flow)
    else:
        weight = np.full((flow.dims[0], 1, *kernel), 1.0 / math.prod(kernel))
        flow = conv(scope, flow, weight, window=Window(kernel, stride, dilation), groups=flow.dims[0])
    # Only now, that the sums have been held against the memory a file may ask for: the table is no larger.
    factors = np.ones((), np.float32)
    for axis, (size, n, s, d, k) in enumerate(zip(sizes, windows, stride, dilation, kernel, strict=True)):
        low, high = (0, size + begin[axis] + end[axis]) if count_include_pad else (begin[axis], begin[axis] + size)
        starts = np.arange(n) * s
        counted = _before(high, starts, d, k) - _before(low, starts, d, k)
        factors = np.multiply.outer(factors, (k / np.maximum(counted, 1)).astype(np.float32))
    return scope.affine(flow, factors[None, None])


def _before(edge: int, starts: Array, dilation: int, kernel: int) -> Array:
    """How many elements of each window lie before `edge`."""
    before: Array = np.clip(-((starts - edge) // dilation), 0, kernel)
    return before
