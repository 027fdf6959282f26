"""When each layer integrates and emits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict

import altair as alt

from snnconvert.report.blocks import Block, Chart, Text
from snnconvert.report.drawing import BLUE, GREY, ORANGE, alike, data, finish, layer_axis, tips
from snnconvert.report.section import Count, Document, Section, Spec, means
from snnconvert.report.wording import clean

if TYPE_CHECKING:
    from snnconvert.report.measured import Measured

STATES = {"integrates": BLUE, "emits": ORANGE, "synchronous, integrates": GREY, "synchronous, emits": "#b79a5b"}
# The drawing of a very deep network would be all lines.
MOST_ROWS = 120


class Row(TypedDict):
    site: str
    origin: str
    depth: Count
    kind: Literal["neuron", "synchronous", "read-out"]
    integrates: list[list[int]]
    emits: list[list[int]]


class Keys(TypedDict):
    plan: Annotated[
        list[Row] | None,
        means("when each site integrates and emits, in steps from 0, half open; null for streaming networks"),
    ]


def compute(measured: Measured) -> dict[str, Any]:
    from snnconvert.graph.schedule.timing import plan

    return {"plan": plan(measured.snn) if measured.snn.schedule.staggered else None}


def blocks(document: Document) -> Sequence[Block]:
    rows: list[Row] | None = document["plan"]
    if not rows:
        return []
    windows = "; the first windows of each layer are drawn" if len(rows[0]["emits"]) > 1 else ""
    text = (
        "When each layer takes in what arrives and when it sends. Synchronous neurons hold a shortcut back until the "
        f"branch it is added to has caught up{windows}."
    )
    return [Text(text, soft=True), Chart("plan", "Timeline of the layers: integrating and emitting windows")]


def charts(document: Document) -> dict[str, Spec | None]:
    """Nothing for streaming networks, where all layers do both all the time."""
    rows = []
    for index, row in enumerate((document["plan"] or [])[:MOST_ROWS], 1):
        prefix = "synchronous, " if row["kind"] == "synchronous" else ""
        rows += [
            {
                "layer": f"{index}. {clean(row['origin'])}",
                "state": prefix + state,
                "lane": state,
                "first": first,
                "last": last,
                "text": f"steps {first + 1} to {last}",
            }
            for state in ("integrates", "emits")
            for first, last in row[state]
        ]
    if not rows:
        return {}
    present = [state for state in STATES if any(row["state"] == state for row in rows)]
    bars = alt.Chart(data(rows)).mark_bar(cornerRadius=2)
    colour = alike("state", alt.Color, present, [STATES[state] for state in present])
    chart = bars.encode(
        x=alt.X("first:Q").title("T (timesteps since the first input)").axis(tickMinStep=1, format="d"),
        x2=alt.X2("last:Q"),
        y=layer_axis(limit=190),
        yOffset=alt.YOffset("lane:N").sort(["integrates", "emits"]),
        color=colour.legend(symbolType="square", symbolStrokeWidth=0),
        tooltip=tips("layer:N", "state:N", "text:N when"),
    )
    return {"plan": finish(chart, max(80, len({row["layer"] for row in rows}) * 18))}


SECTION = Section(Keys, compute, "Plan in time", blocks=blocks, charts=charts)
