"""What all charts of a report share: colours, axes, sizes.

Ink is `currentColor` and the palette is of middle brightness, so one chart serves light pages, dark pages and paper.
"""

from __future__ import annotations

from typing import Any

import altair as alt
from altair.utils import schemapi

Spec = dict[str, Any]
# Checking every part of a chart against the schema takes most of the time, and the tests do it.
unchecked = schemapi.debug_mode(False)
BLUE, ORANGE, RED, GREY, TEAL = "#3f7fd6", "#d4811f", "#d83a4a", "#8a8f98", "#2f9e8a"
DEPTH_RANGE = [BLUE, TEAL, ORANGE]
_INK = {"labelColor": "currentColor", "titleColor": "currentColor"}
_CONFIG: Spec = {
    "background": "transparent",
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        **_INK, "domainColor": "currentColor", "tickColor": "currentColor", "gridColor": "currentColor",
        "domainOpacity": 0.5, "tickOpacity": 0.5, "gridOpacity": 0.13, "labelFontSize": 11, "titleFontSize": 12,
        "titleFontWeight": 500,
    },
    "legend": {
        **_INK, "orient": "top", "title": None, "labelFontSize": 12, "symbolStrokeWidth": 2, "symbolType": "stroke",
        "columnPadding": 8, "labelLimit": 260,
    },
    "text": {"fill": "currentColor", "fontSize": 11},
}  # fmt: skip


def finish(chart: Any, height: int) -> Spec:
    """The specification of a chart as wide as its place."""
    sized = chart.properties(
        width="container", height=height, autosize=alt.AutoSizeParams(type="fit-x", contains="padding")
    )
    spec: Spec = sized.to_dict(validate=False)
    spec.pop("$schema", None)
    spec["config"] = _CONFIG
    return spec


def data(rows: list[Spec]) -> alt.Data:
    """Rows as inline data."""
    return alt.Data(values=rows)  # type: ignore[no-untyped-call]


def step_ticks(rows: list[Spec]) -> Spec:
    """Options of an axis of steps: whole numbers only, every one of them where `rows` have few."""
    few = sorted({row["t"] for row in rows})
    return {"format": "d", "tickMinStep": 1} | ({"values": few} if len(few) <= 8 else {})
