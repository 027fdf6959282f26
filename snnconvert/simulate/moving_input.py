"""Which networks take inputs that vary over time, and what in them moves."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, fx

from snnconvert.data.moving import OverTime, over_time_of
from snnconvert.errors import DataError, OptionError
from snnconvert.graph.dialect import arguments, calls, op_of
from snnconvert.graph.flow import Flow, flows
from snnconvert.graph.inputs import events_of
from snnconvert.graph.schedule import Schedule
from snnconvert.graph.schedule.timing import site_depths


def check_input(
    graph: fx.GraphModule, schedule: Schedule, inputs: Tensor, frames: int | None = None
) -> OverTime | None:
    """How `inputs` come into the network, where they vary over time; None where they are the same in all steps.

    Args:
        graph: at stage SNN.
        schedule: it has to take a step for a frame.
        inputs: (n, *sample).
        frames: how many frames the run has; those of the schedule by default.

    Raises:
        DataError: a network that reads events is given something else, or of another length.
        OptionError: the schedule needs inputs that do not change.
    """
    found, events = over_time_of(inputs), events_of(graph)
    if found is None:
        if events is None:
            return None
        raise DataError(
            "the network reads events over time, and these inputs do not change",
            hint="give recordings, or what comes in in each step: an array (steps, n, *sample)",
        )
    refuse_moving(graph, schedule)
    frames = schedule.frames if frames is None else frames
    if found.steps != frames:
        raise DataError(
            f"the inputs have {found.steps} steps, the network takes {frames}",
            hint=f"cut them into {frames} steps, or run the network for {found.steps}",
        )
    return found


def mean_so_far(graph: fx.GraphModule, image: Tensor, frames: int) -> Tensor:
    """What the original network sees of one input, (1, *sample), as the mean of what came in until each frame.

    Returns:
        (frames, *sample), float64: the same for all frames where it does not vary over time.
    """
    found, events = over_time_of(image), events_of(graph)
    if found is None:
        return image.double().expand(frames, *image.shape[1:])
    arrived = found.frames(0, frames)[:, 0]
    arrived = arrived.double() if events is None else events.received(arrived)[0].double() * events.amplitude.double()
    return arrived.cumsum(0) / torch.arange(1, frames + 1).view(-1, *[1] * (arrived.ndim - 1))


def refuse_moving(graph: fx.GraphModule, schedule: Schedule) -> None:
    """Make sure that the network takes inputs that vary over time.

    Raises:
        OptionError: it is made for inputs that are the same in all steps.
    """
    if schedule.windowed or schedule.once:
        raise OptionError(
            f"--schedule {schedule.kind} needs an input that is the same in all steps: a neuron takes in a whole "
            "window of it before it sends",
            hint="inputs that vary over time are for --schedule streaming or wait",
            options=("schedule",),
        )
    if schedule.staggered and events_of(graph) is None:
        depths, moving = site_depths(graph), moving_nodes(graph, moves=True)
        for node, _ in calls(graph):
            read = {depths[source.name] for source in arguments(node) if source in moving}
            if len(read) > 1:
                raise OptionError(
                    f"{node.name} adds the input to layers that answer later ({schedule.name}), and this input changes "
                    "meanwhile",
                    hint="convert the network for --schedule streaming",
                    options=("schedule",),
                )


def moving_nodes(graph: fx.GraphModule, *, moves: bool) -> Collection[fx.Node]:
    """The nodes whose values change over time; `moves` says whether the input does."""
    found, flow = set[fx.Node](), flows(graph)
    for node in graph.graph.nodes:
        if (node.op == "placeholder" and moves) or (
            node.op == "call_module"
            and (
                flow[node] != Flow.CONSTANT
                or (op_of(node).reads and any(source in found for source in arguments(node)))
            )
        ):
            found.add(node)
    return found
