"""Weight files: what loads, and what each kind of wrong file is told."""

from __future__ import annotations

import pickle
import zipfile
from argparse import Namespace
from collections import deque
from datetime import datetime
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from snnconvert.convert.weights import apply_weights, load_weights
from snnconvert.errors import ModelFileError


@pytest.fixture
def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).state_dict()


def check(found: dict[str, Tensor], state: dict[str, Tensor]) -> None:
    assert set(found) == set(state)
    for name, value in state.items():
        assert torch.equal(found[name], value)


@pytest.mark.parametrize("key", ["state_dict", "model", "net", "model_state_dict", "ema"])
def test_nested_checkpoints(tmp_path: Path, state: dict[str, Tensor], key: str) -> None:
    torch.save({key: state, "epoch": 3, "optimizer": {"lr": 0.1}}, tmp_path / "a.pth")
    check(load_weights(tmp_path / "a.pth"), state)


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "module._orig_mod."])
def test_prefixes_are_removed(tmp_path: Path, state: dict[str, Tensor], prefix: str) -> None:
    torch.save({prefix + name: value for name, value in state.items()}, tmp_path / "a.pt")
    check(load_weights(tmp_path / "a.pt"), state)


def test_legacy_format_and_parameters(tmp_path: Path, state: dict[str, Tensor]) -> None:
    torch.save(state, tmp_path / "a.th", _use_new_zipfile_serialization=False)
    check(load_weights(tmp_path / "a.th"), state)
    torch.save({name: nn.Parameter(value.float()) for name, value in state.items()}, tmp_path / "b.pt")
    assert not load_weights(tmp_path / "b.pt")["0.weight"].requires_grad


def test_safetensors_under_any_suffix(tmp_path: Path, state: dict[str, Tensor]) -> None:
    for name in ("a.safetensors", "a.pt"):
        save_file(state, tmp_path / name)
        check(load_weights(tmp_path / name), state)


class _Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.marker,)


def _write_wrong_file(kind: str, path: Path, state: dict[str, Tensor]) -> None:
    if kind == "whole module":
        torch.save(nn.Linear(2, 2), path)
    elif kind == "namespace":
        torch.save({"state_dict": Namespace(**{"weight": state["0.weight"]})}, path)
    elif kind == "plain pickle":
        path.write_bytes(pickle.dumps([1, 2, 3]))
    elif kind == "truncated":
        torch.save(state, path)
        path.write_bytes(path.read_bytes()[:-200])
    elif kind == "torchscript":
        torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), str(path))
    elif kind == "other zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("readme.txt", "hello")
    elif kind == "pt2":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("net/models/model.json", "{}")
    elif kind == "no tensors":
        torch.save({"epoch": 3}, path)
    elif kind == "list":
        torch.save([torch.ones(2)], path)
    else:
        path.write_bytes(
            {
                "html": b"<!DOCTYPE html><html></html>",
                "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
                "empty": b"",
                "noise": bytes(range(7, 207)),
            }[kind]
        )


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("whole module", "torch.nn.modules.linear.Linear"),
        ("namespace", "argparse.Namespace"),
        ("plain pickle", "weights"),
        ("truncated", "truncated"),
        ("torchscript", "TorchScript"),
        ("other zip", "not one of PyTorch"),
        ("pt2", ".pt2"),
        ("no tensors", "epoch"),
        ("list", "list"),
        ("html", "web page"),
        ("lfs", "git lfs pull"),
        ("empty", "is empty"),
        ("noise", "not a PyTorch"),
    ],
)
def test_every_wrong_file_is_named(tmp_path: Path, state: dict[str, Tensor], kind: str, part: str) -> None:
    path = tmp_path / "wrong.pt"
    _write_wrong_file(kind, path, state)
    with pytest.raises(ModelFileError) as caught:
        load_weights(path)
    text = caught.value.render()
    assert part in text
    assert str(path) in text
    assert "weights_only" not in text


def test_malicious_pickle_is_never_executed(tmp_path: Path) -> None:
    for legacy in (False, True):
        torch.save(
            {"state_dict": _Evil(tmp_path / "marker")},
            tmp_path / "evil.pt",
            _use_new_zipfile_serialization=not legacy,
        )
        with pytest.raises(ModelFileError) as caught:
            load_weights(tmp_path / "evil.pt")
        assert "run code" in caught.value.message
    assert not (tmp_path / "marker").exists()


def test_damaged_safetensors(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = tmp_path / "a.safetensors"
    save_file(state, path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ModelFileError, match="safetensors"):
        load_weights(path)


def test_nan_is_named(tmp_path: Path, state: dict[str, Tensor]) -> None:
    state["1.weight"][1] = float("nan")
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(ModelFileError) as caught:
        load_weights(tmp_path / "a.pt")
    assert caught.value.causes == ("1.weight holds NaN or infinity",)


def test_apply_weights_lists_every_misfit(state: dict[str, Tensor]) -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    wrong = dict(state)
    wrong["0.weights"] = wrong.pop("0.weight")
    wrong["1.bias"] = torch.zeros(7)
    with pytest.raises(ModelFileError) as caught:
        apply_weights(module, wrong)
    text = "\n".join(caught.value.causes)
    assert "missing: 0.weight (3, 4) (did you mean 0.weights?)" in text
    assert "unexpected: 0.weights (3, 4)" in text
    assert "shape: 1.bias is (7,) in the file and (3,)" in text


def test_apply_weights_fills_the_module(state: dict[str, Tensor]) -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    del state["1.num_batches_tracked"]
    apply_weights(module, state)
    assert torch.equal(module[0].weight, state["0.weight"])


def test_an_architecture_may_bear_a_prefix_itself(tmp_path: Path, state: dict[str, Tensor]) -> None:
    class Wrapper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))

    torch.save({"model." + name: value for name, value in state.items()}, tmp_path / "a.pt")
    module = Wrapper()
    apply_weights(module, load_weights(tmp_path / "a.pt"))
    assert torch.equal(module.model[0].weight, state["0.weight"])


class Options(dict[str, object]):
    """A dictionary of a class of its own, as trainers keep their settings in."""


def _call(text: str) -> object:
    raise AssertionError(text)


class _Called:
    def __reduce__(self) -> tuple[object, ...]:
        return _call, ("this must never run",)


@pytest.mark.parametrize("legacy", [False, True])
def test_objects_beside_the_weights_are_not_needed(tmp_path: Path, state: dict[str, Tensor], legacy: bool) -> None:
    beside = {"args": Namespace(lr=1), "best": np.float64(0.9), "path": PurePosixPath("x"), "own": Options(a=1)}
    stored = {
        "epoch": 3,
        "queue": deque([1, 2]),
        **beside,
        "state_dict": state,
        "more": [_Called()],
        "date": datetime(2024, 1, 1),
    }
    torch.save(stored, tmp_path / "a.pt", _use_new_zipfile_serialization=not legacy)
    found = load_weights(tmp_path / "a.pt")
    check(found, state)
    assert {"argparse.Namespace", "datetime.datetime"} <= set(found.left_out)
    assert any(name.endswith("_call") for name in found.left_out)
    torch.save(state, tmp_path / "b.pt")
    assert load_weights(tmp_path / "b.pt").left_out == ()


@pytest.mark.parametrize("prefix", ["module.", "backbone.encoder.", "a.0."])
@pytest.mark.parametrize("more", ["n_averaged", "loss.weight", "head.bias"])
def test_a_prefix_and_tensors_that_nobody_needs(state: dict[str, Tensor], prefix: str, more: str) -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    notes = apply_weights(module, {**{prefix + name: value for name, value in state.items()}, more: torch.ones(2)})
    assert torch.equal(module[0].weight, state["0.weight"])
    assert prefix[:-1] in notes[0]
    assert more in notes[1]


def test_names_as_they_are_come_before_a_prefix(state: dict[str, Tensor]) -> None:
    """An average of the weights may lie beside them, and is not what was asked for."""
    module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    copies = {f"ema.{name}": value + 1 for name, value in state.items()}
    (note,) = apply_weights(module, {**copies, **state})
    assert torch.equal(module[0].weight, state["0.weight"])
    assert "ema.0.weight" in note
