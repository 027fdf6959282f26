"""Let weights read the spiking units of one activation directly, instead of their weighted sum.

    W (s_1 u_1 + ... + s_k u_k + c) + b  =  [s_1 W, ..., s_k W] concat(u_1, ..., u_k) + (W c + b)

The sum would be a current, and the layer that reads it would multiply in every step; the units are spikes. Applies to
the pieces of an approximated function and to the two halves of a leaky rectifier, also behind concatenations.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, fx

from snnconvert.convert.passes.fold_affine import per_channel
from snnconvert.graph.dialect import arguments, calls, op_of, origin_of, role_of
from snnconvert.graph.edit import insert_after, kind_of, replace_op
from snnconvert.graph.kinds import Affine, Concat, Gathering, Op, Role, Select, Weighted


@dataclass(frozen=True)
class _Block:
    """`node` times `scale` is added to the channels `first` .. `first + len(scale)`."""

    node: fx.Node
    scale: Tensor
    first: int


@dataclass(frozen=True)
class _Sum:
    """A value as a sum of blocks and a shift per channel, shape (channels,)."""

    blocks: tuple[_Block, ...]
    shift: Tensor


def spread_units(graph: fx.GraphModule) -> int:
    """Rewrite every layer with weights that reads a sum of units; returns how many were."""
    changed = 0
    for node, op in list(calls(graph, Weighted)):
        if not op.gathers:
            continue
        (source,) = arguments(node)
        axis = len(source.meta["shape"]) if op.features_last else 1
        found = _units(source, axis, inside=False)
        if found is None or all(block.node is source for block in found.blocks):
            continue
        if any(op.padding) and bool(found.shift.any()):
            continue
        if op.groups > 1 and not _whole(found, op):
            continue
        _rewrite(graph, node, op, found, axis)
        changed += 1
    return changed


def _units(node: fx.Node, axis: int, *, inside: bool) -> _Sum | None:
    """`node` as a sum of units along `axis`; None where a part of it is a current. Needs at least one sum of units."""
    kind, channels = kind_of(node), _channels(node, axis)
    if kind == "Add" and _of_one_origin(node):
        parts = [_scaled(source, axis) for source in arguments(node)]
        if any(part is None for part in parts):
            return None
        blocks = tuple(_Block(unit, scale, 0) for unit, scale, _ in (part for part in parts if part))
        shift = torch.stack([part[2] for part in parts if part]).sum(0)
        return _Sum(blocks, shift)
    if kind == "Concat" and getattr(op_of(node), "dim", None) == axis:
        joined: list[_Block] = []
        shifts, first, sums = [], 0, 0
        for source in arguments(node):
            part = _units(source, axis, inside=True)
            if part is None:
                return None
            sums += len(part.blocks) > 1 or part.blocks[0].node is not source
            joined += [_Block(block.node, block.scale, block.first + first) for block in part.blocks]
            shifts.append(part.shift)
            first += _channels(source, axis)
        return _Sum(tuple(joined), torch.cat(shifts)) if sums else None
    if inside and _spikes(node):
        return _Sum((_Block(node, torch.ones(channels), 0),), torch.zeros(channels))
    return None


def _channels(node: fx.Node, axis: int) -> int:
    return int(node.meta["shape"][axis - 1])


def _of_one_origin(node: fx.Node) -> bool:
    return len({origin_of(source).name for source in (node, *arguments(node))}) == 1 and len(arguments(node)) > 1


def _scaled(node: fx.Node, axis: int) -> tuple[fx.Node, Tensor, Tensor] | None:
    """A unit with its factor and shift per channel."""
    channels, rank = _channels(node, axis), len(node.meta["shape"])
    if _spikes(node):
        return node, torch.ones(channels), torch.zeros(channels)
    if kind_of(node) != "Affine" or not _spikes(arguments(node)[0]):
        return None
    op = op_of(node, Affine)
    scale, shift = (per_channel(part, rank - axis + 1, channels) for part in (op.scale, op.shift))
    return None if scale is None or shift is None else (arguments(node)[0], scale, shift)


def _spikes(node: fx.Node) -> bool:
    return role_of(node) == Role.SITE


def _whole(found: _Sum, op: Weighted) -> bool:
    """Whether every block covers all channels, so that each group can take its part of each."""
    return all(block.first == 0 and len(block.scale) == op.weight.shape[1] * op.groups for block in found.blocks)


def _rewrite(graph: fx.GraphModule, node: fx.Node, op: Weighted, found: _Sum, axis: int) -> None:
    groups = op.groups
    spatial = [1] * (op.weight.ndim - 2)
    weight = op.weight.reshape(groups, -1, *op.weight.shape[1:])
    parts = []
    for block in found.blocks:
        width = len(block.scale) // groups
        own = weight[:, :, block.first : block.first + width]
        parts.append(own * block.scale.reshape(groups, 1, width, *spatial))
    wide = torch.cat(parts, 2).reshape(op.weight.shape[0], -1, *op.weight.shape[2:])
    extra = (weight.flatten(3).sum(3) if spatial else weight) * found.shift.reshape(groups, 1, -1)
    bias = extra.sum(2).reshape(-1) + (0.0 if op.bias is None else op.bias)
    (source,) = arguments(node)
    joined = insert_after(graph, source, Concat(dim=axis), suffix="units", users=[])
    joined.args = tuple(block.node for block in found.blocks)
    shape = list(source.meta["shape"])
    shape[axis - 1] = sum(len(block.scale) for block in found.blocks)
    joined.meta["shape"] = tuple(shape)
    if groups > 1:
        width, count = op.weight.shape[1], len(found.blocks)
        own = torch.arange(shape[axis - 1]).reshape(count, groups, width).transpose(0, 1).flatten()
        chosen: Op = Select(dim=axis, indices=tuple(own.tolist()))
        joined = insert_after(graph, joined, chosen, suffix="by_group", users=[])
    node.args = (joined,)
    needs_bias = op.bias is not None or bool(found.shift.any())
    alike = {"scales": _alike(found, op)} if isinstance(op, Gathering) else {}
    replace_op(graph, node, op.rebuilt(weight=wide, bias=bias if needs_bias else None, **alike))


def _alike(found: _Sum, op: Weighted) -> Tensor | None:
    """The scales of each block, where all of them have the same weights but for these."""
    return None if op.groups > 1 or not _whole(found, op) else torch.stack([block.scale for block in found.blocks])
