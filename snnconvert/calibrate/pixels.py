"""Which pixels of a map are read to compute some pixels of another.

Pixels are indices into height * width, -1 outside of a map, where values are zero; maps are (channels, height, width).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from snnconvert.graph.dialect import arguments, op_of
from snnconvert.graph.edit import kind_of
from snnconvert.graph.kinds import Conv, Pad, Role, Slice, Weighted

MOVES_CHANNELS = ("Concat", "Slice", "Select")


def at_pixels(values: Tensor, pixels: Tensor) -> Tensor:
    """(batch, channels, height, width) at some pixels, (batch, channels, pixels, 1), channels last in memory."""
    by_pixel = values.permute(0, 2, 3, 1).flatten(1, 2)
    some = by_pixel.index_select(1, pixels) if values.stride(1) == 1 else by_pixel[:, pixels]
    return some.permute(0, 2, 1).unsqueeze(-1)


def pixels_read(op: Weighted, pixels: Tensor, source: tuple[int, ...], width: int) -> Tensor:
    """Which pixels of the map `source` some of one of this width are made of, (pixels, kernel height, kernel width)."""
    index: list[Tensor] = []
    for axis, place in enumerate((pixels // width, pixels % width)):
        taps = torch.arange(op.weight.shape[2 + axis]) * op.dilation[axis] - op.padding[axis]
        at = place.unsqueeze(1) * op.stride[axis] + taps
        index.append(torch.where((at >= 0) & (at < source[1 + axis]), at, -1))
    rows, columns = index[0].unsqueeze(2), index[1].unsqueeze(1)
    return torch.where((rows < 0) | (columns < 0), -1, rows * source[2] + columns)


def pixels_before(node: fx.Node, pixels: Tensor) -> Tensor | None:
    """The pixels of its inputs that the values of `node` at `pixels` are made of, one for each.

    They are `pixels` itself where values are added up or scaled, or channels moved; others where rows or columns are
    left out, and that is all that `node` does; None where several pixels, or none, make one.
    """
    op, shape = op_of(node), tuple(node.meta["shape"])
    maps = [tuple(one.meta["shape"]) for one in arguments(node)]
    if len(shape) != 3:
        return None
    if isinstance(op, Slice) and op.dim > 1:
        rows, columns = torch.div(pixels, shape[2], rounding_mode="floor"), torch.remainder(pixels, shape[2])
        place = [rows, columns]
        place[op.dim - 2] = op.start + op.step * place[op.dim - 2]
        return place[0] * int(maps[0][2]) + place[1]
    if op.role == Role.AFFINE:
        keeps = all(value.shape[-2:] == (1, 1) for value in op.buffers())
    elif isinstance(op, Pad):
        keeps = not any(op.pads[:4])
    elif kind_of(node) == "Add":
        keeps = all(one == shape for one in maps)
    else:
        keeps = kind_of(node) in MOVES_CHANNELS and op.arguments()["dim"] == 1
    return pixels if keeps else None


def pads_zeros(node: fx.Node) -> bool:
    """Whether a node surrounds maps by zeros, which are silent."""
    op = op_of(node) if node.op == "call_module" else None
    return isinstance(op, Pad) and len(node.meta["shape"]) == 3 and op.value == 0 and len(op.pads) <= 4


def inside_padding(node: fx.Node, pixels: Tensor) -> tuple[fx.Node, Tensor]:
    """The node that `node` pads, and the same pixels there."""
    op, (inner,) = op_of(node), arguments(node)
    assert isinstance(op, Pad)
    left, _, top, _ = (*op.pads, 0, 0)[:4]
    (_, height, width), padded = inner.meta["shape"], node.meta["shape"][2]
    rows, columns = pixels // padded - top, pixels % padded - left
    outside = (pixels < 0) | (rows < 0) | (rows >= height) | (columns < 0) | (columns >= width)
    return inner, torch.where(outside, -1, rows * width + columns)


def pixels_behind(node: fx.Node, pixels: Tensor, *, kept: bool) -> tuple[fx.Node, Tensor]:
    """What the operator `node` reads at `pixels`: the node, before it was surrounded by zeros, and `pixels_read` there.

    `kept`: what it reads is there already, zeros and all.
    """
    (source,) = arguments(node)
    read = pixels_read(op_of(node, Weighted), pixels, tuple(source.meta["shape"]), node.meta["shape"][2])
    return inside_padding(source, read) if not kept and pads_zeros(source) else (source, read)


@dataclass(frozen=True)
class SomePixels:
    """A convolution of some pixels, with its kernel for a stride: what one reads lies below what the one before reads.

    Attributes:
        op: the convolution.
        source: the node that it reads.
        pixels: what it reads of it, in the order of a map of `height` times `width`.
        outside: which of them are padding.
        count: number of outputs.
    """

    op: Conv
    source: fx.Node
    pixels: Tensor
    outside: Tensor
    height: int
    width: int
    count: int


def some_pixels(node: fx.Node, pixels: Tensor, *, kept: bool) -> SomePixels | None:
    """The convolution `node` at `pixels`; None where it reads too many. `kept`: what it reads is there already."""
    op, (outer,) = op_of(node, Conv), arguments(node)
    source, read = pixels_behind(node, pixels, kept=kept)
    if read.numel() > 3 * math.prod(outer.meta["shape"][1:]):
        return None
    count, height, width = read.shape
    compact = Conv(op.weight, op.bias, stride=(height, width), padding=(0, 0), dilation=(1, 1), groups=op.groups)
    flat = read.flatten()
    return SomePixels(compact, source, flat.clamp(min=0), flat < 0, count * height, width, count)
