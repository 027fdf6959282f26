"""Operators that move values: reshapes, permutations, slices, concatenation."""

# ruff: noqa: N802, PLR0917 (functions are named, and take inputs and attributes, as ONNX has it)

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np

from snnconvert.convert.lowering.flow import BATCH, Array, Flow, Refusal, Value
from snnconvert.convert.lowering.moves import concat, depth_to_space, embedding, pad, repeated, space_to_depth, take
from snnconvert.convert.lowering.moves import split as cut
from snnconvert.convert.lowering.scope import moving
from snnconvert.convert.onnx_ops.folding import PerSample
from snnconvert.convert.onnx_ops.scope import Scope, fixed, integers, scalar

Integers: TypeAlias = Value | tuple[int, ...]  # an input, or in older opsets an attribute


def _all_sizes(scope: Scope, flow: Flow) -> list[int]:
    """ONNX sizes as the Shape operator gives them: a fixed batch of 1 is a plain 1, any other batch is BATCH."""
    return [size // BATCH if scope.batch == 1 and size >= BATCH else size for size in flow.sizes]


def Shape(scope: Scope, x: Value, *, start: int = 0, end: int | None = None) -> Array:
    return np.array(_all_sizes(scope, moving(x))[start:end], dtype=np.int64)


def Size(scope: Scope, x: Value) -> Array:
    return np.array(math.prod(_all_sizes(scope, moving(x))), dtype=np.int64)


def Reshape(scope: Scope, x: Value, shape: Value, *, allowzero: int = 0) -> Flow:
    flow = moving(x)
    sizes = flow.sizes
    wanted = list(integers(shape, "its target shape"))
    for index, size in enumerate(wanted):
        if size == 0 and not allowzero:
            if index >= len(sizes):
                raise Refusal(f"target size 0 at {index} copies an axis that its input lacks")
            wanted[index] = sizes[index]
    return scope.reshape(flow, wanted)


def Flatten(scope: Scope, x: Value, *, axis: int = 1) -> Flow:
    flow = moving(x)
    axis = axis if axis >= 0 else axis + flow.rank
    sizes = flow.sizes
    if flow.position is None or flow.position < axis:
        return scope.reshape(flow, [math.prod(sizes[:axis]), math.prod(sizes[axis:])])
    if scope.batch == 1:
        return scope.reshape(flow, [math.prod(sizes[:axis]), -1])
    raise Refusal(f"axis {axis} would mix the samples of a batch")


def Squeeze(scope: Scope, x: Value, axes: Integers | None = None) -> Flow:
    flow = moving(x)
    given = None if axes is None else integers(axes, "its axes")
    sizes = _all_sizes(scope, flow)
    dropped = (
        [index for index, size in enumerate(sizes) if size == 1] if given is None else [flow.normal(a) for a in given]
    )
    if any(sizes[index] != 1 for index in dropped):
        raise Refusal("it squeezes the batch, or an axis whose size is not 1")
    position = flow.position
    if position in dropped:
        position = None
    elif position is not None:
        position -= sum(index < position for index in dropped)
    dims = [flow.axis(index) - 1 for index in dropped if index != flow.position]
    kept = tuple(size for index, size in enumerate(flow.dims) if index not in dims)
    return Flow(scope.sample_reshape(flow.node, kept), position, flow.before, flow.after)


def Unsqueeze(scope: Scope, x: Value, axes: Integers) -> Flow:
    flow = moving(x)
    given = integers(axes, "its axes")
    rank = flow.rank + len(given)
    if any(not -rank <= axis < rank for axis in given):
        raise Refusal(f"axes {tuple(given)} do not exist in a tensor with {rank} axes")
    new = sorted(axis % rank for axis in given)
    sizes = list(flow.sizes)
    marks: list[int | None] = list(range(flow.rank))
    for axis in new:
        sizes.insert(axis, 1)
        marks.insert(axis, None)
    if flow.position is None:
        # The batch of 1 that was squeezed away comes back on the first new axis.
        return (
            Flow(scope.sample_reshape(flow.node, tuple(sizes[: new[0]] + sizes[new[0] + 1 :])), new[0]) if new else flow
        )
    position = marks.index(flow.position)
    extra = tuple(size for size in (flow.before, flow.after) if size > 1)
    dims = (*sizes[:position], *extra, *sizes[position + 1 :])
    return Flow(scope.sample_reshape(flow.node, dims), position, flow.before, flow.after)


def Transpose(scope: Scope, x: Value, *, perm: tuple[int, ...] | None = None) -> Flow:
    flow = moving(x)
    return scope.transpose(flow, range(flow.rank)[::-1] if perm is None else perm)


def Slice(
    scope: Scope,
    x: Value,
    starts: Integers,
    ends: Integers,
    axes: Integers | None = None,
    steps: Value | None = None,
) -> Flow:
    flow = moving(x)
    first, last = integers(starts, "its starts"), integers(ends, "its ends")
    along = tuple(range(len(first))) if axes is None else integers(axes, "its axes")
    stride = (1,) * len(first) if steps is None else integers(steps, "its steps")
    for axis, start, stop, step in zip(along, first, last, stride, strict=True):
        axis = flow.normal(axis)  # noqa: PLW2901
        if axis == flow.position:
            if start == 0 and stop >= (scope.batch or BATCH) and step == 1:
                continue
            flow.axis(axis)
        size = flow.dims[flow.axis(axis) - 1]
        chosen = range(size)[slice(start, None if step < 0 and stop < -size else stop, step)]
        if not len(chosen):
            raise Refusal("it leaves nothing of an axis")
        flow = take(scope, flow, axis, chosen)
    return flow


def Split(
    scope: Scope,
    x: Value,
    sizes: Integers | None = None,
    *,
    axis: int = 0,
    split: tuple[int, ...] | None = None,
    num_outputs: int | None = None,
) -> tuple[Flow, ...]:
    flow = moving(x)
    size = flow.dims[flow.axis(axis) - 1]
    if (given := sizes if split is None else split) is not None:
        parts = integers(given, "its sizes")
    else:
        count = num_outputs or len(scope.outputs)
        each = math.ceil(size / count)
        parts = tuple(min(each, size - each * index) for index in range(count))
    return cut(scope, flow, axis, parts)


def Gather(scope: Scope, x: Value, indices: Value | PerSample, *, axis: int = 0) -> Flow:
    if not isinstance(x, Flow):
        if not isinstance(indices, Flow) or axis % max(x.ndim, 1):
            raise Refusal("it looks up a table by activations, and not along its first axis")
        return embedding(scope, x, indices)
    if isinstance(indices, PerSample):
        return _gather_own(scope, x, indices)
    array = fixed(indices, "its indices")
    axis = x.normal(axis)
    if axis == x.position and scope.batch == 1 and array.ndim == 0:
        return Squeeze(scope, x, (axis,))
    dim = x.axis(axis)
    size = x.dims[dim - 1]
    flow = take(scope, x, axis, [int(index) % size if -size <= index < size else size for index in array.reshape(-1)])
    if array.ndim == 1:
        return flow
    dims = (*flow.dims[: dim - 1], *array.shape, *flow.dims[dim:])
    node = scope.sample_reshape(flow.node, dims)
    if flow.position is None or axis > flow.position:
        return flow.on(node)
    return Flow(node, flow.position + array.ndim - 1, flow.before, flow.after)


def _gather_own(scope: Scope, flow: Flow, indices: PerSample) -> Flow:
    """Gather from the flattened batch by indices that stay within each sample."""
    size = math.prod(flow.dims)
    own = (indices.first >= 0).all() and (indices.first < size).all()
    if flow.rank != 1 or flow.before != 1 or not own or not (indices.second - indices.first == size).all():
        raise Refusal("it gathers across the samples of a batch")
    one = Flow(scope.sample_reshape(flow.node, (size,)))
    picked = take(scope, one, 1, indices.first.reshape(-1).tolist())
    return Flow(scope.sample_reshape(picked.node, indices.first.shape[1:]))


def GatherND(scope: Scope, x: Value, indices: Value, *, batch_dims: int = 0) -> Flow:
    flow, array = moving(x), fixed(indices, "its indices")
    if batch_dims:
        if batch_dims != 1 or flow.position != 0 or (array != array[:1]).any():
            raise Refusal(f"batch_dims {batch_dims}; only 0, and 1 with equal indices for all samples, are supported")
        array = array[0]
    depth, lead = array.shape[-1], array.shape[:-1]
    dims = [flow.axis(batch_dims + axis) for axis in range(depth)]
    sizes = [flow.dims[dim - 1] for dim in dims]
    # The gathered axes become one axis, from which entries are picked, which becomes the axes of the indices.
    start, rest = dims[0] - 1, flow.dims[dims[-1] :]
    array = np.where(array < 0, array + np.array(sizes), array)
    if (array < 0).any() or (array >= np.array(sizes)).any():
        raise Refusal("an index is outside its axis")
    picked = np.ravel_multi_index(tuple(np.moveaxis(array, -1, 0)), tuple(sizes)).reshape(-1)
    merged = Flow(scope.sample_reshape(flow.node, (*flow.dims[:start], math.prod(sizes), *rest)))
    node = take(scope, merged, start + 1, picked.tolist()).node
    node = scope.sample_reshape(node, (*flow.dims[:start], *lead, *rest))
    if flow.position is None or flow.position == 0:
        return flow.on(node)
    return Flow(node, flow.position - depth + len(lead), flow.before, flow.after)


def Concat(scope: Scope, *values: Value, axis: int = 1) -> Flow:
    return concat(scope, values, axis)


def Expand(scope: Scope, x: Value, shape: Value) -> Flow:
    flow, wanted = moving(x), list(integers(shape, "its shape"))
    if len(wanted) > flow.rank:
        if flow.position is not None and not (scope.batch == 1 and flow.position == 0):
            flow = scope.ranked(flow, len(wanted))
        else:
            flow = scope.reshape(flow, [1] * (len(wanted) - flow.rank) + _all_sizes(scope, flow))
    wanted = [1] * (flow.rank - len(wanted)) + wanted
    dims = list(flow.dims)
    for axis, size in enumerate(wanted):
        if axis == flow.position:
            if size not in (1, flow.sizes[axis], scope.batch):
                raise Refusal("it repeats the batch")
        elif size != 1:
            dim = flow.axis(axis) - 1
            if dims[dim] not in (1, size):
                raise Refusal(f"an axis of size {dims[dim]} cannot be broadcast to {size}")
            dims[dim] = size
    return scope.expand_dims(flow, tuple(dims))


def Tile(scope: Scope, x: Value, repeats: Value) -> Flow:
    return repeated(scope, moving(x), integers(repeats, "its repeats"))


def Pad(
    scope: Scope,
    x: Value,
    pads: Integers,
    value: Value | float | None = None,
    axes: Value | None = None,
    *,
    mode: str = "constant",
) -> Flow:
    flow = moving(x)
    amounts = integers(pads, "its pads")
    along = range(flow.rank) if axes is None else [flow.normal(axis) for axis in integers(axes, "its axes")]
    if len(amounts) != 2 * len(along):
        raise Refusal(f"{len(amounts)} pads for {len(along)} axes")
    fill = value if isinstance(value, float) else 0.0
    if value is not None and not isinstance(value, float) and fixed(value, "its value").size:
        fill = scalar(value, "its value")
    pairs = zip(amounts[: len(along)], amounts[len(along) :], strict=True)
    return pad(scope, flow, dict(zip(along, pairs, strict=True)), mode, fill)


def DepthToSpace(scope: Scope, x: Value, *, blocksize: int, mode: str = "DCR") -> Flow:
    return depth_to_space(scope, moving(x), blocksize, depth_first=mode == "DCR")


def SpaceToDepth(scope: Scope, x: Value, *, blocksize: int) -> Flow:
    return space_to_depth(scope, moving(x), blocksize, depth_first=True)
