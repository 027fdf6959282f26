"""Threshold balancing by a percentile of the activations (Rueckauer et al. 2017, "robust normalisation")."""

from __future__ import annotations

import torch

from snnconvert.calibrate.histogram import centres, histograms
from snnconvert.calibrate.observe import ranges
from snnconvert.calibrate.task import Task
from snnconvert.graph.types import Calibrated


def calibrate_percentile(task: Task) -> Calibrated:
    """Bound each channel (or layer) by the given percentile of all its activations, zeros included.

    Options:
        percentile: 0 to 100, default 99.9.
        granularity: "channel" (default) or "layer".
        initial: membrane potential at t = 0 as a fraction of the threshold, default 0.5.
    """
    share = float(task.options.get("percentile", 99.9)) / 100
    granularity = task.options.get("granularity", "channel")
    initial = float(task.options.get("initial", 0.5))
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
        result[name] = task.site(bounds, site, initial)
    record = {
        "method": "percentile",
        "options": {"percentile": share * 100, "granularity": granularity, "initial": initial},
        "candidates": [],
    }
    return task.calibrated(graph, result, record)


def _values_per_channel(task: Task, name: str, channels: int) -> int:
    (shape,) = [node.meta["shape"] for node in task.ann.graph.graph.nodes if node.name == name]
    return int(torch.tensor(shape).prod()) // channels * len(task.images)
