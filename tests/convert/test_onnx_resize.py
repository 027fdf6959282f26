"""Resize at many scales against ONNX Runtime, whose float32 arithmetic decides which entries are copied."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from snnconvert.convert.onnx_import import import_onnx
from snnconvert.graph.dialect import calls

SIZES = (5, 8, 13, 30)
SCALES = (
    *(0.1, 0.2, 0.3, 1 / 3, 0.375, 0.4, 0.45, 0.5, 0.55, 0.6, 2 / 3, 0.7, 0.75, 0.8, 0.9, 0.95),
    *(1.0, 1.05, 1.1, 1.2, 1.25, 4 / 3, 1.4, 1.5, 1.6, 5 / 3, 1.75, 1.9, 2.0, 2.2, 2.6, 3.0, 3.3, 3.7, 5.4),
)
COORDINATES = (
    *("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric", "align_corners", "asymmetric"),
    "tf_half_pixel_for_nn",
)
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


def resized(path: Path, size: int, *, opset: int, by_sizes: bool = False, **attributes: object) -> onnx.ModelProto:
    """One Resize per scale, all of the same input (2 channels, `size` x 3)."""
    nodes, constants, outputs = [], [], []
    for index, scale in enumerate(scale for scale in SCALES if int(np.float32(scale) * np.float32(size))):
        given = np.array([1, 1, scale, 1], dtype=np.float32)
        if by_sizes:
            given = np.array([1, 2, int(size * scale), 4], dtype=np.int64)
        constants.append(numpy_helper.from_array(given, f"given{index}"))
        inputs = ["x", f"given{index}"] if opset == 10 else ["x", "", *([""] * by_sizes), f"given{index}"]
        nodes.append(helper.make_node("Resize", inputs, [f"y{index}"], **attributes))
        outputs.append(helper.make_empty_tensor_value_info(f"y{index}"))
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, size, 3])
    graph = helper.make_graph(nodes, "g", [value], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, path)
    return model


def compare(path: Path, size: int, tolerance: float) -> None:
    samples = torch.arange(2.0 * size * 3).reshape(1, 2, size, 3)
    quiet = onnxruntime.SessionOptions()
    quiet.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), quiet, providers=["CPUExecutionProvider"])
    expected = session.run(None, {"x": samples.numpy()})
    ann = import_onnx(path)
    assert ann.outputs == tuple(value.name for value in session.get_outputs())
    with torch.no_grad():
        found = ann.graph(samples)
    for name, theirs, ours in zip(ann.outputs, expected, found, strict=True):
        assert theirs.shape == tuple(ours.shape), name
        np.testing.assert_allclose(ours.numpy(), theirs, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_nearest_copies_the_same_entries(rounding: str, coordinates: str, size: int, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    for by_sizes in (False, True):
        attributes = {"coordinate_transformation_mode": coordinates, "nearest_mode": rounding, "mode": "nearest"}
        resized(path, size, opset=19, by_sizes=by_sizes, **attributes)
        compare(path, size, 0.0)


@pytest.mark.parametrize("size", SIZES)
def test_nearest_before_there_were_modes(size: int, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    resized(path, size, opset=10, mode="nearest")
    compare(path, size, 0.0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("coordinates", COORDINATES)
def test_linear_has_the_same_weights(coordinates: str, size: int, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    for by_sizes in (False, True):
        resized(path, size, opset=19, by_sizes=by_sizes, coordinate_transformation_mode=coordinates, mode="linear")
        compare(path, size, 1e-4 * size)


def test_linear_is_torchs_own_where_that_agrees(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    resized(path, 8, opset=17, mode="linear", coordinate_transformation_mode="half_pixel")
    kinds = [type(op).__name__ for _, op in calls(import_onnx(path).graph)]
    assert "Resize" in kinds
    assert "Linear" in kinds  # 0.4 of 8 entries are 3, which is another ratio than 0.4
