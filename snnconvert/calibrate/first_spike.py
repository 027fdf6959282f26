"""Windows of time to first spike: (1 + zeta) times the largest activation of a layer (Stanojevic et al. 2023, 2024).

Nothing is rounded, so that in continuous time the network is the original one for every input that stays within its
windows; what goes beyond spikes at the window's start, and is cut off.
"""

from __future__ import annotations

import torch

from snnconvert.calibrate.observe import ranges
from snnconvert.calibrate.options import FirstSpikeWindows
from snnconvert.calibrate.task import Task
from snnconvert.graph.dialect import op_of, sites
from snnconvert.graph.kinds import Activation
from snnconvert.graph.types import Calibrated
from snnconvert.options import made


def calibrate_first_spike(task: Task) -> Calibrated:
    """One window for all neurons of a layer. Its options are those of `FirstSpikeWindows`."""
    options = made(FirstSpikeWindows, task.options)
    found, _ = ranges(task.ann.graph, task.images, task.progress)
    # what an activation cuts off of itself is cut off by the window's start
    ceilings = {node.name: op_of(node, Activation).ceiling for node, _ in sites(task.ann.graph)}
    result = {}
    for name, site in found.items():
        longest = torch.minimum((1.0 + options.zeta) * site.largest.max(), torch.tensor(ceilings[name]))
        result[name] = task.site(longest.clamp(min=1e-6).expand(site.largest.shape[0]), site)
    record = {"method": "first-spike", "options": {"zeta": options.zeta}, "candidates": []}
    return task.calibrated(task.ann.graph, result, record)
