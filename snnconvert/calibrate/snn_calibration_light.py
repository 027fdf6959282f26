"""SNN calibration, light pipeline (Li et al., ICML 2021, arXiv 2106.06984), reimplemented for comparison.

Thresholds minimise the squared quantisation error at T, one per layer; then, layer by layer in data-flow order, each
bias is corrected by the mean of what the spiking network's own rates lack. The paper spreads theta / 2 over the T
steps; here it is in the membrane from the start.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from snnconvert.calibrate.histogram import histograms
from snnconvert.calibrate.mse import best_bounds
from snnconvert.calibrate.observe import ranges
from snnconvert.calibrate.options import Reconstruct, SnnCalibrationLight
from snnconvert.calibrate.reconstruct import Reconstruction
from snnconvert.calibrate.task import Task
from snnconvert.graph.types import Calibrated
from snnconvert.options import made


@torch.inference_mode()
def calibrate_snn_calibration_light(task: Task) -> Calibrated:
    """Squared-error thresholds, then sequential bias correction.

    Its options are those of `SnnCalibrationLight`.
    """
    granularity = made(SnnCalibrationLight, task.options).granularity
    found, _ = ranges(task.ann.graph, task.images, task.progress)
    if granularity == "layer":
        found = {
            name: replace(site, largest=torch.full_like(site.largest, float(site.largest.max())))
            for name, site in found.items()
        }
    counts = histograms(task.ann.graph, task.images, found, task.progress)
    if granularity == "layer":
        counts = {name: table.sum(0, keepdim=True).expand_as(table) for name, table in counts.items()}
    options = Reconstruct(weights=False, thresholds=False, held_out=0.0, judged=False)
    reconstruction = Reconstruction(task, options)
    reconstruction.found = found
    bounds = {
        name: best_bounds(counts[name], site, task.resolution(name), task.schedule.initial)
        for name, site in found.items()
    }
    reconstruction.bounds = [bounds]
    result = reconstruction.run()
    record = {**result.record, "method": "snn-calibration-light", "options": {"granularity": granularity}}
    return replace(result, record=record)
