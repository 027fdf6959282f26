"""What moves values and computes nothing, and reductions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from snnconvert.convert.lowering.elementwise import function
from snnconvert.convert.lowering.flow import Array, Flow, Refusal, Value
from snnconvert.convert.lowering.scope import LARGEST, Scope, tensor
from snnconvert.graph import kinds


def take(scope: Scope, flow: Flow, axis: int, indices: Sequence[int], part: str = "") -> Flow:
    """`flow` with the entries `indices` along an axis: a Slice where they are evenly spaced, else a Select."""
    dim = flow.axis(axis)
    size = flow.dims[dim - 1]
    indices = [int(index) for index in indices]
    if any(not 0 <= index < size for index in indices):
        raise Refusal(f"an index is outside an axis of size {size}")
    if indices == list(range(size)):
        return flow
    steps = {after - before for before, after in itertools.pairwise(indices)} or {1}
    if indices and len(steps) == 1 and min(steps) > 0:
        op = kinds.Slice(dim=dim, start=indices[0], stop=indices[-1] + 1, step=min(steps))
        return scope.apply(op, flow, part=part)
    return scope.apply(kinds.Select(dim=dim, indices=tuple(indices)), flow, part=part)


def embedding(scope: Scope, table: Array, indices: Flow) -> Flow:
    """Rows of `table` (rows, ...) by whole numbers that are an input of the model."""
    if not scope.is_whole(indices.node):
        raise Refusal("it looks up a table by activations; only an input of whole numbers can be one of its indices")
    if table.ndim < 1 or not table.size:
        raise Refusal(f"its table has the shape {table.shape}")
    node = scope.emit(kinds.Embedding(tensor(table.reshape(len(table), -1))), indices.node)
    return indices.on(scope.sample_reshape(node, (*indices.dims, *table.shape[1:]), "view"))


def split(scope: Scope, flow: Flow, axis: int, sizes: Sequence[int]) -> tuple[Flow, ...]:
    """Consecutive parts of the given sizes along an axis."""
    ends = [int(end) for end in np.cumsum(sizes)]
    size = flow.dims[flow.axis(axis) - 1]
    if ends[-1:] != [size] or any(part <= 0 for part in sizes):
        raise Refusal(f"parts {tuple(sizes)} do not add up to an axis of size {size}")
    return tuple(take(scope, flow, axis, range(end - part, end)) for end, part in zip(ends, sizes, strict=True))


def repeated(scope: Scope, flow: Flow, counts: Sequence[int]) -> Flow:
    """`flow` repeated along each axis; counts of 1 leave an axis alone."""
    for axis, count in enumerate(counts):
        if count != 1:
            flow = take(scope, flow, axis, list(range(flow.dims[flow.axis(axis) - 1])) * count)
    return flow


def pad(scope: Scope, flow: Flow, amounts: Mapping[int, tuple[int, int]], mode: str, value: float = 0.0) -> Flow:
    """`flow` padded (or, by negative amounts, cropped) at the begin and end of the given axes.

    Args:
        mode: constant, or one of numpy.pad: reflect, edge, wrap.
    """
    if mode not in ("constant", "reflect", "edge", "wrap"):
        raise Refusal(f"mode {mode!r} is not one of constant, reflect, edge, wrap")
    pairs = [0] * (2 * len(flow.dims))
    for axis, (begin, end) in amounts.items():
        if begin == 0 and end == 0:
            continue
        dim = flow.axis(axis)
        if mode == "constant":
            from_last = 2 * (len(flow.dims) - dim)
            pairs[from_last], pairs[from_last + 1] = begin, end
            continue
        row = np.arange(flow.dims[dim - 1])[max(-begin, 0) : flow.dims[dim - 1] - max(-end, 0)]
        flow = take(scope, flow, axis, np.pad(row, (max(begin, 0), max(end, 0)), mode=mode).tolist())  # type: ignore[call-overload]
    while pairs[-2:] == [0, 0]:
        pairs = pairs[:-2]
    # a finite stand-in for minus infinity, which JSON lacks
    return scope.apply(kinds.Pad(pads=tuple(pairs), value=max(value, -LARGEST)), flow) if pairs else flow


def regrouped(scope: Scope, flow: Flow, parts: tuple[int, ...], order: tuple[int, ...], dims: tuple[int, ...]) -> Flow:
    """Samples viewed as `parts`, permuted to `order` and viewed as `dims`: what shuffles pixels and channels."""
    node = scope.sample_reshape(flow.require_plain().node, parts, "split")
    node = scope.emit(kinds.Permute(dims=(0, *(axis + 1 for axis in order))), node, part="permute")
    return flow.on(scope.sample_reshape(node, dims))


def depth_to_space(scope: Scope, flow: Flow, block: int, *, depth_first: bool) -> Flow:
    """Channels as blocks of pixels; `depth_first`: the block's position is the slower index (DCR of ONNX)."""
    channels, height, width = flow.require_plain().dims
    depth = channels // block**2
    dims = (depth, height * block, width * block)
    if depth_first:
        return regrouped(scope, flow, (block, block, depth, height, width), (2, 3, 0, 4, 1), dims)
    return regrouped(scope, flow, (depth, block, block, height, width), (0, 3, 1, 4, 2), dims)


def space_to_depth(scope: Scope, flow: Flow, block: int, *, depth_first: bool) -> Flow:
    """The inverse of `depth_to_space`."""
    channels, height, width = flow.require_plain().dims
    parts = (channels, height // block, block, width // block, block)
    order = (2, 4, 0, 1, 3) if depth_first else (0, 2, 4, 1, 3)
    return regrouped(scope, flow, parts, order, (channels * block**2, height // block, width // block))


def concat(scope: Scope, values: Sequence[Value], axis: int) -> Flow:
    """Values joined along an axis; constants are the same for every sample."""
    lead = next(value for value in values if isinstance(value, Flow))
    flows = [
        value if isinstance(value, Flow) else scope.constant(value, lead)
        for value in values
        if isinstance(value, Flow) or value.size
    ]
    if any((flow.position, flow.before, flow.after) != (lead.position, lead.before, lead.after) for flow in flows):
        raise Refusal("its inputs hold the batch on different axes")
    return scope.apply(kinds.Concat(dim=lead.axis(axis)), *flows) if len(flows) > 1 else lead


# --- reductions -----------------------------------------------------------------------------------


def reduce(scope: Scope, flow: Flow, axes: Sequence[int], how: str, *, keep: bool) -> Flow:
    """A row of REDUCTIONS over some axes, which stay as axes of size 1 where they are kept."""
    chosen = tuple(flow.normal(axis) for axis in axes)
    dims = tuple(sorted(flow.axis(axis) for axis in chosen))
    if not dims:
        return flow
    result = REDUCTIONS[how](scope, flow, dims, keep)
    return result if keep else flow.dropped(result.node, chosen)


def rms_norm(scope: Scope, flow: Flow, first: int, scale: Array | None, eps: float) -> Flow:
    """x / sqrt(mean(x ** 2) + eps) * scale, over all axes from `first` on."""
    power = reduce(scope, function(scope, flow, "square"), range(flow.normal(first), flow.rank), "mean", keep=True)
    inverse = function(scope, scope.affine(power, shift=eps), "rsqrt")
    normal = scope.joined(kinds.Multiply(), flow, inverse)
    return normal if scale is None else scope.affine(normal, scale)


def _mean(scope: Scope, flow: Flow, dims: tuple[int, ...], keep: bool) -> Flow:
    return scope.apply(kinds.Mean(dims=dims, keepdim=keep), flow)


def _sum(scope: Scope, flow: Flow, dims: tuple[int, ...], keep: bool) -> Flow:
    count = float(math.prod(flow.dims[dim - 1] for dim in dims))
    mean = _mean(scope, flow, dims, keep).node
    factor = kinds.Affine(torch.tensor(count), torch.tensor(0.0))
    return flow.on(scope.emit(factor, mean, part="count"))


def _built_in(name: str) -> Reduction:
    def build(scope: Scope, flow: Flow, dims: tuple[int, ...], keep: bool) -> Flow:
        return scope.apply(kinds.Reduce(function=name, dims=dims, keepdim=keep), flow)

    return build


def _sum_of(inner: str, outer: str | None = None) -> Reduction:
    def build(scope: Scope, flow: Flow, dims: tuple[int, ...], keep: bool) -> Flow:
        total = _sum(scope, function(scope, flow, inner), dims, keep)
        return total if outer is None else function(scope, total, outer)

    return build


Reduction = Callable[[Scope, Flow, tuple[int, ...], bool], Flow]
REDUCTIONS: dict[str, Reduction] = {
    "mean": _mean,
    "sum": _sum,
    "max": _built_in("max"),
    "min": _built_in("min"),
    "l1": _sum_of("abs"),
    "l2": _built_in("l2"),
    "sum_square": _sum_of("square"),
    "log_sum_exp": _sum_of("exp", "log"),
}
