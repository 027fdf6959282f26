"""Channels that were repeated or put in another order, and all that reads them."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from snnconvert.graph.dialect import arguments, op_of
from snnconvert.graph.edit import insert_after, redirect, replace_op
from snnconvert.graph.kinds import Concat, Conv, Linear, Op, Pad, Reshape, Role, Select, Weighted


class Channels:
    """Lets a graph, gone over in data-flow order, read channels that stand for others.

    Pools, joined branches and weights read them as they come: weights are divided among those that stand for one.
    Whoever cannot read them one by one (a sum, a depthwise convolution, an output) gets what they were: the mean of
    those that stand for one, by a convolution of one pixel, or the old order.

    Attributes:
        sources: of each node with such channels, the channel that each of them stands for, (channels,) int64.
    """

    def __init__(self, graph: fx.GraphModule) -> None:
        self.graph = graph
        self.sources: dict[fx.Node, Tensor] = {}
        self._restored: dict[fx.Node, fx.Node] = {}

    def follow(self, node: fx.Node) -> None:
        """Let `node` read what its inputs have become."""
        inputs = [source for source in node.all_input_nodes if source in self.sources]
        if inputs and not (node.op == "call_module" and self._carried(node, op_of(node))):
            for source in inputs:
                self._restore(source, node)

    def _carried(self, node: fx.Node, op: Op) -> bool:
        """Whether `node` reads channels one by one; it is made to."""
        inputs, shape = arguments(node), tuple(node.meta["shape"])
        if isinstance(op, Conv | Linear):
            (source,) = inputs
            if op.groups > 1 or (op.features_last and len(source.meta["shape"]) > 1):
                return False
            replace_op(self.graph, node, divided(op, self.sources[source]))
            return True
        before = [self._of(one) for one in inputs]
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

    def _of(self, node: fx.Node) -> Tensor:
        return self.sources.get(node, torch.arange(node.meta["shape"][0]))

    def _widen(self, node: fx.Node, sources: Tensor, shape: tuple[int, ...]) -> None:
        self.sources[node] = sources
        node.meta["shape"] = shape

    def _restore(self, source: fx.Node, user: fx.Node) -> None:
        if source in self._restored:
            redirect(user, source, self._restored[source])
            return
        sources, shape = self.sources[source], tuple(source.meta["shape"])
        channels, axes = int(sources.max()) + 1, len(shape) - 1
        op: Op = Select(dim=1, indices=tuple(sources.argsort().tolist()))
        if channels < len(sources):
            mean = divided(Linear(torch.eye(channels)), sources)
            one, none = (1,) * axes, (0,) * axes
            weight = mean.weight.reshape(*mean.weight.shape, *one)
            op = Conv(weight, stride=one, padding=none, dilation=one) if axes else mean
        restored = insert_after(self.graph, source, op, suffix="restored", users=[user])
        restored.meta["shape"] = (channels, *shape[1:])
        self._restored[source] = restored


def divided(op: Weighted, sources: Tensor) -> Weighted:
    """`op` for inputs of which several may stand for one of its own."""
    counts = torch.bincount(sources)[sources].to(op.weight)
    return op.rebuilt(weight=op.weight[:, sources] / counts.reshape(1, -1, *([1] * (op.weight.ndim - 2))))


def made_by(node: fx.Node) -> Conv | Linear | None:
    """The operator that makes the channels of `node`, and nothing else, each by weights of its own; None elsewhere."""
    (before,) = arguments(node)
    op = op_of(before) if before.op == "call_module" else None
    if not isinstance(op, Conv | Linear) or op.groups > 1 or len(before.users) > 1:
        return None
    return None if op.features_last and len(node.meta["shape"]) > 1 else op


def some_outputs(op: Conv | Linear, channels: Tensor) -> Conv | Linear:
    """`op` with these of its outputs, each as often as it is named."""
    return op.rebuilt(weight=op.weight[channels], bias=None if op.bias is None else op.bias[channels])


def some_channels(op: Op, channels: Tensor) -> Op:
    """A site's operator for these of its channels."""
    varying = {name: one for name, one in op.tensors().items() if one is not None and one.ndim and len(one) > 1}
    return op.rebuilt(**{name: one[channels] for name, one in varying.items()})
