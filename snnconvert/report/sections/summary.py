"""The first screen: the figures in large, and accuracy against latency. The line above them is `report.verdict`'s."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict

from snnconvert.report import latency_chart
from snnconvert.report.blocks import Block, Chart, Notices, On, Table, Text, Tiles
from snnconvert.report.section import Document, Section, means
from snnconvert.report.sections import frontier, warnings
from snnconvert.report.verdict import answer_step, answers, at_step, metric, saving, span
from snnconvert.report.wording import bare, count, fixed, interval, measured, moment, percent, plural, share, times
from snnconvert.tasks import METRICS, TASKS
from snnconvert.tasks.intervals import holds_from

if TYPE_CHECKING:
    from snnconvert.report.measured import Measured


# figures in large: two rows on a phone
_MOST = 6


class Gates(TypedDict):
    status: Literal["passed", "failed", "cannot tell"]
    text: str


class Keys(TypedDict):
    gates: Annotated[Gates | None, means("conditions that were asked of this run")]
    next_commands: list[str]
    holds_from: Annotated[
        int | None,
        means(
            "the step from which the answer holds: fit_curve[milestones.basis] stays within the sampling error of its "
            "last value"
        ),
    ]


def compute(measured: Measured) -> dict[str, Any]:
    return {"gates": None, "next_commands": list(measured.next_commands)}


def complete(document: dict[str, Any]) -> None:
    document.setdefault("gates", None)
    document.setdefault("next_commands", [])
    document["holds_from"] = step_of_the_answer(document)
    for key in ("frontier", "capacity"):
        frontier.judge(document, key)


def step_of_the_answer(document: Document) -> int | None:
    """The step from which the answer holds."""
    curve, basis = document["fit_curve"], document["milestones"]["basis"]
    return holds_from(METRICS[basis], curve["timesteps"], curve[basis], curve[f"{basis}_interval"])


def blocks(document: Document) -> Sequence[Block]:
    """The first screen: what has to be known before anything is believed, the figures in large, and the picture."""
    found: list[Block] = [Tiles(_tiles(document))]
    if grave := warnings.rows(document, grave=True):
        found.insert(0, Notices(grave, On.PAGE, grave=True))
    found.append(Chart("curve", "Accuracy against latency; the numbers are in the tables below"))
    if document["analysis"]["final"] is not None:
        found += [Text(latency_chart.explained(document), soft=True), _figures(document)]
    return found


def _tiles(document: Document) -> list[tuple[str, str, str]]:
    """Name, value and remark of each figure that is known."""
    final, ann = document["analysis"]["final"], document["ann"]["accuracy"]
    if final is None:
        return [("original", percent(ann), "accuracy")] if ann is not None else []
    step, total, first = answer_step(document), document["latency"]["total"], document["latency"]["first_output"]
    used = metric(document)
    band, spikes = interval(document), final["spikes_per_image"]
    samples = plural(document["evaluation"]["samples"], "image")
    known = f"{samples}, 95 %: {bare(used, band[0])} to {bare(used, band[1])}" if band else samples
    figures = [(used.title, measured(used, final["value"]), known)]
    if used.name == "accuracy" and ann is not None:
        figures.append(("original network", percent(ann), _drop(document)))
    if len(answers(document)) > 1:
        latest = "" if first is None else f", first answer at {moment(document, first, bare=True)}"
        figures.append(
            ("answer holds from", moment(document, step), f"of {moment(document, total, bare=True)}{latest}")
        )
    else:
        figures.append(("answers once", f"step {step}", asked_for(document)))
    if (by_then := at_step(document, "spikes_per_image", step)) is not None:
        remarks = [f"{count(spikes)} in all {total} steps"] * (step < total) + _only_add(document)
        figures.append(("spikes an image", count(by_then), "; ".join(remarks)))
    figures += _others(document, final["t"])[: _MOST - 1 - len(figures)]
    if (spent := saving(document)) is not None:
        usual = "" if spent.likely is None else f"; {times(spent.likely)} with weights reused"
        figures.append(("energy", f"{span(spent.low, spent.high).replace(' to ', '–')} ×", f"{spent.against}{usual}"))
    return figures


def _only_add(document: Document) -> list[str]:
    """The share of operations that multiply nothing, in words."""
    counts = (document["energy"] or {}).get("operations")
    if not counts or not counts["snn_additions"] + counts["snn_multiplications"]:
        return []
    whole = counts["snn_additions"] + counts["snn_multiplications"]
    return [f"{share(counts['snn_additions'] / whole)} of operations only add"]


def _others(document: Document, step: int) -> list[tuple[str, str, str]]:
    """The other figures that the task has, at the last answer, beside the original's where that has them."""
    curve, shown = document["fit_curve"], metric(document).name
    found = []
    task = TASKS[document["task"]["kind"]]
    for name in (*task.metrics, *task.truths):
        row = METRICS[name]
        if name != shown and curve.get(name) and (value := at_step(document, name, step)) is not None:
            original = document["ann"].get(name) if row.truth else None
            remark = "" if original is None else f"original {measured(row, original)}"
            title, _, of = row.title.partition(" with ")  # a tile is narrow
            found.append((title, measured(row, value), remark or f"with {of}" * bool(of)))
    return found


def asked_for(document: Document) -> str:
    """The budget where the network takes less of it."""
    asked, total = document["latency"].get("asked"), document["latency"]["total"]
    return f"of the {asked} asked for" if asked and asked > total else ""


def _drop(document: Document) -> str:
    """The drop with its interval, the images being the same."""
    drop, pair = document["analysis"]["final"]["drop"], document["analysis"]["paired"]
    if drop is None:
        return ""
    told = f"drop {fixed(drop, 1)}"
    if pair is None:
        return f"{told} points"
    low, high = pair["drop_interval"]
    return f"{told}, 95 %: {low:+.1f} to {high:+.1f}"


def _figures(document: Document) -> Table:
    final = document["analysis"]["final"]
    cells = (
        percent(document["ann"]["accuracy"], 2),
        percent(final["accuracy"], 2),
        fixed(final["drop"], 2),
        percent(final["agreement"], 2),
        str(final["t"]),
        count(final["spikes_per_image"]),
    )
    head = ("ANN", "SNN", "drop, points", "agreement", "T", "spikes per image")
    return Table(head, [cells], On.MARKDOWN)


SECTION = Section(Keys, compute, "", complete, blocks=blocks)
