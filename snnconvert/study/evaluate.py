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
        ann_correct: images that the ANN classifies rightly, or None without labels.
        paired: images that only the ANN, and only the SNN, classifies rightly at the end; None without labels.
        right: for each image in order, whether the ANN and whether the SNN classifies it rightly at the end; shape
            (2, images), None without labels.
        studies: what was seen on the first images besides.
        reference: what the ANN decides, shape (images,).
    """

    curve: FitCurve
    ann_correct: int | None
    paired: tuple[int, int] | None
    right: NDArray[np.bool_] | None = None
    studies: Studies | None = None
    reference: NDArray[np.int64] | None = None

    def figures(self) -> dict[str, object]:
        """The figures that a checkpoint keeps of its own evaluation."""
        return {
            "samples": self.curve.samples,
            "ann_correct": self.ann_correct,
            "correct": self.curve.correct,
            "agreed": self.curve.agreed,
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

    def batches(part: Dataset | Tensor, decided: list[NDArray[np.int64]]) -> Iterator[Batch]:
        for images, labels in read(part, batch_size):
            with torch.inference_mode():
                logits = ann.graph(images)[0].flatten(1)
            refuse_overflow(ann.source.name, logits)
            decided.append(np.argmax(logits.numpy(), axis=1))
            yield Batch(images, labels, decided[-1])

    results: list[Callable[[], Tally]] = []
    parts = [data] if spread is None or isinstance(data, Tensor) else _cut(data, watched_images(snn), spread.shards)
    references: list[list[NDArray[np.int64]]] = [[] for _ in parts]
    for part, decided in zip(parts[1:], references[1:], strict=True):
        for _ in batches(part, decided):
            pass
        assert spread is not None
        assert isinstance(part, Dataset)
        results.append(spread.submit(snn, part, np.concatenate(decided)))

    def attempt(size: int) -> tuple[FitCurve, Watchers]:
        references[0].clear()
        new = Watchers(snn, ann)
        seen = measure(
            snn,
            batches(parts[0], references[0]),
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
    truth = data.labels if isinstance(data, Dataset) else None
    reference = np.concatenate([one for decided in references for one in decided])
    if truth is None:
        return Evaluation(curve, None, None, studies=watchers.studies(), reference=reference)
    ann_right = reference == truth
    snn_right = curve.predictions == truth
    paired = (int((ann_right & ~snn_right).sum()), int((snn_right & ~ann_right).sum()))
    right = np.stack([ann_right, snn_right])
    return Evaluation(curve, int(ann_right.sum()), paired, right, watchers.studies(), reference)


class Spread(Protocol):
    """Has parts of a data set simulated by others."""

    @property
    def shards(self) -> int:
        """Into how many parts to cut."""

    def submit(self, snn: Snn, part: Dataset, reference: NDArray[np.int64]) -> Callable[[], Tally]:
        """Start on a part, given the ANN's decisions (n,); the result waits for its counts."""


def _cut(data: Dataset, first: int, shards: int) -> list[Dataset | Tensor]:
    """The first images, then the others in at most so many parts of nearly equal size."""
    edges = np.linspace(min(first, len(data)), len(data), shards + 1).astype(int).tolist()
    spans = [(0, edges[0]), *((start, stop) for start, stop in pairwise(edges) if start < stop)]
    return [data.subset(np.arange(start, stop)) for start, stop in spans]


def simulate_part(snn: Snn, part: Dataset, reference: NDArray[np.int64], *, batch_size: int) -> Tally:
    """What `Spread.submit` has done elsewhere: simulate a part, given the ANN's decisions (n,)."""

    def batches() -> Iterator[Batch]:
        done = 0
        for images, labels in read(part, batch_size):
            yield Batch(images, labels, reference[done : done + len(images)])
            done += len(images)

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
    reference: NDArray[np.int64] | None = None,
) -> FitCurve:
    """Measure a network on its own; without `reference`, what the ANN decides (images,), agreement comes out as 0."""

    def batches() -> Iterator[Batch]:
        done, known = 0, np.full(len(data), -1, np.int64) if reference is None else reference
        for images, given in read(data, batch_size):
            yield Batch(images, given, known[done : done + len(images)])
            done += len(images)

    def attempt(size: int) -> FitCurve:
        return measure(snn, batches(), total=len(data), progress=progress, watchers=watchers, device=device, size=size)

    if watchers:  # what they have seen cannot be taken back: no second attempt
        return attempt(chunk_size(snn))
    curve, notes = with_smaller_chunks(chunk_size(snn), attempt)
    return replace(curve, notes=(*curve.notes, *notes))


def read(data: Dataset | Tensor, batch_size: int) -> Iterator[tuple[Tensor, NDArray[np.int64] | None]]:
    """Batches of inputs with labels, if there are any."""
    if isinstance(data, Tensor):
        for start in range(0, len(data), batch_size):
            yield data[start : start + batch_size], None
        return
    for images, labels in data.batches(batch_size):
        yield images, None if labels is None else labels.numpy()
