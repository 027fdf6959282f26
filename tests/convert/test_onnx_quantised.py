"""Quantised operators: read as real numbers, close to what ONNX Runtime computes in integers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from snnconvert.convert.onnx_import import import_onnx
from snnconvert.convert.onnx_reference import compare_with_onnxruntime
from snnconvert.errors import InternalError
from snnconvert.graph.dialect import calls, origin_of, sites
from snnconvert.graph.kinds import Linear
from snnconvert.request import Request
from snnconvert.stages import open_ann

RNG = np.random.default_rng(0)
QUANTISED = (
    "QLinearConv",
    "QLinearMatMul",
    "QLinearAdd",
    "QLinearMul",
    "QLinearGlobalAveragePool",
    "QLinearAveragePool",
    "QLinearConcat",
    "QLinearLeakyRelu",
    "QLinearSoftmax",
    "QLinearSigmoid",
    "QGemm",
)
SETTINGS: dict[str, dict[str, Any]] = {
    "QLinearAveragePool": {"kernel_shape": [2, 2], "strides": [2, 2], "channels_last": 0},
    "QLinearConcat": {"axis": 1},
    "QLinearLeakyRelu": {"alpha": 0.25},
    "QLinearSoftmax": {"axis": -1, "opset": 13},
}


def quantised_model(operator: str) -> tuple[onnx.ModelProto, tuple[int, ...]]:
    """QuantizeLinear(x) -> operator -> DequantizeLinear."""
    image = operator in ("QLinearConv", "QLinearGlobalAveragePool", "QLinearAveragePool")
    shape = (3, 6, 6) if image else (6,)
    domain = "" if operator in ("QLinearConv", "QLinearMatMul") else "com.microsoft"
    constants: dict[str, np.ndarray] = {
        "s": np.float32(0.01),
        "z": np.uint8(128),
        "so": np.float32(0.05),
        "zo": np.uint8(100),
        "ws": np.float32(0.01),
        "wz": np.int8(3),
    }
    attributes: dict[str, Any] = {}
    inputs = ["q", "s", "z"]
    if operator == "QLinearConv":
        constants["w"] = RNG.integers(-100, 100, (4, 3, 3, 3)).astype(np.int8)
        constants["ws"], constants["wz"] = RNG.uniform(0.001, 0.01, 4).astype(np.float32), np.zeros(4, np.int8)
        constants["b"] = RNG.integers(-500, 500, 4).astype(np.int32)
        inputs += ["w", "ws", "wz", "so", "zo", "b"]
        attributes["pads"] = [1, 1, 1, 1]
    elif operator == "QLinearMatMul":
        constants["w"] = RNG.integers(-50, 50, (6, 4)).astype(np.int8)
        inputs += ["w", "ws", "wz", "so", "zo"]
    elif operator in ("QLinearAdd", "QLinearMul"):
        constants["w"] = RNG.integers(0, 200, (6,)).astype(np.uint8)
        constants["wz"] = np.uint8(3)
        inputs += ["w", "ws", "wz", "so", "zo"]
    elif operator == "QGemm":
        constants["w"] = RNG.integers(-50, 50, (4, 6)).astype(np.int8)
        constants["b"] = RNG.integers(-500, 500, 4).astype(np.int32)
        inputs += ["w", "ws", "wz", "b", "so", "zo"]
        attributes["transB"] = 1
    else:
        inputs += ["so", "zo"]
        if operator == "QLinearGlobalAveragePool":
            attributes["channels_last"] = 0
    if operator in SETTINGS:
        attributes = SETTINGS[operator]
        constants["so"], constants["zo"] = np.float32(0.01), np.uint8(0 if operator == "QLinearSoftmax" else 128)
        inputs = ["so", "zo", *["q", "s", "z"] * 2] if operator == "QLinearConcat" else inputs
    if operator in ("QGemm", "QLinearGlobalAveragePool"):
        constants["so"] = np.float32(0.02 if operator == "QGemm" else 0.002)
    if operator == "QLinearSigmoid":
        constants["so"], constants["zo"] = np.float32(1 / 256), np.uint8(0)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node(operator, inputs, ["r"], name="node", domain=domain, **attributes),
        helper.make_node("DequantizeLinear", ["r", "so", "zo"], ["y0"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *shape])],
        [helper.make_empty_tensor_value_info("y0")],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10), shape


@pytest.mark.parametrize("operator", QUANTISED)
def test_quantised_operator_is_dequantised(operator: str, tmp_path: Path) -> None:
    model, shape = quantised_model(operator)
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    ann = import_onnx(path)
    assert any("quantised" in note for note in ann.source.notes)
    samples = torch.rand(3, *shape, generator=torch.Generator().manual_seed(1)) * 2 - 1
    comparison = compare_with_onnxruntime(ann, path, samples)
    assert comparison.ran, comparison.reason
    assert comparison.largest <= 0.06


def pairs_model(opset: int) -> onnx.ModelProto:
    """What quantisers write: every weight behind a DequantizeLinear, every activation between a pair, no ReLU left."""
    weights = {"w1": RNG.integers(-100, 100, (8, 12)), "w2": RNG.integers(-100, 100, (4, 8))}
    constants: dict[str, np.ndarray] = {name: value.astype(np.int8) for name, value in weights.items()}
    constants |= {"ws": np.float32(0.01), "wz": np.int8(0), "s": np.float32(0.004), "so": np.float32(0.02)}
    constants |= {"z": np.uint8(0), "b1": RNG.integers(-500, 500, 8).astype(np.int32), "bs": np.float32(4e-5)}
    nodes = []
    for name in weights:
        nodes.append(helper.make_node("DequantizeLinear", [name, "ws", "wz"], [f"{name}_real"], name=f"{name}_dq"))
    nodes.append(helper.make_node("DequantizeLinear", ["b1", "bs"], ["b1_real"], name="b1_dq"))
    value = "x"
    for step, scale in (("1", "s"), ("2", "so")):
        inputs = [f"q{step}", f"w{step}_real", *(["b1_real"] if step == "1" else [])]
        nodes += [
            helper.make_node("QuantizeLinear", [value, scale, "z"], [f"i{step}"], name=f"quantise_{step}"),
            helper.make_node("DequantizeLinear", [f"i{step}", scale, "z"], [f"q{step}"], name=f"real_{step}"),
            helper.make_node("Gemm", inputs, [f"g{step}"], name=f"fc_{step}", transB=1),
        ]
        value = f"g{step}"
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 12])],
        [helper.make_tensor_value_info("g2", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


@pytest.mark.parametrize("opset", [11, 13, 19])
def test_a_quantised_file_is_converted(opset: int, tmp_path: Path) -> None:
    """Its rounding is no misread model: it is said, with its size, and the conversion goes on."""
    path = tmp_path / "model.onnx"
    onnx.save(pairs_model(opset), path)
    ann, facts = open_ann(Request(model=str(path)))
    assert [origin_of(node).name for node, _ in sites(ann.graph)] == ["quantise_2"]
    assert any("weights were dequantised" in note for note in ann.source.notes)
    assert any("random samples differ by" in note for note in ann.source.notes)
    assert facts.comparison is not None and 0 < facts.comparison["max_difference"] < 0.05


def test_a_misread_quantised_file_is_still_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(pairs_model(13), path)
    ann = import_onnx(path)
    for _, op in calls(ann.graph):
        if isinstance(op, Linear):
            op.weight.neg_()
    with pytest.raises(InternalError):
        compare_with_onnxruntime(ann, path, torch.rand(2, 12))


def test_a_file_that_nothing_can_be_compared_with_says_so(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(pairs_model(10), path)  # Gemm without a bias is not valid before opset 11
    ann, _ = open_ann(Request(model=str(path)))
    assert any("not compared with ONNX Runtime" in note for note in ann.source.notes)
