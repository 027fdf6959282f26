"""What reports say of calibration images: that they are of another kind, or that memory left some out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from snnconvert.data.bundled import data_path
from snnconvert.pipeline import run
from snnconvert.report.from_run import document_of
from snnconvert.request import Request
from snnconvert.stages import Outcome


def converted(tmp_path: Path, calibration_contrast: float, headroom: float = 0.0) -> Outcome:
    """The digits CNN, calibrated on training images of less contrast."""
    with np.load(data_path("zoo:digits-cnn/train")) as stored:
        images, labels = stored["x"], stored["y"]
    path = tmp_path / "train.npz"
    np.savez(path, x=(images * calibration_contrast).astype(images.dtype), y=labels)
    request = Request(
        "zoo:digits-cnn",
        timesteps=8,
        schedule="streaming",
        calibration="mse",
        options={"headroom": headroom},
        data="zoo:digits-cnn",
        calibration_data=str(path),
        calibration_samples=64,
        limit=40,
        preprocessing=Request("zoo:digits-cnn").preprocessing,
    )
    return run(request)


def test_images_of_the_same_kind_raise_no_warning(tmp_path: Path) -> None:
    outcome = converted(tmp_path, 1.0)
    assert outcome.studies["shift"] is None
    document = document_of(outcome, command_line="")
    assert document["shift"] is None
    assert "calibration_shift" not in [row["code"] for row in document["warnings"]]


def test_brighter_images_are_noticed_where_they_are_cut_off_first(tmp_path: Path) -> None:
    outcome = converted(tmp_path, 0.4)
    shift = outcome.studies["shift"]
    assert shift is not None
    assert shift.evaluation > 0.05
    assert shift.evaluation > 2 * shift.calibration
    document = document_of(outcome, command_line="")
    (warning,) = [row for row in document["warnings"] if row["code"] == "calibration_shift"]
    assert shift.origin in warning["text"]
    assert f"{100 * shift.evaluation:.0f} %" in warning["text"]
    # Against a count of its own: the first layer, whose input the images are.
    node = next(name for name in outcome.snn.graph.graph.nodes if name.name == shift.name)
    neuron = outcome.snn.graph.get_submodule(str(node.target))
    measured = outcome.inputs.evaluation
    assert measured is not None
    images = measured.images(np.arange(32))
    values = images
    for one in outcome.ann.graph.graph.nodes:
        if one.op == "call_module":
            values = outcome.ann.graph.get_submodule(str(one.target))(values)
        if one.name == shift.name:
            break
    bound = torch.as_tensor(neuron.threshold) * float(neuron.levels)  # type: ignore[arg-type]
    above = (values - bound).clamp(min=0).double().square().sum() / values.double().square().sum()
    assert shift.evaluation == pytest.approx(float(above) ** 0.5, rel=1e-4)


def test_headroom_is_the_remedy_that_the_warning_names(tmp_path: Path) -> None:
    """Brighter by 2.5, before the bias: with room for that nothing is cut off that was not before."""
    without, with_room = converted(tmp_path, 0.4), converted(tmp_path, 0.4, headroom=4.0)
    (warning,) = [
        row for row in document_of(without, command_line="")["warnings"] if row["code"] == "calibration_shift"
    ]
    assert "--headroom" in warning["hint"]
    assert without.studies["shift"] is not None
    assert with_room.studies["shift"] is None


def test_a_report_says_when_memory_left_images_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snnconvert.calibrate.reconstruct.disk_space", lambda: 0)
    request = Request("zoo:digits-cnn", timesteps=4, schedule="streaming", calibration_samples=60, limit=20)
    whole = document_of(run(request), command_line="")
    assert not any("calibration images were used" in note for note in whole["evaluation"]["notes"])
    part = document_of(run(replace(request, options={"memory": 0.0002})), command_line="")
    used = part["calibration"]["images"]
    assert used < 60
    assert any(f"{used} of the 60 calibration images were used" in note for note in part["evaluation"]["notes"])
