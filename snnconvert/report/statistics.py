"""What a fit curve says, and how sure one can be of it. Pure functions on numbers; accuracies are percent (0..100)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from snnconvert.tasks import Metric
from snnconvert.tasks.intervals import Pairs, Values


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


def rise_then_fall(
    metric: Metric, timesteps: Sequence[int], values: Values, intervals: Pairs, least: float = 0.5
) -> Fall | None:
    """Find a fall from the best step to the last that exceeds `least` and the 95 % interval of the best value.

    Of an error, the best value is the smallest, and a fall is a rise.
    """
    known = [(t, value, band) for t, value, band in zip(timesteps, values, intervals, strict=True) if value is not None]
    if len(known) < 3:
        return None
    t, peak, band = max(known, key=lambda row: metric.gain(row[1], 0.0))
    final = known[-1][1]
    beyond = band is not None and (final < band[0] or final > band[1])
    return Fall(t, peak, final) if metric.gain(peak, final) > least and beyond else None


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
