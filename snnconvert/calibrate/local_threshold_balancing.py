"""Local threshold balancing (Bu et al., CVPR 2025, arXiv 2409.03368), reimplemented from the paper for comparison.

Every activation becomes min(relu(x), theta) with a threshold per channel that starts at 0. Each batch moves it by

    theta <- theta + 2 * mean over batch and positions of relu(x - theta)

while the clipped values flow on, so that all layers adapt to one another. Stopped early the thresholds stay below the
maxima. v(0) = theta / 2. The paper's delayed evaluation (ignoring the first steps of the output) is not part of it.
"""

from __future__ import annotations

from dataclasses import asdict

import torch
from torch import Tensor, fx

from snnconvert.calibrate.observe import broadcastable, by_channel, ranges
from snnconvert.calibrate.options import LocalThresholdBalancing
from snnconvert.calibrate.task import Task
from snnconvert.graph.types import Calibrated
from snnconvert.graph.walk import BATCH, applied, walk
from snnconvert.options import made


@torch.inference_mode()
def calibrate_local_threshold_balancing(task: Task) -> Calibrated:
    """Balance each channel's threshold by what exceeds it.

    Its options are those of `LocalThresholdBalancing`.
    """
    options = made(LocalThresholdBalancing, task.options)
    graph = task.ann.graph
    found, _ = ranges(graph, task.images, task.progress)
    thresholds = {name: torch.zeros(len(site.largest)) for name, site in found.items()}
    for index in range(options.passes):
        for batch in task.images.split(BATCH):  # type: ignore[no-untyped-call]
            excess = _excess(graph, batch, thresholds, {name: site.axis for name, site in found.items()})
            for name, mean in excess.items():
                thresholds[name] = thresholds[name] + 2 * mean
        task.progress("local threshold balancing", index + 1, options.passes)
    sites = {}
    for name, site in found.items():
        bound = torch.where(thresholds[name] > 0, thresholds[name].double(), site.largest)
        sites[name] = task.site(bound, site, options.initial)
    record = {"method": "local-threshold-balancing", "options": asdict(options), "candidates": []}
    return task.calibrated(graph, sites, record)


def _excess(
    graph: fx.GraphModule, batch: Tensor, thresholds: dict[str, Tensor], axes: dict[str, int]
) -> dict[str, Tensor]:
    """Mean excess over the thresholds per channel and site, while clipped values flow on."""
    means: dict[str, Tensor] = {}

    def clipped(node: fx.Node, inputs: list[Tensor]) -> Tensor:
        value = applied(node, inputs)
        if node.name not in thresholds:
            return value
        axis = axes[node.name]
        limit = broadcastable(thresholds[node.name], axis, value.ndim - 1)
        means[node.name] = by_channel((value - limit).clamp(min=0), axis).mean(1)
        return torch.minimum(value, limit)

    for _ in walk(graph, batch, clipped):
        pass
    return means
