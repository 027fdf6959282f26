"""Thresholds that minimise the squared quantisation error at the given T (per channel, grid search).

A neuron with N levels over its run that starts at v(0) = i * threshold is the quantiser
    Q(a) = bound / N * clip(floor(a N / bound + i), 0, N)
(Bu et al. 2022; the search as in Li et al., ICML 2021, on exact histograms instead of moving averages).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from snnconvert.calibrate.histogram import centres, histograms
from snnconvert.calibrate.observe import Range, ranges
from snnconvert.calibrate.task import Task
from snnconvert.graph.types import Calibrated
from snnconvert.neurons import NEURONS

FACTORS = torch.arange(100, 4, -1, dtype=torch.float64) / 100
SHARE_OF_LEVELS = 0.5


def calibrate_mse(task: Task) -> Calibrated:
    """Search each channel's bound over fractions of its maximum.

    Options:
        initial: membrane potential at t = 0 as a fraction of the threshold; the default is that of the schedule's
            rounding, 0.5 for nearest.
        headroom: no bound is lower than this many times the largest activation that the calibration images cause
            (default 0: as low as the squared error on these images asks for). With 1 nothing that they cause is cut
            off; more than 1 makes room for images that go further.
    """
    initial = float(task.options.get("initial", task.schedule.initial))
    levels = effective_levels(task)
    graph = task.ann.graph
    found, _ = ranges(graph, task.images, task.progress)
    counts = histograms(graph, task.images, found, task.progress)
    headroom = float(task.options.get("headroom", 0.0))
    result = {
        name: task.site(
            torch.maximum(best_bounds(counts[name], site, levels, initial), site.followed(headroom)), site, initial
        )
        for name, site in found.items()
    }
    options = {"initial": initial, "headroom": headroom}
    record = {"method": "mse", "options": options, "levels": levels, "candidates": []}
    return task.calibrated(graph, result, record)


def effective_levels(task: Task) -> int:
    """The number of levels that thresholds are fitted for.

    A neuron that cannot take a spike back errs by its timing about as much as by its resolution; it does better with
    thresholds for half its levels, which also answer sooner (ResNet-20, T = 32, 1,500 images, accuracy at t = 16 / 32:
    all levels 73.1 / 88.9, half of them 81.7 / 89.8).
    """
    uneven = not task.schedule.windowed and not NEURONS[task.neuron.model].memory
    return max(1, math.ceil(SHARE_OF_LEVELS * task.resolution)) if uneven else task.resolution


def best_bounds(counts: Tensor, site: Range, levels: int, initial: float = 0.5) -> Tensor:
    """The bound of each channel with the least squared error, shape (channels,)."""
    values, weights = centres(site), counts.double()
    best = torch.full_like(site.largest, torch.inf)
    bounds, room = site.largest.clone(), torch.empty_like(values)
    for factor in FACTORS:
        bound = site.largest * factor
        step = (bound / levels).unsqueeze(1)
        torch.div(values, step, out=room)
        room.add_(initial).floor_().clamp_(0, levels).mul_(step).sub_(values).square_().mul_(weights)
        error = room.sum(1)
        better = error < best
        best = torch.where(better, error, best)
        bounds = torch.where(better, bound, bounds)
    return bounds
