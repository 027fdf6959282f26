"""What rounded weights do to the answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

from snnconvert.report.blocks import Block, On, Text
from snnconvert.report.section import Document, Section, means
from snnconvert.report.wording import percent

if TYPE_CHECKING:
    from snnconvert.report.measured import Measured
    from snnconvert.study.variants import Rounded


class Precision(TypedDict):
    name: str
    accuracy: float | None
    float32_accuracy: float | None
    same_answers: float
    spikes_per_image: float
    float32_spikes_per_image: float


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
    right = [of.correct[-1] if measured.labelled else None for of in (rounded.curve, whole)]
    accuracy, before = (None if count is None else 100 * count / samples for count in right)
    return {
        "precision": {
            "name": rounded.precision,
            "accuracy": accuracy,
            "float32_accuracy": before,
            "same_answers": 100 * float((rounded.curve.predictions == whole.predictions).sum()) / samples,
            "spikes_per_image": rounded.curve.spikes[-1],
            "float32_spikes_per_image": whole.spikes[-1],
        }
    }


def blocks(document: Document) -> Sequence[Block]:
    found: Precision | None = document["precision"]
    if not found:
        return []
    text = (
        f"With weights in {found['name']} {percent(found['same_answers'], 2)} of the answers at "
        f"T = {document['latency']['total']} stay"
    )
    if found["accuracy"] is not None:
        before = percent(found["float32_accuracy"], 2)
        text += f"; accuracy {percent(found['accuracy'], 2)}, in float32 {before}"
    return [Text(f"{text}.", On.ALL)]


SECTION = Section(Keys, compute, "With rounded weights", blocks=blocks)
