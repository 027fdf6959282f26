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
        "columnPadding": 8, "labelLimit": 330,
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


class _Rows(alt.InlineData):
    """Rows that nobody changes: Altair copies whole charts, with their data, at every step of making one."""

    def __deepcopy__(self, memo: Any) -> _Rows:
        return self


def data(rows: list[Spec]) -> alt.InlineData:
    """Rows as inline data."""
    return _Rows(values=rows)


def tips(*texts: str) -> list[alt.Tooltip]:
    """What is shown at a mark: "FIELD TITLE" or "FIELD TITLE | FORMAT" for each line."""
    found = []
    for text in texts:
        field, _, rest = text.partition(" ")
        title, _, form = rest.partition(" | ")
        options: dict[str, Any] = {"title": title or field.split(":")[0]} | ({"format": form} if form else {})
        found.append(alt.Tooltip(field, **options))
    return found


def alike(field: str, channel: Any, names: list[str], looks: list[Any]) -> Any:
    """A channel that gives every name its own look, in the order of `names`."""
    return channel(f"{field}:N").scale(domain=names, range=looks)


def layer_axis(*, limit: int = 130, grid: bool = True) -> alt.Y:
    """Layers from top to bottom, in data-flow order."""
    return alt.Y("layer:N").sort(None).title(None).axis(labelLimit=limit, ticks=False, grid=grid)


def heat_map(rows: list[Spec], x: alt.X, *, field: str, colour: str, most: float, form: str, hint: list[Any]) -> Any:
    """Layers by columns: cells as opaque as `field` is large (0 to `most`), and the numbers of at least half a point.

    Opacity, not lightness: the same cell is right on a light and on a dark page.
    """
    y = alt.Y("layer:N").sort(None).title(None).axis(labelLimit=130, ticks=False, domain=False)
    base = alt.Chart(data(rows)).encode(x=x, y=y, tooltip=hint)
    curved: dict[str, Any] = {"type": "sqrt"} if form == ".0f" else {}
    shade = alt.Opacity(f"{field}:Q").scale(domain=[0, most], range=[0.03, 1.0], **curved).legend(None)
    cells = base.mark_rect(color=colour, cornerRadius=2).encode(opacity=shade)
    least = 0.5 if form == ".0f" else 0
    words = base.transform_filter(f"datum.{field} >= {least}").mark_text(fontSize=10.5)
    return alt.layer(cells, words.encode(text=alt.Text(f"{field}:Q", format=form)))


def height_of(layers: int, each: int = 18, *, many: int = 14) -> int:
    """Pixels for a row a layer, closer where there are very many."""
    return max(60, layers * (each if layers <= 60 else many))
