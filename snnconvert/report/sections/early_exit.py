"""When images leave whose answer is clear before the last step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired, TypedDict

import altair as alt
from msgspec import Meta

from snnconvert.report.blocks import Block, Chart, Fold, On, Table, Text
from snnconvert.report.drawing import BLUE, data, finish, tips
from snnconvert.report.section import Document, Percent, Section, Share, Spec, Step, means
from snnconvert.report.wording import count, fixed, measured, percent, plural, short
from snnconvert.tasks import METRICS

if TYPE_CHECKING:
    from snnconvert.report.measured import Measured


class EarlyExit(TypedDict):
    share: Annotated[Share, means("asked for: images that leave with the answer of the last step")]
    margin: Annotated[float, means("at which an image leaves, see `by`")]
    by: NotRequired[
        Annotated[
            Literal["margin", "rest"],
            means(
                "margin: largest less second largest mean logit; rest: how far the mean outputs still moved since "
                "the answer before, relative to their usual size"
            ),
        ]
    ]
    calibration_images: Step
    mean_steps: Annotated[float, Meta(ge=1)]
    worst_steps: Step
    agreement: Annotated[Percent | None, means("with the answers of the last step; null where none are counted")]
    accuracy: Percent | None
    metric: NotRequired[str]
    value: NotRequired[Annotated[float | None, means("`metric`, between the answers and those of the last step")]]
    truth: NotRequired[str | None]
    truth_value: NotRequired[Annotated[float | None, means("`truth`, against the labels")]]
    steps: Annotated[list[int], means("the steps after which there is an answer")]
    images: Annotated[list[int], means("how many leave after each of these steps")]


class Keys(TypedDict):
    early_exit: Annotated[EarlyExit | None, means("when images leave whose answer is clear before the last step")]


def compute(run: Measured) -> dict[str, Any]:
    return {"early_exit": run.curve.early_exit}


def sentence(document: Document) -> str | None:
    """What stopping clear images early saves; None without it."""
    found: EarlyExit | None = document["early_exit"]
    if not found:
        return None
    share, seen = found["share"], plural(found["calibration_images"], "calibration image")
    right = "" if found["accuracy"] is None else f" at {percent(found['accuracy'], 2)} accuracy"
    when, asked = f"at a margin of {short(found['margin'])}", f"{percent(100 * share, 1)} were asked for on {seen}"
    same = f"{percent(found['agreement'], 2)} of the answers are those of the last step"
    if found.get("by") == "rest":
        metric = METRICS[found["metric"]]
        value = measured(metric, found["value"], 2)
        when = f"once the mean output moves by less than {percent(100 * found['margin'], 2)} from answer to answer"
        same = f"{value} of the pixels have the class that they have at the last step"
        if metric.better == "lower":
            same = f"the outputs are {value} off those of the last step"
            asked = f"at most {percent(100 * (1 - share), 1)} was asked for on {seen}"
        if name := found.get("truth"):
            truth = METRICS[name]
            right = f", with {truth.title} {measured(truth, found['truth_value'], 2)}"
    if min(found["steps"]) < found["worst_steps"] and found["images"][-1] == sum(found["images"]):
        return f"Early exit: nothing is clear before the last step ({asked})."
    return (
        f"With early exit {when} an image takes {fixed(found['mean_steps'], 1)} steps on average and "
        f"{found['worst_steps']} at worst{right}; {same} ({asked})."
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
