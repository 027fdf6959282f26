"""Gradients at active places are those of dense backpropagation through time."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import snnconvert
from snnconvert.api.network import SpikingNetwork
from snnconvert.errors import OptionError
from snnconvert.train import native
from snnconvert.train.sparse import SparseBackward
from snnconvert.train.student import Student


@functools.cache
def perceptron(frames: int) -> SpikingNetwork:
    """Three linear layers."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Flatten(), nn.Linear(36, 24), nn.ReLU(), nn.Linear(24, 20), nn.ReLU(), nn.Linear(20, 5)
    )  # fmt: skip
    options: dict[str, Any] = {"timesteps": frames, "schedule": "streaming", "calibration": "mse"}
    return snnconvert.convert_model(module, input_shape=(1, 6, 6), **options).snn


def student(width: float, dtype: torch.dtype = torch.float64, frames: int = 30) -> Student:
    """A student of it whose weights and biases are in double precision."""
    snn = perceptron(frames)
    assert snn.calibrated is not None
    made = Student(snn.calibrated, snn.schedule, width=width)
    for name, one in made.parameters().items():
        node, _, field = name.rpartition(".")
        if field in ("weight", "bias"):
            setattr(made.graph.get_submodule(node), field, one.detach().to(dtype).requires_grad_())
    for site in made.sites.values():
        site.start, site.growth = site.start.to(dtype), site.growth.to(dtype)
        site.initial = site.initial.detach().to(dtype)
    return made


@pytest.mark.parametrize("width", [0.5, 0.02])
@pytest.mark.parametrize("library", ["native", "torch"])
def test_gradients_equal_dense_ones(width: float, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if library == "native" and native.load() is None:
        pytest.skip("the native library was not built")
    loaded = native.load() if library == "native" else None
    monkeypatch.setattr(native, "load", lambda: loaded)
    images = torch.rand(7, 1, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weights = torch.rand(5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    found, active = [], 0.0
    for sparse in (False, True):
        made = student(width)
        run = SparseBackward(made) if sparse else made
        mean = run(images)[0].double().mean(0)
        (mean.square() @ weights).sum().backward()
        learned = {name: one for name, one in made.parameters().items() if name.endswith(("weight", "bias"))}
        found.append((mean.detach(), {name: one.grad for name, one in learned.items()}))
        active = run.share if isinstance(run, SparseBackward) else active
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-6, atol=1e-6)
    assert 0 < active < (1 if width == 0.5 else 0.1)
    for name, dense in found[0][1].items():
        assert dense is not None
        assert float(dense.abs().max()) > 0, name
        torch.testing.assert_close(found[1][1][name], dense, rtol=1e-6, atol=1e-12)


def test_other_networks_are_refused() -> None:
    snn = snnconvert.convert_model("zoo:digits-cnn", timesteps=2, schedule="streaming", calibration="mse", limit=50).snn
    assert snn.calibrated is not None
    with pytest.raises(OptionError, match=r"--backward sparse is for linear layers of if neurons; .* is none"):
        SparseBackward(Student(snn.calibrated, replace(snn.schedule)))
