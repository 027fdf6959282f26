"""Matrix products as convolutions, for readers that do not know how a batch is flattened.

A feature becomes a channel of one place. What flattens maps in front of a matrix product goes: the product becomes a
convolution over the whole map.
"""

from __future__ import annotations

import math

from torch import fx

from snnconvert.graph.dialect import arguments, op_of, output_nodes
from snnconvert.graph.edit import bypass, insert_after, replace_op
from snnconvert.graph.kinds import Conv, Linear, Op, Reshape, Role

_KEPT = (Role.NEURON, Role.DELAY, Role.JOIN, Role.AFFINE)


def as_convolutions(graph: fx.GraphModule) -> None:
    """Rewrite `graph` in place: every matrix product on one vector of features is a convolution; outputs stay flat.

    What does not follow the pattern (a product on several vectors, features that are moved) stays as it is.
    """
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
