"""Whatever a model calls its nodes, inputs and modules, it is converted, saved and read back."""

from __future__ import annotations

import keyword
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from snnconvert import convert_model
from snnconvert.convert.onnx_import import import_onnx
from snnconvert.convert.pytorch import import_module
from snnconvert.graph.checkpoint import load_snn, save_snn
from snnconvert.graph.dialect import Builder, calls, is_reserved, origin_of, safe_name
from snnconvert.graph.walk import values_of

NAMES = (
    *("in", "class", "None", "self", "graph", "code", "forward", "training", "recompile", "add_submodule", "input"),
    *("__class__", "__init__", "_modules", "torch", "inf", "print", "match", "0", "1x", "a.b/c:d", "x_01", "x_1", "x"),
    *("", " ", "层", "ﬁ", "é", "²", "a\x00b", "\x1b[31m", "\u202e", "[/red]", "=1+1", "a" * 5000),
)


def two_layers(path: Path, name: str, node: str = "") -> Path:
    """Gemm, ReLU, Gemm: the input, the values between and the nodes all bear the name, each in its own way."""
    values = [name or "x", f"{name} 1", f"{name} 2", f"{name} 3"]
    nodes = [
        helper.make_node("Gemm", [values[0], "w0"], [values[1]], name=node),
        helper.make_node("Relu", [values[1]], [values[2]], name=node),
        helper.make_node("Gemm", [values[2], "w1"], [values[3]], name=node),
    ]
    draw = np.random.default_rng(0)
    weights = [draw.normal(size=size).astype(np.float32) for size in ((4, 6), (6, 3))]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(values[0], TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info(values[3], TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(weight, f"w{index}") for index, weight in enumerate(weights)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize("name", NAMES, ids=lambda name: repr(name)[:20])
def test_an_onnx_file_with_that_name(tmp_path: Path, name: str) -> None:
    path = two_layers(tmp_path / "net.onnx", name, node=name)
    plain = import_onnx(two_layers(tmp_path / "plain.onnx", "v"))
    ann = import_onnx(path)
    x = torch.rand(3, 4)
    assert torch.equal(ann.graph(x)[0], plain.graph(x)[0])
    if name:
        # the user's own name is kept for messages and reports, however odd
        assert origin_of(next(node for node, _ in calls(ann.graph))).name == name


@pytest.mark.parametrize("name", ["in", "graph", "self", "层", "[/red]"])
def test_it_survives_the_checkpoint(tmp_path: Path, name: str) -> None:
    snn = convert_model(two_layers(tmp_path / "net.onnx", name, node=name), timesteps=4, calibration_samples=8).snn
    save_snn(snn, tmp_path / "net.snn")
    found = load_snn(tmp_path / "net.snn")
    x = torch.rand(3, 4)
    values = [[value for _, value in values_of(one.graph, x)] for one in (found, snn)]
    assert len(values[0]) == len(values[1]) > 3
    assert all(torch.allclose(one, two, atol=1e-6) for one, two in zip(*values, strict=True))


@pytest.mark.parametrize("name", ["in", "class", "graph", "code", "self", "None", "层", "0", "forward_", "recompile"])
def test_a_module_with_that_name(name: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.ModuleDict({name: nn.Linear(4, 6)}) if name not in ("code", "graph") else nn.ModuleDict()
            if name in ("code", "graph"):
                setattr(self, name, nn.Linear(4, 6))
            self.relu, self.out = nn.ReLU(), nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            first = self.inner[name] if name in self.inner else getattr(self, name)
            return self.out(self.relu(first(x)))  # type: ignore[no-any-return]

    net, x = Net().eval(), torch.rand(3, 4)
    assert torch.allclose(import_module(net, (4,)).graph(x)[0], net(x), atol=1e-6)


def test_every_name_is_an_identifier_of_its_own() -> None:
    taken: set[str] = set()
    for name in (*NAMES, *keyword.kwlist, *dir(torch.fx.GraphModule)):
        found = safe_name(name, taken.__contains__)
        assert found.isidentifier()
        assert found.isascii()
        assert len(found) < 250
        assert not is_reserved(found)
        assert found not in taken
        taken.add(found)


def test_a_builder_keeps_names_apart_that_read_the_same() -> None:
    builder = Builder({"a b": torch.zeros(2, 3), "a.b": torch.zeros(2, 3), "a_b": torch.zeros(2, 3)})
    assert len({node.name for node in builder.inputs.values()}) == 3
