from __future__ import annotations

import math

import pytest

from snnconvert.report import statistics
from snnconvert.tasks import METRICS
from snnconvert.tasks.intervals import wilson_interval


def test_knee_of_a_bent_line() -> None:
    steps = list(range(1, 21))
    values = [10.0 * min(t, 6) + 0.1 * t for t in steps]
    assert statistics.knee(steps, values) == 6
    assert statistics.knee(steps, [50.0] * 20) is None
    assert statistics.knee([1, 2, 3], [1.0, 2.0, 3.0]) is None


@pytest.mark.parametrize(("height", "tau", "power"), [(91.0, 3.0, 1.0), (75.0, 6.0, 0.7), (60.0, 2.0, 1.7)])
def test_plateau_from_early_steps(height: float, tau: float, power: float) -> None:
    steps = list(range(1, 13))
    values = [height * (1 - math.exp(-((t / tau) ** power))) for t in steps]
    found = statistics.plateau(steps, values)
    assert found is not None
    assert found.value == pytest.approx(height, abs=2.0)
    assert 0.5 <= found.reached <= 1.0


def test_plateau_says_nothing_where_it_cannot_know() -> None:
    assert statistics.plateau([1, 2, 3], [10.0, 20.0, 30.0]) is None
    assert statistics.plateau(list(range(1, 9)), [0.1 * t**2 for t in range(1, 9)]) is None


def test_rise_then_fall_needs_more_than_noise() -> None:
    def found(values: list[float], samples: int) -> statistics.Fall | None:
        bands = [wilson_interval(round(value * samples / 100), samples) for value in values]
        return statistics.rise_then_fall(METRICS["accuracy"], [1, 2, 3, 4], values, bands)

    fall = found([50.0, 90.0, 85.0, 80.0], 1000)
    assert fall is not None
    assert (fall.peak_t, fall.peak, fall.final) == (2, 90.0, 80.0)
    assert found([50.0, 90.0, 85.0, 80.0], 20) is None
    assert found([50.0, 90.0, 90.0, 89.7], 10**6) is None
    assert found([50.0, 60.0, 70.0, 80.0], 1000) is None


def test_an_error_that_rises_again_is_a_fall() -> None:
    values = [9.0, 3.0, 4.0, 6.0]
    near, wide = [[value - 1, value + 1] for value in values], [[0.0, 9.0]] * 4
    fall = statistics.rise_then_fall(METRICS["relative_error"], [1, 2, 3, 4], values, near)
    assert fall == statistics.Fall(2, 3.0, 6.0)
    assert statistics.rise_then_fall(METRICS["relative_error"], [1, 2, 3, 4], values, wide) is None


def test_log_slope_of_a_power_law() -> None:
    times = [1, 2, 4, 8, 16, 32]
    assert statistics.log_slope(times, [5.0 / t**2 for t in times]) == pytest.approx(-2.0)
    assert statistics.log_slope([32], [0.1]) is None
    assert statistics.log_slope([16, 32], [0.0, 0.0]) is None


def test_near_chance() -> None:
    assert statistics.near_chance(10.4, 10)
    assert not statistics.near_chance(40.0, 10)
    assert statistics.near_chance(51.0, 2)
    assert not statistics.near_chance(70.0, 2)
    assert statistics.near_chance(0.3, 1000)
