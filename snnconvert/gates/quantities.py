"""The numbers of a report that gates judge, each with the interval that sampling leaves it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from snnconvert.errors import DataError, OptionError
from snnconvert.gates.expression import Quantity
from snnconvert.gates.limits import JUDGED
from snnconvert.tasks import METRICS, TASKS
from snnconvert.tasks.intervals import paired_drop_interval, wilson_interval

Document = Mapping[str, Any]


@dataclass(frozen=True)
class Quantities:
    """What is known of a report at one step, and why the rest is not."""

    known: dict[str, Quantity]
    unknown: dict[str, str]


def quantities(document: Document, at: int | None = None, baseline: Document | None = None) -> Quantities:
    """Everything in NAMES, at step `at` (the last one by default).

    Raises:
        OptionError: `at` is no step of the report.
        DataError: the baseline was measured on other images.
    """
    index = step_index(document, at)
    curve, samples = document["fit_curve"], document["evaluation"]["samples"]
    last = index == len(curve["timesteps"]) - 1
    found: dict[str, Quantity | str] = {
        "timesteps": Quantity.exact(curve["timesteps"][index]),
        "samples": Quantity.exact(samples),
        "warnings": Quantity.exact(len(document["warnings"])),
        "seconds": Quantity.exact(sum(document["timings"].values())),
        "first_output": _exact(document["latency"]["first_output"], "the report does not say"),
        "spikes": _exact(curve["spikes_per_image"][index], "there is no answer at this step"),
        "ann_accuracy": _share(document["ann"]["accuracy"], samples),
        **{name: _metric(document, metric, index) for name, metric in JUDGED.items()},
        "drop": _drop(document, index),
        "energy_ratio": _energy(document) if last else "energy is estimated for the last step only",
    }
    for name in ("firing_rate", "dead_share", "saturated_share"):
        values = [layer[name] for layer in document["layers"] if layer[name] is not None]
        found[name] = _exact(max(values, default=None), "no layer has it")
    found["spikes_per_image"] = found["spikes"]
    missing = "it needs a baseline report (--baseline)"
    found["spikes_ratio"] = missing
    found["accuracy_drop"] = found["drop"]
    if baseline is not None:
        _compare(document, baseline, index, at, found)
    return Quantities(
        {name: value for name, value in found.items() if isinstance(value, Quantity)},
        {name: value for name, value in found.items() if isinstance(value, str)},
    )


def step_index(document: Document, at: int | None) -> int:
    """The position of step `at` in the report's curve."""
    steps = document["fit_curve"]["timesteps"]
    if at is None:
        return len(steps) - 1
    if at not in steps:
        raise OptionError(
            f"--at {at} is no step of the report of {document['model']['name']}: it has {steps[0]} to {steps[-1]}",
            hint="choose one of its steps, or convert with more timesteps",
        )
    return int(steps.index(at))


def _exact(value: float | None, reason: str) -> Quantity | str:
    return reason if value is None else Quantity.exact(float(value))


def _share(percent: float | None, samples: int, reason: str = "the images have no labels") -> Quantity | str:
    if percent is None or not samples:
        return reason
    low, high = wilson_interval(min(samples, max(0, round(percent * samples / 100))), samples)
    return Quantity(percent, min(low, percent), max(high, percent))


def _metric(document: Document, name: str, index: int) -> Quantity | str:
    """A figure of the curve with its interval."""
    curve, metric = document["fit_curve"], METRICS[name]
    value = curve.get(name, [None] * (index + 1))[index]
    if value is not None:
        low, high = curve[metric.interval][index] or (value, value)
        return _around(value, low, high)
    task = TASKS[document["task"]["kind"]]
    if name not in task.metrics + task.truths:
        return f"a network for {task.kind} has none (--task changes that)"
    return "the images have no labels" if metric.truth else f"{metric.title} was not measured at this step"


def _drop(document: Document, index: int) -> Quantity | str:
    """Paired where the report has the counts; elsewhere the disagreements bound them, which widens the interval."""
    curve, samples = document["fit_curve"], document["evaluation"]["samples"]
    ann, accuracy = document["ann"]["accuracy"], curve["accuracy"][index]
    if ann is None or accuracy is None or not samples:
        without = _metric(document, "accuracy", index)
        return without if ann is None and isinstance(without, str) else "there is no answer at this step"
    known = document["analysis"]["drop_interval"]
    if known is not None and index == len(curve["timesteps"]) - 1:
        low, high = known
        return _around(ann - accuracy, low, high)
    if not TASKS[document["task"]["kind"]].counted:  # no image is right or wrong: the accuracy's own interval bounds it
        low, high = curve["accuracy_interval"][index] or (accuracy, accuracy)
        return _around(ann - accuracy, ann - high, ann - low)
    agreement = curve["agreement"][index]
    most = samples if agreement is None else round((100 - agreement) * samples / 100)
    return _difference(ann - accuracy, most, samples)


def _difference(points: float, discordant: int, samples: int) -> Quantity:
    """A paired drop of which only an upper bound on the discordant images is known."""
    difference = round(points * samples / 100)
    most = min(samples, max(discordant, abs(difference)))
    # An odd remainder is rounded towards the wider interval.
    first = min(samples, math.ceil((most + difference) / 2))
    second = min(samples - first, max(0, first - difference))
    low, high = paired_drop_interval(first, second, samples)
    return _around(points, low, high)


def _around(value: float, low: float, high: float) -> Quantity:
    return Quantity(value, min(low, value), max(high, value))


def _energy(document: Document) -> Quantity | str:
    rows = (document["energy"] or {}).get("rows", [])
    ratios = [row["ratio"] for row in rows if row["decides"] and row["ratio"] is not None]
    return _exact(max(ratios, default=None), "the report has no energy estimate")


def _compare(
    document: Document, baseline: Document, index: int, at: int | None, found: dict[str, Quantity | str]
) -> None:
    """Add what follows from the baseline report, judged at the same step (or at its own last one)."""
    print_now, print_then = document["evaluation"]["fingerprint"], baseline["evaluation"]["fingerprint"]
    samples = document["evaluation"]["samples"]
    if samples != baseline["evaluation"]["samples"] or print_now != print_then:
        raise DataError(
            f"the baseline was measured on {baseline['evaluation']['samples']} images that are not the "
            f"{samples} of this report",
            hint="measure both on the same images: the same --data, --limit and --seed",
        )
    before = step_index(baseline, at)
    spikes, spikes_then = found["spikes"], baseline["fit_curve"]["spikes_per_image"][before]
    if isinstance(spikes, Quantity) and spikes_then:
        found["spikes_ratio"] = Quantity.exact(spikes.value / spikes_then)
    else:
        found["spikes_ratio"] = "one of the two reports has no spikes at this step"
    now, then = document["fit_curve"]["accuracy"][index], baseline["fit_curve"]["accuracy"][before]
    if now is None or then is None:
        found["accuracy_drop"] = "one of the two reports has no accuracy at this step"
        return
    # Images that only one of the two SNNs gets right are among those that one of them decides unlike the ANN.
    agreements = [document["fit_curve"]["agreement"][index], baseline["fit_curve"]["agreement"][before]]
    most = samples
    if None not in agreements and document["model"]["sha256"] == baseline["model"]["sha256"]:
        most = sum(round((100 - agreement) * samples / 100) for agreement in agreements)
    found["accuracy_drop"] = _difference(then - now, most, samples)
