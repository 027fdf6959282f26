"""Threshold balancing by a percentile of the activations (Rueckauer et al. 2017, "robust normalisation")."""

from __future__ import annotations

import torch

from snnconvert.calibrate.histogram import centres, histograms
from snnconvert.calibrate.observe import ranges
from snnconvert.calibrate.options import Percentile
from snnconvert.calibrate.task import Task
from snnconvert.graph.types import Calibrated
from snnconvert.options import made


def calibrate_percentile(task: Task) -> Calibrated:
    """Bound each channel (or layer) by the given percentile of all its activations, zeros included.

    Its options are those of `Percentile`.
    """
    return by_percentile(task, made(Percentile, task.options), "percentile")


def by_percentile(task: Task, options: Percentile, method: str) -> Calibrated:
    """The same with these options, under the name of a method."""
    share, granularity = options.percentile / 100, options.granularity
    graph = task.ann.graph
    found, _ = ranges(graph, task.images, task.progress)
    counts = histograms(graph, task.images, found, task.progress)
    result = {}
    for name, site in found.items():
        table = counts[name].double()
        size = _values_per_channel(task, name, table.shape[0])
        if granularity == "layer":
            merged = centres(site).flatten().sort()
            above = table.flatten()[merged.indices].flip(0).cumsum(0).flip(0)
            keep = above >= (1 - share) * size * table.shape[0]
            bound = merged.values[keep].max() if bool(keep.any()) else site.largest.max()
            bounds = bound.expand(table.shape[0])
        else:
            above = table.flip(1).cumsum(1).flip(1)
            keep = above >= max(1.0, (1 - share) * size)
            last = (keep * torch.arange(1, table.shape[1] + 1)).amax(1) - 1
            bounds = centres(site).gather(1, last.clamp(min=0).unsqueeze(1)).squeeze(1)
            bounds = torch.where(last >= 0, bounds, site.largest)
        result[name] = task.site(bounds, site, options.initial)
    record = {
        "method": method,
        "options": {"percentile": share * 100, "granularity": granularity, "initial": options.initial},
        "candidates": [],
    }
    return task.calibrated(graph, result, record)


def _values_per_channel(task: Task, name: str, channels: int) -> int:
    (shape,) = [node.meta["shape"] for node in task.ann.graph.graph.nodes if node.name == name]
    return int(torch.tensor(shape).prod()) // channels * len(task.images)
