"""Hybrid neural coding: values in, bursts between the layers, and an answer that is to be clear at the first moment.

Every hidden layer learns on its own, from what the layers before it really send and from the original network:

    L = sum over layers of |mean_t s_l - a_l|^2 / |a_l|^2 + D(teacher, y)

where gradients stop at every layer's inputs, a_l are the original network's activations, and y is the answer with steps
weighted by T, T - 1, ..., 1: an output whose potential is first to rise is the answer of a first-spike code, and
`--early-exit` of the conversion stops there. D is the distance of the other methods.

Source: Chen et al., TPAMI 2024 (arXiv 2305.16594): direct input, bursts of up to five spikes in hidden layers with
layer-wise learning, and first spikes at the output, which there fires through a synaptic kernel and is trained in a
stage of its own.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from snnconvert.errors import OptionError
from snnconvert.graph.edit import copied
from snnconvert.graph.walk import walk
from snnconvert.simulate.over_time import by_frames
from snnconvert.train.images import Batch
from snnconvert.train.method import Method
from snnconvert.train.methods.single_spike import earliness


class HybridCode(Method):
    """Local targets for burst neurons, and the teacher's answer for the read-out."""

    def prepare(self, images: Tensor) -> None:
        """Keep the original network's weights, and stop gradients between layers."""
        del images
        self.refuse_amplitudes()
        self.original = copied(self.student.calibrated.network.graph).to(self.student.device)
        self.sent: dict[str, Tensor] = {}
        for node, site in self.student.sites.items():
            if site.firing.model.range(2)[1] < 2:
                raise OptionError(
                    f"--method hybrid-code is for neurons that send bursts, not {site.firing.model.name}",
                    hint="convert with --neuron burst, or choose --method distill",
                    options=("method", "neuron"),
                )
            self.student.after[node] = partial(self._apart, node.name)

    def _apart(self, name: str, values: Tensor) -> Tensor:
        self.sent[name] = values
        return values.detach()

    def loss(self, batch: Batch, goal: list[Tensor]) -> Tensor:
        """Of all layers."""
        frames = self.student.schedule.frames
        outputs = self.forward(batch.images)
        local = []
        for name, wanted in self._activations(batch.images).items():
            mean = by_frames(self.sent[name], frames).float().mean(0)
            local.append((mean - wanted).square().mean() / wanted.square().mean().clamp(min=1e-12))
        self.sent.clear()
        return torch.stack(local).sum() + self.compared([earliness(one) for one in outputs], goal, batch.labels)

    @torch.no_grad()
    def _activations(self, images: Tensor) -> dict[str, Tensor]:
        """Of the original network, by site."""
        names = {node.name for node in self.student.sites}
        with self.student.precision():
            values = walk(self.original, self.student.laid_out(images))
            return {node.name: value.float() for node, _, value in values if node.name in names}
