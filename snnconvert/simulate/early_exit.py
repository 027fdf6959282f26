"""Early exit: an image stops being simulated as soon as its answer is clear.

The margin of an answer is its largest mean logit less the second largest. An image leaves after the first answer whose
margin reaches a limit, at the latest after the last one. The limit is the smallest at which, on calibration images, at
least the wanted share leaves with the answer of the last step; no labels are used. (Confidence as a criterion to stop:
Li, Geller, Kim and Panda, SEENN, NeurIPS 2023, arXiv 2304.01230.)
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snnconvert.errors import OptionError
from snnconvert.graph.types import EarlyExit, Snn
from snnconvert.progress import Progress, silent
from snnconvert.simulate.chunks import chunk_size
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.tasks.scores import decided as decisions

# limits that are tried: as many quantiles of the margins seen
LIMITS = 500


def with_early_exit(snn: Snn, images: Tensor, share: float, progress: Progress = silent) -> Snn:
    """`snn` with the limit at which `share` of the answers on `images` (n, *sample) are those of the last step.

    Raises:
        OptionError: if the network is no classifier, or has only one answer.
    """
    if not snn.task.row.counted:
        raise OptionError(
            f"--early-exit is for classification, and this network is for {snn.task.kind} ({snn.task.reason})",
            hint="leave it out, or add --task classification",
            options=("early_exit", "task"),
        )
    engine, size = LayerEngine(snn), chunk_size(snn)
    found, decided = [], []
    for start in range(0, len(images), size):
        sums = engine.run(images[start : start + size]).outputs[0].flatten(2).cpu()
        if len(sums) < 2:
            raise OptionError("--early-exit needs several answers to compare; there is one answer", hint="leave it out")
        found.append(margins(sums))
        decided.append(torch.from_numpy(decisions(sums.numpy(), 2)))
        progress("early exit", min(start + size, len(images)), len(images))
    limit, agreement = smallest_limit(torch.cat(found, 1), torch.cat(decided, 1), share)
    chosen = EarlyExit(share, limit, len(images), 100 * agreement)
    calibrated = snn.calibrated
    if calibrated is not None and calibrated.schedule == snn.schedule:
        calibrated = replace(calibrated, early_exit=chosen)
    return replace(snn, early_exit=chosen, calibrated=calibrated)


def margins(sums: Tensor) -> Tensor:
    """Largest less second largest mean logit of running sums (answers, batch, classes), shape (answers, batch).

    Of a single logit, which decides by its sign, the distance from 0.
    """
    largest = sums.topk(2, dim=2).values if sums.shape[2] > 1 else torch.cat([sums.abs(), torch.zeros_like(sums)], 2)
    return (largest[..., 0] - largest[..., 1]) / torch.arange(1, len(sums) + 1, dtype=sums.dtype).unsqueeze(1)


def leaving(margin: Tensor, limit: float) -> Tensor:
    """The index of the answer with which each image leaves, (batch,)."""
    clear = margin >= limit
    clear[-1] = True
    return clear.int().argmax(0)


def smallest_limit(margin: Tensor, decided: Tensor, share: float) -> tuple[float, float]:
    """The smallest limit that keeps the share, as every larger one does, and the share it keeps.

    Args:
        margin, decided: margins and classes, (answers, images).
        share: of images that have to leave with the class of the last answer.
    """
    tried = np.unique(np.quantile(margin.double().numpy(), np.linspace(0, 1, LIMITS + 1)))[::-1]
    best, kept = float(tried[0]) + 1.0, 1.0
    for limit in tried.tolist():
        same = decided.gather(0, leaving(margin, limit).unsqueeze(0))[0] == decided[-1]
        agreement = float(same.double().mean())
        if agreement < share:
            break
        best, kept = limit, agreement
    return best, kept


class Exits:
    """Counts after which answer images leave, and how often they are right then.

    Args:
        snn: a network; without early exit nothing is counted.
    """

    def __init__(self, snn: Snn) -> None:
        self.chosen = snn.early_exit
        self.steps = snn.schedule.answer_steps
        self.counts = np.zeros(len(self.steps), np.int64)
        self.same = self.correct = 0
        self.labelled = True

    def add(self, sums: Tensor, labels: NDArray[np.int64] | None) -> None:
        """Running sums (answers, batch, *classes), and the labels."""
        if self.chosen is None:
            return
        flat = sums.flatten(2).cpu()
        decided = decisions(flat.numpy(), 2)
        index = leaving(margins(flat), self.chosen.margin).numpy()
        answer = decided[index, np.arange(len(index))]
        self.counts += np.bincount(index, minlength=len(self.counts))
        self.same += int((answer == decided[-1]).sum())
        self.labelled = self.labelled and labels is not None
        self.correct += 0 if labels is None else int((answer == labels).sum())

    def include(self, other: Exits) -> None:
        """Count the images of `other` too."""
        self.counts += other.counts
        self.same += other.same
        self.correct += other.correct
        self.labelled = self.labelled and other.labelled

    def record(self) -> dict[str, Any] | None:
        """JSON-able; None without a limit. `agreement` is with the answers of the last step, per cent."""
        count = int(self.counts.sum())
        if self.chosen is None or count == 0:
            return None
        used = np.flatnonzero(self.counts)
        return {
            "share": self.chosen.share,
            "margin": self.chosen.margin,
            "calibration_images": self.chosen.images,
            "mean_steps": float(np.dot(self.counts, self.steps)) / count,
            "worst_steps": self.steps[int(used[-1])],
            "agreement": 100 * self.same / count,
            "accuracy": 100 * self.correct / count if self.labelled else None,
            "steps": self.steps,
            "images": self.counts.tolist(),
        }
