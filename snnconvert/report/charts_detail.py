"""Charts of causes: the heat map of layers and what their error is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import altair as alt

from snnconvert.report.chart_style import BLUE, Spec, data, finish
from snnconvert.report.wording import clean

CAUSES = ("clipping", "quantisation", "unevenness", "propagation")


def attribution_map(document: Mapping[str, Any]) -> Spec | None:
    """Layer by cause: how large each cause is, in percent of the size of the layer's activations."""
    section = document.get("attribution")
    rows = [
        {"layer": f"{index}. {clean(layer['origin'])}", "cause": cause, "size": 100 * layer["causes"][cause]}
        for index, layer in enumerate(section["layers"] if section else [], 1)
        for cause in CAUSES
        if layer["causes"][cause] is not None
    ]
    if not rows:
        return None
    largest = max(1e-6, *(row["size"] for row in rows))
    layers = len({row["layer"] for row in rows})
    base = alt.Chart(data(rows)).encode(
        x=alt.X("cause:N").sort(list(CAUSES)).title(None).axis(orient="top", labelAngle=0, ticks=False, domain=False),
        y=alt.Y("layer:N").sort(None).title(None).axis(labelLimit=130, ticks=False, domain=False),
        tooltip=[
            alt.Tooltip("layer:N", title="layer"),
            alt.Tooltip("cause:N", title="cause"),
            alt.Tooltip("size:Q", title="% of the activations", format=".2f"),
        ],
    )
    # Opacity, not lightness: the same cell is right on a light and on a dark page.
    shade = alt.Opacity("size:Q").scale(domain=[0, largest], range=[0.03, 1.0]).legend(None)
    cells = base.mark_rect(color=BLUE, cornerRadius=2).encode(opacity=shade)
    words = base.mark_text(fontSize=10.5).encode(text=alt.Text("size:Q", format=".1f"))
    return finish(alt.layer(cells, words), max(60, layers * (18 if layers <= 60 else 14)))
