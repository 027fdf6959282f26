"""Charts of causes and of single neurons: heat maps, spike trains, membranes, examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import altair as alt

from snnconvert.report.chart_style import BLUE, GREY, ORANGE, RED, Spec, data, finish
from snnconvert.report.wording import clean, label

CAUSES = ("clipping", "quantisation", "unevenness", "propagation")


def attribution_map(document: Mapping[str, Any]) -> Spec | None:
    """Layer by cause: how large each cause is, in percent of the size of the layer's activations."""
    section = document.get("attribution")
    rows = [
        {"layer": f"{index}. {label(layer['origin'])}", "cause": cause, "size": 100 * layer["causes"][cause]}
        for index, layer in enumerate(section["layers"] if section else [], 1)
        for cause in CAUSES
        if layer["causes"][cause] is not None
    ]
    if not rows:
        return None
    largest = max(1e-6, *(row["size"] for row in rows))
    layers = len({row["layer"] for row in rows})
    base = alt.Chart(data(rows)).encode(
        x=alt.X("cause:N")
        .sort(list(CAUSES))
        .title(None)
        .axis(orient="top", labelAngle=0, labelFontSize=9, ticks=False, domain=False),
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


def inside_charts(document: Mapping[str, Any]) -> dict[str, Spec | None]:
    """The charts rate_map, raster, membrane_1, approach_1, ..., example_1, ... of the section `inside`."""
    section = document.get("inside") or {}
    found: dict[str, Spec | None] = {}
    if section.get("rates"):
        found["rate_map"] = _rate_map(section["rates"])
    if any(row["trains"] for row in section.get("raster", [])):
        found["raster"] = _raster(section["raster"])
    for number, neuron in enumerate(section.get("neurons", []), 1):
        found[f"membrane_{number}"] = _membrane(neuron)
        found[f"approach_{number}"] = _approach(neuron)
    for number, example in enumerate(section.get("examples", []), 1):
        found[f"example_{number}"] = _example(example)
    return found


def _steps(title: str = "T (frames of the layer)") -> alt.X:
    return alt.X("t:Q").title(title).scale(nice=False).axis(tickMinStep=1, format="d", tickCount=6)


def _rate_map(layers: list[dict[str, Any]]) -> Spec:
    rows = []
    for index, layer in enumerate(layers, 1):
        names = ["silent", *(f"to {100 * high:.0f} %" for high in layer["edges"][1:])]
        counts = [layer["silent"], *layer["counts"]]
        rows += [
            {"layer": f"{index}. {label(layer['layer'])}", "rate": name, "share": 100 * n / max(1, sum(counts))}
            for name, n in zip(names, counts, strict=True)
        ]
    order = list(dict.fromkeys(row["rate"] for row in rows))
    base = alt.Chart(data(rows)).encode(
        x=alt.X("rate:N")
        .sort(order)
        .title("firing rate, of the largest possible")
        .axis(labelAngle=0, labelOverlap=True, ticks=False, domain=False),
        y=alt.Y("layer:N").sort(None).title(None).axis(labelLimit=130, ticks=False, domain=False),
        tooltip=[
            alt.Tooltip("layer:N", title="layer"),
            alt.Tooltip("rate:N", title="rate"),
            alt.Tooltip("share:Q", title="% of neurons", format=".2f"),
        ],
    )
    shade = alt.Opacity("share:Q").scale(type="sqrt", domain=[0, 100], range=[0.02, 1.0]).legend(None)
    cells = base.mark_rect(color=ORANGE, cornerRadius=2).encode(opacity=shade)
    words = base.transform_filter("datum.share >= 0.5").mark_text(fontSize=10)
    layer_count = len(layers)
    chart = alt.layer(cells, words.encode(text=alt.Text("share:Q", format=".0f")))
    return finish(chart, max(70, layer_count * (18 if layer_count <= 60 else 14)))


def _raster(layers: list[dict[str, Any]]) -> Spec:
    rows, order = [], []
    for index, layer in enumerate(layers):
        for neuron, train in zip(layer["neurons"], layer["trains"], strict=True):
            order.append(f"{index + 1}: neuron {neuron}")
            rows += [
                {"t": t, "neuron": order[-1], "layer": label(layer["layer"]), "units": n}
                for t, n in enumerate(train, 1)
                if n
            ]
    shown = list(dict.fromkeys(row["layer"] for row in rows))
    chart = (
        alt.Chart(data(rows))
        .mark_tick(thickness=2.2, bandSize=9)
        .encode(
            x=_steps(),
            y=alt.Y("neuron:N").sort(order).title(None).axis(labels=False, ticks=False, grid=False),
            color=alt.Color("layer:N")
            .scale(domain=shown, range=[BLUE, "#2f9e8a", ORANGE][: len(shown)])
            .legend(symbolType="square", symbolStrokeWidth=6),
            tooltip=["layer:N", "neuron:N", alt.Tooltip("t:Q", title="T"), "units:Q"],
        )
    )
    return finish(chart, max(60, 9 * len(order)))


def _membrane(neuron: dict[str, Any]) -> Spec:
    rows = [
        {"t": t, "v": v, "sent": s}
        for t, (v, s) in enumerate(zip(neuron["membrane"], neuron["spikes"], strict=True), 1)
    ]
    base = alt.Chart(data(rows)).encode(
        x=_steps(), tooltip=[alt.Tooltip("t:Q", title="T"), alt.Tooltip("v:Q", format=".3f"), "sent:Q"]
    )
    y = alt.Y("v:Q").title("membrane (thresholds)").axis(tickCount=4)
    line = base.mark_line(color=BLUE, strokeWidth=1.6).encode(y=y)
    dots = base.transform_filter("datum.sent != 0").mark_point(filled=True, size=34, color=RED, opacity=1).encode(y=y)
    limit = alt.Chart(data([{"one": 1.0}])).mark_rule(color="currentColor", strokeDash=[3, 3]).encode(y=alt.Y("one:Q"))
    return finish(alt.layer(limit, line, dots), 130)


def _approach(neuron: dict[str, Any]) -> Spec:
    rows = [{"t": t, "rate": rate} for t, rate in enumerate(neuron["rate"], 1)]
    y = alt.Y("rate:Q").title("rate (thresholds)").axis(tickCount=4)
    line = (
        alt.Chart(data(rows))
        .mark_line(color=ORANGE, strokeWidth=1.8, interpolate="step-after")
        .encode(x=_steps(), y=y, tooltip=[alt.Tooltip("t:Q", title="T"), alt.Tooltip("rate:Q", format=".3f")])
    )
    goal = alt.Chart(data([{"goal": neuron["limit"]}])).mark_rule(color="currentColor", strokeDash=[3, 3])
    return finish(alt.layer(goal.encode(y=alt.Y("goal:Q")), line), 130)


def _example(example: dict[str, Any]) -> Spec:
    names = [clean(row["name"]) for row in example["classes"]]
    rows = [
        {"t": t, "class": name, "p": p}
        for name, row in zip(names, example["classes"], strict=True)
        for t, p in zip(example["steps"], row["probabilities"], strict=True)
    ]
    colours = [BLUE, RED, ORANGE, GREY][: len(names)]
    chart = (
        alt.Chart(data(rows))
        .mark_line(strokeWidth=1.8, point=alt.OverlayMarkDef(size=14) if len(example["steps"]) < 20 else False)
        .encode(
            x=_steps("T (timesteps)"),
            y=alt.Y("p:Q").title("probability").scale(domain=[0, 1]).axis(tickCount=3),
            color=alt.Color("class:N").scale(domain=names, range=colours),
            tooltip=["class:N", alt.Tooltip("t:Q", title="T"), alt.Tooltip("p:Q", title="probability", format=".3f")],
        )
    )
    return finish(chart, 130)


def sweep_chart(document: Mapping[str, Any]) -> Spec | None:
    """Accuracy over T for every width of weights, one small column per width of membranes."""
    runs = (document.get("chip") or {}).get("runs", [])
    if len({(row["weight_bits"], row["state_bits"]) for row in runs}) < 2:
        return None
    rows = [
        {
            "t": row["timesteps"],
            "accuracy": 100 * row["correct"] / max(1, row["samples"]),
            "weights": row["weight_bits"],
            "state": row["state_bits"],
            "line": f"{row['weight_bits']}/{row['state_bits']}",
            "best": row["best"],
        }
        for row in runs
    ]
    x = alt.X("t:Q").scale(type="log", base=2, nice=False).title("T (timesteps)").axis(format="d", labelOverlap=True)
    base = alt.Chart(data(rows)).encode(
        x=x.axis(values=sorted({row["t"] for row in rows}), format="d", labelOverlap=True),
        y=alt.Y("accuracy:Q").title("accuracy (%)"),
        tooltip=[
            alt.Tooltip("t:Q", title="T"),
            alt.Tooltip("weights:Q", title="weight bits"),
            alt.Tooltip("state:Q", title="membrane bits"),
            alt.Tooltip("accuracy:Q", format=".2f"),
        ],
    )
    colour = alt.Color("weights:O").scale(scheme="viridis").legend(title="weight bits", symbolType="stroke")
    dash = alt.StrokeDash("state:O").legend(title="membrane bits", symbolType="stroke")
    lines = base.mark_line(strokeWidth=1.6).encode(color=colour, strokeDash=dash, detail=alt.Detail("line:N"))
    best = base.transform_filter("datum.best").mark_point(shape="diamond", size=80, filled=True, opacity=1)
    return finish(alt.layer(lines, best.encode(color=colour)), 280)


def early_exit_chart(document: Mapping[str, Any]) -> Spec | None:
    """How many images leave after each step; None without early exit."""
    found = document.get("early_exit")
    if not found:
        return None
    rows = [{"t": t, "images": images} for t, images in zip(found["steps"], found["images"], strict=True)]
    bars = (
        alt.Chart(data(rows))
        .mark_bar(color=BLUE)
        .encode(
            x=alt.X("t:O").title("T at which an image leaves").axis(labelAngle=0, labelOverlap=True),
            y=alt.Y("images:Q").title("images"),
            tooltip=[alt.Tooltip("t:O", title="T"), alt.Tooltip("images:Q")],
        )
    )
    return finish(bars, 160)
