"""A comparison of runs as one self-contained page: all curves in one chart, and the paired tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import altair as alt

from snnconvert.report.chart_style import BLUE, GREY, ORANGE, RED, Spec, data, finish
from snnconvert.report.compare import HEAD, TEST_HEAD, cells
from snnconvert.report.render_html import page
from snnconvert.report.wording import clean

# Pixels beside the first and the last answer: a run's only point would else lie on the axis.
_ROOM: dict[str, Any] = {"nice": False, "zero": False, "padding": 12}
_COLOURS = [BLUE, ORANGE, "#2f9e8a", RED, "#9a6ad6", "#7d9b2c", "#c0659a", GREY]


def render_comparison_html(comparison: Mapping[str, Any]) -> str:
    """The page of a comparison (see `compare.compare`)."""
    rows, tests = cells(comparison)
    basis = _basis(comparison)
    specs = {"curves": _curves(comparison, basis), "costs": _costs(comparison, basis)}
    return page(
        "comparison.html",
        {name: spec for name, spec in specs.items() if spec is not None},
        runs=comparison["runs"],
        names=[clean(row["name"]) for row in comparison["runs"]],
        headline=headline(comparison),
        notes=[clean(note) for note in comparison["notes"]],
        basis=basis,
        head=HEAD,
        rows=rows,
        test_head=TEST_HEAD,
        tests=tests,
    )


def headline(comparison: Mapping[str, Any]) -> str:
    """The best run, and whether it surely is the best, in a sentence."""
    basis = _basis(comparison)
    known = [row for row in comparison["runs"] if row[basis] is not None]
    if not known:
        return "None of the runs has an answer to compare."
    best = max(known, key=lambda row: row[basis])
    name = clean(best["name"])
    text = f"{name} has the highest {basis}, {best[basis]:.2f} % after {best['timesteps']} timesteps"
    against = [row for row in comparison["tests"] if best["name"] in (row["first"], row["second"])]
    if basis == "agreement" or not against:
        return f"{text}."
    untested = [row for row in against if row["p_value"] is None]
    open_ = [row for row in against if row["p_value"] is not None and row["p_holm"] >= 0.05]
    if len(untested) == len(against):
        return f"{text}; the runs did not see the same images, so the difference cannot be tested pair by pair."
    others = [clean(row["second"] if row["first"] == best["name"] else row["first"]) for row in open_]
    if others:
        return f"{text}; whether it really is better than {', '.join(others)} cannot be told from these images."
    return f"{text}; on the same images its lead is hardly chance (McNemar, p below 0.05 after Holm's correction)."


def _basis(comparison: Mapping[str, Any]) -> str:
    labelled = any(row["accuracy"] is not None for row in comparison["runs"])
    return "accuracy" if labelled else "agreement"


def _colour(comparison: Mapping[str, Any]) -> Any:
    names = [clean(row["name"]) for row in comparison["runs"]]
    shades = [_COLOURS[index % len(_COLOURS)] for index in range(len(names))]
    return alt.Color("run:N").scale(domain=names, range=shades).legend(columns=2, symbolOpacity=1)


def _points(comparison: Mapping[str, Any], basis: str) -> list[Spec]:
    found = []
    for row in comparison["runs"]:
        curve = row["curve"]
        bands = curve["accuracy_interval"] if basis == "accuracy" else [None] * len(curve["timesteps"])
        for t, value, spikes, band in zip(
            curve["timesteps"], curve[basis], curve["spikes_per_image"], bands, strict=True
        ):
            if value is not None:
                low, high = band or (None, None)
                found.append(
                    {"run": clean(row["name"]), "t": t, "value": value, "spikes": spikes, "low": low, "high": high}
                )
    return found


def _tips(basis: str) -> list[alt.Tooltip]:
    return [
        alt.Tooltip("run:N", title="run"),
        alt.Tooltip("t:Q", title="T"),
        alt.Tooltip("value:Q", title=f"{basis} (%)", format=".2f"),
        alt.Tooltip("spikes:Q", title="spikes per image", format=",.0f"),
    ]


def _curves(comparison: Mapping[str, Any], basis: str) -> Spec | None:
    rows = _points(comparison, basis)
    if not rows:
        return None
    lowest = min(row["value"] for row in rows)
    scale = alt.Scale(domain=[10 * int(lowest // 10), 100], nice=False, clamp=True)
    x = alt.X("t:Q").title("T (timesteps since the first input)").scale(**_ROOM).axis(tickMinStep=1, format="d")
    y = alt.Y("value:Q").scale(scale).title(f"{basis} (%)")
    colour = _colour(comparison)
    base = alt.Chart(data(rows)).encode(x=x, color=colour)
    layers = [
        base.transform_filter("isValid(datum.low)").mark_area(opacity=0.13).encode(
            y=alt.Y("low:Q").scale(scale).title(f"{basis} (%)"), y2="high:Q"
        ),
        base.mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=18) if len(rows) <= 120 else False).encode(
            y=y, tooltip=_tips(basis)
        ),
    ]  # fmt: skip
    answers = Counter(row["run"] for row in rows)
    if alone := [row for row in rows if answers[row["run"]] == 1]:  # no line and no band can show a single answer
        only = alt.Chart(data(alone)).encode(x=x, color=colour)
        ends = {"y": alt.Y("low:Q").scale(scale).title(f"{basis} (%)"), "y2": "high:Q"}
        layers.append(only.transform_filter("isValid(datum.low)").mark_rule(opacity=0.5).encode(**ends))
        layers.append(only.mark_circle(size=60, opacity=1).encode(y=y, tooltip=_tips(basis)))
    originals = [
        {"run": clean(row["name"]), "ann": row["ann_accuracy"]}
        for row in comparison["runs"]
        if row["ann_accuracy"] is not None and basis == "accuracy"
    ]
    if originals:
        rule = alt.Chart(data(originals)).mark_rule(strokeDash=[2, 2], strokeWidth=1.4)
        layers.append(rule.encode(y=alt.Y("ann:Q").scale(scale), color=colour))
    return finish(alt.layer(*layers), 340)


def _costs(comparison: Mapping[str, Any], basis: str) -> Spec | None:
    rows = [row for row in _points(comparison, basis) if row["spikes"]]
    if not rows:
        return None
    lowest = min(row["value"] for row in rows)
    scale = alt.Scale(domain=[10 * int(lowest // 10), 100], nice=False)
    chart = (
        alt.Chart(data(rows))
        .mark_line(strokeWidth=1.6, point=alt.OverlayMarkDef(size=22))
        .encode(
            x=alt.X("spikes:Q")
            .scale(type="log", nice=False, padding=12)
            .title("spikes per image so far")
            .axis(format="~s"),
            y=alt.Y("value:Q").scale(scale).title(f"{basis} (%)"),
            color=_colour(comparison),
            order="t:Q",
            tooltip=_tips(basis),
        )
    )
    return finish(chart, 280)
