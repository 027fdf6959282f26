"""What rounded weights do to the answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, NotRequired, TypedDict

from snnconvert.report.blocks import Block, On, Text
from snnconvert.report.section import Document, Section, means
from snnconvert.report.wording import fixed, percent
from snnconvert.tasks import METRICS

if TYPE_CHECKING:
    from snnconvert.report.measured import Measured
    from snnconvert.study.variants import Rounded


class Precision(TypedDict):
    name: str
    accuracy: float | None
    float32_accuracy: float | None
    same_answers: Annotated[float | None, means("of classifiers")]
    spikes_per_image: float
    float32_spikes_per_image: float
    value: NotRequired[Annotated[float | None, means("of fit_curve/metric")]]
    float32_value: NotRequired[float | None]


class Keys(TypedDict):
    precision: Annotated[
        Precision | None,
        means("the same network with rounded weights (--precision), beside float32: last answers, in percent"),
    ]


def compute(measured: Measured) -> dict[str, Any]:
    rounded: Rounded | None = measured.studies.get("precision")
    if rounded is None:
        return {"precision": None}
    whole, samples = measured.curve, max(measured.curve.samples, 1)
    known = [of.metrics() for of in (rounded.curve, whole)]
    accuracy, before = (curves["accuracy"].values[-1] if "accuracy" in curves else None for curves in known)
    headline = measured.snn.task.headline.name
    value, earlier = (curves[headline].values[-1] if headline in curves else None for curves in known)
    decided, were = rounded.curve.predictions, whole.predictions
    return {
        "precision": {
            "name": rounded.precision,
            "accuracy": accuracy,
            "float32_accuracy": before,
            "same_answers": None if decided is None or were is None else 100 * float((decided == were).sum()) / samples,
            "spikes_per_image": rounded.curve.spikes[-1],
            "float32_spikes_per_image": whole.spikes[-1],
            "value": value,
            "float32_value": earlier,
        }
    }


def blocks(document: Document) -> Sequence[Block]:
    found: Precision | None = document["precision"]
    if not found:
        return []
    last, metric = document["latency"]["total"], METRICS[document["fit_curve"]["metric"]]
    text = f"With weights in {found['name']} {percent(found['same_answers'], 2)} of the answers at T = {last} stay"
    if found["same_answers"] is None:
        value, before = (fixed(one, 2, f" {metric.unit}") for one in (found.get("value"), found.get("float32_value")))
        text = f"With weights in {found['name']} the {metric.title} at T = {last} is {value}, in float32 {before}"
    if found["accuracy"] is not None:
        before = percent(found["float32_accuracy"], 2)
        text += f"; accuracy {percent(found['accuracy'], 2)}, in float32 {before}"
    return [Text(f"{text}.", On.ALL)]


SECTION = Section(Keys, compute, "With rounded weights", blocks=blocks)
