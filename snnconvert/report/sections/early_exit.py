"""When images leave whose answer is clear before the last step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import altair as alt
from msgspec import Meta

from snnconvert.report.blocks import Block, Chart, Fold, On, Table, Text
from snnconvert.report.drawing import BLUE, data, finish, tips
from snnconvert.report.section import Document, Percent, Section, Share, Spec, Step, means
from snnconvert.report.wording import count, fixed, percent, plural, short

if TYPE_CHECKING:
    from snnconvert.report.measured import Measured


class EarlyExit(TypedDict):
    share: Annotated[Share, means("asked for: images that leave with the answer of the last step")]
    margin: Annotated[float, means("largest less second largest mean logit at which an image leaves")]
    calibration_images: Step
    mean_steps: Annotated[float, Meta(ge=1)]
    worst_steps: Step
    agreement: Annotated[Percent, means("with the answers of the last step")]
    accuracy: Percent | None
    steps: Annotated[list[int], means("the steps after which there is an answer")]
    images: Annotated[list[int], means("how many leave after each of these steps")]


class Keys(TypedDict):
    early_exit: Annotated[EarlyExit | None, means("when images leave whose answer is clear before the last step")]


def compute(measured: Measured) -> dict[str, Any]:
    return {"early_exit": measured.curve.early_exit}


def sentence(document: Document) -> str | None:
    """What stopping clear images early saves; None without it."""
    found: EarlyExit | None = document["early_exit"]
    if not found:
        return None
    right = "" if found["accuracy"] is None else f" at {percent(found['accuracy'], 2)} accuracy"
    return (
        f"With early exit at a margin of {short(found['margin'])} an image takes {fixed(found['mean_steps'], 1)} steps "
        f"on average and {found['worst_steps']} at worst{right}; {percent(found['agreement'], 2)} of the answers are "
        f"those of the last step ({percent(100 * found['share'], 1)} were asked for on "
        f"{plural(found['calibration_images'], 'calibration image')})."
    )


def sentences(document: Document) -> Iterable[Text]:
    if text := sentence(document):
        yield Text(text, On.TEXT)


def blocks(document: Document) -> Sequence[Block]:
    found: EarlyExit | None = document["early_exit"]
    if not found:
        return []
    rows = [(str(t), count(images)) for t, images in zip(found["steps"], found["images"], strict=True)]
    return [
        Text(sentence(document) or ""),
        Chart("early_exit", "How many images leave after each step; the numbers are in the table below"),
        Fold("When images leave, as a table", [Table(("T", "images"), rows, named=False)]),
    ]


def charts(document: Document) -> dict[str, Spec | None]:
    found: EarlyExit | None = document["early_exit"]
    if not found:
        return {}
    rows = [{"t": t, "images": images} for t, images in zip(found["steps"], found["images"], strict=True)]
    bars = alt.Chart(data(rows)).mark_bar(color=BLUE)
    chart = bars.encode(
        x=alt.X("t:O").title("T at which an image leaves").axis(labelAngle=0, labelOverlap=True),
        y=alt.Y("images:Q").title("images"),
        tooltip=tips("t:O T", "images:Q images"),
    )
    return {"early_exit": finish(chart, 160)}


SECTION = Section(Keys, compute, "Early exit", sentences=sentences, blocks=blocks, charts=charts)
