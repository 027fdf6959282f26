"""What networks reach whose layers share a budget of more units a step: accuracy against capacity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import altair as alt

from snnconvert.report.blocks import Block, Chart, On, Table, Text
from snnconvert.report.drawing import BLUE, data, finish, tips
from snnconvert.report.section import Amount, Document, Section, Share, Spec, Step, means
from snnconvert.report.sections import frontier, made
from snnconvert.report.wording import count, percent
from snnconvert.tasks import METRICS

if TYPE_CHECKING:
    from snnconvert.report.measured import Measured


class Roomier(TypedDict):
    budget: Annotated[Share, means("added units (with --spike-budget spikes) over those of one unit a step everywhere")]
    added: Annotated[float, means("units that were added, over all neurons")]
    units: Annotated[list[Step], means("of each layer of neurons in order, as --levels takes them")]
    metric: Annotated[str, means("which figure `value` is, as milestones/basis")]
    value: Annotated[float | None, means("at the last step, on the evaluation images")]
    interval: Annotated[list[float] | None, means("of the value, 95 %")]
    spikes_per_image: Amount


class Keys(TypedDict):
    capacity: Annotated[
        list[Roomier] | None,
        means("with --budgets: a network for each budget, ascending; null where none was asked for"),
    ]


def compute(measured: Measured) -> dict[str, Any]:
    """With all figures of each network, of which `frontier.judge` keeps those that the report judges by."""
    rows = [
        {
            "budget": one.budget,
            "added": made.units_of(one.snn)[1],
            "units": made.units_of(one.snn)[0],
            "spikes_per_image": one.curve.spikes[-1],
            "metrics": frontier.figures(one.curve),
        }
        for one in measured.studies.get("capacity", ())
    ]
    return {"capacity": rows or None}


def blocks(document: Document) -> Sequence[Block]:
    rows: list[Roomier] | None = document["capacity"]
    if not rows:
        return []
    cells = [
        (
            percent(100 * row["budget"], 0),
            percent(100 * row["added"], 1),
            *frontier.value_and_interval(row),
            count(row["spikes_per_image"]),
            ",".join(map(str, row["units"])),
        )
        for row in rows
    ]
    head = ("budget", "added", frontier.title(rows[0]), "95 %", "spikes", "units")
    text = (
        "Each row is a network of its own on the same inputs, with the same steps. Layers get more units a step where "
        "that takes most off the error, until the budget is spent. Units are those of each layer, as --levels takes "
        "them."
    )
    return [
        Text(text, soft=True),
        Chart(
            "capacity",
            f"{METRICS[rows[0]['metric']].title} against added units; the numbers are in the table below",
            on=On.PAGE,
        ),
        Table(head, cells, On.PAGE | On.MARKDOWN, left=(5,), named=False),
    ]


def charts(document: Document) -> dict[str, Spec | None]:
    rows: list[Roomier] | None = document["capacity"]
    known = [row for row in rows or [] if row["value"] is not None]
    if len(known) < 2:
        return {}
    points = [
        {"added": 100 * row["added"], "value": row["value"], "spikes": row["spikes_per_image"]}
        | dict(zip(("low", "high"), row["interval"] or (row["value"], row["value"]), strict=True))
        for row in known
    ]
    x = alt.X("added:Q").title("units added, % of one unit a step everywhere")
    scale, title = alt.Scale(zero=False), frontier.title(known[0])
    band = alt.Chart(data(points)).mark_area(color=BLUE, opacity=0.2)
    line = alt.Chart(data(points)).mark_line(color=BLUE, point=True)
    told = tips("added:Q added, % | .1f", "value:Q value | .2f", "spikes:Q spikes an image | .0f")
    drawn = alt.layer(
        band.encode(x=x, y=alt.Y("low:Q", scale=scale).stack(None).title(title), y2="high:Q"),
        line.encode(x=x, y=alt.Y("value:Q", scale=scale).title(title), tooltip=told),
    )
    return {"capacity": finish(drawn, 200)}


SECTION = Section(Keys, compute, "Capacity: more units a step where they help", blocks=blocks, charts=charts)
