"""The Rate Norm Layer, trained in two stages.

Stage 1: weights and biases with every activation clipped at its threshold, towards the original network's answers.
Stage 2: one scalar p for all layers against the frozen teacher, thresholds p M:

    L = 1 - cos(y_teacher, y) + lambda * mean over layers of Omega
    Omega = |r|_1 / |r|_2^2,  r = clip(x, 0, p M) / (p M)

with p = sigmoid(s) and M the thresholds that training starts from. Both stages run no spiking network; held-out images
are judged by it all the same. Source: Ding, Yu, Tian & Huang, IJCAI 2021 (arXiv 2105.11654). The authors' code compares
the network with itself in stage 2, so that the first term is 0; here the teacher is the original network.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from snnconvert.train.images import Batch
from snnconvert.train.method import Method
from snnconvert.train.rates import over_means
from snnconvert.train.student import Site

START = 4.0  # sigmoid(4) = 0.98


class RateNormLayer(Method):
    """Both stages; which one, the option `rnl_stage` says."""

    def prepare(self, images: Tensor) -> None:
        """Begin with p as the authors do."""
        self.refuse_amplitudes()
        device, self.images = self.student.device, images
        start = START if self.asked.rnl_stage == "2" else math.inf
        self.scalar = torch.tensor(start, device=device).requires_grad_()
        if self.asked.rnl_stage == "2":
            self.extra = {"s": self.scalar}
        with torch.no_grad():
            self.omega_before = float(self._pass(images)[1])
            self._settle()

    def learns(self) -> dict[str, Tensor]:
        """Weights and biases, or p alone."""
        if self.asked.rnl_stage == "2":
            return dict(self.extra)
        ends = (".growth", ".initial")
        return {name: one for name, one in self.student.parameters().items() if not name.endswith(ends)}

    def rate_of(self, name: str) -> float:
        """p moves faster than weights do: by the authors' 0.1 where these have 5e-4."""
        return 200.0 if name == "s" else 1.0

    def loss(self, batch: Batch, goal: list[Tensor]) -> Tensor:
        """Of the clipped network."""
        outputs, omega = self._pass(batch.images)
        if self.asked.rnl_stage == "1":
            return self.compared(outputs, goal, batch.labels)
        near = F.cosine_similarity(outputs[0].flatten(1), goal[0].flatten(1), dim=1)
        return 1 - near.mean() + self._weight() * omega

    def _weight(self) -> float:
        """lambda; without one 1 / (3 T)."""
        given = self.asked.omega
        return 1 / (3 * self.student.schedule.frames) if given is None else given

    def _pass(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Outputs of the clipped network, and the mean Omega of its layers."""
        omegas: list[Tensor] = []
        p = torch.sigmoid(self.scalar)

        def carry(node: fx.Node, site: Site, current: Tensor, rate: Tensor) -> Tensor:
            del node, rate
            model = site.firing.model
            top = p * site.start * site.firing.most
            clipped = current.float().minimum(top.expand(current.shape[1:]))
            clipped = clipped.clamp(min=0) if model.rectifies else clipped.maximum(-top.expand(current.shape[1:]))
            rates = (clipped / top).abs()
            squares = rates.square().sum()
            if float(squares.detach()) > 0:
                omegas.append(rates.sum() / squares)
            return clipped.to(current.dtype)

        outputs = over_means(self.student, images, {}, carry)
        return outputs, torch.stack(omegas).mean()

    @torch.no_grad()
    def _settle(self) -> None:
        """Let thresholds be p times what they were."""
        for site in self.student.sites.values():
            site.growth.copy_(torch.sigmoid(self.scalar).log().expand_as(site.growth))

    def after_step(self, share: float) -> None:
        """Thresholds follow p."""
        del share
        self._settle()

    @torch.no_grad()
    def record(self) -> dict[str, Any]:
        """p and Omega, before and after."""
        after = float(self._pass(self.images)[1])
        return {"details": {"p": float(torch.sigmoid(self.scalar)), "omega_before": self.omega_before, "omega": after}}
