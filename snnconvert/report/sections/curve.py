"""Accuracy over time, drawn and in words: the curve, the first T that come near the ANN, and what the curve says."""

from __future__ import annotations

from collections.abc import Sequence

from snnconvert.report import latency_chart
from snnconvert.report.blocks import Block, Chart, Drawing, Fold, On, Table, Text
from snnconvert.report.characters import plot
from snnconvert.report.section import Document, Section, Spec
from snnconvert.report.sections.curve_figures import Keys, complete, compute
from snnconvert.report.wording import DASH, at_time, bare, count, fixed, interval, measured, moment, percent, plural
from snnconvert.tasks import METRICS


def blocks(document: Document) -> Sequence[Block]:
    basis, goals = METRICS[document["milestones"]["basis"]], milestones(document)
    rows = [
        (goal, "not reached" if t is None else moment(document, t, bare=True), measured(basis, value), count(spikes))
        for goal, t, value, spikes in goals
    ]
    table: list[Block] = [Table(("goal, held to the end", "smallest T", basis.title, "spikes per image"), rows, On.ALL)]
    unknown = "" if rows else "The accuracy of the original network on these images is not known."
    return [
        Drawing(lambda width, ascii_only: plot(document, width=width, ascii_only=ascii_only)),
        *(table if rows else [Text(unknown)]),
        Text(" ".join(filter(None, (_sure(document), _course(document)))), soft=True),
        Fold(
            "Every step, and spikes over time",
            [Chart("spikes", "Spikes per image over timesteps"), _steps(document)],
        ),
    ]


def _sure(document: Document) -> str:
    """How far the images can be trusted."""
    pair, band = document["analysis"]["paired"], interval(document)
    if band is None:
        return ""
    used = METRICS[document["milestones"]["basis"]]
    text = (
        f"As far as {plural(document['evaluation']['samples'], 'image')} can tell, the true {used.title} lies between "
        f"{bare(used, band[0])} and {measured(used, band[1])} (95 % interval)"
    )
    if pair is not None:
        low, high = pair["drop_interval"]
        text += f", the true drop between {low:+.1f} and {high:+.1f} points (paired, McNemar p = {pair['p_value']:.2g})"
    return f"{text}."


def milestones(document: Document) -> list[tuple[str, int | None, float | None, float | None]]:
    """Rows (goal, T, value at T, spikes per image at T); none where the original's figure is not known."""
    found, curve = document["milestones"], document["fit_curve"]
    basis = METRICS[found["basis"]]
    if basis.name == "accuracy" and document["ann"]["accuracy"] is None:
        return []
    of = "the original" if basis.name == "accuracy" else "full agreement"
    rows = []
    for goal in sorted(found["goals"], key=lambda goal: goal["distance"]):
        far, t = goal["distance"], goal["T"]
        said = f"within {far:g} point{'' if far == 1 else 's'} of {of}"
        if basis.better == "lower":
            said = f"{basis.title} at most {far:g}{' %' * (basis.unit == '%')}"
        index = None if t is None else curve["timesteps"].index(t)
        value, spikes = (None if index is None else curve[name][index] for name in (basis.name, "spikes_per_image"))
        rows.append((said, t, value, spikes))
    return rows


def _course(document: Document) -> str:
    """Where the curve bends, and whether it has settled."""
    analysis = document["analysis"]
    bend = analysis["knee"]
    told = [f"The curve bends at {at_time(document, bend)}; later steps gain less each."] if bend else []
    if plateau := analysis["plateau"]:
        gain = plateau["value"] - analysis["final"]["value"]
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


def _steps(document: Document) -> Table:
    """Every figure that is known, with its interval, after each step."""
    curve = document["fit_curve"]
    known = [row for name, row in METRICS.items() if any(value is not None for value in curve.get(name) or [])]
    head = ["T"]
    for row in known:
        head += [f"{row.title}{', %' * (row.unit == '%')}", "95 %"]
    lines = []
    for index, t in enumerate(curve["timesteps"]):
        line = [moment(document, t, bare=True)]
        for row in known:
            band = curve[row.interval][index]
            line += [bare(row, curve[row.name][index], 2)]
            line += [" to ".join(bare(row, end, 2) for end in band) if band else DASH]
        lines.append([*line, count(curve["spikes_per_image"][index])])
    return Table((*head, "spikes per image"), lines, named=False)


def charts(document: Document) -> dict[str, Spec | None]:
    return {"curve": latency_chart.latency(document), "spikes": latency_chart.spikes(document)}


SECTION = Section(Keys, compute, "Over time", complete, blocks=blocks, charts=charts)
