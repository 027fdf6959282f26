"""Target mode: the smallest total T at which a conversion keeps the accuracy asked for.

T is doubled until the gate holds, then narrowed between the last T that failed and the first that held. Every T is a
conversion of its own, calibrated for that T. The gate is judged on the measured figures, at the last step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from snnconvert.gates.limits import Gates

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
    """The most accurate attempt, of equals the shortest."""
    return max(
        tried, key=lambda one: ((one.document["analysis"]["final"] or {}).get("accuracy") or 0.0, -one.timesteps)
    )


def unreachable(best: Attempt | None, worst_layer: str | None) -> str:
    """Why no T holds, with the best that was found (None: no schedule ever fitted)."""
    if best is None:
        return "no schedule fits into any number of steps that was tried"
    accuracy = (best.document["analysis"]["final"] or {}).get("accuracy")
    reached = "unknown accuracy" if accuracy is None else f"{accuracy:.2f} % at T = {best.timesteps}"
    cause = f"; there {worst_layer}" if worst_layer else ""
    return f"unreachable up to T = {LARGEST}: the best is {reached}{cause}"
