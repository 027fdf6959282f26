"""What a network is for: TASKS, a row for each task, and METRICS, by which its spiking form is judged.

Everybody who ranks, draws, gates or words a figure reads it here: which metric is the headline of a task, which
direction is better, from where on a network is good enough, and what its labels mean. `assume.py` decides which task a
network has, `scores.py` measures, `intervals.py` says how sure one can be. This file imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal

from snnconvert.options import AUTO

Better = Literal["higher", "lower"]


@dataclass(frozen=True)
class Metric:
    """A figure by which a network is judged at every step.

    Attributes:
        name: its array in `fit_curve` of the report.
        title: in words, as a legend or a table's head says it.
        said: what the report's first line says of it, with {value}.
        better: whether more of it is better, or less.
        target: what a network without any loss has; None where that is a figure of the original network.
        enough: from where on dearer neurons are not tried (`--neuron auto`). Of agreement, 98 to 99.5 choose alike, 95
            loses 2.3 points, trying all gains none (`python benchmarks/constants_search.py`, 3 networks).
        goals: distances from the target that milestones are stated for.
        unit: "%", or "" for figures on the scale of the outputs.
        truth: whether it is measured against labels, not against the original network.
    """

    name: str
    title: str
    said: str
    better: Better = "higher"
    target: float | None = 100.0
    enough: float = 99.0
    goals: tuple[float, ...] = (0.5, 1.0, 2.0)
    unit: str = "%"
    truth: bool = False

    def reaches(self, value: float, limit: float) -> bool:
        """Whether `value` is `limit` or better."""
        return value >= limit - 1e-9 if self.better == "higher" else value <= limit + 1e-9

    def gain(self, value: float, other: float) -> float:
        """By how much `value` is better than `other`; negative where it is worse."""
        return value - other if self.better == "higher" else other - value

    @property
    def interval(self) -> str:
        """The array of its intervals."""
        return f"{self.name}_interval"


METRICS: dict[str, Metric] = {
    one.name: one
    for one in (
        Metric("accuracy", "accuracy", "{value} right", target=None, truth=True),
        Metric("agreement", "agreement with the ANN", "{value} of the answers are the original's"),
        Metric("mask_iou", "mean IoU with the masks", "mean IoU {value} with the masks", target=None, truth=True),
        Metric("pixel_agreement", "same class per pixel", "{value} of the pixels have the original's class"),
        Metric("mean_iou", "mean IoU with the ANN", "mean IoU {value} with the original"),
        Metric(
            "relative_error",
            "relative error",
            "{value} off the original's outputs (relative RMS error)",
            better="lower",
            target=0.0,
            enough=5.0,
            goals=(10.0, 5.0, 2.0),
        ),
        Metric("r2", "R2 with the ANN", "R2 {value} with the original", target=1.0, enough=0.99, unit=""),
        Metric("mae", "mean absolute error", "{value} off on average", "lower", target=None, unit="", truth=True),
        Metric("rmse", "root mean square error", "{value} off (RMS)", "lower", target=None, unit="", truth=True),
    )
}


@dataclass(frozen=True)
class TaskKind:
    """One kind of task.

    Attributes:
        kind: its name, as `--task` takes it.
        help: what its outputs are, and how they are judged.
        metrics: the arrays that it has in a report whether there are labels or not; the first is the headline, by which
            networks are ranked.
        truths: those that it has besides where there are labels; the first is the headline then.
        labels: what labels mean; "" where there can be none.
        counted: whether an input is right or wrong as a whole.
        scores: MODULE:CLASS of what measures it, imported when it is used.
    """

    kind: str
    help: str
    metrics: tuple[str, ...]
    truths: tuple[str, ...]
    labels: str
    scores: str
    counted: bool = False

    @property
    def headline(self) -> Metric:
        """The metric by which networks are ranked."""
        return METRICS[self.metrics[0]]


_SCORES = "snnconvert.tasks.scores"
TASKS: dict[str, TaskKind] = {
    row.kind: row
    for row in (
        TaskKind(
            "classification",
            "the largest output is the answer (of a single one the sign): how often both networks give the same",
            ("agreement",),
            ("accuracy",),
            "class numbers from 0; 0 or 1 for a single output",
            f"{_SCORES}:DecisionScores",
            counted=True,
        ),
        TaskKind(
            "segmentation",
            "a class for every pixel: pixels of the same class, and mean IoU",
            ("pixel_agreement", "mean_iou"),
            ("accuracy", "mask_iou"),
            "masks of class numbers; 255 and negative numbers are left out",
            f"{_SCORES}:PixelScores",
        ),
        TaskKind(
            "regression",
            "numbers: relative error against the original network, and R2",
            ("relative_error", "r2"),
            ("rmse", "mae"),
            "real numbers, as many as there are outputs",
            f"{_SCORES}:ErrorScores",
        ),
        TaskKind(
            "raw",
            "outputs whose meaning is not known, several perhaps: relative error of each",
            ("relative_error",),
            (),
            "",
            f"{_SCORES}:ErrorScores",
        ),
    )
}


@dataclass(frozen=True)
class TaskChoice:
    """The task of one network.

    Attributes:
        kind: a name of TASKS.
        assumed: whether it was concluded from labels or shapes, not asked for.
        reason: why, in plain words, with the option that changes it.
        axis: which axis of an output (of one sample) holds the classes.
        outputs: which of the network's outputs count.
    """

    kind: str = "classification"
    assumed: bool = False
    reason: str = ""
    axis: int = 0
    outputs: tuple[int, ...] = (0,)

    @property
    def row(self) -> TaskKind:
        """Its row of TASKS."""
        return TASKS[self.kind]

    @property
    def headline(self) -> Metric:
        """The metric by which networks are ranked."""
        return self.row.headline

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; see `task_from`."""
        return {**vars(self), "outputs": list(self.outputs)}

    def section(self) -> dict[str, Any]:
        """What a report says of it."""
        return {"kind": self.kind, "assumed": self.assumed, "reason": self.reason}


CLASSIFIER = TaskChoice(assumed=True, reason="nothing else is known of it")


def task_from(record: Mapping[str, Any] | None) -> TaskChoice:
    """The task that `TaskChoice.to_dict` wrote; of older files, which knew no other, classification.

    Raises:
        ValueError: a kind that is not in TASKS, or no outputs.
    """
    if not record:
        return CLASSIFIER
    if record["kind"] not in TASKS or not record["outputs"]:
        raise ValueError(f"task {record['kind']!r}")
    return TaskChoice(**{**record, "outputs": tuple(record["outputs"])})


def choices() -> Mapping[str, Any]:
    """What `--task` takes, each with its help."""
    auto = "labels decide, without labels the shape of the outputs; what was assumed is said"
    return {AUTO: SimpleNamespace(help=auto), **TASKS}


def inputs_called(shape: Sequence[int]) -> str:
    """What one input is called: "image" for pictures, "input" for signals, tables and volumes.

    Args:
        shape: of one input as it is stored: (height, width), with channels in front or behind where it has some.
    """
    sides = list(shape)
    if len(sides) == 3:
        channels = next((axis for axis in (0, 2) if sides[axis] in (1, 3, 4)), None)
        if channels is None:
            return "input"
        del sides[channels]
    return "image" if len(sides) == 2 and min(sides) > 4 and max(sides) <= 2 * min(sides) else "input"
