"""Accuracy over time, drawn and in words: the curve, the first T that come near the ANN, and what the curve says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from snnconvert.report.blocks import Block, Chart, Drawing, Fold, On, Table, Text
from snnconvert.report.characters import plot
from snnconvert.report.drawing import BLUE, GREY, ORANGE, TEAL, alike, data, finish, step_ticks, tips
from snnconvert.report.section import Document, Section, Spec
from snnconvert.report.sections import anytime
from snnconvert.report.sections.curve_figures import POINTS, Keys, complete, compute
from snnconvert.report.wording import count, fixed, interval, percent


def blocks(document: Document) -> Sequence[Block]:
    basis, goals = document["milestones"]["basis"], milestones(document)
    of = "of the ANN" if basis == "accuracy" else "of full agreement"
    diamonds = f"Diamonds mark the first T from which the curve stays within 0.5, 1 and 2 points {of}."
    explained = [
        "Each step is one tick of the simulation, counted from the first input.",
        "The shaded band is the 95 % Wilson interval of the accuracy." if interval(document) else "",
        diamonds if goals else "The accuracy of the original network on these images is not known.",
    ]
    rows = [
        (goal, "not reached" if t is None else str(t), percent(value), count(spikes))
        for goal, t, value, spikes in goals
    ]
    table: list[Block] = []
    if rows:
        table = [
            Table(("goal, held up to the last step", "smallest T", basis, "spikes per image"), rows, On.ALL),
        ]
    return [
        Text(" ".join(filter(None, explained)), soft=True),
        Chart("curve", "Accuracy and agreement over timesteps; the numbers are in the table below"),
        Drawing(lambda width, ascii_only: plot(document, width=width, ascii_only=ascii_only)),
        Chart("spikes", "Spikes per image over timesteps"),
        *table,
        Text(_course(document), soft=True),
        Fold("Every step as a table", [_steps(document["fit_curve"])]),
    ]


def milestones(document: Document) -> list[tuple[str, int | None, float | None, float | None]]:
    """Rows (goal, T, value in percent at T, spikes per image at T); none where the ANN's accuracy is not known."""
    found, curve = document["milestones"], document["fit_curve"]
    basis = found["basis"]
    if basis == "accuracy" and document["ann"]["accuracy"] is None:
        return []
    goal = "of the ANN's accuracy" if basis == "accuracy" else "of full agreement"
    rows = []
    for name, points in POINTS.items():
        index = None if found[name] is None else curve["timesteps"].index(found[name])
        value, spikes = (None, None) if index is None else (curve[basis][index], curve["spikes_per_image"][index])
        rows.append((f"within {points:g} point{'' if points == 1 else 's'} {goal}", found[name], value, spikes))
    return rows


def _course(document: Document) -> str:
    """Where the curve bends, and whether it has settled."""
    analysis = document["analysis"]
    told = [f"The curve bends at T = {analysis['knee']}; later steps gain less each."] if analysis["knee"] else []
    if plateau := analysis["plateau"]:
        gain = plateau["value"] - analysis["final"][document["milestones"]["basis"]]
        value, error = percent(plateau["value"]), fixed(plateau["error"])
        if gain > 1 and gain > 2 * plateau["error"]:
            told.append(
                f"A fit of the curve expects it to settle near {value} with ever more timesteps (fit error {error} "
                "points)."
            )
        elif gain <= 1 and plateau["error"] <= 1:
            told.append("A fit of the curve says that it has settled.")
        else:
            told.append(
                f"A fit of the curve is too coarse to say whether it has settled: {value}, fit error {error} points."
            )
    return " ".join(told)


def _steps(curve: Mapping[str, Any]) -> Table:
    rows = [
        (
            str(t),
            percent(accuracy, 2),
            f"{fixed(band[0], 2)} to {fixed(band[1], 2)} %" if band else "–",
            percent(agreement, 2),
            count(spikes),
        )
        for t, accuracy, band, agreement, spikes in _by_step(curve)
    ]
    return Table(("T", "accuracy", "95 % interval", "agreement", "spikes per image"), rows, named=False)


def _by_step(curve: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    columns = ("timesteps", "accuracy", "accuracy_interval", "agreement", "spikes_per_image")
    return list(zip(*(curve[name] for name in columns), strict=True))


_TIME = "T (timesteps since the first input)"


def charts(document: Document) -> dict[str, Spec | None]:
    return {"curve": _curve(document), "spikes": _spikes(document["fit_curve"])}


def _curve(document: Document) -> Spec | None:
    rows = [
        {"t": t, "accuracy": accuracy, "agreement": agreement, "spikes": spikes,
         "low": band[0] if band else None, "high": band[1] if band else None}
        for t, accuracy, band, agreement, spikes in _by_step(document["fit_curve"])
    ]  # fmt: skip
    styles = {"accuracy": ("SNN accuracy", BLUE, [1, 0]), "agreement": ("agreement with ANN", ORANGE, [5, 3])}
    lines = [
        {"t": row["t"], "series": text, "value": row[key]}
        for key, (text, *_) in styles.items() for row in rows if row[key] is not None
    ]  # fmt: skip
    points = anytime.points(document)
    if points:
        styles["alone"] = (anytime.series(document), TEAL, [8, 3])
        lines += [{**point, "series": styles["alone"][0]} for point in points]
    if not lines:
        return None
    lowest = min([line["value"] for line in lines] + [row["low"] for row in rows if row["low"] is not None])
    x = alt.X("t:Q").title(_TIME).scale(nice=False).axis(**step_ticks(rows))
    scale = alt.Scale(domain=[10 * int(lowest // 10), 100], nice=False)
    present = [style for style in styles.values() if any(line["series"] == style[0] for line in lines)]
    columns = 1 if points else 0  # three in a row are too wide for a phone
    names = [style[0] for style in present]
    layers: list[Any] = _band(rows, x, scale)
    layers.append(
        alt.Chart(data(lines))
        .mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=18) if len(rows) <= 40 else False)
        .encode(
            x=x,
            y=alt.Y("value:Q").scale(scale).title("images (%)"),
            color=alike("series", alt.Color, names, [style[1] for style in present]).legend(columns=columns),
            strokeDash=alike("series", alt.StrokeDash, names, [style[2] for style in present]).legend(columns=columns),
        )
    )
    if points:
        dots = alt.Chart(data(points)).mark_circle(size=55, color=TEAL, opacity=1)
        tip = tips("t:Q a network for T", "value:Q % | .2f")
        layers.append(dots.encode(x=x, y=alt.Y("value:Q").scale(scale), tooltip=tip))
    layers += _original(document, scale) + _marks(document, rows, x, scale)
    return finish(alt.layer(*layers, _near(rows, x)), 320)


def _band(rows: list[Spec], x: alt.X, scale: alt.Scale) -> list[Any]:
    if all(row["low"] is None for row in rows):
        return []
    band = alt.Chart(data(rows)).transform_filter("isValid(datum.low)").mark_area(color=BLUE, opacity=0.18)
    return [band.encode(x=x, y=alt.Y("low:Q").scale(scale).title("images (%)"), y2=alt.Y2("high:Q"))]


def _original(document: Document, scale: alt.Scale) -> list[Any]:
    ann = document["ann"]["accuracy"]
    if ann is None:
        return []
    rule = alt.Chart(data([{"ann": ann, "label": f"ANN {ann:.1f} %", "t": document["fit_curve"]["timesteps"][0]}]))
    y = alt.Y("ann:Q").scale(scale)
    name = rule.mark_text(align="left", dx=4, dy=-7, fontWeight=600)
    return [
        rule.mark_rule(color="currentColor", strokeDash=[2, 2], strokeWidth=1.4).encode(y=y),
        name.encode(x=alt.X("t:Q"), y=y, text=alt.Text("label:N")),
    ]


def _marks(document: Document, rows: list[Spec], x: alt.X, scale: alt.Scale) -> list[Any]:
    found = document["milestones"]
    steps = {found[name]: name.replace("_", " ") for name in POINTS}
    marks = [
        {"t": row["t"], "value": row[found["basis"]], "goal": steps[row["t"]]} for row in rows if row["t"] in steps
    ]
    if not marks:
        return []
    diamonds = alt.Chart(data(marks)).mark_point(
        shape="diamond", size=110, filled=True, color="currentColor", opacity=1
    )
    return [diamonds.encode(x=x, y=alt.Y("value:Q").scale(scale), tooltip=tips("goal:N from here on"))]


def _near(rows: list[Spec], x: alt.X) -> Any:
    """A rule with all figures of the step that is pointed at."""
    near = alt.selection_point(nearest=True, on="pointerover", fields=["t"], empty=False, clear="pointerout")
    names = {
        "accuracy": "accuracy (%) | .2f",
        "low": "95 % from | .2f",
        "high": "95 % to | .2f",
        "agreement": "agreement (%) | .2f",
        "spikes": "spikes per image | ,.0f",
    }
    known = [f"{key}:Q {text}" for key, text in names.items() if any(row[key] is not None for row in rows)]
    rule = alt.Chart(data(rows)).mark_rule(color="currentColor", strokeWidth=1).add_params(near)
    return rule.encode(x=x, opacity=alt.condition(near, alt.value(0.4), alt.value(0)), tooltip=tips("t:Q T", *known))


def _spikes(curve: Mapping[str, Any]) -> Spec | None:
    pairs = zip(curve["timesteps"], curve["spikes_per_image"], strict=True)
    rows = [{"t": t, "spikes": spikes} for t, spikes in pairs if spikes is not None]
    if not rows:
        return None
    area = alt.Chart(data(rows)).mark_area(
        color=GREY, opacity=0.35, line={"color": GREY}, point={"color": GREY} if len(rows) == 1 else False
    )
    chart = area.encode(
        x=alt.X("t:Q").title(_TIME).scale(nice=False).axis(**step_ticks(rows)),
        y=alt.Y("spikes:Q").title("spikes per image so far").axis(format="~s", tickCount=4),
        tooltip=tips("t:Q T", "spikes:Q spikes per image | ,.0f"),
    )
    return finish(chart, 130)


SECTION = Section(Keys, compute, "Accuracy over time", complete, blocks=blocks, charts=charts)
