"""How well outputs do at a task: sums for every input, from which curves with intervals follow.

A class for each way of judging. What is compared with is the ANN's *answer* to an input, in the form that `answer`
gives it: a class, a class for each pixel, or all outputs side by side. Inputs may come in any number of parts; parts
that were scored elsewhere are included in order.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snnconvert.plugins import named
from snnconvert.tasks import TaskChoice
from snnconvert.tasks.intervals import Z_95, paired_drop_interval, ratio_interval, wilson_interval

Array = NDArray[Any]
Floats = NDArray[np.float64]
Outputs = Sequence[Array]
Rows = dict[str, Array]
# the class of pixels that masks leave out; negative ones are left out as well
VOID = 255
# an error up to so many times the best one counts as equal, if inputs cannot tell the two apart
ALLOWED = 1.05


@dataclass(frozen=True)
class Curve:
    """A metric after each answer, and its 95 % interval; None where it is not known."""

    values: list[float | None]
    intervals: list[list[float] | None]

    @classmethod
    def of(cls, values: Floats, low: Floats, high: Floats) -> Curve:
        """NaN becomes None."""
        bands = zip(low.tolist(), high.tolist(), strict=True)
        return cls(
            [value if math.isfinite(value) else None for value in values.tolist()],
            [[*band] if all(map(math.isfinite, band)) else None for band in bands],
        )


class Scores(ABC):
    """Sums over inputs.

    Args:
        task: which outputs count, and where their classes are.

    Attributes:
        rows: by name what each input adds, (..., inputs).
        answers: how often each input was answered.
    """

    def __init__(self, task: TaskChoice) -> None:
        self.task = task
        self.rows: Rows = {}

    @abstractmethod
    def answer(self, outputs: Outputs, leading: int) -> Array:
        """What outputs (..., *shape), one array each, stand for; so many leading axes are kept."""

    @abstractmethod
    def counted(self, outputs: Outputs, reference: Array | None, labels: Array | None) -> Rows:
        """What these inputs add; arguments as for `add`."""

    @abstractmethod
    def curves(self) -> dict[str, Curve]:
        """The metrics that are known, by name, over the answers."""

    @property
    def headline(self) -> Curve:
        """The metric by which networks are ranked."""
        return self.curves()[self.task.headline.name]

    @property
    def inputs(self) -> int:
        """How many inputs were scored."""
        return next(iter(self.rows.values())).shape[-1] if self.rows else 0

    def by_output(self) -> list[list[float | None]]:
        """Where several outputs count, the relative error of each alone, over the answers."""
        return []

    @abstractmethod
    def as_good_as(self, best: Scores, times: float = 1.0) -> NDArray[np.bool_]:
        """Whether each answer is as good as the last one of `best`, within the error of these (paired) inputs.

        Args:
            times: with the error of so many times as many of them.
        """

    def add(self, outputs: Outputs, reference: Array | None, labels: Array | None) -> None:
        """Score inputs.

        Args:
            outputs: running sums over the answers, an array for each of the network's outputs, (answers, inputs,
                *shape); of the ANN its one answer.
            reference: the ANN's answers, (inputs, ...); None where they are not known.
            labels: (inputs, ...); None without labels.
        """
        self._append(self.counted([outputs[index] for index in self.task.outputs], reference, labels))

    def include(self, other: Scores) -> None:
        """Count the inputs of `other` too, which come after these."""
        self._append(other.rows)

    def leaving(self, index: NDArray[np.int64]) -> Scores:
        """The same with one answer to each input: the one at `index`, (inputs,)."""
        found, inputs = scores_of(self.task), np.arange(len(index))
        found.include(self)
        for name, row in self.rows.items():
            # what was kept of the last answer alone, and what has no answers, stays
            found.rows[name] = row if row.shape[-2] == 1 else row[..., index, inputs][..., None, :]
        return found

    def _append(self, new: Rows) -> None:
        # what only some of the inputs have is not known of all
        joined = {name: np.concatenate([own, new[name]], axis=-1) for name, own in self.rows.items() if name in new}
        self.rows = joined if self.rows else dict(new)


class DecisionScores(Scores):
    """Classification: the largest output decides, of a single one the sign."""

    def answer(self, outputs: Outputs, leading: int) -> Array:
        return decided(outputs[0].reshape(*outputs[0].shape[:leading], -1), -1)

    def counted(self, outputs: Outputs, reference: Array | None, labels: Array | None) -> Rows:
        answers = self.answer(outputs, 2)
        found: Rows = {"decided": answers[-1:]}
        found |= {} if reference is None else {"agreed": answers == reference}
        return found | ({} if labels is None else {"correct": answers == labels})

    def curves(self) -> dict[str, Curve]:
        names = {"agreed": "agreement", "correct": "accuracy"}
        return {name: _shares(self.rows[row]) for row, name in names.items() if row in self.rows}

    def as_good_as(self, best: Scores, times: float = 1.0) -> NDArray[np.bool_]:
        z = Z_95 / math.sqrt(times)
        own, other = self.rows["agreed"].astype(bool), best.rows["agreed"][-1].astype(bool)
        lost, won = (other & ~own).sum(1).tolist(), (own & ~other).sum(1).tolist()
        pairs = zip(lost, won, strict=True)
        return np.array([paired_drop_interval(less, more, own.shape[1], z)[0] <= 0.0 for less, more in pairs])


class PixelScores(Scores):
    """Segmentation: a class for every pixel; inputs, not pixels, are what was sampled.

    The IoU of a class is that over all inputs; the mean is over the classes that one of the two has (L. C. Chen and
    others, arXiv 1606.00915, and the usual PASCAL VOC measure).
    """

    def answer(self, outputs: Outputs, leading: int) -> Array:
        return decided(outputs[0], leading + self.task.axis).astype(np.int16)

    def counted(self, outputs: Outputs, reference: Array | None, labels: Array | None) -> Rows:
        classes = max(2, outputs[0].shape[2 + self.task.axis])
        given, found = self.answer(outputs, 2), Rows()
        if reference is not None:
            found |= {f"ann_{name}": row for name, row in _overlap(given, reference, classes).items()}
        if labels is not None:
            found |= {f"mask_{name}": row for name, row in _overlap(given, labels, classes).items()}
        return found

    def curves(self) -> dict[str, Curve]:
        found = {}
        for kind, pixels, overlap in (("ann", "pixel_agreement", "mean_iou"), ("mask", "accuracy", "mask_iou")):
            if f"{kind}_same" in self.rows:
                found[pixels] = _shared(self.rows[f"{kind}_same"], self.rows[f"{kind}_pixels"])
                found[overlap] = _mean_iou(self.rows[f"{kind}_both"], self.rows[f"{kind}_either"])
        return found

    def as_good_as(self, best: Scores, times: float = 1.0) -> NDArray[np.bool_]:
        lost = best.rows["ann_same"][-1:] - self.rows["ann_same"]
        return _none_lost(lost, self.rows["ann_pixels"], times)


class ErrorScores(Scores):
    """Numbers: squared differences from the ANN's outputs, and from labels.

    The relative error of several outputs is the root of the mean of their squares: each counts alike, whatever its
    scale.

    Attributes:
        total: sum of the ANN's outputs over inputs.
    """

    def __init__(self, task: TaskChoice) -> None:
        super().__init__(task)
        self.total: Floats = np.zeros(())

    def answer(self, outputs: Outputs, leading: int) -> Array:
        flat = [output.reshape(*output.shape[:leading], -1) for output in outputs]
        return np.concatenate(flat, -1) if len(flat) > 1 else flat[0]

    def counted(self, outputs: Outputs, reference: Array | None, labels: Array | None) -> Rows:
        given, found = self.answer(outputs, 2).astype(np.float64), Rows()
        given /= np.arange(1, len(given) + 1)[:, None, None]
        if reference is not None:
            sizes = [math.prod(output.shape[2:]) for output in outputs]
            edges = np.cumsum([0, *sizes])[:-1]
            known = reference.astype(np.float64)
            found["squared"] = np.add.reduceat(np.square(given - known), edges, -1).transpose(2, 0, 1)
            found["energy"] = np.add.reduceat(np.square(known), edges, -1).T[:, None]
            self.total = self.total + known.sum(0)
        if labels is not None and self.task.row.truths:
            apart = given - labels.reshape(len(labels), -1)
            found["label_squared"], found["label_absolute"] = np.square(apart).mean(-1), np.abs(apart).mean(-1)
        return found

    def curves(self) -> dict[str, Curve]:
        found = {}
        if "squared" in self.rows:
            found["relative_error"] = _relative(self.rows["squared"], self.rows["energy"])
            if self.task.kind == "regression":
                found["r2"] = self._explained()
        if "label_squared" in self.rows:
            squared, absolute = self.rows["label_squared"], self.rows["label_absolute"]
            ones = np.ones_like(squared[:1])
            found["mae"] = Curve.of(*_around(*ratio_interval(absolute, ones)))
            found["rmse"] = Curve.of(*(np.sqrt(end) for end in _around(*ratio_interval(squared, ones))))
        return found

    def include(self, other: Scores) -> None:
        super().include(other)
        assert isinstance(other, ErrorScores)
        self.total = self.total + other.total

    def by_output(self) -> list[list[float | None]]:
        if "squared" not in self.rows or len(self.task.outputs) == 1:
            return []
        return [
            _relative(squared[None], energy[None]).values
            for squared, energy in zip(self.rows["squared"], self.rows["energy"], strict=True)
        ]

    def as_good_as(self, best: Scores, times: float = 1.0) -> NDArray[np.bool_]:
        """Errors differ by few per cent among many inputs before that is chance: none above ALLOWED is as good."""
        weight = self.rows["energy"].sum(-1, keepdims=True)
        own, other = (
            np.divide(rows["squared"], weight, out=np.zeros_like(rows["squared"]), where=weight > 0).sum(0)
            for rows in (self.rows, best.rows)
        )
        near: NDArray[np.bool_] = own.sum(1) <= ALLOWED**2 * other[-1].sum() + 1e-18
        found: NDArray[np.bool_] = _none_lost(own - other[-1:], np.ones_like(own), times) & near
        return found

    def _explained(self) -> Curve:
        """R2 = 1 - sum |s - a|^2 / sum |a - mean a|^2; the interval takes the ANN's own variation as given."""
        squared, energy = self.rows["squared"][0], float(self.rows["energy"].sum())
        inputs = squared.shape[-1]
        variation = energy - float(np.square(self.total).sum()) / inputs
        if variation <= 1e-12 * energy:
            nothing = np.full(len(squared), np.nan)
            return Curve.of(nothing, nothing, nothing)
        ratio, half = ratio_interval(squared, np.full_like(squared, variation / inputs))
        return Curve.of(1.0 - ratio, 1.0 - ratio - half, np.minimum(1.0 - ratio + half, 1.0))


def scores_of(task: TaskChoice) -> Scores:
    """What scores networks at this task."""
    made: Scores = _class(task)(task)
    return made


def answer_of(task: TaskChoice, outputs: Outputs) -> Array:
    """What a network's outputs (inputs, *shape) stand for, in the form that `Scores.add` compares with."""
    return scores_of(task).answer([outputs[index] for index in task.outputs], 1)


def decided(values: Array, axis: int) -> Array:
    """The first of the largest values along an axis; of a single one, 1 where it is positive."""
    if values.shape[axis] == 1:
        return (values > 0).squeeze(axis).astype(np.int64)
    found: Array = np.argmax(values, axis=axis)
    return found


def drop_interval(original: Scores, spiking: Scores) -> list[float] | None:
    """95 % interval of the accuracy that is lost, points, of inputs that both networks answered.

    Right and wrong inputs are compared in pairs (`paired_drop_interval`); pixels by their difference for each input.
    """
    if "correct" in spiking.rows:
        ann, snn = original.rows["correct"][-1], spiking.rows["correct"][-1]
        return [*paired_drop_interval(int((ann & ~snn).sum()), int((snn & ~ann).sum()), len(ann))]
    if "mask_same" in spiking.rows and spiking.rows["mask_same"].shape[-1] > 1:
        apart = original.rows["mask_same"][-1] - spiking.rows["mask_same"][-1]
        middle, half = ratio_interval(apart, spiking.rows["mask_pixels"][-1])
        return [100 * float(middle - half), 100 * float(middle + half)]
    return None


def _class(task: TaskChoice) -> Any:
    return named(task.row.scores)


def _shares(right: Array) -> Curve:
    count = right.shape[-1]
    found = [int(one) for one in right.sum(-1)]
    return Curve([100.0 * one / count for one in found], [[*wilson_interval(one, count)] for one in found])


def _overlap(given: Array, wanted: Array, classes: int) -> Rows:
    """Counts for each answer and input: pixels alike and all of them, and by class those of both and of either."""
    axes = tuple(range(2, given.ndim))
    wanted = wanted.reshape(given.shape[1:])
    valid = (wanted >= 0) & ((wanted != VOID) | (classes > VOID))
    same = ((given == wanted) & valid).sum(axes)
    pixels = np.broadcast_to(valid.sum(tuple(axis - 1 for axis in axes)), same.shape)
    both, either = [], []
    for number in range(classes):
        one, other = (given == number) & valid, (wanted == number) & valid
        both.append((one & other).sum(axes))
        either.append((one | other).sum(axes))
    return {
        "same": same.astype(np.float64),
        "pixels": pixels.astype(np.float64),
        "both": np.stack(both).astype(np.float32),
        "either": np.stack(either).astype(np.float32),
    }


def _none_lost(lost: Floats, of: Floats, times: float) -> NDArray[np.bool_]:
    """Whether a loss for each input, (answers, inputs), could be chance among so many times as many inputs: its 95 %
    interval reaches 0."""
    middle, half = ratio_interval(lost, of, Z_95 / math.sqrt(times))
    found: NDArray[np.bool_] = np.nan_to_num(middle - half, nan=0.0) <= 1e-12
    return found


def _around(middle: Floats, half: Floats) -> tuple[Floats, Floats, Floats]:
    """A positive figure and its interval, which is even on a logarithmic scale: errors are skewed."""
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = np.where(middle > 0, np.exp(half / middle), 1.0)
        return middle, middle / factor, middle * factor


def _shared(part: Floats, whole: Floats) -> Curve:
    ratio, half = ratio_interval(part, whole)
    return Curve.of(100 * ratio, 100 * np.maximum(ratio - half, 0.0), 100 * np.minimum(ratio + half, 1.0))


def _mean_iou(both: Floats, either: Floats) -> Curve:
    """Of (classes, answers, inputs); linearised as in `ratio_interval`."""
    both, either = both.astype(np.float64), either.astype(np.float64)
    below = either.sum(-1)
    present = below > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        each = np.where(present, both.sum(-1) / below, 0.0)
        pulls = np.where(present[..., None], (both - each[..., None] * either) / below[..., None], 0.0)
    classes, inputs = np.maximum(present.sum(0), 1), both.shape[-1]
    mean = each.sum(0) / classes
    pull = pulls.sum(0) / classes[..., None]
    half = Z_95 * np.sqrt(np.square(pull).sum(-1) * inputs / max(inputs - 1, 1)) if inputs > 1 else mean * np.nan
    return Curve.of(100 * mean, 100 * np.maximum(mean - half, 0.0), 100 * np.minimum(mean + half, 1.0))


def _relative(squared: Floats, energy: Floats) -> Curve:
    """Root of the mean over outputs of sum |s - a|^2 / sum |a|^2, of (outputs, answers, inputs)."""
    below = energy.sum(-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        each = squared / below
    kept = np.isfinite(each).all((1, 2))  # an output that is always 0 has no relative error
    if not kept.any():
        nothing = np.full(squared.shape[1], np.nan)
        return Curve.of(nothing, nothing, nothing)
    parts, weights = each[kept].mean(0), (energy[kept] / below[kept]).mean(0)
    return Curve.of(
        *(100 * np.sqrt(end) for end in _around(*ratio_interval(parts, np.broadcast_to(weights, parts.shape))))
    )
