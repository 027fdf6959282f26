"""Run ANN and SNN side by side over an evaluation set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snnconvert.convert.units import refuse_overflow
from snnconvert.data.datasets import Dataset
from snnconvert.graph.types import Ann, Snn
from snnconvert.progress import Progress, silent
from snnconvert.simulate.chunks import chunk_size, with_smaller_chunks
from snnconvert.simulate.measure import Batch, FitCurve, Tally, Watcher, measure, tally, watched_images
from snnconvert.study.attribution import Attribution
from snnconvert.study.look_inside import LookInside
from snnconvert.study.operations import OperationCounter, Operations, operations
from snnconvert.tasks.scores import Scores, answer_of, drop_interval, scores_of


@dataclass(frozen=True)
class Studies:
    """What was seen on the first images: operations, why rates differ from activations, single neurons."""

    operations: Operations | None
    attribution: dict[str, Any] | None
    inside: LookInside


class Watchers:
    """All studies of one measurement; None for `ann` compares with the network's own limit."""

    def __init__(self, snn: Snn, ann: Ann | None) -> None:
        self.counter = OperationCounter(snn)
        self.attribution = Attribution(snn, ann)
        self.inside = LookInside(snn)
        self.all = (self.counter, self.attribution, self.inside)

    def studies(self) -> Studies:
        """The results, once everything has been simulated."""
        return Studies(operations(self.counter), self.attribution.document(), self.inside)


@dataclass(frozen=True)
class Evaluation:
    """The SNN's curve beside its ANN.

    Attributes:
        curve: accuracy, agreement and spikes over time.
        original: the ANN's own scores against labels.
        studies: what was seen on the first images besides.
        reference: what the ANN answers, shape (images, ...).
    """

    curve: FitCurve
    original: Scores
    studies: Studies | None = None
    reference: NDArray[Any] | None = None

    @property
    def right(self) -> NDArray[np.bool_] | None:
        """For each image in order, whether the ANN and whether the SNN classifies it rightly at the end.

        Shape (2, images); None without labels, and where the task is no classification.
        """
        one, other = self.original.rows.get("correct"), self.curve.scores.rows.get("correct")
        return None if one is None or other is None else np.stack([one[-1], other[-1]])

    @property
    def ann_correct(self) -> int | None:
        """Images that the ANN classifies rightly, or None."""
        return None if self.right is None else int(self.right[0].sum())

    @property
    def paired(self) -> tuple[int, int] | None:
        """Images that only the ANN, and only the SNN, classifies rightly at the end."""
        if self.right is None:
            return None
        ann, snn = self.right
        return int((ann & ~snn).sum()), int((snn & ~ann).sum())

    @property
    def ann_figures(self) -> dict[str, float | None]:
        """The ANN's own figures against labels, by metric."""
        return {name: curve.values[-1] for name, curve in self.original.curves().items()}

    @property
    def answers(self) -> dict[str, int | None] | None:
        """How many different classes the ANN and the SNN (of images, not pixels) gave; None if nothing is decided."""
        if self.reference is None or self.curve.scores.task.kind in ("regression", "raw"):
            return None
        decided = self.curve.predictions
        return {"ann": len(np.unique(self.reference)), "snn": None if decided is None else len(np.unique(decided))}

    @property
    def drop_interval(self) -> list[float] | None:
        """95 % interval of the accuracy lost, points."""
        return drop_interval(self.original, self.curve.scores)

    def figures(self) -> dict[str, object]:
        """The figures that a checkpoint keeps of its own evaluation."""
        counted = {"ann_correct": self.ann_correct, "correct": self.curve.correct, "agreed": self.curve.agreed}
        known = {name: vars(curve) for name, curve in self.curve.metrics().items()}
        return {
            "samples": self.curve.samples,
            **(counted if self.curve.scores.task.row.counted else {"metrics": known, "ann": self.ann_figures}),
            "spikes_per_image": self.curve.spikes,
            **({} if self.curve.early_exit is None else {"early_exit": self.curve.early_exit}),
        }


def evaluate(
    ann: Ann,
    snn: Snn,
    data: Dataset | Tensor,
    *,
    batch_size: int,
    progress: Progress = silent,
    device: str = "cpu",
    spread: Spread | None = None,
) -> Evaluation:
    """Measure `snn` against `ann` on a data set, or on unlabelled inputs (n, *sample).

    Args:
        spread: has images of a data set beyond the watched ones simulated by others; the result is the same.
    """

    results: list[Callable[[], Tally]] = []
    parts = [data] if spread is None or isinstance(data, Tensor) else _cut(data, watched_images(snn), spread.shards)
    originals = [Original(ann, part, batch_size) for part in parts]
    for part, original in zip(parts[1:], originals[1:], strict=True):
        for _ in original.batches():
            pass
        assert spread is not None
        assert isinstance(part, Dataset)
        results.append(spread.submit(snn, part, original.reference))

    def attempt(size: int) -> tuple[FitCurve, Watchers]:
        new = Watchers(snn, ann)
        seen = measure(
            snn,
            originals[0].batches(),
            total=len(data),
            progress=progress,
            watchers=new.all,
            device=device,
            size=size,
            rest=(result() for result in results),
        )
        return seen, new

    (curve, watchers), notes = with_smaller_chunks(chunk_size(snn), attempt)
    curve = replace(curve, notes=(*curve.notes, *notes))
    reference = np.concatenate([original.reference for original in originals])
    for original in originals[1:]:
        originals[0].scores.include(original.scores)
    return Evaluation(curve, originals[0].scores, watchers.studies(), reference)


class Original:
    """Reads data and runs the ANN on them: batches with its answers, which it keeps.

    Attributes:
        scores: of its outputs against labels.
    """

    def __init__(self, ann: Ann, data: Dataset | Tensor, batch_size: int) -> None:
        self.ann, self.data, self.batch_size = ann, data, batch_size
        self.scores, self._answers = scores_of(ann.task), list[NDArray[Any]]()

    @property
    def reference(self) -> NDArray[Any]:
        """The answers to all images that were read."""
        return np.concatenate(self._answers)

    def batches(self) -> Iterator[Batch]:
        """All batches, from the first."""
        self.scores, self._answers = scores_of(self.ann.task), []
        for images, labels in read(self.data, self.batch_size):
            with torch.inference_mode():
                outputs = [output.numpy() for output in self.ann.graph(images)]
            refuse_overflow(self.ann.source.name, torch.from_numpy(outputs[0]))
            self._answers.append(answer_of(self.ann.task, outputs))
            self.scores.add([output[None] for output in outputs], None, labels)
            yield Batch(images, labels, self._answers[-1])


class Spread(Protocol):
    """Has parts of a data set simulated by others."""

    @property
    def shards(self) -> int:
        """Into how many parts to cut."""

    def submit(self, snn: Snn, part: Dataset, reference: NDArray[Any]) -> Callable[[], Tally]:
        """Start on a part, given the ANN's answers (n, ...); the result waits for its counts."""


def _cut(data: Dataset, first: int, shards: int) -> list[Dataset | Tensor]:
    """The first images, then the others in at most so many parts of nearly equal size."""
    edges = np.linspace(min(first, len(data)), len(data), shards + 1).astype(int).tolist()
    spans = [(0, edges[0]), *((start, stop) for start, stop in pairwise(edges) if start < stop)]
    return [data.subset(np.arange(start, stop)) for start, stop in spans]


def simulate_part(
    snn: Snn, part: Dataset, reference: NDArray[Any], *, batch_size: int, progress: Progress = silent
) -> Tally:
    """What `Spread.submit` has done elsewhere: simulate a part, given the ANN's answers (n, ...)."""

    def batches() -> Iterator[Batch]:
        done = 0
        for images, labels in read(part, batch_size):
            yield Batch(images, labels, reference[done : done + len(images)])
            done += len(images)
            progress("simulate", done, len(reference))

    counted, _ = with_smaller_chunks(chunk_size(snn), lambda size: tally(snn, batches(), size=size))
    return counted


def rerun(
    snn: Snn,
    data: Dataset | Tensor,
    *,
    batch_size: int,
    progress: Progress = silent,
    watchers: Sequence[Watcher] = (),
    device: str = "cpu",
    reference: NDArray[Any] | None = None,
) -> FitCurve:
    """Measure a network on its own; without `reference`, what the ANN answers (images, ...), by labels alone."""

    def batches() -> Iterator[Batch]:
        done = 0
        for images, given in read(data, batch_size):
            known = None if reference is None else reference[done : done + len(images)]
            yield Batch(images, given, known)
            done += len(images)

    def attempt(size: int) -> FitCurve:
        return measure(snn, batches(), total=len(data), progress=progress, watchers=watchers, device=device, size=size)

    if watchers:  # what they have seen cannot be taken back: no second attempt
        return attempt(chunk_size(snn))
    curve, notes = with_smaller_chunks(chunk_size(snn), attempt)
    return replace(curve, notes=(*curve.notes, *notes))


def read(data: Dataset | Tensor, batch_size: int) -> Iterator[tuple[Tensor, NDArray[Any] | None]]:
    """Batches of inputs with labels, if there are any."""
    if isinstance(data, Tensor):
        for start in range(0, len(data), batch_size):
            yield data[start : start + batch_size], None
        return
    for images, labels in data.batches(batch_size):
        yield images, None if labels is None else labels.numpy()
