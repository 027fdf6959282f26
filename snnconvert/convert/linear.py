"""Spikes between operators that follow each other without an activation, so that every one of them only adds.

Linear bottlenecks (MobileNetV2, EfficientNet-Lite) and a depthwise before a pointwise convolution (ShuffleNetV2) leave
operators that read sums, and would multiply in every step. There a signed neuron sends the sum on as spikes. Joins
read the sums themselves: adding currents multiplies nothing.
"""

from __future__ import annotations

from dataclasses import replace

from torch import fx

from snnconvert.convert.units import analog_nodes
from snnconvert.graph.dialect import arguments, calls, verify
from snnconvert.graph.edit import copied, finish, insert_after
from snnconvert.graph.flow import Flow, flows
from snnconvert.graph.kinds import Identity, Role, Stage
from snnconvert.graph.types import Ann
from snnconvert.options import AUTO

REMARK = "sums that operators with weights read are sent as signed spikes by neurons of their own"


def sums_spike(linear: str, ann: Ann, *, signed: bool, strict: bool = False) -> bool:
    """Whether sums that operators with weights read are sent as spikes.

    Args:
        linear: as for `--linear`. auto: with signed spikes where no operator stays analog, so that then every one of
            them only adds. What it costs, and saves in time, is in benchmarks/RESULTS.md.
        ann: a canonical network whose functions are not yet units.
        signed: whether the neurons at rectifying sites take back what was too much; with those that do not, sums of
            few steps cost MobileNetV2 many points.
        strict: whether every node has to spike.
    """
    return linear == "spiking" or (linear == AUTO and (strict or (signed and not analog_nodes(ann.graph))))


def with_spiking_sums(ann: Ann) -> Ann:
    """`ann` with a signed site on every sum that an operator with weights reads, and a note; `ann` if there is none."""
    graph = copied(ann.graph)
    flow = flows(graph)
    weighted = [node for node, op in calls(graph) if op.role == Role.WEIGHTED]
    readers: dict[fx.Node, list[fx.Node]] = {}
    for node in weighted:
        for source in arguments(node):
            if flow[source] == Flow.CURRENT:
                readers.setdefault(source, []).append(node)
    if not readers:
        return ann
    for source, users in readers.items():
        insert_after(graph, source, Identity(), suffix="sum", users=users)
    noted = replace(ann.source, notes=(*ann.source.notes, REMARK))
    return replace(ann, graph=verify(finish(graph), Stage.ANN), source=noted)
