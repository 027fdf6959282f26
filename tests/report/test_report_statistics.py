from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snnconvert.report import statistics


@pytest.mark.parametrize(
    ("successes", "samples", "expected"),
    [
        # Newcombe, Statistics in Medicine 1998, table I, method 3 (score interval without continuity correction).
        (81, 263, (25.53, 36.62)),
        (15, 148, (6.24, 16.05)),
        (0, 20, (0.0, 16.11)),
        (1, 29, (0.61, 17.18)),
    ],
)
def test_wilson_interval_of_published_examples(successes: int, samples: int, expected: tuple[float, float]) -> None:
    assert statistics.wilson_interval(successes, samples) == pytest.approx(expected, abs=0.006)


@given(st.integers(1, 20000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_holds_the_share_and_mirrors(pair: tuple[int, int]) -> None:
    successes, samples = pair
    low, high = statistics.wilson_interval(successes, samples)
    assert 0 <= low <= 100 * successes / samples <= high <= 100
    mirrored = statistics.wilson_interval(samples - successes, samples)
    assert (100 - mirrored[1], 100 - mirrored[0]) == pytest.approx((low, high), abs=1e-9)


def test_wilson_interval_refuses_what_is_no_proportion() -> None:
    for successes, samples in ((1, 0), (5, 4), (-1, 4)):
        with pytest.raises(ValueError, match="no proportion"):
            statistics.wilson_interval(successes, samples)


def test_mcnemar_equals_the_binomial_sum() -> None:
    for first, second in ((0, 0), (0, 5), (3, 9), (9, 3), (14, 10), (500, 520)):
        total, least = first + second, min(first, second)
        exact = min(1.0, 2 * sum(math.comb(total, k) for k in range(least + 1)) / 2**total)
        assert statistics.mcnemar_exact(first, second) == pytest.approx(exact, rel=1e-9)


def test_paired_interval_is_centred_near_the_drop_and_narrows() -> None:
    low, high = statistics.paired_drop_interval(30, 10, 1000)
    assert low < 2.0 < high
    wide = statistics.paired_drop_interval(3, 1, 100)
    assert wide[1] - wide[0] > 2 * (high - low)
    assert statistics.paired_drop_interval(7, 7, 1000) == pytest.approx((-0.757, 0.757), abs=0.01)


def test_paired_interval_covers_the_truth_about_95_times_of_100() -> None:
    rng = np.random.default_rng(3)
    draws = rng.multinomial(400, [0.05, 0.03, 0.92], size=2000)
    hits = [low <= 2.0 <= high for low, high in (statistics.paired_drop_interval(a, b, 400) for a, b, _ in draws)]
    assert 0.935 <= float(np.mean(hits)) <= 0.975


def test_smallest_holding_requires_every_later_step() -> None:
    steps = [1, 2, 3, 4, 5]
    assert statistics.smallest_holding(steps, [None, 90, 80, 91, 92], 89.0) == 4
    assert statistics.smallest_holding(steps, [None, 90, 91, 91, 92], 90.0) == 2
    assert statistics.smallest_holding(steps, [None, 90, 95, 91, 80], 90.0) is None
    assert statistics.smallest_holding(steps, [None] * 5, 0.0) is None


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
    steps = [1, 2, 3, 4]
    fall = statistics.rise_then_fall(steps, [50.0, 90.0, 85.0, 80.0], 1000)
    assert fall is not None
    assert (fall.peak_t, fall.peak, fall.final) == (2, 90.0, 80.0)
    assert statistics.rise_then_fall(steps, [50.0, 90.0, 85.0, 80.0], 20) is None
    assert statistics.rise_then_fall(steps, [50.0, 90.0, 90.0, 89.7], 10**6) is None
    assert statistics.rise_then_fall(steps, [50.0, 60.0, 70.0, 80.0], 1000) is None


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
