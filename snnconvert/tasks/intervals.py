"""How sure one can be of a figure that was measured on a sample. Pure functions; shares are percent (0..100)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from snnconvert.tasks import Metric

Values = Sequence[float | None]
Pairs = Sequence[Sequence[float] | None]

# 97.5 % quantile of the normal distribution: two-sided 95 % intervals.
Z_95 = 1.959963984540054


def wilson_interval(successes: int, samples: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson score interval of a proportion, in percent.

    Raises:
        ValueError: if `successes` is outside 0..samples, or there are no samples.
    """
    if samples <= 0 or not 0 <= successes <= samples:
        raise ValueError(f"{successes} successes of {samples} samples is no proportion")
    share = successes / samples
    scale = 1.0 + z * z / samples
    middle = (share + z * z / (2 * samples)) / scale
    half = z / scale * math.sqrt(share * (1.0 - share) / samples + z * z / (4.0 * samples * samples))
    # At the ends the interval touches 0 or 100 exactly; rounding must not push it past the measured share.
    low = 0.0 if successes == 0 else max(0.0, middle - half)
    high = 1.0 if successes == samples else min(1.0, middle + half)
    return 100.0 * low, 100.0 * high


def mcnemar_exact(first_only: int, second_only: int) -> float:
    """Two-sided exact McNemar test: p value for "both networks err equally often" on the same images.

    Args:
        first_only: images that only the first network classifies correctly.
        second_only: images that only the second network classifies correctly.
    """
    if first_only < 0 or second_only < 0:
        raise ValueError("counts cannot be negative")
    discordant = first_only + second_only
    if discordant == 0:
        return 1.0
    log_half = discordant * math.log(2.0)
    tail = sum(math.exp(_log_choose(discordant, k) - log_half) for k in range(min(first_only, second_only) + 1))
    return min(1.0, 2.0 * tail)


def _log_choose(total: int, chosen: int) -> float:
    return math.lgamma(total + 1) - math.lgamma(chosen + 1) - math.lgamma(total - chosen + 1)


def paired_drop_interval(ann_only: int, snn_only: int, samples: int, z: float = Z_95) -> tuple[float, float]:
    """95 % interval of the accuracy drop (ANN minus SNN, in points) from paired answers.

    Agresti and Min (Statistics in Medicine 2005): half an image is added to each of the four cells. Much narrower
    than comparing two separate intervals, because most images are easy or hard for both networks.
    """
    if samples <= 0 or ann_only < 0 or snn_only < 0 or ann_only + snn_only > samples:
        raise ValueError(f"{ann_only} and {snn_only} of {samples} images are no paired counts")
    first, second, total = ann_only + 0.5, snn_only + 0.5, samples + 2.0
    drop = (first - second) / total
    half = z * math.sqrt(max(0.0, first + second - (first - second) ** 2 / total)) / total
    return 100.0 * max(-1.0, drop - half), 100.0 * min(1.0, drop + half)


def holds_from(metric: Metric, steps: Sequence[int], values: Values, intervals: Pairs) -> int | None:
    """The step from which a curve stays as good as its last value, within the sampling error of that.

    Args:
        metric: which direction is better.
        steps, values: the curve; None before the first answer.
        intervals: 95 % intervals of the values.
    """
    if not values or values[-1] is None or (last := intervals[-1]) is None:
        return None
    return smallest_reaching(metric, steps, values, last[0] if metric.better == "higher" else last[1])


def smallest_reaching(metric: Metric, steps: Sequence[int], values: Values, limit: float) -> int | None:
    """First step from which `values` stay at `limit` or better up to the end of the curve; None if they do not."""
    found: int | None = None
    for step, value in zip(reversed(steps), reversed(values), strict=True):
        if value is None or not metric.reaches(value, limit):
            break
        found = step
    return found


def ratio_interval(
    over: NDArray[np.float64], under: NDArray[np.float64], z: float = Z_95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The ratio of two sums over inputs, and half of its 95 % interval.

    Inputs are the sampling units, whatever they hold many of (pixels, outputs): the ratio is linearised around its
    value (W. G. Cochran, Sampling Techniques, 1977, section 6.3).

    Args:
        over, under: what each input adds to the two sums, both (..., inputs).

    Returns:
        ratio and half width, both (...); NaN where the lower sum is 0, the half where there are less than two inputs.
    """
    inputs = over.shape[-1]
    total = under.sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = over.sum(-1) / total
        rest = over - ratio[..., None] * under
        half = z * np.sqrt(np.square(rest).sum(-1) * inputs / (inputs - 1)) / total if inputs > 1 else ratio * np.nan
    return ratio, half
