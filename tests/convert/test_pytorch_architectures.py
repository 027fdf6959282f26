"""Named architectures: packages that are absent, names that are wrong."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from snnconvert.convert import architectures
from snnconvert.convert.architectures import build_architecture
from snnconvert.errors import ModelFileError, OptionError


def stub(monkeypatch: pytest.MonkeyPatch) -> None:
    """A torchvision of two models."""
    models = SimpleNamespace(
        list_models=lambda: ["resnet18", "resnet34"],
        get_model=lambda name, weights: nn.Linear(2, 2) if name and weights is None else None,
    )
    monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace(models=models))


@pytest.mark.parametrize("package", ["torchvision", "timm"])
def test_absent_packages_name_the_pip_command(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if package == "timm":
        stub(monkeypatch)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(OptionError) as caught:
        build_architecture(f"{package}:resnet18")
    assert caught.value.hint == f"pip install {package}"


def test_torchvision_names(monkeypatch: pytest.MonkeyPatch) -> None:
    stub(monkeypatch)
    assert isinstance(build_architecture("torchvision:resnet18"), nn.Linear)
    with pytest.raises(OptionError) as caught:
        build_architecture("torchvision:resnet81")
    assert "resnet18" in caught.value.hint


def test_missing_operators_of_torchvision_are_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts: list[str] = []

    def importing(name: str) -> Any:
        attempts.append(name)
        if len(attempts) == 1:
            raise RuntimeError("operator torchvision::nms does not exist")
        return SimpleNamespace()

    declared: list[str] = []
    library = SimpleNamespace(define=lambda schema: declared.append(schema.split("(")[0]))
    monkeypatch.setattr(architectures.torch.version, "cuda", None)
    monkeypatch.setattr(architectures.importlib, "import_module", importing)
    monkeypatch.setattr(architectures.torch.library, "Library", lambda *_: library)
    monkeypatch.setattr(architectures, "_SCHEMAS", [])
    architectures._import_torchvision()
    assert attempts == ["torchvision", "torchvision"]
    assert declared == ["nms", "qnms"]


@pytest.mark.parametrize("spec", ["resnet18", "keras:resnet", "nets.txt:small", "torchvision:"])
def test_other_forms_are_refused(spec: str) -> None:
    with pytest.raises(OptionError, match=r"FILE\.py:FACTORY"):
        build_architecture(spec)


def test_user_files(tmp_path: Path) -> None:
    (tmp_path / "parts.py").write_text("WIDTH = 3\n")
    (tmp_path / "nets.py").write_text(
        "from torch import nn\nfrom parts import WIDTH\n\ndef small():\n    return nn.Linear(2, WIDTH)\n"
    )
    built = build_architecture(f"{tmp_path / 'nets.py'}:small")
    assert isinstance(built, nn.Linear)
    assert built.out_features == 3
    (tmp_path / "bad.py").write_text("raise OSError('no disk')\n")
    with pytest.raises(ModelFileError, match="no disk"):
        build_architecture(f"{tmp_path / 'bad.py'}:small")
    with pytest.raises(ModelFileError, match="does not exist"):
        build_architecture(f"{tmp_path / 'none.py'}:small")
