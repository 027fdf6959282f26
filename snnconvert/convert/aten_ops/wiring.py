"""ATen operators that move values and compute nothing."""

# Rules take the argument lists of ATen as they are.
# ruff: noqa: PLR0917

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from snnconvert.convert.aten_ops.lowering import (
    Activation,
    BatchSize,
    Context,
    Rule,
    UnsupportedNodeError,
    batch_first,
)
from snnconvert.graph import ops


def identity(ctx: Context, x: Any, **_: Any) -> Any:
    """Dropout in eval mode, clone, contiguous, detach, conversions: the same values."""
    del ctx
    return x


def dropout(ctx: Context, x: Any, p: float = 0.5, train: bool = False) -> Any:
    if train and p:
        raise UnsupportedNodeError("dropout in training mode; call eval()")
    return identity(ctx, x)


def convert(ctx: Context, x: Any, dtype: Any = None, **_: Any) -> Any:
    if isinstance(dtype, torch.dtype) and not dtype.is_floating_point:
        raise UnsupportedNodeError(f"it converts activations to {dtype}")
    if dtype in (torch.float16, torch.bfloat16):
        raise UnsupportedNodeError(f"it rounds activations to {dtype}")
    return identity(ctx, x)


def reshape(ctx: Context, x: Activation, shape: Any = None, size: Any = None) -> Any:
    return ctx.relayout(x, shape if shape is not None else size)


def reshape_as(ctx: Context, x: Activation, other: Any) -> Any:
    return ctx.relayout(x, other.shape)


def flatten(ctx: Context, x: Activation, start_dim: int = 0, end_dim: int = -1) -> Any:
    first, last = x.normal(start_dim), x.normal(end_dim)
    shape = x.shape
    merged = prod(s.multiple if isinstance(s, BatchSize) else s for s in shape[first : last + 1])
    size = BatchSize(merged) if first <= x.axis <= last else merged
    return ctx.relayout(x, [*shape[:first], size, *shape[last + 1 :]])


def unflatten(ctx: Context, x: Activation, dim: int, sizes: Sequence[Any]) -> Any:
    dim, shape = x.normal(dim), x.shape
    if dim == x.axis:
        return ctx.relayout(x, [*shape[:dim], *sizes, *shape[dim + 1 :]])
    sizes = list(sizes)
    if -1 in sizes:
        sizes[sizes.index(-1)] = x.size(dim) // -prod(sizes)
    return ctx.relayout(x, [*shape[:dim], *sizes, *shape[dim + 1 :]])


def squeeze(ctx: Context, x: Activation, dim: Any = None) -> Any:
    dims = range(x.rank) if dim is None else [dim] if isinstance(dim, int) else list(dim)
    drop = {x.normal(d) for d in dims}
    shape = [size for axis, size in enumerate(x.shape) if not (axis in drop and size == 1)]
    return ctx.relayout(x, shape)


def unsqueeze(ctx: Context, x: Activation, dim: int) -> Any:
    place = dim + x.rank + 1 if dim < 0 else dim
    return ctx.relayout(x, [*x.shape[:place], 1, *x.shape[place:]])


def permute(ctx: Context, x: Activation, dims: Sequence[int], part: str = "") -> Any:
    order = [x.normal(dim) for dim in dims]
    inner: list[int] = [0]
    for dim in order:
        inner += range(x.axis + 1, x.axis + 1 + x.width) if dim == x.axis else [x.dim(dim)]
    node = x.node
    if inner != list(range(len(inner))):
        node = ctx.emit(ops.Permute(dims=tuple(inner)), node, part=part)
    return Activation(node, order.index(x.axis), x.before, x.after)


def transpose(ctx: Context, x: Activation, dim0: int, dim1: int) -> Any:
    order = list(range(x.rank))
    first, second = x.normal(dim0), x.normal(dim1)
    order[first], order[second] = second, first
    return permute(ctx, x, order)


def swapaxes(ctx: Context, x: Activation, axis0: int, axis1: int) -> Any:
    return transpose(ctx, x, axis0, axis1)


def t(ctx: Context, x: Activation) -> Any:
    return permute(ctx, x, list(reversed(range(x.rank))))


def movedim(ctx: Context, x: Activation, source: Any, destination: Any) -> Any:
    sources = [source] if isinstance(source, int) else list(source)
    targets = [destination] if isinstance(destination, int) else list(destination)
    sources, targets = [x.normal(s) for s in sources], [x.normal(d) for d in targets]
    rest = iter(axis for axis in range(x.rank) if axis not in sources)
    order = [sources[targets.index(axis)] if axis in targets else next(rest) for axis in range(x.rank)]
    return permute(ctx, x, order)


def expand(ctx: Context, x: Activation, size: Sequence[Any], *, implicit: bool = False) -> Any:
    del implicit
    extra = len(size) - x.rank
    if extra:
        x = ctx.relayout(x, [1] * extra + x.shape, part="view")
    wanted: list[Any] = [now if new == -1 else new for now, new in zip(x.shape, size, strict=True)]
    if wanted[x.axis] != x.shape[x.axis]:
        raise UnsupportedNodeError("it changes the batch size")
    inner = [int(size) for size in wanted[: x.axis]]
    inner += x.sample_shape[x.axis : x.axis + x.width]
    inner += [int(size) for size in wanted[x.axis + 1 :]]
    return x if tuple(inner) == x.sample_shape else ctx.map(ops.Expand(shape=tuple(inner)), x)


def expand_as(ctx: Context, x: Any, other: Any) -> Any:
    return expand(ctx, x, other.shape)


def repeat(ctx: Context, x: Activation, repeats: Sequence[int]) -> Any:
    extra = len(repeats) - x.rank
    if extra > 0:
        x = ctx.relayout(x, [1] * extra + x.shape, part="view")
    for axis, count in enumerate([1] * -extra + list(repeats)):
        if count == 1:
            continue
        indices = tuple(range(x.size(axis))) * count
        x = ctx.map(ops.Select(dim=x.dim(axis), indices=indices), x)
    return x


def repeat_interleave(ctx: Context, x: Activation, repeats: Any, dim: Any = None, **_: Any) -> Any:
    if not isinstance(repeats, int) or dim is None:
        raise UnsupportedNodeError("repeat_interleave without one count and one axis")
    indices = tuple(index for index in range(x.size(dim)) for _ in range(repeats))
    return ctx.map(ops.Select(dim=x.dim(dim), indices=indices), x)


def sliced(ctx: Context, x: Activation, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Any:
    full = start in (None, 0) and step == 1
    if x.normal(dim) == x.axis:
        if full and (end is None or end == x.shape[x.axis] or (isinstance(end, int) and end >= 2**31)):
            return x
        raise UnsupportedNodeError("it takes part of the batch")
    size = x.size(dim)
    bounds = [0 if start is None else start, size if end is None else end]
    first, last = (max(0, min(size, b + size if b < 0 else b)) for b in bounds)
    if full and last == size:
        return x
    return ctx.map(ops.Slice(dim=x.dim(dim), start=first, stop=last, step=step), x)


def narrow(ctx: Context, x: Activation, dim: int, start: int, length: int) -> Any:
    first = start + x.size(dim) if start < 0 else start
    return sliced(ctx, x, dim, first, first + length)


def select(ctx: Context, x: Activation, dim: int, index: int, part: str = "") -> Any:
    axis, size = x.normal(dim), x.size(dim)
    first = index + size if index < 0 else index
    cut = x
    if size != 1:
        cut = ctx.map(ops.Slice(dim=x.dim(dim), start=first, stop=first + 1), x, part=part)
    return ctx.relayout(cut, [*x.shape[:axis], *x.shape[axis + 1 :]], part=f"{part}squeeze")


def unbind(ctx: Context, x: Activation, dim: int = 0) -> Any:
    return [select(ctx, x, dim, index) for index in range(x.size(dim))]


def split(ctx: Context, x: Activation, split_size: Any = None, dim: int = 0, split_sizes: Any = None) -> Any:
    sizes = split_size if split_sizes is None else split_sizes
    total = x.size(dim)
    if isinstance(sizes, int):
        sizes = [min(sizes, total - start) for start in range(0, total, sizes)]
    parts, start = [], 0
    for size in sizes:
        parts.append(sliced(ctx, x, dim, start, start + size))
        start += size
    return parts


def chunk(ctx: Context, x: Activation, chunks: int, dim: int = 0) -> Any:
    return split(ctx, x, -(-x.size(dim) // chunks), dim)


def index_select(ctx: Context, x: Activation, dim: int, index: Any) -> Any:
    if not isinstance(index, Tensor):
        raise UnsupportedNodeError("its index depends on the data")
    return ctx.map(ops.Select(dim=x.dim(dim), indices=tuple(index.flatten().tolist())), x)


def index(ctx: Context, x: Activation, indices: Sequence[Any]) -> Any:
    used = [(axis, value) for axis, value in enumerate(indices) if value is not None]
    if len(used) != 1 or not isinstance(used[0][1], Tensor) or used[0][1].ndim != 1:
        raise UnsupportedNodeError("indexing with more than one index vector, or with data")
    axis, vector = used[0]
    if vector.dtype == torch.bool:
        vector = vector.nonzero().flatten()
    size = x.size(axis)
    return index_select(ctx, x, axis, torch.where(vector < 0, vector + size, vector))


def flip(ctx: Context, x: Activation, dims: Sequence[int]) -> Any:
    for dim in dims:
        x = ctx.map(ops.Select(dim=x.dim(dim), indices=tuple(reversed(range(x.size(dim))))), x)
    return x


def roll(ctx: Context, x: Activation, shifts: Any, dims: Any = ()) -> Any:
    shifts, dims = ([value] if isinstance(value, int) else list(value) for value in (shifts, dims))
    if not dims:
        raise UnsupportedNodeError("it rolls along the batch axis")
    for shift, dim in zip(shifts, dims, strict=True):
        size = x.size(dim)
        if shift % size:
            order = tuple((place - shift) % size for place in range(size))
            x = ctx.map(ops.Select(dim=x.dim(dim), indices=order), x)
    return x


def pad(ctx: Context, x: Activation, pad: Sequence[int], mode: str = "constant", value: Any = None) -> Any:
    return _padded(ctx, x, pad, mode, value)


def _padded(ctx: Context, x: Activation, pad: Sequence[int], mode: str, value: Any) -> Any:
    pairs = list(zip(pad[::2], pad[1::2], strict=True))
    for place, pair in enumerate(pairs):
        if any(pair):
            x.dim(-1 - place)
    if not any(pad):
        return x
    if mode == "constant":
        if x.rank - x.axis <= len(pairs) and x.width != 1:
            pairs = pairs[: x.rank - x.axis - 1]
        flat = tuple(side for pair in pairs for side in pair)
        return ctx.map(ops.Pad(pads=flat, value=0.0 if value is None else float(value)), x)
    for place, (low, high) in enumerate(pairs):
        if low or high:
            size = x.size(-1 - place)
            order = [_source(spot, size, mode) for spot in range(-low, size + high)]
            x = ctx.map(ops.Select(dim=x.dim(-1 - place), indices=tuple(order)), x)
    return x


def constant_pad_nd(ctx: Context, x: Activation, pad: Sequence[int], value: Any = 0) -> Any:
    return _padded(ctx, x, pad, "constant", value)


def _source(spot: int, size: int, mode: str) -> int:
    """Which element the padded place `spot` shows."""
    if mode == "replicate":
        return max(0, min(size - 1, spot))
    if mode == "circular":
        return spot % size
    if mode == "reflect":
        spot = abs(spot)
        return 2 * (size - 1) - spot if spot >= size else spot
    raise UnsupportedNodeError(f"padding mode {mode!r}")


def im2col(
    ctx: Context,
    x: Any,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    stride: Sequence[int],
) -> Any:
    """torch.nn.Unfold: the windows of an image, as a selection of its (padded) pixels."""
    x = batch_first(x)
    if any(padding):
        x = ctx.map(ops.Pad(pads=(padding[1], padding[1], padding[0], padding[0])), x, part="pad")
    channels, height, width = x.sample_shape
    places = torch.arange(height * width, dtype=torch.float32).reshape(1, 1, height, width)
    windows = F.unfold(places, tuple(kernel_size), tuple(dilation), 0, tuple(stride))[0].long()
    flat = ctx.emit(ops.Reshape(shape=(channels, height * width)), x.node, part="flatten")
    chosen = ctx.emit(ops.Select(dim=2, indices=tuple(windows.flatten().tolist())), flat)
    shape = (channels * windows.shape[0], windows.shape[1])
    return Activation(ctx.emit(ops.Reshape(shape=shape), chosen, part="windows"))


def cat(ctx: Context, tensors: Sequence[Any], dim: int = 0) -> Any:
    tensors = [x for x in tensors if not (isinstance(x, Tensor) and x.numel() == 0)]
    first = next(x for x in tensors if isinstance(x, Activation))
    inputs = []
    for x in tensors:
        if isinstance(x, Tensor):
            raise UnsupportedNodeError("it joins a constant of fixed batch size to activations")
        if (x.axis, x.before, x.after) != (first.axis, first.before, first.after):
            raise UnsupportedNodeError("its inputs carry the batch on different axes")
        inputs.append(x)
    if len(inputs) == 1:
        return first
    node = ctx.emit(ops.Concat(dim=first.dim(dim)), *(x.node for x in inputs))
    return Activation(node, first.axis, first.before, first.after)


def stack(ctx: Context, tensors: Sequence[Any], dim: int = 0) -> Any:
    return cat(ctx, [unsqueeze(ctx, x, dim) for x in tensors], dim)


def pixel_shuffle(ctx: Context, x: Any, upscale_factor: int) -> Any:
    factor, (channels, height, width) = upscale_factor, batch_first(x).sample_shape
    split_shape = (channels // factor**2, factor, factor, height, width)
    node = ctx.emit(ops.Reshape(shape=split_shape), x.node, part="split")
    node = ctx.emit(ops.Permute(dims=(0, 1, 4, 2, 5, 3)), node, part="permute")
    merged = (channels // factor**2, height * factor, width * factor)
    return Activation(ctx.emit(ops.Reshape(shape=merged), node))


def pixel_unshuffle(ctx: Context, x: Any, downscale_factor: int) -> Any:
    factor, (channels, height, width) = downscale_factor, batch_first(x).sample_shape
    split_shape = (channels, height // factor, factor, width // factor, factor)
    node = ctx.emit(ops.Reshape(shape=split_shape), x.node, part="split")
    node = ctx.emit(ops.Permute(dims=(0, 1, 3, 5, 2, 4)), node, part="permute")
    merged = (channels * factor**2, height // factor, width // factor)
    return Activation(ctx.emit(ops.Reshape(shape=merged), node))


def channel_shuffle(ctx: Context, x: Any, groups: int) -> Any:
    channels = batch_first(x).sample_shape[0]
    order = torch.arange(channels).reshape(groups, -1).t().flatten().tolist()
    return ctx.map(ops.Select(dim=1, indices=tuple(order)), x)


OPERATORS: dict[str, Rule] = {
    **dict.fromkeys(("contiguous", "clone", "alias", "detach", "lift_fresh_copy"), identity),
    **dict.fromkeys(("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"), dropout),
    **dict.fromkeys(("to", "_to_copy", "type_as"), convert),
    **dict.fromkeys(("reshape", "view", "_unsafe_view"), reshape),
    **dict.fromkeys(("reshape_as", "view_as"), reshape_as),
    "flatten": flatten,
    "unflatten": unflatten,
    "squeeze": squeeze,
    "unsqueeze": unsqueeze,
    "permute": permute,
    "transpose": transpose,
    "swapaxes": swapaxes,
    "t": t,
    "movedim": movedim,
    "expand": expand,
    "expand_as": expand_as,
    "repeat": repeat,
    "repeat_interleave": repeat_interleave,
    "slice": sliced,
    "narrow": narrow,
    "select": select,
    "unbind": unbind,
    "split": split,
    "split_with_sizes": split,
    "chunk": chunk,
    "index_select": index_select,
    "index": index,
    "flip": flip,
    "roll": roll,
    "pad": pad,
    "constant_pad_nd": constant_pad_nd,
    "im2col": im2col,
    "cat": cat,
    "concat": cat,
    "stack": stack,
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
    "channel_shuffle": channel_shuffle,
}
