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

from snnconvert.convert.aten_ops.context import BatchSize, Context, fixed, moving, operator, shape_of, value
from snnconvert.convert.aten_ops.makers import per_sample, repeated
from snnconvert.convert.lowering import moves
from snnconvert.convert.lowering.flow import Flow, Refusal
from snnconvert.convert.lowering.moves import take

_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def _size(x: Flow, dim: int) -> int:
    """The size of an axis other than the batch."""
    return x.dims[x.axis(dim) - 1]


@operator("contiguous", "clone", "alias", "detach", "lift_fresh_copy")
def identity(ctx: Context, x: Any, **_: Any) -> Any:
    """Dropout in eval mode, clone, contiguous, detach, conversions: the same values."""
    del ctx
    return x


@operator("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
def dropout(ctx: Context, x: Any, p: float = 0.5, train: bool = False) -> Any:
    if train and p:
        raise Refusal("dropout in training mode; call eval()")
    return identity(ctx, x)


@operator("to", "_to_copy", "type_as")
def convert(ctx: Context, x: Any, dtype: Any = None, **_: Any) -> Any:
    if isinstance(x, Flow) and ctx.is_whole(x.node):
        return x
    if isinstance(dtype, torch.dtype) and not dtype.is_floating_point:
        raise Refusal(f"it converts activations to {dtype}")
    if dtype in (torch.float16, torch.bfloat16):
        raise Refusal(f"it rounds activations to {dtype}")
    return identity(ctx, x)


@operator("embedding")
def embedding(ctx: Context, weight: Any, indices: Any, **_: Any) -> Flow:
    """Rows of a table; those of padding are as they stand."""
    return moves.embedding(ctx, fixed(weight, "table"), moving(indices))


@operator("reshape", "view", "_unsafe_view")
def reshape(ctx: Context, x: Flow, shape: Any = None, size: Any = None) -> Any:
    return ctx.view(x, shape if shape is not None else size)


@operator("reshape_as", "view_as")
def reshape_as(ctx: Context, x: Flow, other: Any) -> Any:
    return ctx.view(x, shape_of(other))


@operator("flatten")
def flatten(ctx: Context, x: Flow, start_dim: int = 0, end_dim: int = -1) -> Any:
    first, last = x.normal(start_dim), x.normal(end_dim)
    shape = shape_of(x)
    merged = prod(s.multiple if isinstance(s, BatchSize) else s for s in shape[first : last + 1])
    size = BatchSize(merged) if first <= _batch(x) <= last else merged
    return ctx.view(x, [*shape[:first], size, *shape[last + 1 :]])


@operator("unflatten")
def unflatten(ctx: Context, x: Flow, dim: int, sizes: Sequence[Any]) -> Any:
    dim, shape = x.normal(dim), shape_of(x)
    if dim == x.position:
        return ctx.view(x, [*shape[:dim], *sizes, *shape[dim + 1 :]])
    sizes = list(sizes)
    if -1 in sizes:
        sizes[sizes.index(-1)] = _size(x, dim) // -prod(sizes)
    return ctx.view(x, [*shape[:dim], *sizes, *shape[dim + 1 :]])


@operator("squeeze")
def squeeze(ctx: Context, x: Flow, dim: Any = None) -> Any:
    dims = range(x.rank) if dim is None else [dim] if isinstance(dim, int) else list(dim)
    drop = {x.normal(d) for d in dims}
    shape = [size for axis, size in enumerate(shape_of(x)) if not (axis in drop and size == 1)]
    return ctx.view(x, shape)


@operator("unsqueeze")
def unsqueeze(ctx: Context, x: Flow, dim: int) -> Any:
    place = dim + x.rank + 1 if dim < 0 else dim
    return ctx.view(x, [*shape_of(x)[:place], 1, *shape_of(x)[place:]])


@operator("permute")
def permute(ctx: Context, x: Flow, dims: Sequence[int]) -> Flow:
    return ctx.transpose(x, dims)


@operator("transpose", "swapaxes")
def transpose(ctx: Context, x: Flow, **axes: int) -> Flow:
    first, second = axes.values()
    return ctx.swapped(x, first, second)


@operator("t")
def t(ctx: Context, x: Flow) -> Flow:
    return ctx.transpose(x, reversed(range(x.rank)))


@operator("movedim")
def movedim(ctx: Context, x: Flow, source: Any, destination: Any) -> Any:
    sources = [source] if isinstance(source, int) else list(source)
    targets = [destination] if isinstance(destination, int) else list(destination)
    sources, targets = [x.normal(s) for s in sources], [x.normal(d) for d in targets]
    rest = iter(axis for axis in range(x.rank) if axis not in sources)
    order = [sources[targets.index(axis)] if axis in targets else next(rest) for axis in range(x.rank)]
    return ctx.transpose(x, order)


@operator("expand")
def expand(ctx: Context, x: Any, size: Sequence[Any], *, implicit: bool = False) -> Any:
    del implicit
    if isinstance(x, Tensor):
        return per_sample(ctx, x, size)
    x = ctx.ranked(x, len(size))
    shape = shape_of(x)
    wanted: list[Any] = [now if new == -1 else new for now, new in zip(shape, size, strict=True)]
    place = _batch(x)
    if wanted[place] != shape[place]:
        raise Refusal("it changes the batch size")
    inner = x.dims[place : place + x.merged]
    return ctx.expand_dims(x, (*wanted[:place], *inner, *wanted[place + 1 :]))


@operator("expand_as")
def expand_as(ctx: Context, x: Any, other: Any) -> Any:
    return expand(ctx, x, shape_of(other))


@operator("repeat")
def repeat(ctx: Context, x: Any, repeats: Sequence[Any]) -> Any:
    if isinstance(x, Tensor):
        return repeated(ctx, x, repeats)
    return moves.repeated(ctx, ctx.ranked(x, len(repeats)), repeats)


@operator("repeat_interleave")
def repeat_interleave(ctx: Context, x: Flow, repeats: Any, dim: Any = None, **_: Any) -> Any:
    if not isinstance(repeats, int) or dim is None:
        raise Refusal("repeat_interleave without one count and one axis")
    indices = [index for index in range(_size(x, dim)) for _ in range(repeats)]
    return take(ctx, x, dim, indices)


@operator("slice")
def sliced(ctx: Context, x: Flow, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Flow:
    if x.normal(dim) == x.position:
        whole = end is None or end == shape_of(x)[x.position] or (isinstance(end, int) and end >= 2**31)
        if start in (None, 0) and step == 1 and whole:
            return x
        raise Refusal("it takes part of the batch")
    return take(ctx, x, dim, range(_size(x, dim))[slice(start, end, step)])


@operator("narrow")
def narrow(ctx: Context, x: Flow, dim: int, start: int, length: int) -> Flow:
    first = start + _size(x, dim) if start < 0 else start
    return sliced(ctx, x, dim, first, first + length)


@operator("select")
def select(ctx: Context, x: Flow, dim: int, index: int) -> Flow:
    axis, size = x.normal(dim), _size(x, dim)
    cut = take(ctx, x, dim, [index + size if index < 0 else index])
    shape = shape_of(x)
    return ctx.view(cut, [*shape[:axis], *shape[axis + 1 :]], part="squeeze")


@operator("unbind")
def unbind(ctx: Context, x: Flow, dim: int = 0) -> list[Flow]:
    return [select(ctx, x, dim, index) for index in range(_size(x, dim))]


@operator("split", "split_with_sizes")
def split(ctx: Context, x: Flow, split_size: Any = None, dim: int = 0, split_sizes: Any = None) -> list[Flow]:
    sizes = split_size if split_sizes is None else split_sizes
    total = _size(x, dim)
    if isinstance(sizes, int):
        sizes = [min(sizes, total - start) for start in range(0, total, sizes)]
    return list(moves.split(ctx, x, dim, sizes))


@operator("chunk")
def chunk(ctx: Context, x: Flow, chunks: int, dim: int = 0) -> Any:
    return split(ctx, x, -(-_size(x, dim) // chunks), dim)


@operator("index_select")
def index_select(ctx: Context, x: Flow, dim: int, index: Any) -> Flow:
    if not isinstance(index, Tensor):
        raise Refusal("its index depends on the data")
    return take(ctx, x, dim, index.flatten().tolist())


@operator("index")
def index(ctx: Context, x: Flow, indices: Sequence[Any]) -> Any:
    used = [(axis, value) for axis, value in enumerate(indices) if value is not None]
    if len(used) != 1 or not isinstance(used[0][1], Tensor) or used[0][1].ndim != 1:
        raise Refusal("indexing with more than one index vector, or with data")
    axis, vector = used[0]
    if vector.dtype == torch.bool:
        vector = vector.nonzero().flatten()
    size = _size(x, axis)
    return index_select(ctx, x, axis, torch.where(vector < 0, vector + size, vector))


@operator("flip")
def flip(ctx: Context, x: Flow, dims: Sequence[int]) -> Flow:
    for dim in dims:
        x = take(ctx, x, dim, range(_size(x, dim))[::-1])
    return x


@operator("rot90")
def rot90(ctx: Context, x: Flow, k: int = 1, dims: Sequence[int] = (0, 1)) -> Flow:
    """A quarter turn from the first axis towards the second, `k` times."""
    first, second = dims
    for _ in range(k % 4):
        x = ctx.swapped(flip(ctx, x, [second]), first, second)
    return x


@operator("roll")
def roll(ctx: Context, x: Flow, shifts: Any, dims: Any = ()) -> Any:
    shifts, dims = ([value] if isinstance(value, int) else list(value) for value in (shifts, dims))
    if not dims:
        raise Refusal("it rolls along the batch axis")
    for shift, dim in zip(shifts, dims, strict=True):
        size = _size(x, dim)
        x = take(ctx, x, dim, [(place - shift) % size for place in range(size)])
    return x


@operator("pad", "constant_pad_nd")
def pad(ctx: Context, x: Flow, pad: Sequence[int], mode: str = "constant", value: Any = None) -> Flow:
    if mode not in _MODES:
        raise Refusal(f"padding mode {mode!r}")
    amounts = {x.rank - 1 - place: (pad[2 * place], pad[2 * place + 1]) for place in range(len(pad) // 2)}
    return moves.pad(ctx, x, amounts, _MODES[mode], 0.0 if value is None else float(value))


@operator("im2col")
def im2col(
    ctx: Context,
    x: Any,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    stride: Sequence[int],
) -> Flow:
    """torch.nn.Unfold: the windows of an image, as a selection of its (padded) pixels."""
    flow = moving(x).require_plain()
    flow = moves.pad(ctx, flow, {2: (padding[0], padding[0]), 3: (padding[1], padding[1])}, "constant")
    channels, height, width = flow.dims
    places = torch.arange(height * width, dtype=torch.float32).reshape(1, 1, height, width)
    windows = F.unfold(places, tuple(kernel_size), tuple(dilation), 0, tuple(stride))[0].long()
    flat = ctx.view(flow, [*shape_of(flow)[:2], height * width], part="flatten")
    chosen = take(ctx, flat, 2, windows.flatten().tolist())
    return ctx.view(chosen, [BatchSize(), channels * windows.shape[0], windows.shape[1]], part="windows")


@operator("cat", "concat")
def cat(ctx: Context, tensors: Sequence[Any], dim: int = 0) -> Flow:
    return moves.concat(ctx, [value(x) for x in tensors], dim)


@operator("stack")
def stack(ctx: Context, tensors: Sequence[Any], dim: int = 0) -> Any:
    return cat(ctx, [unsqueeze(ctx, x, dim) for x in tensors], dim)


@operator("pixel_shuffle")
def pixel_shuffle(ctx: Context, x: Any, upscale_factor: int) -> Flow:
    return moves.depth_to_space(ctx, moving(x), upscale_factor, depth_first=False)


@operator("pixel_unshuffle")
def pixel_unshuffle(ctx: Context, x: Any, downscale_factor: int) -> Flow:
    return moves.space_to_depth(ctx, moving(x), downscale_factor, depth_first=False)


@operator("channel_shuffle")
def channel_shuffle(ctx: Context, x: Any, groups: int) -> Flow:
    channels = moving(x).require_plain().dims[0]
    return take(ctx, x, 1, torch.arange(channels).reshape(groups, -1).t().flatten().tolist())


def _batch(x: Flow) -> int:
    assert x.position is not None  # in ATen the batch is always there
    return x.position
