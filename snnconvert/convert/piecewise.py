"""Fit a scalar function by straight pieces: knots and values by least squares, weighted by where its inputs lie.

Knots come from dynamic programming over the bins of a histogram (the best k separate lines), values from one least
squares solve for the continuous function through those knots.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Pieces:
    """A continuous function of straight pieces, constant outside its knots.

    Attributes:
        knots: increasing, shape (k + 1,).
        values: the function at the knots, shape (k + 1,).
        relative_error: root mean squared error over the standard deviation of the function, both weighted.
        mean_error: weighted mean of the absolute error.
        largest_error: largest absolute error on the range.
    """

    knots: Vector
    values: Vector
    relative_error: float
    mean_error: float
    largest_error: float

    def __call__(self, x: Vector) -> Vector:
        found: Vector = np.interp(x, self.knots, self.values)
        return found


def fit(
    x: Vector, y: Vector, weights: Vector, units: int, kinks: tuple[float, ...] = (), *, tolerance: float, silent: bool
) -> Pieces:
    """The fewest pieces (at most `units`) that hold `tolerance`; the best there is where none does.

    Args:
        x: positions, increasing, shape (n,).
        y: the function there.
        weights: how often each position occurs, not negative.
        kinks: where knots have to be, because the function has no derivative there.
        tolerance: of the relative error.
        silent: keep a knot at 0 with value 0, so that silence stays silence.
    """
    weights = weights / weights.sum()
    zero = silent and x[0] < 0.0 < x[-1]
    fixed = sorted({knot for knot in (*kinks, *((0.0,) if zero else ())) if x[0] < knot < x[-1]})
    best: Pieces | None = None
    edges = [-np.inf, *fixed, np.inf]
    parts = [(x >= low) & (x < high) for low, high in pairwise(edges)]
    lines = [_best_lines(x[part], y[part], weights[part], units) for part in parts]
    tables = [[starts for starts, _ in table] for table in lines]
    variance = float((weights * (y - (weights * y).sum()) ** 2).sum())
    most = max(units, len(parts))
    for count in range(len(parts), most + 1):
        splits = _splits(count, len(parts))
        least = min(sum(_cost(table, k) for table, k in zip(lines, split, strict=True)) for split in splits)
        if least > tolerance**2 * variance and count < most:
            continue  # not even lines that need not meet
        for split in splits:
            found = _through(_knots(x, parts, tables, split, fixed), x, y, weights, zero)
            if best is None or found.relative_error < best.relative_error:
                best = found
        assert best is not None
        best = _polished(best, x, y, weights, zero, fixed)
        if best.relative_error <= tolerance:
            break
    assert best is not None
    return best


def pieces_of(x: Vector, y: Vector, weights: Vector, knots: Vector) -> Pieces:
    """The continuous least-squares function with the given knots."""
    return _through(knots, x, y, weights / weights.sum(), False)


def _cost(table: list[tuple[list[int], float]], count: int) -> float:
    return table[min(count, len(table)) - 1][1]


def _best_lines(x: Vector, y: Vector, weights: Vector, units: int) -> list[tuple[list[int], float]]:
    """For k = 1..units the first bins of the k pieces whose separate least-squares lines err least, and their error."""
    count = len(x)
    sums = [np.concatenate([[0.0], np.cumsum(weights * term)]) for term in (x * 0 + 1, x, y, x * x, x * y, y * y)]
    total, sx, sy, sxx, sxy, syy = (each[None, :] - each[:, None] for each in sums)
    safe = np.maximum(total, 1e-300)
    spread, joint, variance = sxx - sx * sx / safe, sxy - sx * sy / safe, syy - sy * sy / safe
    with np.errstate(over="ignore"):  # below the diagonal, where pieces would have no bins
        slope = np.where(spread > 1e-30, joint / np.maximum(spread, 1e-30), 0.0)
    cost = np.maximum(variance - slope * joint, 0.0)
    cost[np.tril_indices(count + 1)] = np.inf
    best, chosen = cost[0].copy(), []
    starts = [([0], float(best[count]))]
    for _ in range(1, min(units, count)):
        candidates = best[:, None] + cost
        previous = candidates.argmin(0)
        best = candidates[previous, np.arange(count + 1)]
        chosen.append(previous)
        bins, at = [], count
        for step in reversed(chosen):
            at = int(step[at])
            bins.append(at)
        starts.append(([0, *reversed(bins)], float(best[count])))
    return starts


def _splits(count: int, parts: int) -> list[tuple[int, ...]]:
    """All ways to share `count` pieces among `parts` parts of the range, at least one each."""
    return [
        tuple(high - low for low, high in pairwise((0, *cuts, count)))
        for cuts in combinations(range(1, count), parts - 1)
    ]


def _knots(
    x: Vector, parts: list[NDArray[np.bool_]], tables: list[list[list[int]]], split: tuple[int, ...], fixed: list[float]
) -> Vector:
    knots = [float(x[0]), *fixed, float(x[-1])]
    for part, table, count in zip(parts, tables, split, strict=True):
        own = x[part]
        starts = table[min(count, len(table)) - 1]
        knots += [float(own[start - 1] + own[start]) / 2 for start in starts[1:]]
    return np.unique(np.array(knots))


def _polished(  # noqa: PLR0917
    found: Pieces, x: Vector, y: Vector, weights: Vector, zero: bool, fixed: list[float]
) -> Pieces:
    """`found` with its inner knots moved by a few bins, as long as that helps."""
    bin_width = (x[-1] - x[0]) / len(x)
    for step in (16, 8, 4, 2):
        for index in range(1, len(found.knots) - 1):
            for move in (-step * bin_width, step * bin_width):
                knots = found.knots.copy()
                knots[index] += move
                if found.knots[index] in fixed or not knots[index - 1] < knots[index] < knots[index + 1]:
                    continue
                moved = _through(knots, x, y, weights, zero)
                if moved.relative_error < found.relative_error:
                    found = moved
    return found


def _through(knots: Vector, x: Vector, y: Vector, weights: Vector, zero: bool) -> Pieces:
    index = np.clip(np.searchsorted(knots, x, side="right") - 1, 0, len(knots) - 2)
    share = np.clip((x - knots[index]) / (knots[index + 1] - knots[index]), 0.0, 1.0)
    basis = np.zeros((len(x), len(knots)))
    rows = np.arange(len(x))
    basis[rows, index] = 1 - share
    basis[rows, index + 1] += share
    free = np.ones(len(knots), bool)
    if zero:
        free[int(np.abs(knots).argmin())] = False
    weighted = basis[:, free] * weights[:, None]
    values = np.zeros(len(knots))
    values[free] = np.linalg.lstsq(weighted.T @ basis[:, free], weighted.T @ y, rcond=1e-12)[0]
    error = basis @ values - y
    spread = float(np.sqrt((weights * (y - (weights * y).sum()) ** 2).sum()))
    relative = float(np.sqrt((weights * error**2).sum())) / max(spread, 1e-30)
    return Pieces(knots, values, relative, float((weights * np.abs(error)).sum()), float(np.abs(error).max()))
