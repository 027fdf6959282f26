"""What was found, in one line: page, terminal, Markdown, zoo and pull requests all say this one.

The line speaks of the step from which the answer holds: spikes and energy are those of a user who stops there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from snnconvert.report.section import Document
from snnconvert.report.statistics import near_chance
from snnconvert.report.wording import count, measured, milliseconds, moment, percent, plural, spoken, times
from snnconvert.tasks import METRICS, Metric

# a drop surely larger than this many points makes a saving worthless
_LARGE_DROP = 2.0
# a difference of less than so many points is none, in figures of one decimal
_NONE = 0.05
REUSED = "with memory, weights reused"


class Saving(NamedTuple):
    """The energy by one step: what decides, in multiples of an ANN's.

    Attributes:
        low: the least of all comparisons that count.
        high: the largest.
        against: the ANN of these.
        likely: against an 8-bit ANN that reuses its weights from memory, as accelerators do; None if not estimated.
        decides: what makes the difference between low and high; empty where it does not matter.
    """

    low: float
    high: float
    against: str
    likely: float | None
    decides: str


def verdict(document: Document) -> str:
    """A failed gate, the metric beside the original's, the step from which it holds, spikes, and energy."""
    gates, final = document["gates"], document["analysis"]["final"]
    failed = f"Gate failed: {gates['text'].rstrip('.')}. " if gates and gates["status"] == "failed" else ""
    if final is None:
        asked = plural(document["latency"]["total"], "step")
        return spoken(document, f"{failed}No answer that could be measured within {asked}")
    step = answer_step(document)
    spikes = at_step(document, "spikes_per_image", step)
    parts = [f"{_quality(document)}, {_when(document, step)}"]
    parts += [f"{count(spikes)} spikes an image"] if spikes is not None else []
    parts += [energy_words(document)]
    return spoken(document, failed + "; ".join(filter(None, parts)))


def _quality(document: Document) -> str:
    """The metric at the last answer, and how it compares."""
    used, final = metric(document), document["analysis"]["final"]
    value = measured(used, final["value"])
    if used.name != "accuracy":
        return used.said.format(value=value)
    if document["task"]["kind"] == "segmentation":
        value += " of the pixels right"
    ann, drop = document["ann"]["accuracy"], final["drop"]
    if ann is None or drop is None:
        seen = plural(document["evaluation"]["samples"], "image")
        return f"{value} in {seen}" if "pixels" in value else f"{value} of {seen} right"
    told = f"{value}, {difference(drop)} the original ({percent(ann)}{_by_chance(document)})"
    classes = document["evaluation"]["classes"]
    return told + (f", which only guesses among {classes} classes" if guesses(document) else "")


def guesses(document: Document) -> bool:
    """Whether the original is hardly better than chance, so that no answer of either network means anything."""
    ann, classes = document["ann"]["accuracy"], document["evaluation"]["classes"]
    return ann is not None and bool(classes) and near_chance(ann, classes)


def difference(drop: float) -> str:
    """`like`, `0.5 points below`, `0.3 points above`."""
    return "like" if abs(drop) < _NONE else f"{abs(drop):.1f} points {'below' if drop > 0 else 'above'}"


def _by_chance(document: Document) -> str:
    """Said of a difference that may be chance."""
    pair, drop = document["analysis"]["paired"], document["analysis"]["final"]["drop"]
    if pair is None or abs(drop) < _NONE:
        return ""
    low, high = pair["drop_interval"]
    return ", within chance" if low <= 0 <= high else ""


def _when(document: Document, step: int) -> str:
    latency = document["latency"]
    total, asked = latency["total"], latency.get("asked") or latency["total"]
    whole = moment(document, total, bare=True)
    limit = f" of {whole}" if asked <= total else f" of the {moment(document, asked, bare=True)} asked for"
    after = f"after {plural(step, 'step') if milliseconds(document) is None else moment(document, step)}"
    if len(answers(document)) == 1:
        return f"at {moment(document, step)}{limit}" if step < max(total, asked) else after
    return f"from {moment(document, step)}{limit}" if step < total else after


def answers(document: Document) -> list[int]:
    """The steps after which there is an answer."""
    curve, key = document["fit_curve"], metric(document).name
    return [t for t, value in zip(curve["timesteps"], curve[key], strict=True) if value is not None]


def answer_step(document: Document) -> int:
    """The step from which the answer holds; the last answer's where that is not known, or means nothing."""
    held: int | None = document["holds_from"]
    return int(document["analysis"]["final"]["t"]) if held is None or guesses(document) else held


def metric(document: Document) -> Metric:
    """What the report is about: accuracy where it is known, else the task's figure against the original network."""
    return METRICS[document["milestones"]["basis"]]


def at_step(document: Document, key: str, step: int) -> float | None:
    """A value of the curve after `step`."""
    curve = document["fit_curve"]
    found: float | None = curve[key][curve["timesteps"].index(step)]
    return found


def lost(document: Document) -> bool:
    """Whether something was lost that a user would ask the reason of, or nobody knows.

    That is a failed gate, or missing the nearest goal, unless that is less than a point and may be chance.
    """
    gates, goals, pair = document["gates"], document["milestones"]["goals"], document["analysis"]["paired"]
    if gates and gates["status"] == "failed":
        return True
    missed = min(goals, key=lambda goal: goal["distance"])["T"] is None
    chance = pair is not None and pair["drop_interval"][0] <= 0 and document["analysis"]["final"]["drop"] < 1
    return missed and not chance


# --- energy ---


def saving(document: Document) -> Saving | None:
    """What the network needs by the step from which its answer holds; None without an estimate."""
    found, final = document["energy"], document["analysis"]["final"]
    if not found or final is None:
        return None
    ratios = _ratios(found, answer_step(document))
    if not ratios:
        return None
    eight = {scope: ratio for (baseline, scope), ratio in ratios.items() if baseline.startswith("INT8")}
    every, against = list(ratios.values()), "an integer ANN"
    # The narrower comparison is told where it says the same.
    if eight and _side(eight.values()) == _side(every):
        every, against = list(eight.values()), "an 8-bit ANN"
    decides = ""
    if _side(every) == 0:
        decides = "memory" if _side(eight.values()) == 0 else "the ANN's width"
    return Saving(min(every), max(every), against, eight.get(REUSED), decides)


def _side(ratios: object) -> int:
    """-1 if all are below 1, 1 if all are above, else 0."""
    values = list(ratios)  # type: ignore[call-overload]
    return -1 if values and max(values) < 1 else 1 if values and min(values) > 1 else 0


def _ratios(found: Mapping[str, object], step: int) -> dict[tuple[str, str], float]:
    """SNN over ANN by (baseline, scope), what counts only; by `step` where that was counted, else over all steps."""
    spent = found.get("over_time")
    rows: list[tuple[str, str, float | None]]
    if isinstance(spent, Mapping) and step in spent["timesteps"]:
        index = spent["timesteps"].index(step)
        rows = [(row["baseline"], row["scope"], row["ratio"][index]) for row in spent["rows"]]
        rows = [row for row in rows if not row[0].startswith("fp32")]
    else:
        listed = found["rows"]
        assert isinstance(listed, list)
        rows = [(row["baseline"], row["scope"], row["ratio"]) for row in listed if row["decides"]]
    return {(baseline, scope): ratio for baseline, scope, ratio in rows if ratio is not None}


def energy_words(document: Document) -> str:
    """`energy: cannot tell, 0.17 to 1.8 times an 8-bit ANN (memory decides; 1.8 with weights reused, as is usual)`.

    A saving is only claimed for a network that still does its task: not after a failed gate, nor for a drop that is
    surely larger than two points, nor for a network that hardly does better than guessing. Empty without an estimate,
    and where the original itself guesses.
    """
    found = saving(document)
    if found is None or any(row["code"] == "ann_near_chance" for row in document["warnings"]):
        return ""
    if found.high < 1:
        but = _worthless(document)
        less = f"energy: {span(1 / found.high, 1 / found.low)} times less than {found.against}"
        return less + (f", but it {but}" if but else "")
    of = f"{span(found.low, found.high)} times {found.against}"
    if found.low > 1:
        return f"energy: no saving, {of}"
    return f"energy: cannot tell, {of}{f' ({likely_words(found)})' if found.decides else ''}"


def likely_words(found: Saving) -> str:
    """What decides, and the case that a user most likely has."""
    usual = "" if found.likely is None else f"; {times(found.likely)} with weights reused, the usual case"
    return f"{found.decides} decides{usual}"


def span(low: float, high: float) -> str:
    """`0.17 to 1.8`, `2` where both read alike."""
    return " to ".join(dict.fromkeys((times(low), times(high))))


def _worthless(document: Document) -> str | None:
    """Why a saving is worth nothing; None if it is worth something."""
    gates, pair, final = document["gates"], document["analysis"]["paired"], document["analysis"]["final"]
    if gates and gates["status"] == "failed":
        return "failed its gate"
    if (pair["drop_interval"][0] if pair else (final["drop"] or 0.0)) > _LARGE_DROP:
        return "is no longer as accurate"
    classes, accuracy = document["evaluation"]["classes"], final["accuracy"]
    if classes and accuracy is not None and near_chance(accuracy, classes):
        return "hardly does better than guessing"
    return None
