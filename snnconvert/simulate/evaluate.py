"""Run ANN and SNN side by side over an evaluation set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snnconvert.data.datasets import Dataset
from snnconvert.graph.types import Ann, Snn
from snnconvert.progress import Progress, silent
from snnconvert.simulate.measure import Batch, FitCurve, measure


@dataclass(frozen=True)
class Evaluation:
    """The SNN's curve beside its ANN.

    Attributes:
        curve: accuracy, agreement and spikes over time.
        ann_correct: images that the ANN classifies rightly, or None without labels.
        paired: images that only the ANN, and only the SNN, classifies rightly at the end; None without labels.
    """

    curve: FitCurve
    ann_correct: int | None
    paired: tuple[int, int] | None

    def figures(self) -> dict[str, object]:
        """The figures that a checkpoint keeps of its own evaluation."""
        return {
            "samples": self.curve.samples,
            "ann_correct": self.ann_correct,
            "correct": self.curve.correct,
            "agreed": self.curve.agreed,
            "spikes_per_image": self.curve.spikes,
        }


def evaluate(ann: Ann, snn: Snn, data: Dataset | Tensor, *, batch_size: int, progress: Progress = silent) -> Evaluation:
    """Measure `snn` against `ann` on a data set, or on unlabelled inputs (n, *sample)."""
    references: list[NDArray[np.int64]] = []
    labels: list[NDArray[np.int64]] = []

    def batches() -> Iterator[Batch]:
        for images, given in read(data, batch_size):
            with torch.inference_mode():
                logits = ann.graph(images)[0].flatten(1)
            reference: NDArray[np.int64] = np.argmax(logits.numpy(), axis=1)
            references.append(reference)
            if given is not None:
                labels.append(given)
            yield Batch(images, given, reference)

    curve = measure(snn, batches(), total=len(data), progress=progress)
    if not labels:
        return Evaluation(curve, None, None)
    truth, decided = np.concatenate(labels), np.concatenate(references)
    ann_right, snn_right = decided == truth, curve.predictions == truth
    paired = (int((ann_right & ~snn_right).sum()), int((snn_right & ~ann_right).sum()))
    return Evaluation(curve, int(ann_right.sum()), paired)


def rerun(snn: Snn, data: Dataset, *, batch_size: int, progress: Progress = silent) -> FitCurve:
    """Measure a checkpoint on its own; agreement is not known without the ANN and comes out as None."""

    def batches() -> Iterator[Batch]:
        for images, given in read(data, batch_size):
            yield Batch(images, given, np.full(len(images), -1, np.int64))

    return measure(snn, batches(), total=len(data), progress=progress)


def read(data: Dataset | Tensor, batch_size: int) -> Iterator[tuple[Tensor, NDArray[np.int64] | None]]:
    """Batches of inputs with labels, if there are any."""
    if isinstance(data, Tensor):
        for start in range(0, len(data), batch_size):
            yield data[start : start + batch_size], None
        return
    for images, labels in data.batches(batch_size):
        yield images, None if labels is None else labels.numpy()
