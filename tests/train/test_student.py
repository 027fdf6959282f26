"""What is trained is the spiking network: the same outputs at every step as the engine that will run it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import snnconvert
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.train.student import Student

NETWORKS: list[tuple[str, dict[str, Any]]] = [
    ("zoo:digits-cnn", {"neuron": "if", "schedule": "streaming", "timesteps": 4}),
    ("zoo:digits-resnet", {"neuron": "ternary", "schedule": "streaming", "timesteps": 4}),
    ("zoo:digits-resnet", {"neuron": "if", "schedule": "wait", "timesteps": 12}),
    ("zoo:digits-cnn", {"neuron": "burst", "schedule": "streaming", "timesteps": 3}),
]


@pytest.mark.parametrize(("model", "options"), NETWORKS)
def test_a_student_answers_as_the_engine_does(model: str, options: dict[str, Any]) -> None:
    snn = snnconvert.convert_model(model, calibration="mse", calibration_samples=64, limit=10, **options).snn
    assert snn.calibrated is not None
    images = torch.rand(16, *snn.input_shape, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        ours = Student(snn.calibrated, snn.schedule)(images)[0]
    engine = LayerEngine(snn).run(images).outputs[0]
    exact = engine.diff(dim=0, prepend=torch.zeros_like(engine[:1])).float()
    assert ours.shape == exact.shape
    # sums in another order may move a membrane across its threshold; that is rare
    near = ((ours - exact).abs().flatten(2).amax(2) < 1e-3 * exact.abs().max()).float().mean()
    assert float(near) > 0.9
