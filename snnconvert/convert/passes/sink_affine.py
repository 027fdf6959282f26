"""Carry an affine map that reads spikes through pooling and wiring into the weights behind them.

    W P(a x + c) + b  =  (W a) P(x) + (W P(c) + b)          P: max pooling (a > 0), average pooling, moved values

A batch norm or a factor behind an activation would make a current of its spikes, which the weights then multiply in
every step. W P(c) + b is the answer to a constant, whatever padding and borders do to it: one value per channel, and
then a bias, or a map, which is added.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, fx

from snnconvert.graph.dialect import arguments, calls, op_of, role_of
from snnconvert.graph.edit import insert_after, kind_of, only_user, redirect, replace_op
from snnconvert.graph.flow import Flow, flows
from snnconvert.graph.kinds import Affine, Op, Role, Weighted


@dataclass(frozen=True)
class _Map:
    """a x + c at every place; both of shape (1, *sample), in float64."""

    scale: Tensor
    shift: Tensor

    @classmethod
    def of(cls, node: fx.Node) -> _Map:
        """That of an affine node, or the identity of any other."""
        shape = (1, *node.meta["shape"])
        if kind_of(node) != "Affine":
            return cls(torch.ones(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64))
        op = op_of(node, Affine)
        return cls(op.scale.double().expand(shape), op.shift.double().expand(shape))

    def then(self, later: _Map) -> _Map:
        """Both, one after the other."""
        return _Map(self.scale * later.scale, self.shift * later.scale + later.shift)

    def through(self, op: Op, *others: _Map) -> _Map | None:
        """The map behind `op` that stands for this one (and those of the other inputs) in front; None if there is none.

        `op` hands spikes on: it moves values, averages them, or takes the largest.
        """
        if op.role == Role.MAXPOOL and not (bool((self.scale > 0).all()) and _even(self.scale) and _even(self.shift)):
            return None
        if op.role == Role.POOL and not _even(self.scale):
            return None
        scale = op.moved_amplitude(self.scale, *(other.scale for other in others))
        if op.role == Role.POOL:  # averages of a channel's one factor, whatever padding counts
            scale = _first(self.scale).expand_as(scale)
        return _Map(scale, op(self.shift, *(other.shift for other in others)))


def sink_affine(graph: fx.GraphModule) -> int:
    """Fold every affine behind spikes that pooling and wiring lead to weights; returns how many paths were."""
    folded, moves = 0, flows(graph)
    for node, _ in list(calls(graph, Affine)):
        if moves.get(arguments(node)[0]) == Flow.SPIKES:
            folded += sum(_sunk(graph, node, user, moves) for user in list(node.users))
    return folded


def _sunk(graph: fx.GraphModule, affine: fx.Node, first: fx.Node, moves: dict[fx.Node, Flow]) -> bool:
    """Whether the way from `affine` to its reader `first`, and on, led to weights that took the map."""
    passed = [(affine, first)]  # affine nodes that are no longer needed, with their readers
    source, node, found = affine, first, _Map.of(affine)
    while role_of(node) in (Role.MAXPOOL, Role.POOL, Role.WIRING, Role.AFFINE):
        op, beyond, inputs = op_of(node), only_user(node), arguments(node)
        if beyond is None:
            return False
        if role_of(node) == Role.AFFINE:
            passed.append((node, beyond))
            found = found.then(_Map.of(node))
        else:
            others = [each for each in inputs if each is not source]
            behind = [arguments(each)[0] if kind_of(each) == "Affine" else each for each in others]
            if not op.keeps_spikes or any(moves.get(each) != Flow.SPIKES for each in behind):
                return False
            passed += [(each, node) for each in others if kind_of(each) == "Affine"]
            maps = [found if each is source else _Map.of(each) for each in inputs]
            moved = maps[0].through(op, *maps[1:])
            if moved is None:
                return False
            found = moved
        source, node = node, beyond
    if role_of(node) != Role.WEIGHTED or not _taken(graph, node, found):
        return False
    for old, reader in passed:
        redirect(reader, old, arguments(old)[0])
    return True


def _taken(graph: fx.GraphModule, node: fx.Node, found: _Map) -> bool:
    """Whether the weights `node` could take the map in front of them."""
    op = op_of(node, Weighted)
    scale = _by_input(found.scale, op)
    if scale is None:
        return False
    constant = op.rebuilt(weight=op.weight.double(), bias=None if op.bias is None else op.bias.double())(found.shift)
    if not bool(constant.any()):
        bias = None
    else:
        axis = -1 if op.features_last else 1
        rows = constant.movedim(axis, 0).reshape(op.outputs, -1)
        bias = rows[:, 0].float() if bool((rows - rows[:, :1]).abs().max() <= 1e-12 * rows.abs().max()) else None
    weight = (op.weight.double() * op.by_input(scale)).to(op.weight.dtype)
    replace_op(graph, node, op.rebuilt(weight=weight, bias=bias))
    if bias is None and bool(constant.any()):
        added = Affine(torch.ones(1), constant[0].float())
        insert_after(graph, node, added, suffix="shifted", users=list(node.users))
    return True


def _by_input(scale: Tensor, op: Weighted) -> Tensor | None:
    """(inputs,) where the factor varies along the axis of the inputs only."""
    rows = scale[0].movedim(-1 if op.features_last else 0, 0).reshape(op.inputs, -1)
    return rows[:, 0] if bool((rows == rows[:, :1]).all()) else None


def _even(values: Tensor) -> bool:
    """Whether a channel has one value at all its places."""
    return bool((values == _first(values)).all())


def _first(values: Tensor) -> Tensor:
    """(1, C, 1, ...): the first value of every channel."""
    return (
        values.flatten(2)[:, :, :1].reshape(*values.shape[:2], *([1] * (values.ndim - 2)))
        if values.ndim > 2
        else values
    )
