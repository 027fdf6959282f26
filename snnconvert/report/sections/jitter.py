"""What noise in the times of first spikes does to the answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, NotRequired, TypedDict

from snnconvert.report.blocks import Block, Table, Text
from snnconvert.report.section import Count, Document, Percent, Section, Share, means
from snnconvert.report.wording import against_ann, percent, plural

if TYPE_CHECKING:
    from snnconvert.report.measured import Measured


class Row(TypedDict):
    deviation: Annotated[Share, means("standard deviation of a spike's time, as a share of its window")]
    accuracy: Percent | None
    agreement: Percent | None
    value: NotRequired[Annotated[float | None, means("of fit_curve/metric")]]


class Jitter(TypedDict):
    images: Annotated[Count, means("the first of the evaluation images")]
    seed: int
    rows: list[Row]


class Keys(TypedDict):
    jitter: NotRequired[Annotated[Jitter | None, means("answers under noise in spike times; null unless asked for")]]


def compute(measured: Measured) -> dict[str, Any]:
    return {"jitter": measured.studies.get("jitter")}


def blocks(document: Document) -> Sequence[Block]:
    section: Jitter | None = document.get("jitter")
    if not section:
        return []
    title, near = against_ann(section["rows"], document)
    rows = [
        (f"{100 * row['deviation']:g} % of a window", percent(row["accuracy"]), value)
        for row, value in zip(section["rows"], near, strict=True)
    ]
    text = f"Each spike of {plural(section['images'], 'image')} earlier or later by normal noise of this deviation."
    return [Text(text), Table(("noise", "accuracy", title), rows)]


SECTION = Section(Keys, compute, "Noise in spike times", blocks=blocks)
