"""The input as spikes, so that the first layer reads spikes as all others do: an encoder neuron, or events as they are.

Without an encoder the input is a constant current, and the first layer multiplies. The encoder is a signed neuron like
that on any sum without an activation: its threshold comes from the calibration images, in windows it sends sign and K
bits, in other schedules it rate-codes, and it counts as one more layer. Events are counts, step by step, of which each
is worth the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from snnconvert.data.moving import Events as Recorded
from snnconvert.data.moving import over_time_of
from snnconvert.data.preprocessing import Preprocessing
from snnconvert.data.recordings import worth_of_events
from snnconvert.errors import OptionError
from snnconvert.graph.dialect import verify
from snnconvert.graph.edit import copied, finish, insert_after
from snnconvert.graph.kinds import Events, Identity, Stage
from snnconvert.graph.types import Ann

REMARK = "the input is sent as signed spikes by an encoder neuron for every value, which makes the network one deeper"


def with_input_encoder(ann: Ann) -> Ann:
    """`ann` with a signed site on every input, and a note that says so."""
    graph = copied(ann.graph)
    for node in [node for node in graph.graph.nodes if node.op == "placeholder"]:
        insert_after(graph, node, Identity(), suffix="encoder", users=list(node.users))
    source = replace(ann.source, notes=(*ann.source.notes, REMARK))
    return replace(ann, graph=verify(finish(graph), Stage.ANN), source=source)


# events that are taken in at a place in one step, by what recordings to calibrate on show
HEADROOM = 2


def with_replay(ann: Ann, recordings: Tensor, replay: Mapping[str, Any] | None, plan: Mapping[str, Any]) -> Ann:
    """`ann` with the events of recordings coming in, step by step.

    Args:
        recordings: to calibrate on, which vary over time.
        replay: how they are cut into steps, see `Dataset.replay`; None of images, which leave `ann` as it is.
        plan: the preprocessing: what an event is worth to the network, and when all begins anew.

    Raises:
        OptionError: a time to reset after that is no whole number of steps.
    """
    if replay is None:
        return ann
    found = over_time_of(recordings)
    assert isinstance(found, Recorded)
    prepared = Preprocessing.from_dict(plan)
    amplitude = torch.from_numpy(worth_of_events(prepared, replay["steps"], ann.input_shape[0])).float()
    reset_every = prepared.reset_every
    steps = 0 if reset_every is None else reset_every / replay["milliseconds"]
    if reset_every is not None and (steps < 1 or abs(steps - round(steps)) > 1e-6):
        raise OptionError(
            f"--reset-every {reset_every:g} is no whole number of steps of {replay['milliseconds']:g} ms",
            hint=f"for instance --reset-every {max(1, round(steps)) * replay['milliseconds']:g}",
            options=("reset_every",),
        )
    levels = HEADROOM * max(1, found.peak())
    return with_events(
        ann, Events(amplitude, slicing=replay["events"], steps=replay["steps"], levels=levels, reset=round(steps))
    )


def with_events(ann: Ann, events: Events) -> Ann:
    """`ann` with events coming in at its input; it still computes the same of what the original network sees."""
    graph = copied(ann.graph)
    (entry,) = [node for node in graph.graph.nodes if node.op == "placeholder"]
    insert_after(graph, entry, events, suffix="events", users=list(entry.users))
    return replace(ann, graph=verify(finish(graph), Stage.ANN))
