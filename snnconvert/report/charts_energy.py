"""Charts of energy: the SNN against each ANN, at the last step and over time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import altair as alt

from snnconvert.report.chart_style import BLUE, GREY, ORANGE, RED, Spec, data, finish
from snnconvert.report.wording import clean

_POWERS = [10.0**power for power in range(-4, 7)]
_SCOPES = {"arithmetic only": [1, 0], "with memory, weights reused": [6, 3], "with memory, no reuse": [2, 2]}


def energy_chart(document: Mapping[str, Any]) -> Spec | None:
    """SNN over ANN for every comparison at the last step."""
    several = len({row.get("constants") for row in (document["energy"] or {"rows": []})["rows"]}) > 2
    rows = [
        {"row": energy_label(row, several), "ratio": row["ratio"], "one": 1.0,
         "side": "less" if row["ratio"] < 1 else "more"}
        for row in (document["energy"] or {"rows": []})["rows"] if row["ratio"]
    ]  # fmt: skip
    if not rows:
        return None
    x = alt.X("ratio:Q").scale(type="log").title("energy of the SNN / of the ANN").axis(format="~g", values=_POWERS)
    y = alt.Y("row:N").sort(None).title(None).axis(labelLimit=190, ticks=False, grid=False)
    tips = [alt.Tooltip("row:N", title="against"), alt.Tooltip("ratio:Q", title="ratio", format=".3g")]
    base = alt.Chart(data(rows)).encode(y=y)
    colour = alt.Color("side:N").scale(domain=["less", "more"], range=[BLUE, RED]).legend(None)
    bars = base.mark_rule(strokeWidth=3).encode(x=x, x2=alt.X2("one:Q"), color=colour, tooltip=tips)
    dots = base.mark_circle(size=90, opacity=1).encode(x=x, color=colour, tooltip=tips)
    rule = alt.Chart(data([{"one": 1.0}])).mark_rule(color="currentColor").encode(x=alt.X("one:Q"))
    return finish(alt.layer(bars, dots, rule), len(rows) * 22)


def energy_time_chart(document: Mapping[str, Any]) -> Spec | None:
    """SNN over ANN for what was spent up to each step; 1 is break-even."""
    spent = (document["energy"] or {}).get("over_time")
    if not spent:
        return None
    rows = [
        {"t": t, "ratio": ratio, "against": clean(row["baseline"]), "scope": clean(row["scope"])}
        for row in spent["rows"]
        for t, ratio in zip(spent["timesteps"], row["ratio"], strict=True)
        if ratio
    ]
    if not rows:
        return None
    baselines = list(dict.fromkeys(row["against"] for row in rows))
    scopes = [scope for scope in _SCOPES if any(row["scope"] == scope for row in rows)]
    x = alt.X("t:Q").title("T (timesteps since the first input)").scale(nice=False).axis(tickMinStep=1, format="d")
    y = alt.Y("ratio:Q").scale(type="log").title("energy so far, SNN / ANN").axis(format="~g", values=_POWERS)
    lines = (
        alt.Chart(data(rows))
        .mark_line(strokeWidth=1.8, point=len(spent["timesteps"]) == 1)  # points hide the strokes of the legend
        .encode(
            x=x,
            y=y,
            color=alt.Color("against:N")
            .scale(domain=baselines, range=[GREY, BLUE, ORANGE][: len(baselines)])
            .legend(columns=1),
            strokeDash=alt.StrokeDash("scope:N")
            .scale(domain=scopes, range=[_SCOPES[scope] for scope in scopes])
            .legend(columns=1, orient="bottom", symbolStrokeColor=GREY, symbolType="stroke"),
            tooltip=[
                alt.Tooltip("t:Q", title="T"),
                alt.Tooltip("against:N", title="against"),
                alt.Tooltip("scope:N", title="counted"),
                alt.Tooltip("ratio:Q", title="SNN / ANN", format=".3g"),
            ],
        )
    )
    rule = alt.Chart(data([{"one": 1.0}])).mark_rule(color="currentColor").encode(y=alt.Y("one:Q"))
    return finish(alt.layer(rule, lines), 260)


def energy_label(row: Mapping[str, Any], several: bool) -> str:
    """Baseline and scope, short enough for a phone; the table below the chart has the full words."""
    label = f"{clean(row['baseline'])}: {clean(row['scope'])}"
    for filler in (" ANN", "with ", "weights ", "activations ", " only"):
        label = label.replace(filler, "")
    return f"{label} ({clean(row['constants'])[:12]})" if several else label
