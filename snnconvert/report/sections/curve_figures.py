"""Accuracy over time in numbers: the curve in every metric of the task, milestones, and what follows from the curve."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired, TypedDict

from msgspec import Meta

from snnconvert.report import statistics
from snnconvert.report.section import Amount, Count, Document, Percent, Step, means
from snnconvert.tasks import METRICS, TASKS
from snnconvert.tasks.intervals import mcnemar_exact, paired_drop_interval, smallest_reaching, wilson_interval

if TYPE_CHECKING:
    from snnconvert.report.measured import Measured

Pair = Annotated[list[float], Meta(min_length=2, max_length=2)]
Interval = Annotated[list[Percent], Meta(min_length=2, max_length=2)]
POINTS = {"within_0.5": 0.5, "within_1": 1.0, "within_2": 2.0}


class Original(TypedDict):
    accuracy: Percent | None
    correct: Count | None
    mask_iou: NotRequired[Percent | None]
    mae: NotRequired[Amount | None]
    rmse: NotRequired[Amount | None]


class FitCurve(TypedDict):
    timesteps: Annotated[list[Step], Meta(min_length=1)]
    accuracy: Annotated[list[Percent | None], means("images classified correctly; in segmentation pixels")]
    agreement: Annotated[list[Percent | None], means("share of images on which SNN and ANN give the same top class")]
    spikes_per_image: Annotated[list[Amount | None], means("cumulated from step 1 to t, all layers")]
    accuracy_interval: Annotated[list[Interval | None], means("Wilson interval, 95 %")]
    metric: Annotated[str, means("the array by which networks for this task are ranked: its headline")]
    better: Annotated[Literal["higher", "lower"], means("which values of `metric` are better")]
    agreement_interval: Annotated[list[Interval | None], means("as accuracy_interval")]
    mask_iou: NotRequired[Annotated[list[Percent | None], means("mean IoU with the masks")]]
    mask_iou_interval: NotRequired[list[Interval | None]]
    pixel_agreement: NotRequired[Annotated[list[Percent | None], means("pixels with the ANN's class")]]
    pixel_agreement_interval: NotRequired[list[Interval | None]]
    mean_iou: NotRequired[Annotated[list[Percent | None], means("mean IoU with the ANN's classes")]]
    mean_iou_interval: NotRequired[list[Interval | None]]
    relative_error: NotRequired[
        Annotated[
            list[Amount | None],
            means("root of the summed squares of the differences from the ANN's outputs over that of these, percent"),
        ]
    ]
    relative_error_interval: NotRequired[list[Pair | None]]
    r2: NotRequired[Annotated[list[float | None], means("1 - squared differences / the ANN's variation over inputs")]]
    r2_interval: NotRequired[list[Pair | None]]
    mae: NotRequired[Annotated[list[Amount | None], means("mean absolute difference from the labels, in their unit")]]
    mae_interval: NotRequired[list[Pair | None]]
    rmse: NotRequired[Annotated[list[Amount | None], means("root mean square difference from the labels")]]
    rmse_interval: NotRequired[list[Pair | None]]


class Goal(TypedDict):
    distance: Annotated[float, means("from the target: the ANN's value, else the best there is, 0 for an error")]
    T: Step | None


# "within_0.5" is no name of an attribute
Milestones = TypedDict(
    "Milestones",
    {
        "goals": Annotated[list[Goal], means("the distances that matter for `basis`: 0.5, 1 and 2 points, or others")],
        "within_0.5": Step | None,
        "within_1": Step | None,
        "within_2": Step | None,
        "basis": Annotated[
            str,
            means("an array of fit_curve: accuracy against the ANN's, or, without labels, `metric` against its best"),
        ],
    },
)


class Point(TypedDict):
    t: Step
    accuracy: Percent | None
    agreement: Percent | None
    drop: Annotated[float | None, means("points below the ANN; negative where the SNN is better")]
    spikes_per_image: Amount | None
    value: Annotated[float | None, means("of milestones/basis")]
    interval: Annotated[Pair | None, means("of `value`")]


class Plateau(TypedDict):
    value: float
    reached: float
    error: float


class Fall(TypedDict):
    peak_t: int
    peak: float
    final: float


class Paired(TypedDict):
    ann_only: Count
    snn_only: Count
    p_value: Annotated[float, Meta(ge=0, le=1)]
    drop_interval: Pair


class Analysis(TypedDict):
    final: Point | None
    best: Point | None
    knee: Step | None
    plateau: Plateau | None
    fall: Fall | None
    paired: Paired | None
    drop_interval: Annotated[Pair | None, means("of the drop, points, 95 %: from paired images, or pixels by image")]


class OneOutput(TypedDict):
    name: str
    steps: Annotated[list[Step], means("the steps after which there is an answer")]
    relative_error: Annotated[list[Amount | None], means("after each of them, percent")]


class Keys(TypedDict):
    outputs: Annotated[list[OneOutput] | None, means("of networks with several outputs that all count")]
    ann: Original
    fit_curve: FitCurve
    milestones: Annotated[
        Milestones,
        means("smallest T from which the curve stays within so many points of its target up to the last step"),
    ]
    analysis: Analysis


def compute(measured: Measured) -> dict[str, Any]:
    curve = measured.curve
    known = {name: found.values for name, found in measured.metrics.items()}
    bands = {METRICS[name].interval: found.intervals for name, found in measured.metrics.items()}
    names = [measured.snn.outputs[index] for index in measured.snn.task.outputs]
    outputs = [
        {"name": name, "steps": curve.steps, "relative_error": row}
        for name, row in zip(names, curve.scores.by_output(), strict=False)
    ]
    return {
        "ann": dict(measured.ann),
        "fit_curve": {"timesteps": curve.timesteps, **known, **bands, "spikes_per_image": curve.spikes},
        "outputs": outputs or None,
        "paired": measured.paired,
        "drop_interval": measured.drop_interval,
    }


def complete(document: dict[str, Any]) -> None:
    """What follows: the ANN's accuracy, intervals, milestones and what the curve says.

    `paired`, images only the ANN and images only the SNN classifies correctly at the last step, is used up, and so are
    the counts `fit_curve/correct`.
    """
    samples, task = document["evaluation"]["samples"], TASKS[document["task"]["kind"]]
    ann = {"accuracy": None, "correct": None, **document["ann"]}
    if ann["accuracy"] is None and ann["correct"] is not None and samples:
        ann["accuracy"] = 100.0 * ann["correct"] / samples
    if ann["correct"] is None and ann["accuracy"] is not None and task.counted:
        ann["correct"] = round(ann["accuracy"] * samples / 100.0)
    document["ann"] = ann
    curve = document["fit_curve"]
    empty: list[Any] = [None] * len(curve["timesteps"])
    correct = curve.pop("correct", None)
    if correct is not None and samples:
        curve["accuracy"] = [None if right is None else 100.0 * right / samples for right in correct]
    curve = {"accuracy": empty, "agreement": empty, "spikes_per_image": empty, task.headline.name: empty, **curve}
    document["fit_curve"] = _with_intervals(document, curve)
    document["milestones"] = _milestones(document)
    document["analysis"] = _analysis(document, document.pop("paired", None), document.pop("drop_interval", None))


def with_later_keys(document: Document) -> dict[str, Any]:
    """A report from before there were other tasks than classification, with the keys that came with them."""
    found = {**document, "fit_curve": _with_intervals(document, document["fit_curve"])}
    found["milestones"] = {**_milestones(found), **found["milestones"]}
    analysis, steps = dict(found["analysis"]), found["fit_curve"]["timesteps"]
    for name in ("final", "best"):
        if analysis[name] is not None:
            analysis[name] = {**_point(found, steps.index(analysis[name]["t"])), **analysis[name]}
    pair = analysis["paired"]
    analysis.setdefault("drop_interval", pair["drop_interval"] if pair else None)
    return found | {"analysis": analysis, "outputs": None}


def _with_intervals(document: Document, curve: Mapping[str, Any]) -> dict[str, Any]:
    """The curve with the interval of every metric, and which of them is the headline."""
    samples, headline = document["evaluation"]["samples"], TASKS[document["task"]["kind"]].headline
    bands = {
        metric.interval: [_wilson(value, samples) for value in curve[name]]
        for name, metric in METRICS.items()
        if name in curve
    }
    return {"metric": headline.name, "better": headline.better, **bands, **curve}


def _wilson(value: float | None, samples: int) -> list[float] | None:
    """The interval of a share of `samples` images, in percent."""
    right = None if value is None else round(value * samples / 100.0)
    return None if right is None or not 0 <= right <= samples or not samples else [*wilson_interval(right, samples)]


def _milestones(document: Document) -> dict[str, Any]:
    """By accuracy against the ANN's where that is known, else by the metric of the task.

    A checkpoint measured on new images knows its accuracy, but nothing of the ANN.
    """
    curve, original = document["fit_curve"], document["ann"]["accuracy"]
    headline = METRICS[curve["metric"]]
    known = {name: any(value is not None for value in curve[name]) for name in ("accuracy", headline.name)}
    by_accuracy = (original is not None or not known[headline.name]) and known["accuracy"]
    basis = METRICS["accuracy"] if by_accuracy else headline
    target = original if by_accuracy else basis.target

    def reached(distance: float) -> int | None:
        if target is None:
            return None
        limit = target - distance if basis.better == "higher" else target + distance
        return smallest_reaching(basis, curve["timesteps"], curve[basis.name], limit)

    goals = [{"distance": distance, "T": reached(distance)} for distance in basis.goals]
    return {"goals": goals, **{name: reached(points) for name, points in POINTS.items()}, "basis": basis.name}


def _analysis(document: Document, paired: tuple[int, int] | None, band: list[float] | None) -> dict[str, Any]:
    curve, samples = document["fit_curve"], document["evaluation"]["samples"]
    metric, times = METRICS[document["milestones"]["basis"]], curve["timesteps"]
    values, bands = curve[metric.name], curve[metric.interval]
    share = metric.better == "higher" and metric.unit == "%"
    settled = statistics.plateau(times, values) if share else None
    fall = statistics.rise_then_fall(metric, times, values, bands)
    known = [index for index, value in enumerate(values) if value is not None]
    best = max(known, key=lambda index: metric.gain(values[index], 0.0), default=None)
    pair = None
    if paired is not None and samples:
        bounds, p_value = paired_drop_interval(*paired, samples), mcnemar_exact(*paired)
        pair = {"ann_only": paired[0], "snn_only": paired[1], "p_value": p_value, "drop_interval": list(bounds)}
    rising = [None if value is None else metric.gain(value, 0.0) for value in values]
    return {
        "final": _point(document, known[-1]) if known else None,
        "best": _point(document, best) if best is not None else None,
        "knee": statistics.knee(times, rising),
        "plateau": vars(settled) if settled else None,
        "fall": vars(fall) if fall else None,
        "paired": pair,
        "drop_interval": pair["drop_interval"] if pair else band,
    }


def _point(document: Document, index: int) -> dict[str, Any]:
    curve, ann = document["fit_curve"], document["ann"]["accuracy"]
    accuracy, metric = curve["accuracy"][index], METRICS[document["milestones"]["basis"]]
    return {
        "t": curve["timesteps"][index],
        "accuracy": accuracy,
        "agreement": curve["agreement"][index],
        "drop": ann - accuracy if ann is not None and accuracy is not None else None,
        "spikes_per_image": curve["spikes_per_image"][index],
        "value": curve[metric.name][index],
        "interval": curve[metric.interval][index],
    }
