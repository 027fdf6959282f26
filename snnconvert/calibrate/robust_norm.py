"""RobustNorm: one threshold per layer at a high percentile, membranes that start empty (Rueckauer et al. 2017)."""

from __future__ import annotations

from snnconvert.calibrate.options import RobustNorm
from snnconvert.calibrate.percentile import by_percentile
from snnconvert.calibrate.task import Task
from snnconvert.graph.types import Calibrated
from snnconvert.options import made


def calibrate_robust_norm(task: Task) -> Calibrated:
    """The percentile method with the published settings; its options are those of `RobustNorm`."""
    return by_percentile(task, made(RobustNorm, task.options), "robust-norm")
