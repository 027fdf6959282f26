"""Runs side by side: accuracy, cost and, where two runs saw the same images, a paired test of their difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from snnconvert.report import wording
from snnconvert.report.outcomes import of_document
from snnconvert.tasks.intervals import mcnemar_exact, paired_drop_interval

SCHEMA = "snnconvert-comparison/1"
HEAD = ("run", "ANN", "SNN", "drop", "T", "T within 1", "spikes per image", "energy / INT8", "saves energy")
TEST_HEAD = ("pair", "images", "only the first right", "only the second right", "difference", "95 %", "p", "p, Holm")


def compare(runs: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """A JSON-able comparison of named reports: one row a run, one test a pair.

    `tests` holds McNemar's exact test for every pair of runs on the same images (by fingerprint), with p also adjusted
    for the number of tests (Holm); `reason` says why a pair has none. `notes` names reports that are the same.
    """
    tests: list[dict[str, Any]] = [_test(first, second) for first, second in combinations(runs, 2)]
    _adjust([row for row in tests if row["p_value"] is not None])
    rows = [_row(name, document) for name, document in runs]
    return {"schema": SCHEMA, "runs": rows, "tests": tests, "notes": _notes(runs)}


def _notes(runs: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    pairs = [(one, two) for (one, left), (two, right) in combinations(runs, 2) if left == right]
    return [f"{one} and {two} are the same report: comparing them says nothing." for one, two in pairs]


def _row(name: str, document: Mapping[str, Any]) -> dict[str, Any]:
    final = document["analysis"]["final"] or {}
    estimate = document["energy"] or {}
    ratios = [row["ratio"] for row in estimate.get("rows", []) if row["decides"] and row["baseline"].startswith("INT8")]
    return {
        "name": name,
        "model": document["model"]["name"],
        "samples": document["evaluation"]["samples"],
        "ann_accuracy": document["ann"]["accuracy"],
        "accuracy": final.get("accuracy"),
        "agreement": final.get("agreement"),
        "task": document["task"]["kind"],
        "metric": document["milestones"]["basis"],
        "value": final.get("value"),
        "holds_from": document["holds_from"],
        "drop": final.get("drop"),
        "timesteps": document["latency"]["total"],
        "within_1": document["milestones"]["within_1"],
        "spikes_per_image": final.get("spikes_per_image"),
        "energy_ratio": [min(ratios), max(ratios)] if ratios else None,
        "verdict": (estimate.get("verdict") or {}).get("code"),
        "calibration": document["calibration"]["method"],
        "schedule": document["schedule"]["kind"],
        "curve": document["fit_curve"],
    }


def _test(first: tuple[str, Mapping[str, Any]], second: tuple[str, Mapping[str, Any]]) -> dict[str, Any]:
    (left_name, left), (right_name, right) = first, second
    row: dict[str, Any] = {"first": left_name, "second": right_name, "p_value": None, "reason": None}
    if left["evaluation"]["fingerprint"] is None or (
        left["evaluation"]["fingerprint"] != right["evaluation"]["fingerprint"]
    ):
        return {**row, "reason": "not the same images"}
    one, two = of_document(left), of_document(right)
    if one is None or two is None or len(one) != len(two):
        return {**row, "reason": "no answers image by image (unlabelled, or an older report)"}
    only_first, only_second = int((one & ~two).sum()), int((two & ~one).sum())
    low, high = paired_drop_interval(only_first, only_second, len(one))
    return {
        **row,
        "samples": len(one),
        "first_only": only_first,
        "second_only": only_second,
        "difference": 100.0 * (only_first - only_second) / len(one),
        "interval": [low, high],
        "p_value": mcnemar_exact(only_first, only_second),
    }


def _adjust(tests: list[dict[str, Any]]) -> None:
    largest = 0.0
    for rank, row in enumerate(sorted(tests, key=lambda row: float(row["p_value"]))):
        largest = max(largest, min(1.0, (len(tests) - rank) * row["p_value"]))
        row["p_holm"] = largest


def cells(comparison: Mapping[str, Any]) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """The rows of both tables as text, under HEAD and TEST_HEAD."""
    verdicts = {"saves": "yes", "does_not_save": "no", "cannot_tell": "cannot tell", None: wording.DASH}
    rows: list[tuple[str, ...]] = [
        (
            wording.clean(row["name"]),
            wording.percent(row["ann_accuracy"], 2),
            wording.percent(row["accuracy"], 2),
            wording.fixed(row["drop"], 2),
            str(row["timesteps"]),
            wording.DASH if row["within_1"] is None else str(row["within_1"]),
            wording.count(row["spikes_per_image"]),
            wording.DASH if row["energy_ratio"] is None else " to ".join(wording.times(r) for r in row["energy_ratio"]),
            verdicts[row["verdict"]],
        )
        for row in comparison["runs"]
    ]
    tests: list[tuple[str, ...]] = []
    for row in comparison["tests"]:
        pair = f"{wording.clean(row['first'])} against {wording.clean(row['second'])}"
        if row["p_value"] is None:
            tests.append((pair, row["reason"], *[wording.DASH] * (len(TEST_HEAD) - 2)))
            continue
        low, high = row["interval"]
        tests.append(
            (
                pair,
                f"{row['samples']:,}",
                str(row["first_only"]),
                str(row["second_only"]),
                f"{row['difference']:+.2f}",
                f"{low:+.2f} to {high:+.2f}",
                wording.short(row["p_value"]),
                wording.short(row["p_holm"]),
            )
        )
    return rows, tests
