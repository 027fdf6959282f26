"""Small ONNX graphs for the tests of the ONNX door."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from snnconvert.convert.onnx_import import import_onnx
from snnconvert.convert.onnx_reference import compare_with_onnxruntime
from snnconvert.graph.dialect import calls, verify
from snnconvert.graph.kinds import Stage
from snnconvert.graph.types import Ann

RNG = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return RNG.uniform(-1, 1, shape).astype(np.float32)


Nodes = list[tuple[str, list[str], list[str], dict[str, object]]]


def save(
    path: Path,
    nodes: Nodes,
    constants: dict[str, np.ndarray],
    *,
    shape: tuple[int | str | None, ...] = ("N", 3, 8, 8),
    outputs: tuple[str, ...] = ("y",),
    opset: int = 17,
    kind: int = TensorProto.FLOAT,
    as_inputs: bool = False,
    more: tuple[onnx.ValueInfoProto, ...] = (),
) -> Path:
    inputs = [helper.make_tensor_value_info("x", kind, shape), *more]
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    if as_inputs:
        inputs += [helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims) for tensor in tensors]
    graph = helper.make_graph(
        [helper.make_node(kind_, a, b, name=f"{kind_}_{i}", **c) for i, (kind_, a, b, c) in enumerate(nodes)],
        "g",
        inputs,
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        tensors,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10), path)
    return path


def checked(path: Path, samples: int = 2, tolerance: float = 1e-4, **options: object) -> Ann:
    """Import, verify, and compare with ONNX Runtime."""
    ann = import_onnx(path, **options)  # type: ignore[arg-type]
    verify(ann.graph, Stage.ANN)
    values = torch.rand(samples, *ann.input_shape, generator=torch.Generator().manual_seed(3))
    comparison = compare_with_onnxruntime(ann, path, values, tolerance=tolerance)
    assert comparison.ran, comparison.reason
    assert set(comparison.differences) == set(ann.outputs)
    return ann


def kinds(ann: Ann) -> list[str]:
    return [type(op).__name__ for _, op in calls(ann.graph)]


CONV: Nodes = [("Conv", ["x", "w"], ["c"], {}), ("Relu", ["c"], ["y"], {})]
WEIGHT = {"w": floats(4, 3, 3, 3)}
