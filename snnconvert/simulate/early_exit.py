"""Early exit: an input stops being simulated as soon as its answer is clear.

Of a classifier clear is what has a large margin: the largest mean logit less the second largest. Of all other networks
clear is what has come to rest: how far the mean output still moved since the answer before. An input leaves after the
first answer that is clear enough, at the latest after the last one. The limit is the loosest at which, on calibration
images, answers are still those of the last step, to the wanted share and by the metric of the task: of classes and
pixels so many are the same, of numbers the relative error is at most what is left of it. No labels are used.
(Confidence as a criterion to stop: Li, Geller, Kim and Panda, SEENN, NeurIPS 2023, arXiv 2304.01230.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from snnconvert.tasks.scores import Scores, answer_of, scores_of

# limits that are tried: as many quantiles of the clearness seen
LIMITS = 500


def with_early_exit(snn: Snn, images: Tensor, share: float | None, progress: Progress = silent) -> Snn:
    """`snn` with the limit at which `share` of the answers on `images` (n, *sample) are those of the last step.

    Without a share it is returned as it is.

    Raises:
        OptionError: if the network has only one answer.
    """
    if share is None:
        return snn
    engine, size, scores = LayerEngine(snn), chunk_size(snn), scores_of(snn.task)
    found, levels = [], []
    for start in range(0, len(images), size):
        outputs = [sums.cpu() for sums in engine.run(images[start : start + size]).outputs]
        if len(outputs[0]) < 2:
            raise OptionError("--early-exit needs several answers to compare; there is one answer", hint="leave it out")
        scores.add([sums.numpy() for sums in outputs], last_answer(snn, outputs), None)
        counted = [outputs[index] for index in snn.task.outputs]
        found.append(margins(counted[0].flatten(2))[None] if snn.task.row.counted else moves(counted))
        levels.append([float(means(sums)[-1].square().sum()) / sums[0, 0].numel() for sums in counted])
        progress("early exit", min(start + size, len(images)), len(images))
    usual = () if snn.task.row.counted else tuple(float(level) for level in np.sqrt(np.sum(levels, 0) / len(images)))
    clear = torch.cat(found, 2)[0] if snn.task.row.counted else at_rest(torch.cat(found, 2), usual)
    limit, kept = smallest_limit(clear, lambda index: same_share(scores.leaving(index)), share)
    # of what is at rest the limit is kept as the largest move
    chosen = EarlyExit(share, -limit if usual else limit, len(images), 100 * kept, usual)
    calibrated = snn.calibrated
    if calibrated is not None and calibrated.schedule == snn.schedule:
        calibrated = replace(calibrated, early_exit=chosen)
    return replace(snn, early_exit=chosen, calibrated=calibrated)


def means(sums: Tensor) -> Tensor:
    """The mean output after each answer, of running sums (answers, batch, *shape)."""
    counts = torch.arange(1, len(sums) + 1, dtype=torch.float64)
    return sums.double() / counts.reshape(-1, *[1] * (sums.ndim - 1))


def margins(sums: Tensor) -> Tensor:
    """Largest less second largest mean logit of running sums (answers, batch, classes), shape (answers, batch).

    Of a single logit, which decides by its sign, the distance from 0.
    """
    largest = sums.topk(2, dim=2).values if sums.shape[2] > 1 else torch.cat([sums.abs(), torch.zeros_like(sums)], 2)
    return (largest[..., 0] - largest[..., 1]) / torch.arange(1, len(sums) + 1, dtype=sums.dtype).unsqueeze(1)


def moves(outputs: Sequence[Tensor]) -> Tensor:
    """By how much each mean output has moved since the answer before, RMS over its elements.

    Args:
        outputs: running sums, (answers, batch, *shape) each.

    Returns:
        (outputs, answers, batch); infinite at the first answer.
    """
    found = [torch.diff(means(sums).flatten(2), dim=0).square().mean(2).sqrt() for sums in outputs]
    return torch.stack([torch.cat([torch.full_like(moved[:1], torch.inf), moved]) for moved in found])


def at_rest(moved: Tensor, usual: Sequence[float]) -> Tensor:
    """How clear answers are that have come to rest: their moves, relative to the outputs' usual size, with a minus."""
    scale = torch.tensor([size or 1.0 for size in usual], dtype=moved.dtype)
    return -(moved / scale[:, None, None]).square().mean(0).sqrt()


def clearness(snn: Snn, outputs: Sequence[Tensor]) -> tuple[Tensor, float]:
    """How clear each answer is, (answers, batch), and from where on an input leaves."""
    chosen = snn.early_exit
    assert chosen is not None
    counted = [outputs[index] for index in snn.task.outputs]
    if chosen.scales:
        return at_rest(moves(counted), chosen.scales), -chosen.margin
    return margins(counted[0].flatten(2)), chosen.margin


def last_answer(snn: Snn, outputs: Sequence[Tensor]) -> NDArray[Any]:
    """The answers of the last step, which those before are compared with."""
    found = answer_of(snn.task, [sums[-1].numpy() for sums in outputs])
    return found.astype(np.float64) / len(outputs[0]) if found.dtype.kind == "f" else found


def leaving(clear: Tensor, limit: float) -> Tensor:
    """The index of the answer with which each image leaves, (batch,)."""
    found = clear >= limit
    found[-1] = True
    return found.int().argmax(0)


def same_share(scores: Scores) -> float:
    """How far answers are those of the last step, by the headline of the task: a share, 1 where nothing is known."""
    metric, (value,) = scores.task.headline, scores.headline.values
    if value is None:
        return 1.0
    return value / 100 if metric.better == "higher" else 1.0 - value / 100


def smallest_limit(clear: Tensor, kept: Callable[[NDArray[np.int64]], float], share: float) -> tuple[float, float]:
    """The smallest limit that keeps the share, as every larger one does, and the share it keeps.

    Args:
        clear: how clear each answer is, (answers, images).
        kept: the share of answers that are those of the last step, where images leave with these.
        share: how many have to be.
    """
    finite = clear[clear.isfinite()].double().numpy()
    tried = np.unique(np.quantile(finite, np.linspace(0, 1, LIMITS + 1)))[::-1]
    best, most = float(tried[0]) + 1.0, 1.0
    for limit in tried.tolist():
        agreement = kept(leaving(clear, limit).numpy())
        if agreement < share:
            break
        best, most = limit, agreement
    return best, most


class Exits:
    """Counts after which answer images leave, and how good their answers are then.

    Args:
        snn: a network; without early exit nothing is counted.
    """

    def __init__(self, snn: Snn) -> None:
        self.snn = snn
        self.steps = snn.schedule.answer_steps
        self.counts = np.zeros(len(self.steps), np.int64)
        self.scores = scores_of(snn.task)

    def add(self, outputs: Sequence[Tensor], labels: NDArray[Any] | None) -> None:
        """Running sums (answers, batch, *shape) of every output, and the labels."""
        if self.snn.early_exit is None:
            return
        outputs = [sums.cpu() for sums in outputs]
        index = leaving(*clearness(self.snn, outputs)).numpy()
        scores = scores_of(self.snn.task)
        scores.add([sums.numpy() for sums in outputs], last_answer(self.snn, outputs), labels)
        self.scores.include(scores.leaving(index))
        self.counts += np.bincount(index, minlength=len(self.counts))

    def include(self, other: Exits) -> None:
        """Count the images of `other` too."""
        self.counts += other.counts
        self.scores.include(other.scores)

    def record(self) -> dict[str, Any] | None:
        """JSON-able; None without a limit. `agreement` is with the answers of the last step, per cent."""
        count, chosen, task = int(self.counts.sum()), self.snn.early_exit, self.snn.task
        if chosen is None or count == 0:
            return None
        used = np.flatnonzero(self.counts)
        found = {name: curve.values[0] for name, curve in self.scores.curves().items()}
        truth = next((name for name in task.row.truths if name in found), None)
        return {
            "share": chosen.share,
            "margin": chosen.margin,
            "by": "rest" if chosen.scales else "margin",
            "calibration_images": chosen.images,
            "mean_steps": float(np.dot(self.counts, self.steps)) / count,
            "worst_steps": self.steps[int(used[-1])],
            "agreement": found.get("agreement"),
            "accuracy": found.get("accuracy"),
            "metric": task.headline.name,
            "value": found[task.headline.name],
            "truth": truth,
            "truth_value": None if truth is None else found[truth],
            "steps": self.steps,
            "images": self.counts.tolist(),
        }
