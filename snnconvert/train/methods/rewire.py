"""Gradient rewiring: synapses come and go while the network learns, until few are left.

Every weight has a fixed sign s and a hidden strength h, which begins at |w|. Synapses that are gone (h < 0) go on
learning by the gradient that they would have, and may come back; a Laplacian prior pulls all strengths down:

    h <- h - eta Adam(s dL/dw) - eta alpha,    D = what the prior has pulled so far
    w = s (h + D) where h > 0, else 0

Source: Chen et al., IJCAI 2021 (arXiv 2105.04916). There alpha is given, and eta alpha times the number of steps
decides how many synapses are left, whatever target its prior is made for. Here alpha follows from the share of synapses
that is to be left: layer by layer the whole pull is the quantile of |w| below which the others lie. And there w is s h:
a short training cannot give back what the prior takes from the synapses that stay (a network of which 30 % are left
answered at random), so that they keep it here.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snnconvert.graph.dialect import calls
from snnconvert.graph.kinds import Weighted
from snnconvert.train.images import Batch
from snnconvert.train.method import Method


class Rewire(Method):
    """Distillation of a network that loses synapses."""

    def prepare(self, images: Tensor) -> None:
        """Signs, strengths, and how far each layer's strengths are pulled."""
        del images
        self.done = 0.0
        self.synapses: dict[str, tuple[Weighted, Tensor, float]] = {}
        for node, op in calls(self.student.graph, Weighted):
            weight = op.weight.detach()
            strength = weight.abs().clone().requires_grad_()
            pull = float(np.quantile(strength.detach().cpu().numpy(), 1 - self.asked.connectivity))
            self.synapses[f"{node.name}.weight"] = op, torch.where(weight < 0, -1.0, 1.0), pull
            self.extra[f"{node.name}.strength"] = strength

    def learns(self) -> dict[str, Tensor]:
        """Strengths instead of weights."""
        own = {name: one for name, one in self.student.parameters().items() if name not in self.synapses}
        return own | self.extra

    def loss(self, batch: Batch, goal: list[Tensor]) -> Tensor:
        """As usual, with weights made of strengths."""
        for name, (op, sign, _) in self.synapses.items():
            hidden = self._strength(name)
            real = self._real(name)
            # the gradient is that of a synapse that is there
            op.weight = sign * (hidden + (real - hidden).detach())
        return super().loss(batch, goal)

    @torch.no_grad()
    def after_step(self, share: float) -> None:
        """Pull strengths down, by as much as the learning rate is of all that will have been."""
        step = _travelled(share) - _travelled(self.done)
        self.done = share
        for name, (op, sign, pull) in self.synapses.items():
            self._strength(name).sub_(step * pull)
            op.weight = (sign * self._real(name)).requires_grad_()

    def _real(self, name: str) -> Tensor:
        """The size of every weight."""
        hidden, pull = self._strength(name), self.synapses[name][2]
        return torch.where(hidden > 0, hidden + _travelled(self.done) * pull, torch.zeros_like(hidden))

    def counts(self, share: float) -> bool:
        """Once all that are to go are gone."""
        return share >= 1

    def _strength(self, name: str) -> Tensor:
        return self.extra[f"{name.removesuffix('.weight')}.strength"]

    def state(self) -> dict[str, Any]:
        """How far strengths have been pulled."""
        return {"done": self.done}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.done = state["done"]

    def record(self) -> dict[str, Any]:
        """The share of synapses that is left."""
        weights = [op.weight.detach() for op, _, _ in self.synapses.values()]
        left = sum(int((weight != 0).sum()) for weight in weights)
        return {"details": {"connectivity": left / sum(weight.numel() for weight in weights)}}


def _travelled(share: float) -> float:
    """The part of all learning rates, along half a cosine, that a share of the steps has had."""
    return share + math.sin(math.pi * share) / math.pi
