"""Units as neurons of their own, for chips whose neurons send one spike a step (`--added-neurons`).

A neuron of L units sends floor(y) units for a membrane of y units. By Hermite's identity

    floor(y) = sum over j of floor((y + j) / L),  j = 0 .. L - 1,

so that L neurons of one unit send the same together if each has L times the threshold and they start apart, by one unit
each. They need not know of each other: no lateral connection, no shared reset. It holds at every step, for neurons that
take back what was too much as well; only where a neuron is driven beyond L units a step may they differ for a while.

This is done to the calibrated network, before it is compiled: a site has L channels for each of its own, the operator
before it makes them, and weights that read them are divided among them. Whoever cannot read them one by one (a
shortcut's sum, a depthwise convolution) gets their mean by a convolution of one pixel.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, fx

from snnconvert.errors import InternalError
from snnconvert.graph.dialect import arguments, op_of, sites, verify
from snnconvert.graph.edit import copied, finish, insert_after, only_user, redirect, replace_op
from snnconvert.graph.kinds import Concat, Conv, Linear, Op, Pad, Reshape, Role, Select, Stage, Weighted
from snnconvert.graph.types import Calibrated, NeuronChoice, SiteCalibration

# axes of a sample with a convolution over them, and of features alone
_RANKS = (1, 2, 3)


def with_added_neurons(calibrated: Calibrated) -> Calibrated:
    """`calibrated` with neurons of one unit a step, more of them where they had several; itself where none had.

    Sites keep their names. Values of the network as real numbers stay what they were.
    """
    neuron = calibrated.neuron
    levels = {node.name: neuron.units_at(node.name) for node, _ in sites(calibrated.network.graph)}
    if all(count == 1 for count in levels.values()):
        return calibrated
    walk = _Walk(calibrated, levels)
    graph = walk.run()
    network = replace(calibrated.network, graph=verify(finish(graph), Stage.CALIBRATED))
    record = {**calibrated.record, "added_neurons": list(levels.values())}
    return replace(
        calibrated, network=network, sites=walk.calibrations, neuron=NeuronChoice(neuron.model), record=record
    )


def for_each(values: Tensor, channels: int) -> Tensor:
    """Values (n, C, ...) at a site of the original network for each of the `channels` that stand for its own there."""
    return values if values.shape[1] == channels else values.repeat_interleave(channels // values.shape[1], 1)


class _Walk:
    """Goes over a copy of the network in data-flow order.

    Attributes:
        sources: of each node with added channels, the channel of the original network that each of its stands for.
        calibrations: of the sites so far.
    """

    def __init__(self, calibrated: Calibrated, levels: dict[str, int]) -> None:
        self.levels, self.known = levels, calibrated.sites
        self.graph = copied(calibrated.network.graph)
        self.sources: dict[fx.Node, Tensor] = {}
        self.means: dict[fx.Node, fx.Node] = {}
        self.calibrations: dict[str, SiteCalibration] = {}

    def run(self) -> fx.GraphModule:
        for node in list(self.graph.graph.nodes):
            if node.op == "output":
                for source in [one for one in node.all_input_nodes if one in self.sources]:
                    self._averaged(source, node)
                continue
            if node.op != "call_module":
                continue
            op = op_of(node)
            if any(source in self.sources for source in arguments(node)) and not self._carried(node, op):
                for source in dict.fromkeys(arguments(node)):
                    if source in self.sources:
                        self._averaged(source, node)
            if op.role == Role.SITE:
                self._site(node, op)
        return self.graph

    def _site(self, node: fx.Node, op: Op) -> None:
        count, found = self.levels[node.name], self.known[node.name]
        self.calibrations[node.name] = found
        if count == 1:
            return
        shape = tuple(node.meta["shape"])
        if len(shape) not in _RANKS:
            raise InternalError(f"{node.name} has {len(shape)} axes")
        sources = torch.arange(shape[0]).repeat_interleave(count)
        (before,) = arguments(node)
        if not self._repeated(before, node, sources):
            select = insert_after(
                self.graph, before, Select(dim=1, indices=tuple(sources.tolist())), suffix="added", users=[node]
            )
            select.meta["shape"] = (len(sources), *shape[1:])
        if any(len(one) > 1 for one in op.tensors().values() if one is not None and one.ndim):
            replace_op(self.graph, node, op.rebuilt(**{k: _gathered(v, sources) for k, v in op.tensors().items()}))
        node.meta["shape"] = (len(sources), *shape[1:])
        self.sources[node] = sources
        turn = torch.arange(count).repeat(shape[0]).reshape(-1, *([1] * (len(shape) - 1))).float()
        self.calibrations[node.name] = SiteCalibration(
            _by_channel(found.threshold, shape, sources) * count,
            (_by_channel(found.initial, shape, sources) + turn) / count,
            None if found.amplitude is None else _by_channel(found.amplitude, shape, sources) * count,
        )

    def _repeated(self, before: fx.Node, site: fx.Node, sources: Tensor) -> bool:
        """Whether the operator before a site makes all of its channels itself."""
        op = op_of(before) if before.op == "call_module" else None
        if not isinstance(op, Conv | Linear) or op.groups > 1 or only_user(before) is not site:
            return False
        shape = tuple(site.meta["shape"])
        if op.features_last and len(shape) > 1:
            return False
        bias = None if op.bias is None else op.bias[sources]
        replace_op(self.graph, before, op.rebuilt(weight=op.weight[sources], bias=bias))
        before.meta["shape"] = (len(sources), *shape[1:])
        return True

    def _carried(self, node: fx.Node, op: Op) -> bool:
        """Whether `node` reads channels one by one; it is made to."""
        inputs, shape = arguments(node), tuple(node.meta["shape"])
        if op.role == Role.WEIGHTED and isinstance(op, Conv | Linear):
            (source,) = inputs
            if op.groups > 1 or (op.features_last and len(source.meta["shape"]) > 1):
                return False
            replace_op(self.graph, node, _divided(op, self.sources[source]))
            return True
        before = [self._sources_of(one) for one in inputs]
        kept = op.role in (Role.POOL, Role.MAXPOOL) and 1 not in op.pooled_axes(len(shape))
        if kept or (isinstance(op, Pad) and len(op.pads) <= 2 * (len(shape) - 1)):
            self._widen(node, before[0], (len(before[0]), *shape[1:]))
        elif isinstance(op, Concat) and op.dim == 1:
            starts = torch.tensor([0, *(int(one.max()) + 1 for one in before)]).cumsum(0)
            joined = torch.cat([one + start for one, start in zip(before, starts.tolist(), strict=False)])
            self._widen(node, joined, (len(joined), *shape[1:]))
        elif isinstance(op, Reshape) and len(shape) == 1:
            pixels = shape[0] // (int(before[0].max()) + 1)
            flat = (before[0][:, None] * pixels + torch.arange(pixels)).flatten()
            replace_op(self.graph, node, Reshape(shape=(len(flat),)))
            self._widen(node, flat, (len(flat),))
        else:
            return False
        return True

    def _sources_of(self, node: fx.Node) -> Tensor:
        return self.sources.get(node, torch.arange(node.meta["shape"][0]))

    def _widen(self, node: fx.Node, sources: Tensor, shape: tuple[int, ...]) -> None:
        self.sources[node] = sources
        node.meta["shape"] = shape

    def _averaged(self, source: fx.Node, user: fx.Node) -> None:
        """Let `user` read the mean of the channels that stand for one."""
        if source in self.means:
            redirect(user, source, self.means[source])
            return
        sources, shape = self.sources[source], tuple(source.meta["shape"])
        channels = int(sources.max()) + 1
        weight = _divided(Linear(torch.eye(channels)), sources).weight
        rank = len(shape) - 1
        one, none = (1,) * rank, (0,) * rank
        op: Op = Linear(weight)
        if rank:
            op = Conv(weight.reshape(*weight.shape, *one), stride=one, padding=none, dilation=one)
        mean = insert_after(self.graph, source, op, suffix="mean", users=[user])
        mean.meta["shape"] = (channels, *shape[1:])
        self.means[source] = mean


def _divided(op: Weighted, sources: Tensor) -> Weighted:
    """`op` for inputs of which several stand for one of its own."""
    counts = torch.bincount(sources)[sources].to(op.weight)
    weight = op.weight[:, sources] / counts.reshape(1, -1, *([1] * (op.weight.ndim - 2)))
    return op.rebuilt(weight=weight)


def _by_channel(values: Tensor, shape: tuple[int, ...], sources: Tensor) -> Tensor:
    """Values that broadcast against a sample of `shape`, of the channels `sources`."""
    whole = values if values.ndim == len(shape) else values.reshape(*([1] * (len(shape) - values.ndim)), *values.shape)
    return whole.expand(shape[0], *whole.shape[1:])[sources].contiguous()


def _gathered(values: Tensor | None, sources: Tensor) -> Tensor | None:
    return values[sources] if values is not None and values.ndim and len(values) > 1 else values
