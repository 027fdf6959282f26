"""Whether the values of a graph have the shapes that its nodes state, found out without any values."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, fx

from snnconvert.budget import check_claim, elements
from snnconvert.graph.claims import shape_of
from snnconvert.graph.dialect import neurons_of, op_of, output_nodes
from snnconvert.graph.schedule import Schedule
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


def check_frames(graph: fx.GraphModule, schedule: Schedule, path: str | Path) -> None:
    """Make sure that the time steps of a spiking network fit what `path` may ask for.

    Counted is what simulating one sample takes at the least: its outputs after every frame, and the spikes of its
    widest layer, which are bits; sums of windows are numbers.

    Raises:
        ClaimError: they do not.
    """
    widest = max((elements(node.meta["shape"]) for node in neurons_of(graph)), default=0)
    answers = sum(elements(node.meta["shape"]) for node in output_nodes(graph))
    size = schedule.frames * (8 * answers + (8 * widest if schedule.windowed else widest / 8))
    check_claim(size, f"its {schedule.timesteps:,} time steps", path)
