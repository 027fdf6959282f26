"""The charts of the HTML report, as Vega-Lite specifications made by Altair.

Ink is `currentColor` and the palette is of middle brightness, so one chart serves light pages, dark pages and paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import altair as alt

from snnconvert.report.anytime_text import EACH, measure
from snnconvert.report.chart_plan import plan_chart
from snnconvert.report.chart_style import (
    BLUE,
    DEPTH_RANGE,
    GREY,
    ORANGE,
    RED,
    TEAL,
    Spec,
    data,
    finish,
    step_ticks,
    unchecked,
)
from snnconvert.report.charts_ablation import inactivated_chart
from snnconvert.report.charts_detail import attribution_map, early_exit_chart, inside_charts, sweep_chart
from snnconvert.report.charts_energy import energy_chart, energy_time_chart
from snnconvert.report.wording import label

# More small charts than this make the page long and slow; the layers closest to their bound are shown.
MOST_SMALL_CHARTS = 24


@unchecked
def charts(document: Mapping[str, Any]) -> dict[str, Spec]:
    """The charts the document has numbers for: curve, spikes, rates, fit, fit_1, attribution, energy and so on."""
    found = {"curve": _curve(document), "spikes": _spikes(document), **_layer_bars(document), **_fits(document)}
    found["plan"] = plan_chart(document)
    found["inactivated"] = inactivated_chart(document)
    found["attribution"] = attribution_map(document)
    found |= inside_charts(document)
    found["sweep"] = sweep_chart(document)
    found["early_exit"] = early_exit_chart(document)
    found["energy"] = energy_chart(document)
    found["energy_time"] = energy_time_chart(document)
    return {name: spec for name, spec in found.items() if spec is not None}


def small_layers(document: Mapping[str, Any]) -> list[int]:
    """Indices, in data-flow order, of the layers that get a chart of their own: those closest to their bound."""

    def closeness(index: int) -> float:
        layer = document["layers"][index]
        bound = {point["t"]: point["value"] for point in layer["bound"]}
        return max((point["k"] / bound[point["t"]] for point in layer["fit"] if bound.get(point["t"])), default=0.0)

    usable = [index for index, layer in enumerate(document["layers"]) if any(p["k"] > 0 for p in layer["fit"])]
    return sorted(sorted(usable, key=closeness, reverse=True)[:MOST_SMALL_CHARTS])


def _curve(document: Mapping[str, Any]) -> Spec | None:
    curve, ann = document["fit_curve"], document["ann"]["accuracy"]
    series = {"accuracy": "SNN accuracy", "agreement": "agreement with ANN"}
    rows = [
        {"t": t, "accuracy": accuracy, "agreement": agreement, "spikes": spikes,
         "low": band[0] if band else None, "high": band[1] if band else None}
        for t, accuracy, agreement, spikes, band in zip(
            curve["timesteps"], curve["accuracy"], curve["agreement"], curve["spikes_per_image"],
            curve["accuracy_interval"], strict=True,
        )
    ]  # fmt: skip
    lines = [
        {"t": row["t"], "series": text, "value": row[key]}
        for key, text in series.items() for row in rows if row[key] is not None
    ]  # fmt: skip
    points = alone_points(document)
    alone = f"{measure(document['anytime'])} of {EACH}" if points else EACH
    lines += [{**point, "series": alone} for point in points]
    if not lines:
        return None
    styles = {series["accuracy"]: (BLUE, [1, 0]), series["agreement"]: (ORANGE, [5, 3]), alone: (TEAL, [8, 3])}
    present = [text for text in styles if any(line["series"] == text for line in lines)]
    lowest = min([line["value"] for line in lines] + [row["low"] for row in rows if row["low"] is not None])
    x = alt.X("t:Q").title("T (timesteps since the first input)").scale(nice=False).axis(**step_ticks(rows))
    scale = alt.Scale(domain=[10 * int(lowest // 10), 100], nice=False)
    base = alt.Chart(data(rows)).encode(x=x)
    columns = 1 if points else 0  # three in a row are too wide for a phone
    layers: list[Any] = [
        alt.Chart(data(lines))
        .mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=18) if len(rows) <= 40 else False)
        .encode(
            x=x,
            y=alt.Y("value:Q").scale(scale).title("images (%)"),
            color=alt.Color("series:N")
            .scale(domain=present, range=[styles[text][0] for text in present])
            .legend(columns=columns),
            strokeDash=alt.StrokeDash("series:N")
            .scale(domain=present, range=[styles[text][1] for text in present])
            .legend(columns=columns),
        ),
    ]
    if points:
        dots = alt.Chart(data(points)).mark_circle(size=55, color=TEAL, opacity=1)
        tip = [alt.Tooltip("t:Q", title="a network for T"), alt.Tooltip("value:Q", title="%", format=".2f")]
        layers.append(dots.encode(x=x, y=alt.Y("value:Q").scale(scale), tooltip=tip))
    if any(row["low"] is not None for row in rows):
        band = base.transform_filter("isValid(datum.low)").mark_area(color=BLUE, opacity=0.18)
        layers.insert(0, band.encode(y=alt.Y("low:Q").scale(scale).title("images (%)"), y2=alt.Y2("high:Q")))
    if ann is not None:
        rule = alt.Chart(data([{"ann": ann, "label": f"ANN {ann:.1f} %", "t": curve["timesteps"][0]}]))
        layers += [
            rule.mark_rule(color="currentColor", strokeDash=[2, 2], strokeWidth=1.4).encode(
                y=alt.Y("ann:Q").scale(scale)
            ),
            rule.mark_text(align="left", dx=4, dy=-7, fontWeight=600).encode(
                x=alt.X("t:Q"), y=alt.Y("ann:Q").scale(scale), text=alt.Text("label:N")
            ),
        ]
    steps = {document["milestones"][f"within_{points}"]: points for points in ("0.5", "1", "2")}
    basis = document["milestones"]["basis"]
    marks = [
        {"t": row["t"], "value": row[basis], "goal": f"within {steps[row['t']]}"} for row in rows if row["t"] in steps
    ]
    if marks:
        layers.append(
            alt.Chart(data(marks)).mark_point(shape="diamond", size=110, filled=True, color="currentColor", opacity=1)
            .encode(x=x, y=alt.Y("value:Q").scale(scale), tooltip=[alt.Tooltip("goal:N", title="from here on")])
        )  # fmt: skip
    near = alt.selection_point(nearest=True, on="pointerover", fields=["t"], empty=False, clear="pointerout")
    tips = [alt.Tooltip("t:Q", title="T")]
    labels = {
        "accuracy": "accuracy (%)",
        "low": "95 % from",
        "high": "95 % to",
        "agreement": "agreement (%)",
        "spikes": "spikes per image",
    }
    tips += [
        alt.Tooltip(f"{key}:Q", title=text, format=",.0f" if key == "spikes" else ".2f")
        for key, text in labels.items() if any(row[key] is not None for row in rows)
    ]  # fmt: skip
    layers.append(
        base.mark_rule(color="currentColor", strokeWidth=1).add_params(near)
        .encode(opacity=alt.condition(near, alt.value(0.4), alt.value(0)), tooltip=tips)
    )  # fmt: skip
    return finish(alt.layer(*layers), 320)


def alone_points(document: Mapping[str, Any]) -> list[Spec]:
    """{t, value} of the networks that were calibrated for one T each; empty where nothing was compared."""
    section = document.get("anytime")
    if not section:
        return []
    return [{"t": row["t"], "value": row["own"][measure(section)]} for row in section["rows"]]


def _spikes(document: Mapping[str, Any]) -> Spec | None:
    curve = document["fit_curve"]
    pairs = zip(curve["timesteps"], curve["spikes_per_image"], strict=True)
    rows = [{"t": t, "spikes": spikes} for t, spikes in pairs if spikes is not None]
    if not rows:
        return None
    chart = (
        alt.Chart(data(rows))
        .mark_area(color=GREY, opacity=0.35, line={"color": GREY}, point={"color": GREY} if len(rows) == 1 else False)
        .encode(
            x=alt.X("t:Q").title("T (timesteps since the first input)").scale(nice=False).axis(**step_ticks(rows)),
            y=alt.Y("spikes:Q").title("spikes per image so far").axis(format="~s", tickCount=4),
            tooltip=[alt.Tooltip("t:Q", title="T"), alt.Tooltip("spikes:Q", title="spikes per image", format=",.0f")],
        )
    )
    return finish(chart, 130)


def _layer_bars(document: Mapping[str, Any]) -> dict[str, Spec | None]:
    layers = document["layers"]
    labels = [f"{index}. {label(layer['origin'])}" for index, layer in enumerate(layers, 1)]
    wanted = {
        "rates": ("firing_rate", "spikes per neuron and timestep", BLUE, ".3f"),
        "layer_spikes": ("spikes_per_image", "spikes per image", ORANGE, ",.0f"),
    }
    found: dict[str, Spec | None] = {}
    for name, (key, title, colour, form) in wanted.items():
        rows = [{"layer": label, "value": layer[key]} for label, layer in zip(labels, layers, strict=True)]
        if not any(row["value"] is not None for row in rows):
            continue
        chart = (
            alt.Chart(data(rows))
            .mark_bar(color=colour, height={"band": 0.75})
            .encode(
                x=alt.X("value:Q").title(title).axis(format="~s" if key == "spikes_per_image" else "~g", tickCount=5),
                y=alt.Y("layer:N").sort(None).title(None).axis(labelLimit=130, grid=False, ticks=False),
                tooltip=[alt.Tooltip("layer:N", title="layer"), alt.Tooltip("value:Q", title=title, format=form)],
            )
        )
        found[name] = finish(chart, len(rows) * (17 if len(rows) <= 60 else 12))
    return found


def _fits(document: Mapping[str, Any]) -> dict[str, Spec | None]:
    rows = []
    for index, layer in enumerate(document["layers"], 1):
        bound = {point["t"]: point["value"] for point in layer["bound"]}
        beyond = {point["t"] for point in layer["violations"]}
        rows += [
            {"number": index, "layer": f"{index}. {label(layer['origin'])}", "t": point["t"], "k": point["k"],
             "bound": bound.get(point["t"]) or None, "beyond": point["t"] in beyond}
            for point in layer["fit"] if point["k"] > 0
        ]  # fmt: skip
    if len({row["t"] for row in rows}) < 2:  # one answer: nothing settles, and K is in the table of layers
        return {}
    values = [row["k"] for row in rows] + [row["bound"] for row in rows if row["bound"]]
    domain = [min(values) * 0.8, max(values) * 1.25]
    found: dict[str, Spec | None] = {"fit": finish(_fit_lines(rows, domain, every=True), 320)}
    for index in small_layers(document):
        own = [row for row in rows if row["number"] == index + 1]
        found[f"fit_{index + 1}"] = finish(_fit_lines(own, domain, every=False), 130)
    return found


def _fit_lines(rows: list[Spec], domain: list[float], *, every: bool) -> Any:
    steps = sorted({row["t"] for row in rows})
    ticks = steps if len(steps) <= 9 else [t for t in steps if float(t).is_integer() and not int(t) & (int(t) - 1)]
    tips = [
        alt.Tooltip("layer:N", title="layer"),
        alt.Tooltip("t:Q", title="T"),
        alt.Tooltip("k:Q", title="K", format=".4f"),
        alt.Tooltip("bound:Q", title="bound", format=".4f"),
    ]
    x = alt.X("t:Q").scale(type="log", base=2, nice=False).title("T (timesteps)" if every else None)
    y = alt.Y("k:Q").scale(type="log", domain=domain, nice=False).title("fit error K (relative)" if every else None)
    axis_x = x.axis(values=ticks, format="d", labelOverlap=True, labelSeparation=4)
    axis_y = y.axis(format="~g", tickCount=6 if every else 3, labelOverlap=True)
    base = alt.Chart(data(rows)).encode(x=axis_x, y=axis_y)
    line = base.mark_line(strokeWidth=1.6, color=BLUE, opacity=0.9)
    if every:
        shade = alt.Color("number:Q").scale(range=DEPTH_RANGE).legend(
            title="layer, from input to output", type="gradient", gradientLength=140, format="d", tickMinStep=1,
        )  # fmt: skip
        line = line.encode(color=shade, detail=alt.Detail("layer:N"), tooltip=tips[:1])
        dots = base.mark_circle(size=26, opacity=0.9).encode(color=shade, tooltip=tips)
        layers = [line, dots]
    else:
        bound = base.transform_filter("isValid(datum.bound)").mark_line(
            color="currentColor", strokeDash=[4, 3], opacity=0.6
        )
        layers = [bound.encode(y=alt.Y("bound:Q").scale(type="log", domain=domain, nice=False)), line]
        layers.append(base.mark_circle(size=24, color=BLUE, opacity=1).encode(tooltip=tips))
    if any(row["beyond"] for row in rows):
        flags = base.transform_filter("datum.beyond")
        flags = flags.mark_point(
            shape="triangle-up", size=30 if every else 65, filled=True, color=RED, opacity=1
        ).encode(tooltip=tips)
        layers.append(flags)
    return alt.layer(*layers)
