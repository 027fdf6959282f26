"""A training method is a class and a row."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest
from torch import Tensor

import snnconvert
from snnconvert.data.bundled import dataset_for
from snnconvert.train import TRAINING_METHODS, TrainingMethod
from snnconvert.train.images import Batch
from snnconvert.train.method import Method

TRAIN, _, _ = dataset_for("digits-cnn")


class OnlyBiases(Method):
    """Learns biases by the squared error of the answers at the last step."""

    def learns(self) -> dict[str, Tensor]:
        return {name: one for name, one in self.student.parameters().items() if name.endswith(".bias")}

    def loss(self, batch: Batch, goal: list[Tensor]) -> Tensor:
        return (self.student(batch.images)[0][-1] - goal[0]).square().mean()

    def record(self) -> dict[str, Any]:
        return {"details": {"learned": len(self.learns())}}


def test_a_new_method_is_a_class_and_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("snnconvert.train.methods.only_biases")
    module.OnlyBiases = OnlyBiases  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(TRAINING_METHODS, "biases", TrainingMethod("biases alone", "a test", "only_biases:OnlyBiases"))
    options: dict[str, Any] = {"timesteps": 1, "schedule": "streaming", "calibration": "mse", "limit": 50}
    snn = snnconvert.convert_model("zoo:digits-cnn", **options).snn
    found = snnconvert.finetune(snn, data=str(TRAIN), method="biases", epochs=1, learning_rate=3e-3)
    assert found.report["training"]["details"] == {"learned": 5}
    before, after = (dict(one.calibrated.network.graph.named_buffers()) for one in (snn, found.snn))
    changed = {name for name in before if not before[name].equal(after[name])}
    assert changed
    assert all(name.endswith("bias") for name in changed)
