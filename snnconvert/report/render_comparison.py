"""A comparison of runs as one self-contained page: all curves in one chart, and the paired tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import altair as alt

from snnconvert.report import render_markdown
from snnconvert.report.blocks import Block, Chart, On, Table, Text, Title
from snnconvert.report.compare import HEAD, TEST_HEAD, cells
from snnconvert.report.drawing import BLUE, GREY, ORANGE, RED, TEAL, Spec, data, finish, tips
from snnconvert.report.render_html import page
from snnconvert.report.render_terminal import print_blocks, print_headline
from snnconvert.report.wording import clean

if TYPE_CHECKING:
    from rich.console import Console

# Pixels beside the first and the last answer: a run's only point would else lie on the axis.
_ROOM: dict[str, Any] = {"nice": False, "zero": False, "padding": 12}
_COLOURS = [BLUE, ORANGE, TEAL, RED, "#9a6ad6", "#7d9b2c", "#c0659a", GREY]


def render_comparison_html(comparison: Mapping[str, Any], *, static: bool = False) -> str:
    """The page of a comparison (see `compare.compare`); `static` as of `render_html.page`."""
    basis = _basis(comparison)
    specs = {"curves": _curves(comparison, basis), "costs": _costs(comparison, basis)}
    runs = comparison["runs"]
    return page(
        f"{len(runs)} spiking networks compared",
        f"Spiking networks compared: {', '.join(row['name'] for row in runs)}",
        headline(comparison),
        sentences=[Text(note) for note in comparison["notes"]],
        sections=sections(comparison),
        charts={name: spec for name, spec in specs.items() if spec is not None},
        static=static,
    )


def render_comparison(comparison: Mapping[str, Any]) -> str:
    """Both tables as Markdown."""
    notes = [Text(note, On.MARKDOWN) for note in comparison["notes"]]
    blocks = [block for _, part in sections(comparison) for block in part]
    return render_markdown.page("Spiking networks compared", "", [*blocks, *notes])


def print_comparison(comparison: Mapping[str, Any], console: Console) -> None:
    """Both tables in a terminal."""
    print_headline(headline(comparison), console)
    print_blocks([Text(f"note: {note}", On.TERMINAL, soft=True) for note in comparison["notes"]], console)
    print_blocks([block for _, part in sections(comparison) for block in part], console)


def sections(comparison: Mapping[str, Any]) -> list[tuple[str, list[Block]]]:
    """Heading and blocks of each part."""
    rows, tests = cells(comparison)
    basis = _basis(comparison)
    explained = (
        " Dashed: the original network’s accuracy. Bands: 95 % Wilson intervals."
        if basis == "accuracy"
        else " Without labels: how often the network decides as its original does."
    )
    over_time: list[Block] = [
        Text(f"Each step is one tick of the simulation, counted from the first input.{explained}", soft=True),
        Chart("curves", f"{basis} of every run over timesteps"),
        Title(f"{basis.capitalize()} against spikes"),
        Text("Each point is a step; further left is cheaper, higher is better.", soft=True),
        Chart("costs", f"{basis} of every run against spikes per image"),
    ]
    figures = (
        "Accuracy, drop and spikes at the last step. “T within 1”: the first T from which accuracy stays within a "
        "point of the ANN’s. Energy: SNN over INT8 ANN by estimate, from arithmetic only to memory without reuse."
    )
    paired = (
        "McNemar’s exact test on the images that only one of two runs classifies correctly, for every pair measured on "
        "the same images. “Difference” is in points of accuracy, the first minus the second, with its 95 % interval. "
        "“p, Holm” is adjusted for the number of tests: below 0.05 the difference is hardly chance."
    )
    short = "Differences are points of accuracy, the first minus the second; p by McNemar's exact test."
    differences: list[Block] = [Text(paired, soft=True), Table(TEST_HEAD, tests, On.ALL, left=(1,), folds=True)]
    return [
        ("Runs", [Text(figures, soft=True), Table(HEAD, rows, On.ALL, folds=True)]),
        (f"{basis.capitalize()} over time", over_time if _points(comparison, basis) else []),
        ("Which differences are real", [*differences, Text(short, On.MARKDOWN)] if tests else []),
    ]


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
    return tips("run:N run", "t:Q T", f"value:Q {basis} (%) | .2f", "spikes:Q spikes per image | ,.0f")


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
