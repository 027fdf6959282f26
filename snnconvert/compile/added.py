"""Units as neurons of their own, for chips whose neurons send one spike a step (`--added-neurons`).

A neuron of L units sends floor(y) units for a membrane of y units. By Hermite's identity

    floor(y) = sum over j of floor((y + j) / L),  j = 0 .. L - 1,

so that L neurons of one unit send the same together if each has L times the threshold and they start apart, by one unit
each. They need not know of each other: no lateral connection, no shared reset. It holds at every step, for neurons that
take back what was too much as well; only where a neuron is driven beyond L units a step may they differ for a while.

This is done to the calibrated network, before it is compiled: a site has L channels for each of its own
(`graph.channels`).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, fx

from snnconvert.graph.channels import Channels, made_by, some_channels, some_outputs
from snnconvert.graph.dialect import arguments, op_of, sites, verify
from snnconvert.graph.edit import copied, finish, insert_after, replace_op
from snnconvert.graph.kinds import Op, Select, Stage
from snnconvert.graph.types import Calibrated, NeuronChoice, SiteCalibration


def with_added_neurons(calibrated: Calibrated) -> Calibrated:
    """`calibrated` with neurons of one unit a step, more of them where they had several; itself where none had.

    Sites keep their names. Values of the network as real numbers stay what they were.
    """
    neuron = calibrated.neuron
    levels = {node.name: neuron.units_at(node.name) for node, _ in sites(calibrated.network.graph)}
    if all(count == 1 for count in levels.values()):
        return calibrated
    graph, found = copied(calibrated.network.graph), dict(calibrated.sites)
    channels = Channels(graph)
    for node in list(graph.graph.nodes):
        channels.follow(node)
        count = levels.get(node.name, 1)
        if count > 1:
            shape = tuple(node.meta["shape"])
            channels.sources[node] = sources = _repeated(channels, node, op_of(node), count)
            found[node.name] = _started_apart(found[node.name], shape, sources, count)
    network = replace(calibrated.network, graph=verify(finish(graph), Stage.CALIBRATED))
    record = {**calibrated.record, "added_neurons": list(levels.values())}
    return replace(calibrated, network=network, sites=found, neuron=NeuronChoice(neuron.model), record=record)


def for_each(values: Tensor, channels: int) -> Tensor:
    """Values (n, C, ...) at a site of the original network for each of the `channels` that stand for its own there."""
    return values if values.shape[1] == channels else values.repeat_interleave(channels // values.shape[1], 1)


def _repeated(channels: Channels, node: fx.Node, op: Op, count: int) -> Tensor:
    """Let the site `node` have `count` channels for each; the channel that each of them stands for."""
    graph, shape = channels.graph, tuple(node.meta["shape"])
    sources = torch.arange(shape[0]).repeat_interleave(count)
    (before,), made = arguments(node), made_by(node)
    if made is not None:
        replace_op(graph, before, some_outputs(made, sources))
    else:
        select = Select(dim=1, indices=tuple(sources.tolist()))
        before = insert_after(graph, before, select, suffix="added", users=[node])
    replace_op(graph, node, some_channels(op, sources))
    before.meta["shape"] = node.meta["shape"] = (len(sources), *shape[1:])
    return sources


def _started_apart(found: SiteCalibration, shape: tuple[int, ...], sources: Tensor, count: int) -> SiteCalibration:
    turn = torch.arange(len(sources)).remainder(count).reshape(-1, *([1] * (len(shape) - 1))).float()
    threshold, initial = (_by_channel(one, shape, sources) for one in (found.threshold, found.initial))
    worth = None if found.amplitude is None else _by_channel(found.amplitude, shape, sources) * count
    return SiteCalibration(threshold * count, (initial + turn) / count, worth)


def _by_channel(values: Tensor, shape: tuple[int, ...], sources: Tensor) -> Tensor:
    """Values that broadcast against a sample of `shape`, of the channels `sources`."""
    whole = values if values.ndim == len(shape) else values.reshape(*([1] * (len(shape) - values.ndim)), *values.shape)
    return whole.expand(shape[0], *whole.shape[1:])[sources].contiguous()
