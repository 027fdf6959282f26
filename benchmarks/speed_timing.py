"""Timing of contestants that take turns, so that a busy machine slows all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

Row = dict[str, Any]
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
# seconds between contestants, in which threads that wait for more work of the last one give up
PAUSE = 0.02


class Stopwatch:
    """Measures by wall time, or processor time (`cpu`) for busy machines; at most `budget` seconds a comparison."""

    def __init__(self, clock: str, rounds: int, budget: float) -> None:
        self.now, self.rounds, self.budget = CLOCKS[clock], rounds, budget

    def seconds(self, run: Callable[[], Any]) -> float:
        """How long one call takes."""
        time.sleep(PAUSE)
        start = self.now()
        run()
        return self.now() - start

    @torch.inference_mode()
    def paired(self, runs: dict[str, Callable[[], Any]]) -> dict[str, list[float]]:
        """Seconds of every contestant in every round, after one that warms up; fewer rounds where they take long."""
        start = time.perf_counter()
        seconds = {name: [self.seconds(run)] for name, run in runs.items()}
        each = time.perf_counter() - start
        for _ in range(max(1, min(self.rounds, int(self.budget / each) - 1))):
            for name, run in runs.items():
                seconds[name].append(self.seconds(run))
        return {name: values[1:] for name, values in seconds.items()}


def over(seconds: dict[str, list[float]], one: str, other: str, factor: float = 1.0) -> float:
    """Median over the rounds of the time of `one` over `factor` times that of `other`."""
    return statistics.median(a / (factor * b) for a, b in zip(seconds[one], seconds[other], strict=True))
