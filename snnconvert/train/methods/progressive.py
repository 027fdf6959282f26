"""Progressive tandem learning: layers become spiking one after the other, and what is spiking already stays as it is.

In stage l the first l layers of neurons spike, and they and the weights in front of them are frozen; the layers behind
are those of the original network still, read the mean values that the spiking ones send, and learn the teacher's
answers. So every layer adapts to what the layers before it can say. When the next layer becomes spiking its thresholds
grow as far as its currents have grown meanwhile (by their 99.9th percentile). In the last stage the read-out learns.

Memory and time do not grow with the number of steps. Every stage has the same share of the run; the authors wait until
the accuracy stands still, and give the image in the first step only. Source: Wu et al., TPAMI 2021 (arXiv 2007.01204).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, fx

from snnconvert.graph.walk import applied
from snnconvert.train.images import Batch
from snnconvert.train.method import Method
from snnconvert.train.rates import over_means, sent
from snnconvert.train.student import LEAST_THRESHOLD, Site

PERCENTILE = 0.999
# values that a percentile is taken of
MOST_VALUES = 1 << 20


class Progressive(Method):
    """Stages are counted from 1; the last layer spikes from the start of the last one."""

    def prepare(self, images: Tensor) -> None:
        """Measure the currents by which thresholds were chosen."""
        self.refuse_amplitudes()
        self.images, self.order = images, list(self.student.sites)
        self.tops = self._tops()
        self.stage = 1

    def loss(self, batch: Batch, goal: list[Tensor]) -> Tensor:
        """Of the layers that are analog still, behind those that spike."""
        means, _ = sent(self.student, batch.images)
        return self.compared(over_means(self.student, batch.images, means, self._carry), goal, batch.labels)

    def _carry(self, node: fx.Node, site: Site, current: Tensor, rate: Tensor) -> Tensor:
        del site
        if self.order.index(node) < self.stage:
            return rate.detach().to(current.dtype)
        return applied(node, [current])

    @torch.no_grad()
    def _tops(self) -> dict[str, float]:
        """The 99.9th percentile of every layer's mean currents, where all the layers before it spike."""
        found: dict[str, float] = {}

        def carry(node: fx.Node, site: Site, current: Tensor, rate: Tensor) -> Tensor:
            del site
            values = current.float().abs().flatten()
            found[node.name] = float(torch.quantile(values[:: 1 + len(values) // MOST_VALUES], PERCENTILE))
            return rate.to(current.dtype)

        over_means(self.student, self.images, sent(self.student, self.images)[0], carry)
        return found

    @torch.no_grad()
    def after_step(self, share: float) -> None:
        """Let the next layers spike, when it is their turn."""
        wanted = min(len(self.order), 1 + int(share * len(self.order)))
        while self.stage < wanted:
            node = self.order[self.stage]
            grown = self._tops()[node.name] / max(self.tops[node.name], LEAST_THRESHOLD)
            if grown > 0:
                self.student.sites[node].growth.add_(math.log(grown))
            self.stage += 1

    def state(self) -> dict[str, Any]:
        """The stage, and the currents at the start."""
        return {"stage": self.stage, "tops": self.tops}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.stage, self.tops = state["stage"], state["tops"]

    def record(self) -> dict[str, Any]:
        """How many layers spike while it learns."""
        return {"details": {"layers": len(self.order), "frozen": self.stage}}
