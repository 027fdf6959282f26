"""The plan of a schedule as a timeline: layers by time, windows coloured by what the neurons do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import altair as alt

from snnconvert.report.chart_style import BLUE, GREY, ORANGE, Spec, data, finish
from snnconvert.report.wording import clean

STATES = {"integrates": BLUE, "emits": ORANGE, "synchronous, integrates": GREY, "synchronous, emits": "#b79a5b"}
# The drawing of a very deep network would be all lines.
MOST_ROWS = 120


def plan_chart(document: Mapping[str, Any]) -> Spec | None:
    """When each site integrates and emits; None for streaming networks, where all do both all the time."""
    rows = []
    for index, row in enumerate((document.get("plan") or [])[:MOST_ROWS], 1):
        prefix = "synchronous, " if row["kind"] == "synchronous" else ""
        for state in ("integrates", "emits"):
            for first, last in row[state]:
                rows.append(
                    {
                        "layer": f"{index}. {clean(row['origin'])}",
                        "state": prefix + state,
                        "lane": state,
                        "first": first,
                        "last": last,
                        "text": f"steps {first + 1} to {last}",
                    }
                )
    if not rows:
        return None
    present = [state for state in STATES if any(row["state"] == state for row in rows)]
    layers = len({row["layer"] for row in rows})
    bars = (
        alt.Chart(data(rows))
        .mark_bar(cornerRadius=2)
        .encode(
            x=alt.X("first:Q").title("T (timesteps since the first input)").axis(tickMinStep=1, format="d"),
            x2=alt.X2("last:Q"),
            y=alt.Y("layer:N").sort(None).title(None).axis(labelLimit=190, ticks=False),
            yOffset=alt.YOffset("lane:N").sort(["integrates", "emits"]),
            color=alt.Color("state:N")
            .scale(domain=present, range=[STATES[state] for state in present])
            .legend(symbolType="square", symbolStrokeWidth=0),
            tooltip=[alt.Tooltip("layer:N"), alt.Tooltip("state:N"), alt.Tooltip("text:N", title="when")],
        )
    )
    return finish(bars, max(80, layers * 18))
