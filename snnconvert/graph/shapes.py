"""Whether the values of a graph have the shapes that its nodes state, found out without any values."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, fx

from snnconvert.budget import check_claim, elements
from snnconvert.graph.claims import shape_of
from snnconvert.graph.dialect import op_of
from snnconvert.graph.walk import walk


def check_shapes(graph: fx.GraphModule, input_shape: tuple[int, ...], path: str | Path) -> None:
    """Make sure that every value of one sample has the shape that its node states, and fits what `path` may ask for.

    Raises:
        ClaimError: a value would take too much memory.
        ValueError: a value has another shape.
    """
    check_claim(8 * elements(input_shape), f"an input of shape {input_shape}", path)

    def rule(node: fx.Node, inputs: list[Tensor]) -> Tensor:
        op = op_of(node)
        own = next((buffer.dtype for buffer in op.buffers()), torch.float64)
        made = shape_of(op, *(value.to(own) for value in inputs))
        check_claim(8 * elements(made.shape), f"the result of {node.name}", path)
        if tuple(made.shape[1:]) != node.meta["shape"]:
            raise ValueError(f"shape of {node.name}")
        return made

    for _ in walk(graph, torch.zeros(1, *input_shape, device="meta"), rule):
        pass
