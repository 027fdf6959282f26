"""Activation histograms per channel: exact integer counts, so the order of the images cannot matter."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from snnconvert.calibrate.observe import Range, by_channel, observed
from snnconvert.progress import Progress, silent

BINS = 2048
EXACT = 2**24  # whole numbers below are exact in float32


def histograms(
    graph: fx.GraphModule, images: Tensor, found: dict[str, Range], progress: Progress = silent
) -> dict[str, Tensor]:
    """Counts of positive activations (absolute values at signed sites), shape (channels, BINS) over (0, largest]."""
    counts: dict[str, Tensor] = {}
    for seen in observed(graph, images, "histograms", progress):
        for name, values in seen.after.items():
            site = found[name]
            rows = by_channel(values, site.axis).abs()
            rows.div_(site.largest.float().unsqueeze(1)).mul_(BINS).ceil_().clamp_(0, BINS)
            size = rows.shape[0] * (BINS + 1)
            whole = rows if size < EXACT else rows.long()
            index = whole.add_(torch.arange(rows.shape[0]).unsqueeze(1) * (BINS + 1))
            flat = torch.bincount(index.flatten().to(torch.int32 if size < EXACT else torch.int64), minlength=size)
            table = flat.reshape(rows.shape[0], BINS + 1)[:, 1:]
            counts[name] = counts[name] + table if name in counts else table
    return counts


def centres(site: Range) -> Tensor:
    """The middle of every bin in activation units, (channels, BINS), float64."""
    return (torch.arange(BINS, dtype=torch.float64) + 0.5) / BINS * site.largest.unsqueeze(1)
