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
        # more than 64 saturates pairs of products in onnxruntime on processors without VNNI
        constants["w"] = RNG.integers(-64, 64, (4, 3, 3, 3)).astype(np.int8)
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


def integer_model(tail: str, kind: int = TensorProto.UINT8, step: float = 0.05) -> onnx.ModelProto:
    """Two layers, whose result is quantised and left so (`tail` "integers"), cast to floats, or computed with."""
    constants: dict[str, np.ndarray] = {
        "w": RNG.normal(size=(12, 16)).astype(np.float32) * 0.3,
        "v": RNG.normal(size=(16, 5)).astype(np.float32) * 0.3,
        "s": np.float32(step),
        "z": np.array(100 if kind == TensorProto.UINT8 else -7, helper.tensor_dtype_to_np_dtype(kind)),
        "half": np.float32(0.5),
        "shape": np.array([-1, 5], np.int64),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["a"]),
        helper.make_node("MatMul", ["a", "v"], ["o"]),
        helper.make_node("QuantizeLinear", ["o", "s", "z"], ["q"]),
    ]
    out, result = "q", kind
    if tail != "integers":
        nodes.append(helper.make_node("Reshape", ["q", "shape"], ["r"]))
        nodes.append(helper.make_node("Cast", ["r"], ["c"], to=TensorProto.FLOAT))
        out, result = "c", TensorProto.FLOAT
    if tail == "arithmetic":
        nodes.append(helper.make_node("Mul", ["c", "half"], ["m"]))
        out = "m"
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 12])],
        [helper.make_tensor_value_info(out, result, ["N", 5])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


@pytest.mark.parametrize("kind", [TensorProto.UINT8, TensorProto.INT8])
@pytest.mark.parametrize("tail", ["integers", "cast", "arithmetic"])
def test_outputs_of_integers_stand_for_real_numbers(tail: str, kind: int, tmp_path: Path) -> None:
    model = integer_model(tail, kind)
    onnx.save(model, tmp_path / "model.onnx")
    samples = torch.rand(16, 12, generator=torch.Generator().manual_seed(1))
    ann = import_onnx(tmp_path / "model.onnx")
    found = compare_with_onnxruntime(ann, tmp_path / "model.onnx", samples)
    assert found.ran
    assert found.largest < 0.1, "integers were compared with real numbers"
    assert any("of integers" in note for note in ann.source.notes) == (tail == "integers")
    values = ann.graph(samples)[0]
    assert (
        float(values.abs().max()) < 10 if tail == "integers" else float(values.max()) > 20 or kind == TensorProto.INT8
    )


def test_values_that_the_file_cuts_off_are_no_fault_of_the_import(tmp_path: Path) -> None:
    """With a step of 0.001 nearly every output is at the end of its range."""
    onnx.save(integer_model("integers", step=0.001), tmp_path / "model.onnx")
    samples = torch.rand(16, 12, generator=torch.Generator().manual_seed(1))
    found = compare_with_onnxruntime(import_onnx(tmp_path / "model.onnx"), tmp_path / "model.onnx", samples)
    assert found.largest > 0.5


@pytest.mark.parametrize(("kind", "zero"), [(TensorProto.UINT8, 128), (TensorProto.INT8, -3)])
def test_an_input_of_integers_is_dequantised_by_the_file(kind: int, zero: int, tmp_path: Path) -> None:
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    weights = RNG.normal(size=(12, 5)).astype(np.float32)
    constants = {"w": weights, "s": np.float32(0.03), "z": np.array(zero, dtype)}
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "s", "z"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, ["N", 12])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 5])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), tmp_path / "m.onnx")
    samples = torch.rand(4, 12, generator=torch.Generator().manual_seed(1))
    ann = import_onnx(tmp_path / "m.onnx")
    assert compare_with_onnxruntime(ann, tmp_path / "m.onnx", samples).largest < 1e-5
    whole = torch.tensor([[float(zero)] * 12])
    assert float(ann.graph(whole)[0].abs().max()) == 0.0
