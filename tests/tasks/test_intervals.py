from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snnconvert.tasks import METRICS, intervals


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
    assert intervals.wilson_interval(successes, samples) == pytest.approx(expected, abs=0.006)


@given(st.integers(1, 20000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_holds_the_share_and_mirrors(pair: tuple[int, int]) -> None:
    successes, samples = pair
    low, high = intervals.wilson_interval(successes, samples)
    assert 0 <= low <= 100 * successes / samples <= high <= 100
    mirrored = intervals.wilson_interval(samples - successes, samples)
    assert (100 - mirrored[1], 100 - mirrored[0]) == pytest.approx((low, high), abs=1e-9)


def test_wilson_interval_refuses_what_is_no_proportion() -> None:
    for successes, samples in ((1, 0), (5, 4), (-1, 4)):
        with pytest.raises(ValueError, match="no proportion"):
            intervals.wilson_interval(successes, samples)


def test_mcnemar_equals_the_binomial_sum() -> None:
    for first, second in ((0, 0), (0, 5), (3, 9), (9, 3), (14, 10), (500, 520)):
        total, least = first + second, min(first, second)
        exact = min(1.0, 2 * sum(math.comb(total, k) for k in range(least + 1)) / 2**total)
        assert intervals.mcnemar_exact(first, second) == pytest.approx(exact, rel=1e-9)


def test_paired_interval_is_centred_near_the_drop_and_narrows() -> None:
    low, high = intervals.paired_drop_interval(30, 10, 1000)
    assert low < 2.0 < high
    wide = intervals.paired_drop_interval(3, 1, 100)
    assert wide[1] - wide[0] > 2 * (high - low)
    assert intervals.paired_drop_interval(7, 7, 1000) == pytest.approx((-0.757, 0.757), abs=0.01)


def test_paired_interval_covers_the_truth_about_95_times_of_100() -> None:
    rng = np.random.default_rng(3)
    draws = rng.multinomial(400, [0.05, 0.03, 0.92], size=2000)
    hits = [low <= 2.0 <= high for low, high in (intervals.paired_drop_interval(a, b, 400) for a, b, _ in draws)]
    assert 0.935 <= float(np.mean(hits)) <= 0.975


def test_smallest_reaching_requires_every_later_step() -> None:
    steps = [1, 2, 3, 4, 5]
    assert intervals.smallest_reaching(METRICS["accuracy"], steps, [None, 90, 80, 91, 92], 89.0) == 4
    assert intervals.smallest_reaching(METRICS["accuracy"], steps, [None, 90, 91, 91, 92], 90.0) == 2
    assert intervals.smallest_reaching(METRICS["accuracy"], steps, [None, 90, 95, 91, 80], 90.0) is None
    assert intervals.smallest_reaching(METRICS["accuracy"], steps, [None] * 5, 0.0) is None
    errors = METRICS["relative_error"]
    assert intervals.smallest_reaching(errors, steps, [None, 9, 4, 5, 3], 5.0) == 3
    assert intervals.smallest_reaching(errors, steps, [None, 9, 4, 5.1, 3], 5.0) == 5


def test_the_answer_holds_from_where_it_stays_within_the_error_of_the_last() -> None:
    steps, band = [1, 2, 3, 4], [None, None, None, [88.0, 94.0]]
    assert intervals.holds_from(METRICS["accuracy"], steps, [None, 88.5, 95.0, 91.0], band) == 2
    assert intervals.holds_from(METRICS["accuracy"], steps, [None, 88.5, 87.0, 91.0], band) == 4
    assert intervals.holds_from(METRICS["relative_error"], steps, [99.0, 93.0, 95.0, 91.0], band) == 4
    assert intervals.holds_from(METRICS["accuracy"], steps, [None] * 4, [None] * 4) is None


def test_ratio_interval_covers_the_truth_about_95_times_of_100() -> None:
    rng = np.random.default_rng(5)
    under = rng.gamma(4.0, size=(1000, 200))
    over = 0.3 * under * rng.gamma(6.0, 1 / 6.0, size=under.shape)
    ratio, half = intervals.ratio_interval(over, under)
    assert 0.92 <= float((np.abs(ratio - 0.3) <= half).mean()) <= 0.97
    assert np.isnan(intervals.ratio_interval(over[:1, :1], under[:1, :1])[1]).all()
