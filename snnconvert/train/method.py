"""What a training method may do differently from plain distillation: its loss, what learns, what happens after a step.

A method is a class below `Method` in a file of `methods/`, and a row of TRAINING_METHODS.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from snnconvert.errors import OptionError
from snnconvert.graph.types import Calibrated
from snnconvert.tasks import TaskChoice
from snnconvert.train.options import FineTuning
from snnconvert.train.sparse import SparseBackward
from snnconvert.train.student import Student

if TYPE_CHECKING:
    from snnconvert.train.images import Batch


# thresholds learn by their logarithm, of which a step of Adam is a smaller part than of a weight
THRESHOLDS_RATE = 5.0
# the temperature, in distances between the teacher's two best answers, and at most
HEAT_BY_MARGIN, MOST_HEAT = 0.3, 3.0


class Method:
    """Distillation; others change what they need to.

    Args:
        student: the network that learns.
        task: what it is for.
        asked: the options.

    Attributes:
        heat: the temperature of answers that are compared.
        extra: what the method adds to what learns, by names that the student does not use.
        forward: makes the outputs of all frames, or their mean, with gradients.
    """

    def __init__(self, student: Student, task: TaskChoice, asked: FineTuning) -> None:
        self.student, self.task, self.asked = student, task, asked
        self.heat = asked.temperature or 1.0
        self.extra: dict[str, Tensor] = {}
        self.forward: Callable[[Tensor], list[Tensor]] = student
        if asked.backward == "sparse":
            self.refuse_amplitudes()
            self.forward = SparseBackward(student)

    def prepare(self, images: Tensor) -> None:
        """Called once before anything is learned, with some training images (n, *sample)."""

    def refuse_amplitudes(self) -> None:
        """For methods to which a spike is worth its threshold.

        Raises:
            OptionError: an earlier training has made it something else.
        """
        if any(site.worth is not None for site in self.student.sites.values()):
            raise OptionError(
                f"--method {self.asked.method} is for neurons whose spikes are worth their threshold; these were "
                "trained by --method ternary",
                hint="choose --method distill, stepwise, tdbn or ternary",
                options=("method",),
            )

    def learns(self) -> dict[str, Tensor]:
        """What learns, by name."""
        return {**self.student.parameters(), **self.extra}

    def rate_of(self, name: str) -> float:
        """By what the learning rate of a tensor is multiplied."""
        return THRESHOLDS_RATE if name.endswith(".growth") else 1.0

    def loss(self, batch: Batch, goal: list[Tensor]) -> Tensor:
        """The loss of a batch; `goal` holds the teacher's outputs, each (batch, *output)."""
        outputs = self.forward(batch.images)
        return self.compared([one.mean(0) for one in outputs], goal, batch.labels)

    def compared(self, means: list[Tensor], goal: list[Tensor], labels: Tensor | None) -> Tensor:
        """How far mean outputs, each (batch, *output), are from the teacher's, and from labels if they count."""
        chosen = [(means[index], goal[index]) for index in self.task.outputs] or list(zip(means, goal, strict=True))
        found = torch.stack([self._distance(mean, wanted) for mean, wanted in chosen]).mean()
        share = self.asked.label_weight
        if share and labels is not None:
            logits, wanted = chosen[0][0].flatten(1), labels.to(means[0].device)
            found = (1 - share) * found + share * F.cross_entropy(logits, wanted)
        return found

    def _distance(self, mean: Tensor, wanted: Tensor) -> Tensor:
        if not _softened(self.task, mean):
            return F.mse_loss(mean, wanted) / wanted.var().clamp(min=1e-12)
        axis, heat = self.task.axis + 1, self.heat
        own, other = (F.log_softmax(one / heat, axis) for one in (mean, wanted))
        return heat**2 * F.kl_div(own, other, log_target=True, reduction="none").sum(axis).mean()

    def after_step(self, share: float) -> None:
        """Called when Adam has moved what learns; `share` of the run is done then."""

    def counts(self, share: float) -> bool:
        """Whether the network may be the best one when `share` of the run is done."""
        del share
        return True

    def folded(self, calibrated: Calibrated) -> Calibrated:
        """What was learned without anything that was added for learning."""
        return calibrated

    def state(self) -> dict[str, Any]:
        """What has to be kept besides what learns, for an interrupted run to go on; numbers, texts and tensors."""
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave."""

    def record(self) -> dict[str, Any]:
        """What the report should say of the method itself; JSON-able."""
        if isinstance(self.forward, SparseBackward):
            return {"details": {"active": self.forward.share}}
        return {}


def _softened(task: TaskChoice, answers: Tensor) -> bool:
    """Whether answers (batch, *output) are compared as probabilities of classes."""
    return task.kind in ("classification", "segmentation") and answers[0].numel() > 1


def temperature_for(answers: list[Tensor], task: TaskChoice) -> float:
    """At which a teacher's answers, each (batch, *output), say neither one class alone nor all classes alike.

    Networks differ tenfold in how far their best answer is ahead of the next. Where that is little, answers softened by
    3 ask for outputs of the same size alone, and who learns them decides less and less as the teacher does.
    """
    found = answers[task.outputs[0] if task.outputs else 0].float()
    if not _softened(task, found) or found.shape[task.axis + 1] < 2:
        return MOST_HEAT
    best = found.topk(2, task.axis + 1).values
    margin = float((best.select(task.axis + 1, 0) - best.select(task.axis + 1, 1)).median())
    return min(MOST_HEAT, HEAT_BY_MARGIN * margin) if margin > 0 else MOST_HEAT
