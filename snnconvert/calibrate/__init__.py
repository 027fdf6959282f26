"""Calibration methods: METHODS maps the value of `--calibration` to a function from Task to Calibrated."""

from __future__ import annotations

from snnconvert.calibrate.local_threshold_balancing import calibrate_local_threshold_balancing
from snnconvert.calibrate.mse import calibrate_mse
from snnconvert.calibrate.percentile import calibrate_percentile
from snnconvert.calibrate.rate_norm import calibrate_rate_norm
from snnconvert.calibrate.reconstruct import calibrate_reconstruct
from snnconvert.calibrate.robust_norm import calibrate_robust_norm
from snnconvert.calibrate.snn_calibration_light import calibrate_snn_calibration_light
from snnconvert.calibrate.task import Method, Task

__all__ = ["METHODS", "Method", "Task"]

METHODS: dict[str, Method] = {
    "rnl": calibrate_rate_norm,
    "percentile": calibrate_percentile,
    "mse": calibrate_mse,
    "reconstruct": calibrate_reconstruct,
    "robust-norm": calibrate_robust_norm,
    "local-threshold-balancing": calibrate_local_threshold_balancing,
    "snn-calibration-light": calibrate_snn_calibration_light,
}
