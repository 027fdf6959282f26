"""A network that was trained on: before and after side by side, and what held-out images said on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NotRequired, TypedDict

import altair as alt

from snnconvert.report.blocks import Block, Chart, On, Table, Text
from snnconvert.report.drawing import BLUE, data, finish, tips
from snnconvert.report.section import Amount, Count, Document, Section, Spec, Step, means
from snnconvert.report.wording import DASH, count, fixed, plural
from snnconvert.tasks import METRICS

if TYPE_CHECKING:
    from snnconvert.report.measured import Measured


class Look(TypedDict):
    step: Count
    epochs: Amount
    seconds: NotRequired[Amount]
    score: Annotated[float, means("the task's headline metric on held-out images; an error counts below zero")]


class Training(TypedDict):
    method: str
    source: str
    timesteps: Step
    images: Annotated[Count, means("that were trained on")]
    held_out: Annotated[Count, means("images that chose the best network")]
    metric: Annotated[str, means("of held-out images")]
    threshold_scale: Annotated[float, means("by what thresholds were multiplied before training")]
    steps: Count
    seconds: Amount
    processor_seconds: Amount
    best: float
    uncompiled: Annotated[float, means("the best network on held-out images as it was trained, before compilation")]
    options: dict[str, Any]
    history: list[Look]
    before: Annotated[dict[str, Any], means("the last step's figures of the network that training started from")]
    after: Annotated[dict[str, Any], means("the same of this network, on the same images")]
    details: NotRequired[Annotated[dict[str, Any], means("what the method says of itself")]]


class Keys(TypedDict):
    training: NotRequired[Annotated[Training, means("of a network that `snnconvert finetune` wrote")]]


def compute(measured: Measured) -> dict[str, Any]:
    found = measured.studies.get("training")
    if found is None:
        return {}
    known = set(Training.__annotations__)
    return {"training": {name: value for name, value in found.items() if name in known}}


def sentences(document: Document) -> Sequence[Text]:
    found: Training | None = document.get("training")
    if not found:
        return ()
    name = "accuracy" if found["before"].get("accuracy") is not None else found["metric"]
    metric = METRICS[name]
    before, after = (_value(found[side].get(name)) for side in ("before", "after"))
    minutes = found["processor_seconds"] / 60
    return (
        Text(
            f"Trained on: {metric.title} {before} -> {after} at T = {found['timesteps']}, by {found['method']} on "
            f"{plural(found['images'], 'image')} in {minutes:.1f} processor minutes",
            On.ALL,
        ),
    )


def blocks(document: Document) -> Sequence[Block]:
    found: Training | None = document.get("training")
    if not found:
        return []
    names = [name for name in METRICS if found["before"].get(name) is not None or found["after"].get(name) is not None]
    rows = [
        (METRICS[name].title, *(_with_interval(found[side], name) for side in ("before", "after"))) for name in names
    ]
    rows.append(("spikes per image", *(count(found[side]["spikes_per_image"]) for side in ("before", "after"))))
    fits = [found[side].get("fit_over_bound") for side in ("before", "after")]
    rows.append(("largest K(t) over 2 Omega / t", *map(_value, fits)))
    rows.append(("T", *(str(found[side]["timesteps"]) for side in ("before", "after"))))
    metric = METRICS[found["metric"]]
    return [
        *sentences(document),
        Table(("", "before", "after"), rows, On.ALL),
        Chart("training", f"{metric.title} on held-out images while the network was trained"),
        Text(
            f"On {plural(found['held_out'], 'image')} held out from training the best network has {metric.title} "
            f"{_value(abs(found['best']))} as it is compiled, and {_value(abs(found['uncompiled']))} as it was "
            f"trained: the difference is what compilation costs. Method: {found['source']}.",
            soft=True,
        ),
    ]


def charts(document: Document) -> Mapping[str, Spec | None]:
    found: Training | None = document.get("training")
    if not found or len(found["history"]) < 2:
        return {}
    rows: list[Spec] = [{"epochs": look["epochs"], "score": abs(look["score"])} for look in found["history"]]
    base = alt.Chart(data(rows)).encode(
        x=alt.X("epochs:Q").title("epochs"),
        y=alt.Y("score:Q").scale(zero=False).title(METRICS[found["metric"]].title),
        tooltip=tips("epochs:Q epochs | .2f", "score:Q held-out | .2f"),
    )
    return {"training": finish(base.mark_line(color=BLUE, point=alt.OverlayMarkDef(color=BLUE)), 220)}


def _value(value: float | None) -> str:
    return DASH if value is None else fixed(value, 2)


def _with_interval(figures: Mapping[str, Any], name: str) -> str:
    band = figures.get(f"{name}_interval")
    return _value(figures.get(name)) + ("" if band is None else f" ({fixed(band[0], 2)} to {fixed(band[1], 2)})")


SECTION = Section(Keys, compute, "Training", blocks=blocks, charts=charts)
