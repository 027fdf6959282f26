"""What a fit curve says, and how sure one can be of it. Pure functions on numbers; accuracies are percent (0..100)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Values = Sequence[float | None]

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


def smallest_holding(timesteps: Sequence[int], values: Values, target: float) -> int | None:
    """First T from which `values` stays at or above `target` up to the end of the curve.

    Touching the target once is not enough: every later measured step must hold it too. None where the last step
    misses it, or nothing was measured.
    """
    found: int | None = None
    for t, value in zip(reversed(timesteps), reversed(values), strict=True):
        if value is None or value < target - 1e-9:
            break
        found = t
    return found


def knee(timesteps: Sequence[int], values: Values) -> int | None:
    """The T after which more steps buy little: the point farthest above the chord from first to last value.

    None for fewer than four points, or a curve that does not rise.
    """
    t, y = _known(timesteps, values)
    if t.size < 4:
        return None
    best = np.maximum.accumulate(y)
    if best[-1] - best[0] < 1e-9:
        return None
    above = (best - best[0]) / (best[-1] - best[0]) - (t - t[0]) / (t[-1] - t[0])
    return int(t[int(np.argmax(above))])


@dataclass(frozen=True)
class Plateau:
    """A fitted A (1 - exp(-((t - t0) / tau)^q)).

    Attributes:
        value: A, in percent: where the curve would settle with ever more timesteps.
        reached: share of A that the fit has reached at the last T, 0..1.
        error: root mean square error of the fit, in points.
    """

    value: float
    reached: float
    error: float


def plateau(timesteps: Sequence[int], values: Values) -> Plateau | None:
    """Predict where a curve settles. None if too short, too poorly fitted, or still far from settled.

    Below half of A the data do not determine A, so nothing is predicted.
    """
    t, y = _known(timesteps, values)
    if t.size < 6:
        return None
    start = t[0] - 1.0
    taus = np.geomspace(0.3, 4.0 * t[-1], 60)
    powers = np.array([0.3, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0, 1.3, 1.7, 2.2, 3.0])
    shapes = 1.0 - np.exp(-(((t - start)[None, None, :] / taus[:, None, None]) ** powers[None, :, None]))
    norms = (shapes**2).sum(-1)
    heights = np.minimum((shapes * y).sum(-1) / np.maximum(norms, 1e-12), 100.0)
    errors = np.sqrt(((heights[..., None] * shapes - y) ** 2).mean(-1))
    row, column = np.unravel_index(int(np.argmin(errors)), errors.shape)
    height, error = float(heights[row, column]), float(errors[row, column])
    reached = float(shapes[row, column, -1])
    if height <= 0 or reached < 0.5 or error > 0.05 * height:
        return None
    return Plateau(height, reached, error)


@dataclass(frozen=True)
class Fall:
    """A curve that rose to `peak` at `peak_t` and ended lower, at `final`, by more than chance explains."""

    peak_t: int
    peak: float
    final: float


def rise_then_fall(timesteps: Sequence[int], values: Values, samples: int, least: float = 0.5) -> Fall | None:
    """Find a fall from the best step to the last that exceeds `least` points and the 95 % interval of the peak."""
    t, y = _known(timesteps, values)
    if t.size < 3 or samples <= 0:
        return None
    best = int(np.argmax(y))
    peak, final = float(y[best]), float(y[-1])
    low, _ = wilson_interval(round(peak / 100.0 * samples), samples)
    return Fall(int(t[best]), peak, final) if peak - final > least and final < low else None


def log_slope(timesteps: Sequence[float], errors: Sequence[float]) -> float | None:
    """Slope of log K over log t by least squares over the last octave (t >= t_last / 2); about -2 for a good fit.

    None with fewer than two positive values there.
    """
    points = [(t, k) for t, k in zip(timesteps, errors, strict=True) if k > 0 and t >= timesteps[-1] / 2]
    if len(points) < 2:
        return None
    x, y = np.log([t for t, _ in points]), np.log([k for _, k in points])
    spread = float(((x - x.mean()) ** 2).sum())
    return float(((x - x.mean()) * (y - y.mean())).sum() / spread) if spread > 0 else None


def near_chance(accuracy: float, classes: int) -> bool:
    """Whether an accuracy is so close to guessing that the labelled data cannot have been read rightly."""
    chance = 100.0 / max(2, classes)
    return accuracy < chance + 0.1 * (100.0 - chance)


def _known(timesteps: Sequence[int], values: Values) -> tuple[np.ndarray, np.ndarray]:
    pairs = [(t, value) for t, value in zip(timesteps, values, strict=True) if value is not None]
    return np.array([t for t, _ in pairs], dtype=float), np.array([value for _, value in pairs], dtype=float)
