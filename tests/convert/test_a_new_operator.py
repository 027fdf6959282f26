"""A new operator is one rule in one table: each door is given one here, and a network that uses it is converted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from onnx_graphs import CONV, WEIGHT, Nodes, save
from torch import Tensor, nn

from snnconvert.convert import aten_ops, onnx_ops
from snnconvert.convert.lowering.elementwise import function
from snnconvert.convert.lowering.flow import Flow
from snnconvert.convert.lowering.scope import Scope, moving
from snnconvert.convert.onnx_import import import_onnx
from snnconvert.convert.pytorch import import_module
from snnconvert.errors import UnsupportedError
from snnconvert.pipeline import Request, run


def test_an_onnx_operator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def Double(scope: Scope, x: Any) -> Flow:  # noqa: N802 (as operators are named)
        return scope.affine(moving(x), 2.0)

    end: Nodes = [("GlobalAveragePool", ["d"], ["z"], {})]
    nodes: Nodes = [*CONV, ("Double", ["y"], ["d"], {"domain": "com.example"}), *end]
    path = save(tmp_path / "net.onnx", nodes, WEIGHT, outputs=("z",))
    with pytest.raises(UnsupportedError, match="1 node"):
        import_onnx(path)
    monkeypatch.setitem(onnx_ops.OPERATORS, "com.example.Double", Double)
    plain = import_onnx(save(tmp_path / "plain.onnx", [*CONV, *end[:0]], WEIGHT))
    images = torch.rand(3, *plain.input_shape)
    expected = 2 * plain.graph(images)[0].mean((2, 3), keepdim=True)
    assert torch.allclose(import_onnx(path).graph(images)[0], expected, rtol=1e-5)
    converted = run(Request(model=str(path), timesteps=8, calibration_samples=8, schedule="streaming"))
    assert converted.snn.outputs == ("z",)
    assert converted.evaluation.curve.timesteps[-1] == 8


def test_an_aten_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            return torch.expm1(torch.relu(self.linear(x)))

    def expm1(scope: Scope, x: Flow) -> Flow:
        return scope.affine(function(scope, x, "exp"), 1.0, -1.0)

    module = Network()
    with pytest.raises(UnsupportedError, match="1 operator"):
        import_module(module, (6,))
    monkeypatch.setitem(aten_ops.OPERATORS, "expm1", expm1)
    images = torch.rand(3, 6)
    assert torch.allclose(import_module(module, (6,)).graph(images)[0], module(images), rtol=1e-5)
