"""RobustNorm: one threshold per layer at a high percentile, membranes that start empty (Rueckauer et al. 2017)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from snnconvert.calibrate.percentile import calibrate_percentile
from snnconvert.calibrate.task import Task
from snnconvert.graph.types import Calibrated

DEFAULTS: dict[str, Any] = {"percentile": 99.9, "granularity": "layer", "initial": 0.0}


def calibrate_robust_norm(task: Task) -> Calibrated:
    """The percentile method with the published settings.

    Options:
        percentile: 0 to 100, default 99.9.
        granularity: "layer" (default) or "channel".
        initial: membrane potential at t = 0 as a fraction of the threshold, default 0.
    """
    found = calibrate_percentile(replace(task, options={**DEFAULTS, **task.options}))
    return replace(found, record={**found.record, "method": "robust-norm"})
