"""Recognise activation functions however they are spelled: SiLU as x sigmoid(x), GELU by erf or tanh, Mish, HardSwish.

A cone of elementwise operators with scalar constants above one value is a scalar function of that value. Its values
on a grid are compared with the named functions; spelling and order of the operators do not matter.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx

from snnconvert.graph.dialect import arguments, calls, op_of
from snnconvert.graph.edit import kind_of, replace_op
from snnconvert.graph.kinds import FUNCTIONS, Elementwise, Power, Role

_NAMED = ("silu", "hardswish", "gelu", "gelu_tanh", "mish", "tanh", "sigmoid", "hardsigmoid", "elu", "softplus")
_LARGEST_CONE = 12
_TOLERANCE = 2e-6


def name_functions(graph: fx.GraphModule) -> int:
    """Replace every cone that equals a named function by one node; returns how many were."""
    grid = torch.linspace(-9, 9, 1801, dtype=torch.float64)
    named = 0
    order = {node: index for index, node in enumerate(graph.graph.nodes)}
    for root in reversed([node for node, _ in calls(graph)]):
        if not root.users or not _scalar(root):
            continue
        found = _recognised(root, order, grid)
        if found is not None:
            name, source = found
            root.args = (source,)
            replace_op(graph, root, Elementwise(function=name))
            named += 1
    return named


def _recognised(root: fx.Node, order: dict[fx.Node, int], grid: Tensor) -> tuple[str, fx.Node] | None:
    """The name of the function that `root` is of a single earlier value, and that value."""
    cone, frontier = [root], set(arguments(root))
    while frontier and len(cone) <= _LARGEST_CONE:
        if len(frontier) == 1 and len(cone) > 1:
            (source,) = frontier
            name = _name(cone, source, grid)
            if name is not None:
                return name, source
        latest = max(frontier, key=order.__getitem__)
        if not _scalar(latest) or latest.meta["shape"] != root.meta["shape"]:
            return None
        frontier.remove(latest)
        frontier.update(arguments(latest))
        cone.append(latest)
    return None


def _scalar(node: fx.Node) -> bool:
    """Whether `node` does the same to every element."""
    if node.op != "call_module" or not op_of(node).elementwise:
        return False
    op = op_of(node)
    return all(buffer.numel() == 1 for buffer in op.buffers())


def _name(cone: list[fx.Node], source: fx.Node, grid: Tensor) -> str | None:
    if not any(op_of(node).role == Role.ANALOG for node in cone):
        return None
    if all(kind_of(node) in ("Elementwise", "Affine") for node in cone) and len(cone) == 1:
        return None
    values = {source: grid}
    for node in reversed(cone):
        op = op_of(node)
        inputs = [values[argument] for argument in arguments(node)]
        # powers of negative numbers: only whole exponents are the same for every spelling
        if isinstance(op, Power) and op.exponent != round(op.exponent):
            return None
        cast = [value.reshape(1, -1) for value in inputs]
        values[node] = op(*cast).reshape(-1).double()
    result = values[cone[0]]
    for name in _NAMED:
        if torch.allclose(result, FUNCTIONS[name](grid), rtol=_TOLERANCE, atol=_TOLERANCE):
            return name
    return None
