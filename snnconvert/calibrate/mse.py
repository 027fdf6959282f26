"""Thresholds that minimise the squared quantisation error at the given T (per channel, grid search).

A neuron with N levels over its run that starts at v(0) = i * threshold is the quantiser
    Q(a) = bound / N * clip(floor(a N / bound + i), 0, N)
(Bu et al. 2022; the search as in Li et al., ICML 2021, on exact histograms instead of moving averages).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from snnconvert.calibrate.histogram import BINS, histograms
from snnconvert.calibrate.observe import Range, ranges
from snnconvert.calibrate.options import SquaredError
from snnconvert.calibrate.task import Task
from snnconvert.graph.types import Calibrated
from snnconvert.neurons import NEURONS
from snnconvert.options import made

FACTORS = torch.arange(100, 4, -1, dtype=torch.float64) / 100
# of its levels, for a neuron that cannot take a spike back. Agreement against 0.5 on held-out training images of seven
# networks: 0.25 -3.4 points, 0.35 +0.4 (standard error 0.3), 0.7 -0.5, 1 -2.4 (`python benchmarks/constants.py`)
SHARE_OF_LEVELS = 0.5


def calibrate_mse(task: Task) -> Calibrated:
    """Search each channel's bound over fractions of its maximum.

    Its options are those of `SquaredError`; without `initial`, membranes start as the schedule's rounding asks for.
    """
    options = made(SquaredError, task.options)
    initial = task.schedule.initial if options.initial is None else options.initial
    graph = task.ann.graph
    found, _ = ranges(graph, task.images, task.progress)
    counts = histograms(graph, task.images, found, task.progress)
    result = {
        name: task.site(
            torch.maximum(
                best_bounds(counts[name], site, effective_levels(task, name), initial), site.followed(options.headroom)
            ),
            site,
            initial,
        )
        for name, site in found.items()
    }
    record = {
        "method": "mse",
        "options": {"initial": initial, "headroom": options.headroom},
        "levels": max(effective_levels(task, name) for name in found),
        "candidates": [],
    }
    return task.calibrated(graph, result, record)


def effective_levels(task: Task, site: str) -> int:
    """The number of levels that a site's thresholds are fitted for.

    A neuron that cannot take a spike back errs by its timing about as much as by its resolution: it does better, and
    answers sooner, with thresholds for `SHARE_OF_LEVELS` of its levels.
    """
    uneven = not task.schedule.windowed and not NEURONS[task.neuron.model].memory
    resolution = task.resolution(site)
    return max(1, math.ceil(SHARE_OF_LEVELS * resolution)) if uneven else resolution


def best_bounds(counts: Tensor, site: Range, levels: int, initial: float = 0.5) -> Tensor:
    """The bound of each channel with the least squared error, shape (channels,).

    In units of a channel's largest activation all channels have the same bins, bounds and quantisation errors, so that
    the sums over the bins of all channels and bounds are one product of matrices.
    """
    values = (torch.arange(BINS, dtype=torch.float64) + 0.5) / BINS
    steps = (FACTORS / levels).unsqueeze(1)
    errors = ((values / steps + initial).floor_().clamp_(0, levels) * steps - values).square_()
    return site.largest * FACTORS[(counts.double() @ errors.T).argmin(1)]
