"""Threshold-dependent batch normalisation over time and batch, folded when training is done.

    y = g (x - mean) / sqrt(var + eps) + b        mean and var over images, steps and positions, per channel

in front of every layer of neurons that weights feed. g and b start at the currents' own spread and mean, so that
nothing changes at first (g is the paper's lambda alpha V_th). One set of statistics serves all steps, so that all of
it folds into the weights: W' = g W / sigma, b' = g (b - mean) / sigma + b.

Source: Zheng et al., AAAI 2021 (arXiv 2011.05280).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx

from snnconvert.graph.dialect import op_of
from snnconvert.graph.edit import copied, replace_op
from snnconvert.graph.kinds import Role, Weighted
from snnconvert.graph.types import Calibrated
from snnconvert.train.method import Method

MOMENTUM, EPSILON = 0.1, 1e-5


@dataclass
class _Norm:
    """Of one operator's outputs: what learns, and the running statistics, all (channels,)."""

    gain: Tensor
    shift: Tensor
    mean: Tensor
    variance: Tensor
    axis: int

    def shaped(self, one: Tensor, like: Tensor) -> Tensor:
        """(channels,) to multiply values shaped like `like`."""
        return one.reshape([-1 if axis == self.axis % like.ndim else 1 for axis in range(like.ndim)])


class BatchNorm(Method):
    """tdBN with a folded start."""

    def prepare(self, images: Tensor) -> None:
        """Measure the currents of the network as it is."""
        self.norms: dict[fx.Node, _Norm] = {}
        self.measuring, self.training = True, False
        for node in self._normalised():
            self.student.after[node] = partial(self._normalise, node)
        with torch.no_grad():
            self.student(images)
        self.measuring, self.training = False, True
        for node, norm in self.norms.items():
            self.extra |= {f"{node.name}.gain": norm.gain, f"{node.name}.shift": norm.shift}

    def _normalised(self) -> list[fx.Node]:
        """Weighted operators whose values neurons take in, perhaps over a sum."""
        found = []
        for node in self.student.graph.graph.nodes:
            if node.op == "call_module" and op_of(node).role == Role.WEIGHTED:
                users = [user for one in node.users for user in (one.users if _joins(one) else [one])]
                if users and all(user in self.student.sites for user in users):
                    found.append(node)
        return found

    def _normalise(self, node: fx.Node, value: Tensor) -> Tensor:
        axis = -1 if op_of(node, Weighted).features_last else 1
        wide = value.float()
        others = [one for one in range(wide.ndim) if one != axis % wide.ndim]
        if self.measuring:
            variance, mean = torch.var_mean(wide, others, correction=0)
            gain = (variance + EPSILON).sqrt()
            self.norms[node] = _Norm(gain.requires_grad_(), mean.clone().requires_grad_(), mean, variance, axis)
        norm = self.norms[node]
        mean, variance = norm.mean, norm.variance
        if self.training and torch.is_grad_enabled():
            variance, mean = torch.var_mean(wide, others, correction=0)
            with torch.no_grad():
                norm.mean.lerp_(mean, MOMENTUM)
                norm.variance.lerp_(variance, MOMENTUM)
        scaled = norm.shaped(norm.gain / (variance + EPSILON).sqrt(), wide)
        return ((wide - norm.shaped(mean, wide)) * scaled + norm.shaped(norm.shift, wide)).to(value.dtype)

    @torch.no_grad()
    def folded(self, calibrated: Calibrated) -> Calibrated:
        """Weights and biases that compute what the running statistics do."""
        graph = copied(calibrated.network.graph)
        by_name = {node.name: node for node in graph.graph.nodes}
        for node, norm in self.norms.items():
            own = by_name[node.name]
            op = op_of(own, Weighted)
            scale = (norm.gain / (norm.variance + EPSILON).sqrt()).detach().cpu().double()
            bias = torch.zeros_like(scale) if op.bias is None else op.bias.double()
            moved = (bias - norm.mean.cpu().double()) * scale + norm.shift.detach().cpu().double()
            weight = op.weight.double() * op.by_output(scale)
            replace_op(graph, own, op.rebuilt(weight=weight.float(), bias=moved.float()))
        graph.recompile()
        return replace(calibrated, network=replace(calibrated.network, graph=graph))

    def state(self) -> dict[str, Any]:
        """The running statistics."""
        return {node.name: (norm.mean, norm.variance) for node, norm in self.norms.items()}

    def load(self, state: dict[str, Any]) -> None:
        """Take them over."""
        for node, norm in self.norms.items():
            mean, variance = state[node.name]
            norm.mean.copy_(mean)
            norm.variance.copy_(variance)


def _joins(node: fx.Node) -> bool:
    return node.op == "call_module" and op_of(node).role == Role.JOIN
