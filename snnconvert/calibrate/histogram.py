"""Activation histograms per channel: exact integer counts of images in an order of their own (see `observe`)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, fx

from snnconvert.calibrate.observe import Range, broadcastable, observed
from snnconvert.progress import Progress, silent
from snnconvert.simulate.kernels import choose
from snnconvert.simulate.kernels.native_statistics import add_to_histogram

BINS = 2048
EXACT = 2**24  # whole numbers below are exact in float32


def histograms(
    graph: fx.GraphModule,
    images: Tensor,
    found: dict[str, Range],
    progress: Progress = silent,
    *,
    enough: float = math.inf,
) -> dict[str, Tensor]:
    """Counts of positive activations (absolute values at signed sites), shape (channels, BINS) over (0, largest].

    Of a site with more than `enough` values in every channel, those of the first images are counted.
    """
    native = choose()
    seen = dict.fromkeys(found, 0)
    counts = {name: torch.zeros(len(site.largest), BINS, dtype=torch.int64) for name, site in found.items()}

    def see(name: str, values: Tensor) -> None:
        site = found[name]
        if seen[name] >= enough:
            return
        seen[name] += values.numel() // len(site.largest)
        if native is not None:
            add_to_histogram(native, values, site.axis + 1, site.largest.float(), counts[name])
            return
        channels = len(site.largest)
        size = channels * (BINS + 1)
        bins = (values / site.shaped(site.largest)).mul_(BINS).abs_().ceil_().clamp_(0, BINS)
        whole = bins if size < EXACT else bins.long()
        index = whole.add_(broadcastable(torch.arange(channels) * (BINS + 1), site.axis, site.rank))
        flat = torch.bincount(index.flatten().to(torch.int32 if size < EXACT else torch.int64), minlength=size)
        counts[name] += flat.reshape(channels, BINS + 1)[:, 1:]

    for _ in observed(graph, images, "histograms", progress, see=see):
        if min(seen.values(), default=0) >= enough:
            progress("histograms", len(images), len(images))
            break
    return counts


def centres(site: Range) -> Tensor:
    """The middle of every bin in activation units, (channels, BINS), float64."""
    return (torch.arange(BINS, dtype=torch.float64) + 0.5) / BINS * site.largest.unsqueeze(1)
