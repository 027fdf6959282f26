"""Step-wise distillation: the answer after every step is compared with the teacher's, and with the mean over all steps.

    L = mean_t KL(teacher || y_t) + KL(mean || y_t), all softened;  y_t the running mean of the outputs until step t

One network is then good at every number of steps. After Yu et al. 2025 (arXiv 2501.15925), without labels and with
running means, which are what this network answers after t steps, instead of the outputs of single steps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from snnconvert.train.images import Batch
from snnconvert.train.method import Method

SELF = 0.5


class Stepwise(Method):
    """Every step learns from the teacher, and from the last answer."""

    def loss(self, batch: Batch, goal: list[Tensor]) -> Tensor:
        """The mean over the answers of all steps."""
        running = [_running_means(one) for one in self.student(batch.images)]
        last = [one[-1].detach() for one in running]
        answers = list(zip(*running, strict=True))
        taught = torch.stack([self.compared(list(one), goal, batch.labels) for one in answers]).mean()
        if len(answers) == 1:
            return taught
        own = torch.stack([self.compared(list(one), last, None) for one in answers[:-1]]).mean()
        return (1 - SELF / 2) * taught + SELF / 2 * own


def _running_means(outputs: Tensor) -> Tensor:
    """(frames, batch, *output) as the means over the frames until each."""
    steps = torch.arange(1, len(outputs) + 1, device=outputs.device).reshape(-1, *[1] * (outputs.ndim - 1))
    return outputs.cumsum(0) / steps
