"""Small simplifications: activations that change nothing, and means that are average pools."""

from __future__ import annotations

from torch import fx

from snnconvert.graph.dialect import arguments, calls, op_of
from snnconvert.graph.edit import bypass, insert_after, kind_of, only_user, replace_op
from snnconvert.graph.kinds import AveragePool, Mean, Reshape


def drop_redundant_activation(graph: fx.GraphModule) -> int:
    """Remove a Relu whose input cannot be negative, and merge Relu with a following Clip."""
    removed = 0
    for node, _ in list(calls(graph)):
        if kind_of(node) == "Relu" and _non_negative(arguments(node)[0]):
            bypass(node)
            removed += 1
        elif (
            kind_of(node) == "Clip" and kind_of(arguments(node)[0]) == "Relu" and only_user(arguments(node)[0]) is node
        ):
            bypass(arguments(node)[0])
            removed += 1
    return removed


def _non_negative(node: fx.Node) -> bool:
    if node.op != "call_module":
        return False
    op = op_of(node)
    return op.rectifies or (op.keeps_sign and all(_non_negative(source) for source in arguments(node)))


def mean_to_pool(graph: fx.GraphModule) -> int:
    """Write a mean over all spatial axes as an average pool over the whole map (and a reshape)."""
    changed = 0
    for node, op in list(calls(graph, Mean)):
        shape: tuple[int, ...] = arguments(node)[0].meta["shape"]
        if len(shape) not in (2, 3) or op.dims != tuple(range(2, len(shape) + 1)):
            continue
        kernel = tuple(shape[1:])
        if len(kernel) == 1 and not op.keepdim and not _feeds_channels(node):
            continue
        kept = node.meta["shape"]
        pool = AveragePool(kernel=kernel, stride=kernel, padding=(0,) * len(kernel))
        replace_op(graph, node, pool)
        node.meta["shape"] = (shape[0],) + (1,) * len(kernel)
        if not op.keepdim:
            added = insert_after(graph, node, Reshape(shape=kept), suffix="reshape", users=list(node.users))
            added.meta["shape"] = kept
        changed += 1
    return changed


def _feeds_channels(node: fx.Node) -> bool:
    """Whether axis 1 of a (channels, length) value holds channels: its producer is a convolution or pool."""
    (source,) = arguments(node)
    while kind_of(source) in ("Relu", "Clip", "Affine", "AveragePool", "MaxPool"):
        source = arguments(source)[0]
    return kind_of(source) == "Conv"
