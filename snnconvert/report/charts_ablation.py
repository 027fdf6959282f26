"""Neurons that fire although the ANN's are silent, layer by layer, before and after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import altair as alt

from snnconvert.report.chart_style import BLUE, ORANGE, Spec, data, finish
from snnconvert.report.wording import label

SERIES = {"before": "streaming integrate-and-fire", "after": "bistable"}


def inactivated_chart(document: Mapping[str, Any]) -> Spec | None:
    """Two bars a layer; None where nothing was measured."""
    section = document.get("ablation")
    rows = [
        {
            "layer": f"{index}. {label(layer['origin'])}",
            "network": name,
            "share": 100 * layer[key]["neurons"],
            "units": None if layer[key]["units"] is None else 100 * layer[key]["units"],
            "unprovoked": 100 * layer[key]["unprovoked"],
        }
        for index, layer in enumerate(section["layers"] if section else [], 1)
        for key, name in SERIES.items()
    ]
    if not rows:
        return None
    names = list(SERIES.values())
    bars = (
        alt.Chart(data(rows))
        .mark_bar()
        .encode(
            x=alt.X("share:Q").title("% of the layer's neurons").axis(format="~r", tickCount=5),
            y=alt.Y("layer:N").sort(None).title(None).axis(labelLimit=130, grid=False, ticks=False),
            yOffset=alt.YOffset("network:N").sort(names),
            color=alt.Color("network:N")
            .scale(domain=names, range=[ORANGE, BLUE])
            .legend(symbolType="square", symbolStrokeWidth=0),
            tooltip=[
                alt.Tooltip("layer:N", title="layer"),
                alt.Tooltip("network:N", title="network"),
                alt.Tooltip("share:Q", title="% of neurons", format=".2f"),
                alt.Tooltip("units:Q", title="% of what the layer sends", format=".2f"),
                alt.Tooltip("unprovoked:Q", title="% against their own input", format=".2f"),
            ],
        )
    )
    return finish(bars, len(rows) * (11 if len(rows) <= 120 else 7))
