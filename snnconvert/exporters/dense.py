"""Matrix products and padding as convolutions, for readers that hold nothing else.

A feature becomes a channel of one place. What flattens maps in front of a matrix product goes: the product becomes a
convolution over the whole map. Padding that is not the same on both sides becomes zeros of the kernel.
"""

from __future__ import annotations

import math

from torch import fx
from torch.nn import functional as F

from snnconvert.graph.dialect import arguments, calls, op_of, output_nodes
from snnconvert.graph.edit import bypass, finish, insert_after, kind_of, only_user, redirect, replace_op
from snnconvert.graph.kinds import Conv, Linear, Op, Pad, Reshape, Role

_KEPT = (Role.NEURON, Role.DELAY, Role.JOIN, Role.AFFINE)


def as_convolutions(graph: fx.GraphModule) -> None:
    """Rewrite `graph` in place: every matrix product on one vector of features is a convolution; outputs stay flat.

    What does not follow the pattern (a product on several vectors, features that are moved) stays as it is. Zeros
    around the maps that a convolution reads become its own padding.
    """
    for node, convolution in list(calls(graph, Conv)):
        _without_pad(graph, node, convolution)
    finish(graph)
    flat = [node for node in graph.graph.nodes if node.op != "output" and _flat(node)]
    if any(not _may_widen(node) for node in flat):
        return
    for node in output_nodes(graph):
        if node in flat:
            (output,) = [user for user in node.users if user.op == "output"]
            insert_after(graph, node, Reshape(shape=tuple(node.meta["shape"])), suffix="flat", users=[output])
    for node in flat:
        if node.op == "placeholder":
            _widened_input(graph, node)
        elif isinstance(op := op_of(node), Reshape):
            bypass(node)
        else:
            _widen(graph, node, op)
    graph.recompile()


def _flat(node: fx.Node) -> bool:
    return len(node.meta["shape"]) == 1


def _may_widen(node: fx.Node) -> bool:
    if node.op == "placeholder":
        return True
    op, shapes = op_of(node), [tuple(source.meta["shape"]) for source in arguments(node)]
    if isinstance(op, Reshape):
        # of a map (C, H, W), or of what is flat already; read by matrix products, which can take the map itself
        products = all(user.op == "call_module" and isinstance(op_of(user), Linear) for user in node.users)
        return len(shapes[0]) == 1 or (len(shapes[0]) == 3 and (products or math.prod(shapes[0][1:]) == 1))
    return all(len(shape) == 1 for shape in shapes) and (isinstance(op, Linear) or op.role in _KEPT)


def _widened_input(graph: fx.GraphModule, node: fx.Node) -> None:
    shape = (*node.meta["shape"], 1, 1)
    added = insert_after(graph, node, Reshape(shape=shape), suffix="map", users=list(node.users))
    added.meta["shape"] = shape


def _widen(graph: fx.GraphModule, node: fx.Node, op: Op) -> None:
    if isinstance(op, Linear):
        (source,) = arguments(node)
        shape = tuple(source.meta["shape"])
        weight = op.weight.reshape(op.outputs, *(shape if len(shape) == 3 else (*shape, 1, 1)))
        replace_op(graph, node, Conv(weight, op.bias, stride=(1, 1), padding=(0, 0), dilation=(1, 1)))
    else:
        tensors = {name: t.reshape(*t.shape, 1, 1) if t.ndim == 1 else t for name, t in op.named_buffers()}
        replace_op(graph, node, op.rebuilt(**tensors))
    node.meta["shape"] = (*node.meta["shape"], 1, 1)


def _without_pad(graph: fx.GraphModule, node: fx.Node, op: Conv) -> None:
    """Let a convolution read what is padded in front of it, or in front of the rounding that it reads."""
    (read,) = arguments(node)
    pad, reader = read, node
    if kind_of(read) == "Snap" and only_user(read) is node:
        (pad,), reader = arguments(read), read
    if kind_of(pad) != "Pad" or op_of(pad).brings or (made := _padded(op, op_of(pad, Pad).pads)) is None:
        return
    replace_op(graph, node, made)
    (source,) = arguments(pad)
    redirect(reader, pad, source)
    if reader is read:
        read.meta["shape"] = source.meta["shape"]


def _padded(op: Conv, pads: tuple[int, ...]) -> Conv | None:
    """`op` on maps without `pads` around them, or None where padding and kernel cannot hold these.

    Both sides get the larger of the two paddings, and the kernel as many zeros on the other side as that is too much:
    no output moves, and there are no more of them.
    """
    axes = op.weight.ndim - 2
    each = [(before, after) for before, after in zip(pads[::2], pads[1::2], strict=True)]
    each += [(0, 0)] * (axes - len(each))
    uneven = any(before != after for before, after in each)
    if min(map(min, each)) < 0 or any(map(any, each[axes:])) or (uneven and any(step > 1 for step in op.dilation)):
        return None
    zeros = [max(pair) - side for pair in each[:axes] for side in pair]
    padding = tuple(own + max(pair) for own, pair in zip(op.padding, reversed(each[:axes]), strict=True))
    return Conv(
        F.pad(op.weight, zeros), op.bias, stride=op.stride, padding=padding, dilation=op.dilation, groups=op.groups
    )
