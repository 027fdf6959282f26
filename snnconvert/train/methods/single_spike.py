"""Neurons of one spike, trained by what the membranes of the output are at the end and by when spikes charge them.

    L = (1 - c) D(teacher, sum_t y_t / T) + c D(teacher, sum_t (T + 1 - t) y_t / sum_t (T + 1 - t)),    c = 1/10

with y_t what comes to the output in step t. The first is the membrane at the end; in the second a spike counts the more
the earlier it comes, by T + 1 - t, which is linear in its time. D is the distance of the other methods. Weights,
thresholds and starts learn through time; that a spike comes earlier means that it does not come later.

Source: Datta et al., IJCNN 2021 (arXiv 2107.12374), whose loss is a cross entropy on both spike times and membranes of
an output that fires, and whose pixels come as values in the first step and as single spikes later. Here the input's
values come in every step, and their weighted sums are computed once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from snnconvert.errors import OptionError
from snnconvert.neurons import NEURONS
from snnconvert.simulate.over_time import by_frames
from snnconvert.train.images import Batch
from snnconvert.train.method import Method

SHARE_OF_TIME = 0.1


class SingleSpike(Method):
    """Distillation into membranes and spike times."""

    def prepare(self, images: Tensor) -> None:
        """Only neurons that fire once have a time."""
        self.images = images
        for site in self.student.sites.values():
            if not site.firing.model.once:
                names = " or ".join(f"--neuron {name}" for name, row in NEURONS.items() if row.once)
                raise OptionError(
                    f"--method single-spike is for neurons that fire at most once, not {site.firing.model.name}",
                    hint=f"convert with {names}, or choose --method distill",
                    options=("method", "neuron"),
                )

    def loss(self, batch: Batch, goal: list[Tensor]) -> Tensor:
        """Of both."""
        outputs = self.forward(batch.images)
        at_the_end = self.compared([one.mean(0) for one in outputs], goal, batch.labels)
        in_time = self.compared([earliness(one) for one in outputs], goal, batch.labels)
        return (1 - SHARE_OF_TIME) * at_the_end + SHARE_OF_TIME * in_time

    @torch.no_grad()
    def record(self) -> dict[str, Any]:
        """Spikes of a neuron over the whole run: on average, and at most."""
        found, most, frames = [0.0, 0.0], 0.0, self.student.schedule.frames
        thresholds = {node: site.threshold for node, site in self.student.sites.items()}

        def watch(node: fx.Node, values: Tensor) -> None:
            nonlocal most
            units = (values.float() / thresholds[node]).round()  # bfloat16 is some thousandths off
            sums = by_frames(units, frames).sum(0)
            found[0] += float(sums.sum())
            found[1] += sums.numel()
            most = max(most, float(sums.max()))

        self.student(self.images, watch=watch)
        return {
            "details": {"spikes_per_neuron": found[0] / max(found[1], 1), "most_spikes_of_a_neuron": round(most, 4)}
        }


def earliness(outputs: Tensor) -> Tensor:
    """(frames, batch, *output) averaged with weights that fall linearly from the first frame to the last."""
    weights = torch.arange(len(outputs), 0, -1, device=outputs.device, dtype=outputs.dtype)
    mean: Tensor = torch.tensordot(weights / weights.sum(), outputs, 1)
    return mean
