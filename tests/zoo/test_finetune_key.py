"""`finetune` in a manifest: models are trained on after conversion, and gates judge what comes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from snnconvert.errors import OptionError
from snnconvert.graph.checkpoint import load_snn
from snnconvert.zoo.batch import Settings, run_zoo
from snnconvert.zoo.manifest import load_manifest

MODEL = (
    '[[model]]\nsource = "zoo:digits-cnn"\ntimesteps = 2\nschedule = "streaming"\ncalibration = "mse"\n'
    "calibration_samples = 32\nlimit = 100\n"
)


def test_models_are_trained_on_and_judged(tmp_path: Path) -> None:
    path = tmp_path / "zoo.toml"
    path.write_text(f"{MODEL}finetune = {{ epochs = 0.5, held_out = 50 }}\ngates = {{ min_accuracy = 50 }}\n")
    (found,) = run_zoo(load_manifest(path), tmp_path / "out", Settings(jobs=1)).results
    assert found.converted, found.row["reason"]
    folder = tmp_path / "out" / "models" / "digits-cnn"
    report = json.loads((folder / "digits-cnn.json").read_text())
    assert report["training"]["options"]["data"] == "zoo:digits-cnn/train"
    assert report["gates"]["status"] == "passed"
    assert load_snn(folder / "digits-cnn.snn").calibration["training"]["steps"] == report["training"]["steps"] > 0
    (again,) = run_zoo(load_manifest(path), tmp_path / "out", Settings(jobs=1)).results
    assert again.kept


@pytest.mark.parametrize(
    ("finetune", "message"),
    [
        ("{ epoch = 1 }", "line 8: model.finetune.epoch: unknown finetune 'epoch'"),
        ("{ epochs = 1, minutes = 1 }", "--minutes 1 and --epochs 1 both say when to stop"),
        ("{ method = 'distil' }", "--method 'distil' is not known"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(tmp_path: Path, finetune: str, message: str) -> None:
    path = tmp_path / "zoo.toml"
    path.write_text(f"{MODEL}finetune = {finetune}\n".replace("'", '"'))
    with pytest.raises(OptionError) as caught:
        load_manifest(path)
    assert message in str(caught.value)


def test_without_images_there_is_nothing_to_train_on(tmp_path: Path) -> None:
    path = tmp_path / "zoo.toml"
    path.write_text('[[model]]\nsource = "m.onnx"\nfinetune = { epochs = 1 }\n')
    with pytest.raises(OptionError, match="there is nothing to train on"):
        load_manifest(path)
