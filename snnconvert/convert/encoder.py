"""The input as spikes, so that the first layer reads spikes as all others do: an encoder neuron, or events as they are.

Without an encoder the input is a constant current, and the first layer multiplies. The encoder is a signed neuron like
that on any sum without an activation: its threshold comes from the calibration images, in windows it sends sign and K
bits, in other schedules it rate-codes, and it counts as one more layer. Events are counts, step by step, of which each
is worth the same.
"""

from __future__ import annotations

from dataclasses import replace

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


def with_events(ann: Ann, events: Events) -> Ann:
    """`ann` with events coming in at its input; it still computes the same of what the original network sees."""
    graph = copied(ann.graph)
    (entry,) = [node for node in graph.graph.nodes if node.op == "placeholder"]
    insert_after(graph, entry, events, suffix="events", users=list(entry.users))
    return replace(ann, graph=verify(finish(graph), Stage.ANN))
