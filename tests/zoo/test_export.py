"""`export` in a manifest: every model leaves in the forms that are asked for, proved where that is asked, too."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from snnconvert.errors import OptionError
from snnconvert.exporters import EXPORTERS
from snnconvert.zoo.batch import Settings, run_zoo
from snnconvert.zoo.manifest import load_manifest
from snnconvert.zoo.rows import Result


def convert(folder: Path, export: str, *, keep: bool = False) -> Result:
    """Run a manifest of one model with this key."""
    path = folder / "zoo.toml"
    if not keep:
        path.write_text(
            '[[model]]\nsource = "zoo:digits-cnn"\ntimesteps = 6\nschedule = "streaming"\ncalibration = "mse"\n'
            f"calibration_samples = 32\nlimit = 20\nexport = {export}\n"
        )
    (found,) = run_zoo(load_manifest(path), folder / "out", Settings(jobs=1)).results
    return found


def test_what_is_asked_for_lies_beside_the_checkpoint(tmp_path: Path) -> None:
    asked = (
        '["onnx", { to = "onnx", form = "loop", verify = true, limit = 8 }, { to = "torch", verify = true, limit = 4 }]'
    )
    found = convert(tmp_path, asked)
    assert found.converted, found.row["reason"]
    folder = tmp_path / "out" / "models" / "digits-cnn"
    wanted = {"digits-cnn-onnx.onnx", "digits-cnn-onnx-loop.onnx", "digits-cnn-torch/network.py"}
    assert wanted <= set(found.row["files"])
    onnx.checker.check_model(onnx.load(folder / "digits-cnn-onnx.onnx"), full_check=True)
    assert convert(tmp_path, "", keep=True).kept
    (folder / "digits-cnn-torch" / "weights.pt").write_bytes(b"damaged")
    assert not convert(tmp_path, "", keep=True).kept


def test_what_cannot_be_exported_fails_the_model_with_the_reason(tmp_path: Path) -> None:
    found = convert(tmp_path, '{ to = "onnx", form = "window" }')
    assert not found.converted
    assert "--form window is for schedules with windows" in found.row["reason"]


@pytest.mark.parametrize(
    ("export", "message"),
    [
        ('"onx"', r"line 8: model\.export.*--to 'onx' is not known"),
        ('{ to = "onnx", form = "tiny" }', "--to onnx has no form 'tiny'"),
        ('{ to = "onnx", data = "x" }', "unknown export 'data'"),
        ('["onnx", 3]', "3 is no table"),
    ],
)
def test_mistakes_are_found_before_anything_runs(export: str, message: str, tmp_path: Path) -> None:
    assert "onnx" in EXPORTERS
    with pytest.raises(OptionError, match=message):
        convert(tmp_path, export)
    assert not (tmp_path / "out").exists()
