"""The ONNX door: what it refuses, and what it says then."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from onnx_graphs import CONV, WEIGHT, Nodes, checked, floats, save

from snnconvert.convert.onnx_import import import_onnx
from snnconvert.convert.onnx_reference import compare_with_onnxruntime
from snnconvert.errors import ClaimError, DataError, ModelFileError, OptionError, UnsupportedError

# --- input shapes ---------------------------------------------------------------------------------


def test_open_sizes_need_input_shape(tmp_path: Path) -> None:
    path = save(tmp_path / "net.onnx", CONV, WEIGHT, shape=("N", 3, "H", "W"))
    with pytest.raises(DataError, match="leaves its size open") as caught:
        import_onnx(path)
    assert "input_shape" in caught.value.hint
    assert checked(path, input_shape=(3, 10, 9)).input_shape == (3, 10, 9)
    with pytest.raises(OptionError, match="does not fit"):
        import_onnx(path, input_shape=(4, 10, 9))


# --- refusals -------------------------------------------------------------------------------------


def test_all_unsupported_nodes_are_listed_at_once(tmp_path: Path) -> None:
    nodes: Nodes = [
        ("NonZero", ["x"], ["a"], {}),
        ("Relu", ["x"], ["r"], {}),
        ("NonZero", ["r"], ["b"], {}),
    ]
    path = save(tmp_path / "net.onnx", nodes, {}, outputs=("a", "b"))
    with pytest.raises(UnsupportedError, match="2 node") as caught:
        import_onnx(path)
    assert [cause.split(":")[0] for cause in caught.value.causes] == ["NonZero_0 (NonZero)", "NonZero_2 (NonZero)"]


def test_nodes_found_while_importing_are_listed_together(tmp_path: Path) -> None:
    nodes: Nodes = [
        ("Cast", ["x"], ["a"], {"to": TensorProto.INT64}),
        ("Softmax", ["x"], ["b"], {"axis": 0}),
        ("Conv", ["x", "w"], ["c"], {"group": 2}),
        ("Relu", ["a"], ["d"], {}),
        ("Relu", ["x"], ["e"], {"strange": 1}),
    ]
    path = save(tmp_path / "net.onnx", nodes, WEIGHT, outputs=("d", "b", "c", "e"))
    with pytest.raises(UnsupportedError) as caught:
        import_onnx(path)
    names = [cause.split(":")[0] for cause in caught.value.causes]
    assert names == ["Cast_0 (Cast)", "Softmax_1 (Softmax)", "Conv_2 (Conv)", "Relu_4 (Relu)"]


def test_several_or_strange_inputs_are_refused(tmp_path: Path) -> None:
    other = helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1])
    with pytest.raises(UnsupportedError, match=r"do not have the batch as their first axis.* mask \(1\)"):
        import_onnx(save(tmp_path / "a.onnx", CONV, WEIGHT, more=(other,)))
    with pytest.raises(UnsupportedError, match=r"'x' of .* is bool"):
        import_onnx(save(tmp_path / "b.onnx", CONV, WEIGHT, kind=TensorProto.BOOL))


@pytest.mark.parametrize("opset", [6, onnx.defs.onnx_opset_version() + 1])
def test_opsets_outside_the_known_range(tmp_path: Path, opset: int) -> None:
    with pytest.raises(UnsupportedError, match=f"opset {opset}; opsets 7 to") as caught:
        import_onnx(save(tmp_path / "net.onnx", CONV, WEIGHT, opset=opset))
    assert "export" in caught.value.hint


def test_a_hostile_constant_is_not_computed(tmp_path: Path) -> None:
    nodes: Nodes = [("ConstantOfShape", ["huge"], ["c"], {}), ("Add", ["x", "c"], ["y"], {})]
    path = save(tmp_path / "net.onnx", nodes, {"huge": np.array([2**20, 2**20])})
    with pytest.raises(ClaimError, match="the constant that ConstantOfShape_0 computes"):
        import_onnx(path)


# --- bad files ------------------------------------------------------------------------------------


def truncated(path: Path) -> None:
    save(path, CONV, WEIGHT)
    path.write_bytes(path.read_bytes()[:-40])


def no_input(path: Path) -> None:
    save(path, CONV, WEIGHT)
    model = onnx.load(path)
    del model.graph.input[:]
    onnx.save(model, path)


def lost_weights(path: Path) -> None:
    save(path, CONV, {"w": floats(64, 3, 3, 3)})
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    (path.parent / "weights.bin").unlink()


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda _: None, "does not exist"),
    "directory": (lambda path: path.mkdir(), "is a folder"),
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "html": (lambda path: path.write_text("\n<!DOCTYPE html><html>404</html>"), "is a web page"),
    "lfs": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid"), "Git LFS pointer"),
    "zip": (lambda path: path.write_bytes(b"PK\x03\x04....archive/data.pkl"), "zip archive"),
    "pickle": (lambda path: path.write_bytes(b"\x80\x02}q\x00."), "Python pickle"),
    "keras": (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n0000"), "HDF5"),
    "tflite": (lambda path: path.write_bytes(b"\x1c\0\0\0TFL3...."), "TFLite"),
    "noise": (lambda path: path.write_bytes(bytes(range(255, 0, -1))), "not a readable ONNX file"),
    "truncated": (truncated, "not a readable ONNX file"),
    "no input": (no_input, "has no input"),
    "nan": (lambda path: save(path, CONV, {"w": WEIGHT["w"] * np.float32(np.nan)}), "'w' holds NaN"),
    "infinite": (lambda path: save(path, CONV, {"w": WEIGHT["w"] * np.float32(np.inf)}), "'w' holds infinite"),
    "lost weights": (lost_weights, "weights of"),
}


@pytest.mark.parametrize("name", list(BAD))
def test_bad_file_is_explained(tmp_path: Path, name: str) -> None:
    make, message = BAD[name]
    path = tmp_path / "model.onnx"
    make(path)
    with pytest.raises(ModelFileError) as caught:
        import_onnx(path)
    assert message in caught.value.render() and caught.value.hint
    assert "model.onnx" in caught.value.message


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_an_attribute_that_is_no_number_is_named(tmp_path: Path, value: float) -> None:
    net: Nodes = [("LeakyRelu", ["x"], ["y"], {"alpha": value})]
    with pytest.raises(UnsupportedError, match="cannot be converted") as caught:
        import_onnx(save(tmp_path / "model.onnx", net, {}))
    assert f"its attribute alpha is {value}" in caught.value.render()


def test_a_batch_beyond_the_memory_is_not_compared(tmp_path: Path) -> None:
    path = save(tmp_path / "net.onnx", CONV, WEIGHT, shape=(10**9, 3, 8, 8))
    comparison = compare_with_onnxruntime(import_onnx(path), path, torch.rand(2, 3, 8, 8))
    assert not comparison.ran
    assert "batches of 1,000,000,000, whose inputs alone take 715 GiB" in comparison.reason
