"""Thresholds that minimise the squared quantisation error at the given T (per channel, grid search).

A neuron with N levels over its run that starts at v(0) = i * threshold is the quantiser
    Q(a) = bound / N * clip(floor(a N / bound + i), 0, N)
(Bu et al. 2022; the search as in Li et al., ICML 2021, on exact histograms instead of moving averages).
"""

from __future__ import annotations

import torch
from torch import Tensor

from snnconvert.calibrate.histogram import centres, histograms
from snnconvert.calibrate.observe import Range, ranges
from snnconvert.calibrate.task import Task
from snnconvert.graph.types import Calibration

FACTORS = torch.arange(100, 4, -1, dtype=torch.float64) / 100


def calibrate_mse(task: Task) -> Calibration:
    """Search each channel's bound over fractions of its maximum.

    Options:
        initial: membrane potential at t = 0 as a fraction of the threshold; the default is that of the schedule's
            rounding, 0.5 for nearest.
    """
    initial = float(task.options.get("initial", task.schedule.initial))
    graph = task.ann.graph
    found, _ = ranges(graph, task.images, task.progress)
    counts = histograms(graph, task.images, found, task.progress)
    result = {
        name: task.site(best_bounds(counts[name], site, task.resolution, initial), site, initial)
        for name, site in found.items()
    }
    record = {"method": "mse", "options": {"initial": initial}, "candidates": []}
    return Calibration(graph, result, record)


def best_bounds(counts: Tensor, site: Range, levels: int, initial: float = 0.5) -> Tensor:
    """The bound of each channel with the least squared error, shape (channels,)."""
    values, weights = centres(site), counts.double()
    best = torch.full_like(site.largest, torch.inf)
    bounds = site.largest.clone()
    for factor in FACTORS:
        bound = site.largest * factor
        step = (bound / levels).unsqueeze(1)
        error = ((torch.floor(values / step + initial).clamp(0, levels) * step - values).square() * weights).sum(1)
        better = error < best
        best = torch.where(better, error, best)
        bounds = torch.where(better, bound, bounds)
    return bounds
