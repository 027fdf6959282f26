"""Opening models by name: the right door, and a clear answer where there is none."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from snnconvert.convert.doors import open_model
from snnconvert.convert.pytorch import relative_difference
from snnconvert.errors import ModelFileError, OptionError
from snnconvert.graph.dialect import sites

DATA = Path(os.environ.get("SNNCONVERT_DATA", Path(__file__).parents[2] / "../shared/data")).resolve()
MODELS = DATA / "models"
FACTORY = """
from torch import nn
def small():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3))
def broken():
    raise ValueError("no such luck")
def number():
    return 3
class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)
    def forward(self, x):
        return {"features": x.relu(), "logits": self.layer(x)}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "nets.py").write_text(FACTORY)
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3))
    torch.save(layers.state_dict(), tmp_path / "small.pt")
    return tmp_path


@pytest.mark.skipif(not (MODELS / "resnet20-12fca82f.th").exists(), reason="the measured models are not at hand")
def test_resnet20_of_the_data_pack_is_exact() -> None:
    from snnconvert.convert.architectures import build_architecture
    from snnconvert.convert.weights import apply_weights, load_weights

    path, arch = MODELS / "resnet20-12fca82f.th", f"{MODELS / 'resnet_cifar.py'}:resnet20"
    ann = open_model(str(path), arch=arch, input_shape=(3, 32, 32))
    module = build_architecture(arch)
    apply_weights(module, load_weights(path))
    x = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert relative_difference(module.eval()(x), ann.graph(x)[0]) < 1e-5
    assert len(sites(ann.graph)) == 19
    assert ann.source.sha256.startswith("12fca82f")


def test_weights_with_architecture(folder: Path) -> None:
    ann = open_model(str(folder / "small.pt"), arch=f"{folder / 'nets.py'}:small", input_shape=(1, 8, 8))
    state = torch.load(folder / "small.pt", weights_only=True)
    assert torch.equal(ann.graph.get_submodule("n_0").weight, state["0.weight"])
    assert ann.input_shape == (1, 8, 8)


def test_factory_alone_and_choice_of_output(folder: Path) -> None:
    ann = open_model(f"{folder / 'nets.py'}:Two", input_shape=(4,))
    assert ann.outputs == ("features", "logits")
    chosen = open_model(f"{folder / 'nets.py'}:Two", input_shape=(4,), output_name="logits")
    assert chosen.outputs == ("logits",)
    assert chosen.graph(torch.ones(1, 4))[0].shape == (1, 2)
    with pytest.raises(OptionError) as caught:
        open_model(f"{folder / 'nets.py'}:Two", input_shape=(4,), output_name="scores")
    assert "features, logits" in caught.value.hint


def test_weights_without_architecture_or_shape(folder: Path) -> None:
    with pytest.raises(OptionError) as caught:
        open_model(str(folder / "small.pt"), input_shape=(1, 8, 8))
    assert "--arch" in caught.value.hint
    with pytest.raises(OptionError) as caught:
        open_model(str(folder / "small.pt"), arch=f"{folder / 'nets.py'}:small")
    assert "--input-shape" in caught.value.hint


def test_missing_file_names_its_neighbours(folder: Path) -> None:
    with pytest.raises(ModelFileError) as caught:
        open_model(str(folder / "smal.pt"), arch="torchvision:resnet18", input_shape=(1, 8, 8))
    assert "small.pt" in caught.value.hint


@pytest.mark.parametrize("model", ["resnet18", "model.h5", "net.xyz"])
def test_unknown_kinds_list_the_allowed_ones(model: str) -> None:
    with pytest.raises(OptionError) as caught:
        open_model(model)
    assert ".onnx" in caught.value.message
    assert "torchvision:NAME" in caught.value.message


def test_architecture_where_none_belongs(folder: Path) -> None:
    (folder / "net.onnx").write_bytes(b"\x08\x01")
    with pytest.raises(OptionError) as caught:
        open_model(str(folder / "net.onnx"), arch="timm:vit")
    assert "--arch" in caught.value.hint


@pytest.mark.parametrize(
    ("factory", "part"),
    [("broken", "no such luck"), ("number", "int"), ("smol", "did you mean small?"), ("", "FILE.py:FACTORY")],
)
def test_factories_that_fail(folder: Path, factory: str, part: str) -> None:
    with pytest.raises((ModelFileError, OptionError)) as caught:
        open_model(f"{folder / 'nets.py'}:{factory}", input_shape=(1, 8, 8))
    assert part in caught.value.message + caught.value.hint


def test_shape_that_does_not_fit(folder: Path) -> None:
    from snnconvert.errors import DataError

    with pytest.raises(DataError) as caught:
        open_model(f"{folder / 'nets.py'}:small", input_shape=(3, 8, 8))
    assert "(3, 8, 8)" in caught.value.message


def test_onnx_files_and_zoo_names_reach_the_onnx_door(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[object, ...]] = []

    def import_onnx(path: Path, *, output_name: str | None = None, input_shape: object = None) -> str:
        seen.append((path, output_name, input_shape))
        return "ann"

    path = folder / "net.onnx"
    path.write_bytes(b"\x08\x01")
    monkeypatch.setitem(sys.modules, "snnconvert.convert.onnx_import", SimpleNamespace(import_onnx=import_onnx))
    monkeypatch.setitem(sys.modules, "snnconvert.data.bundled", SimpleNamespace(model_path=lambda name: folder / name))
    assert open_model(str(path), output_name="logits", input_shape=(1, 8, 8)) == "ann"
    assert open_model("zoo:net.onnx") == "ann"
    assert seen == [(path, "logits", (1, 8, 8)), (path, None, None)]
