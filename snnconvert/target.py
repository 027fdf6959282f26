"""Target mode: the smallest total T at which a conversion keeps the accuracy asked for.

T is doubled until the gate holds, then narrowed between the last T that failed and the first that held. Every T is a
conversion of its own, calibrated for that T. The gate is judged on the measured figures, at the last step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from snnconvert.gates.limits import Gates
from snnconvert.tasks import METRICS

FIRST, LARGEST = 2, 256
# T is narrowed to within this share of itself: 33 instead of 32 steps is no find.
FINENESS = 0.1


@dataclass(frozen=True)
class Attempt:
    """One T that was tried: whether it held, and its report."""

    timesteps: int
    holds: bool
    document: dict[str, Any]

    def row(self) -> dict[str, Any]:
        """Its row among the report's candidates."""
        final = self.document["analysis"]["final"] or {}
        return {
            "name": f"T = {self.timesteps}",
            "eligible": self.holds,
            "reason": None if self.holds else "misses the target",
            "agreement": final.get("agreement"),
            "value": self.document["fit_curve"][self.document["fit_curve"]["metric"]][-1],
            "timesteps": self.document["latency"]["total"],
            "spikes_per_image": final.get("spikes_per_image"),
            "chosen": False,
            "options": {"accuracy": final.get("accuracy")},
        }


def smallest(
    attempt: Callable[[int], Attempt | None], *, largest: int = LARGEST
) -> tuple[Attempt | None, list[Attempt]]:
    """The attempt with the smallest T that holds (None if none does up to `largest`), and all attempts.

    Args:
        attempt: tries one T; None where no schedule fits into it.
    """
    tried: list[Attempt] = []
    failed, timesteps = 0, FIRST
    best: Attempt | None = None

    def holding(steps: int) -> Attempt | None:
        found = attempt(steps)
        tried.extend([found] if found is not None else [])
        return found if found is not None and found.holds else None

    while best is None and timesteps <= largest:
        best = holding(timesteps)
        if best is None:
            failed, timesteps = timesteps, 2 * timesteps
    while best is not None and best.timesteps - failed > max(1, FINENESS * best.timesteps):
        middle = (best.timesteps + failed) // 2
        found = holding(middle)
        if found is None:
            failed = middle
        else:
            best = found
    return best, tried


def beyond_the_original(document: Mapping[str, Any], gates: Gates) -> str | None:
    """What to say where more accuracy is asked for than the original network has."""
    accuracy, asked = document["ann"]["accuracy"], gates.min_accuracy
    if accuracy is None or asked is None or accuracy >= asked:
        return None
    return f"the original network itself has {accuracy:.2f} % on these images, --min-accuracy asks for {asked:g} %"


def best_of(tried: list[Attempt]) -> Attempt:
    """The best attempt by the figure that the report judges by, of equals the shortest."""

    def merit(one: Attempt) -> tuple[float, int]:
        value = (one.document["analysis"]["final"] or {}).get("value")
        gain = METRICS[one.document["milestones"]["basis"]].gain
        return -math.inf if value is None else gain(value, 0.0), -one.timesteps

    return max(tried, key=merit)


def reached(document: Mapping[str, Any]) -> str:
    """The figure that the report judges by, for instance "accuracy 98.20 %"."""
    metric, final = METRICS[document["milestones"]["basis"]], document["analysis"]["final"]
    if final is None or final["value"] is None:
        return f"unknown {metric.title}"
    return f"{metric.title} {final['value']:.2f} {metric.unit}".rstrip()


def unreachable(best: Attempt | None, worst_layer: str | None) -> str:
    """Why no T holds, with the best that was found (None: no schedule ever fitted)."""
    if best is None:
        return "no schedule fits into any number of steps that was tried"
    cause = f"; there {worst_layer}" if worst_layer else ""
    return f"unreachable up to T = {LARGEST}: the best is {reached(best.document)} at T = {best.timesteps}{cause}"
