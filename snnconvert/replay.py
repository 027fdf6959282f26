"""Conversions that replay recordings of events: in how many steps."""

from __future__ import annotations

from dataclasses import replace

from snnconvert.data.memory import Memory
from snnconvert.data.selection import Inputs, select_inputs
from snnconvert.errors import DataError, OptionError
from snnconvert.graph.schedule.timing import site_depths
from snnconvert.graph.types import Ann
from snnconvert.request import Request


def chosen_inputs(request: Request, ann: Ann, memory: Memory | None) -> tuple[Request, Inputs]:
    """The images of a conversion; of recordings also the request with the number of steps that they are replayed in.

    Raises:
        DataError: a data set that cannot be read or does not fit the model.
    """
    if request.preprocessing.events is None:
        return request, select_inputs(ann, request, memory)
    depth = max(site_depths(ann.graph).values(), default=0)
    lag = depth * (request.wait or 1) if request.schedule == "wait" else 0
    steps = int(request.timesteps) - lag if request.gives("timesteps") else None
    if steps is not None and steps < 1:
        raise OptionError(
            f"--timesteps {request.timesteps} leaves no step for recordings: the network's answer lags by {lag}",
            hint=f"use at least -T {lag + 1}, or leave -T out: recordings say how long they are",
        )
    inputs = select_inputs(ann, request, memory, steps)
    if inputs.replay is None:
        raise DataError(
            f"--events {request.preprocessing.events} needs recordings",
            hint="give some with --data, and others to calibrate on with --calibration-data",
        )
    return replace(request, timesteps=inputs.replay["steps"] + lag), inputs
