"""Every ONNX operator against ONNX Runtime, on one-node graphs, at the opsets where its meaning changed.

It is longer than 400 lines because the cases of all operators stand in one table.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from test_onnx_quantised import QUANTISED

from snnconvert.convert.onnx_import import import_onnx
from snnconvert.convert.onnx_ops import OPERATORS
from snnconvert.convert.onnx_reference import compare_with_onnxruntime
from snnconvert.graph.dialect import calls, verify
from snnconvert.graph.kinds import Stage

RNG = np.random.default_rng(0)
X = "x"  # the activation


def floats(*shape: int, low: float = -1.0, high: float = 1.0) -> np.ndarray:
    return RNG.uniform(low, high, shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


@dataclass
class Case:
    """One node: its sample shape (batch excluded), inputs (X, "relu" = Relu(x), arrays, None), opset, attributes."""

    shape: tuple[int, ...]
    inputs: tuple[Any, ...] = (X,)
    opset: int = 17
    outputs: int = 1
    attributes: dict[str, Any] = field(default_factory=dict)
    positive: bool = False
    tolerance: float = 1e-5
    kinds: tuple[str, ...] | None = None


def case(shape: tuple[int, ...], *inputs: Any, opset: int = 17, **options: Any) -> Case:
    known = {name: options.pop(name) for name in ("outputs", "positive", "tolerance", "kinds") if name in options}
    return Case(shape, inputs or (X,), opset, attributes=options, **known)


IMAGE = (3, 8, 8)
ODD = (3, 7, 9)
KERNEL = floats(6, 3, 3, 3)
SCALE, ZERO_U8, ZERO_I8 = np.float32(0.02), np.uint8(0), np.int8(0)
NORM = (floats(3), floats(3), floats(3), floats(3, low=0.5, high=2))
IMAGE_SCALES = np.array([1, 1, 2, 2], dtype=np.float32)
EMPTY = np.array([], dtype=np.float32)

CASES: dict[str, list[Case]] = {
    "Conv": [
        case(IMAGE, X, KERNEL, floats(6), pads=[1, 1, 1, 1], kinds=("Conv",)),
        case(IMAGE, X, KERNEL, strides=[2, 2], pads=[0, 0, 1, 1], kinds=("Pad", "Conv")),
        case(ODD, X, KERNEL, strides=[2, 2], auto_pad="SAME_UPPER"),
        case(ODD, X, KERNEL, strides=[2, 2], auto_pad="SAME_LOWER", opset=7),
        case(IMAGE, X, KERNEL, auto_pad="VALID", kernel_shape=[3, 3]),
        case(IMAGE, X, floats(6, 1, 3, 3), group=3, dilations=[2, 2], pads=[2, 2, 2, 2]),
        case((3, 9), X, floats(4, 3, 3), pads=[1, 1]),
        case((2, 4, 5, 6), X, floats(4, 2, 3, 3, 3), pads=[1, 1, 1, 1, 1, 1]),
    ],
    "ConvTranspose": [
        case(IMAGE, X, floats(3, 4, 3, 3), floats(4), strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1]),
        case(IMAGE, X, floats(3, 4, 3, 3), floats(4), strides=[2, 2], pads=[0, 0, 1, 1]),
        case(IMAGE, X, floats(3, 4, 3, 3), strides=[2, 2], auto_pad="SAME_UPPER"),
        case(IMAGE, X, floats(3, 4, 3, 3), strides=[2, 2], output_shape=[16, 16]),
        case((3, 9), X, floats(3, 2, 3), strides=[3], group=3, opset=7),
    ],
    "Gemm": [
        case((5,), X, floats(5, 4), floats(4), kinds=("Linear",)),
        case((5,), X, floats(4, 5), floats(1, 4), transB=1, alpha=0.5, beta=2.0, opset=7),
        case((5,), X, floats(4, 5), np.float32(0.5), transB=1),
        case((5,), X, floats(5, 4), opset=11),
        case((5,), X, floats(5, 5), X, beta=0.5),
    ],
    "MatMul": [
        case((4, 5), X, floats(5, 3), kinds=("Linear",)),
        case((4, 5), X, floats(1, 5, 3)),
        case((4, 5), X, floats(5)),
        case((4, 5), floats(3, 4), X),
        case((2, 4, 5), X, floats(2, 5, 3), kinds=("Constant", "MatMul")),
        case((5, 5), X, X, kinds=("MatMul",)),
    ],
    "Einsum": [
        case((4, 5), X, X, equation="bik,bjk->bij", opset=12),
        case((4, 5), X, floats(3, 5), equation="bik,jk->bij", opset=12),
        case((2, 4, 5), X, X, equation="bhik,bhjk->bhij", opset=12),
    ],
    "BatchNormalization": [
        case(IMAGE, X, *NORM, kinds=("Affine",)),
        case((3,), X, *NORM, epsilon=1e-2, opset=9),
        case(IMAGE, X, *NORM, opset=7),
    ],
    "LayerNormalization": [
        case((4, 6), X, floats(6), floats(6)),
        case((4, 6), X, floats(4, 6), axis=1, epsilon=1e-3),
    ],
    "RMSNormalization": [case((4, 6), X, floats(6), opset=23)],
    "InstanceNormalization": [case(IMAGE, X, floats(3), floats(3), epsilon=1e-3)],
    "GroupNormalization": [
        case((6, 4, 4), X, floats(3), floats(3), num_groups=3, opset=18),
        case((6, 4, 4), X, floats(6), floats(6), num_groups=3, opset=21),
    ],
    "Relu": [case(IMAGE, kinds=("Relu",))],
    "Clip": [
        case(IMAGE, X, np.float32(0), np.float32(0.5), kinds=("Clip",)),
        case(IMAGE, X, np.float32(0), kinds=("Relu",)),
        case(IMAGE, X, None, np.float32(0.5), kinds=("Clamp",)),
        case(IMAGE, X, np.float32(-0.3), np.float32(0.5)),
        case(IMAGE, min=0.0, max=0.5, opset=7, kinds=("Clip",)),
        case(IMAGE, opset=6 + 1),
        case(IMAGE, "relu", np.float32(-1), np.float32(0.5), kinds=("Relu", "Clip")),
    ],
    "LeakyRelu": [case(IMAGE, alpha=0.1), case(IMAGE, opset=7)],
    "PRelu": [case(IMAGE, X, floats(3, 1, 1)), case(IMAGE, X, floats(1, 3, 1, 1)), case(IMAGE, X, floats(1), opset=7)],
    "ThresholdedRelu": [case(IMAGE, alpha=0.0), case(IMAGE, alpha=0.6)],
    "Elu": [case(IMAGE), case(IMAGE, alpha=0.4)],
    "Selu": [case(IMAGE, kinds=("Elementwise",)), case(IMAGE, alpha=1.2, gamma=0.9)],
    "Celu": [case(IMAGE, alpha=0.7)],
    "Gelu": [case(IMAGE, opset=20), case(IMAGE, approximate="tanh", opset=20)],
    "Swish": [case(IMAGE, opset=24), case(IMAGE, alpha=0.5, opset=24)],
    "HardSigmoid": [case(IMAGE), case(IMAGE, alpha=1 / 6, beta=0.5, kinds=("Elementwise",))],
    "Ceil": [case(IMAGE)],
    "Neg": [case(IMAGE)],
    "Softmax": [
        case((4, 6)),
        case((4, 6), axis=1),
        case((4, 6), opset=11),
        case((4, 6), axis=2, opset=11),
        case((4, 6), axis=-1, opset=11),
    ],
    "LogSoftmax": [case((4, 6), axis=-1), case((4, 6), opset=11)],
    "Add": [
        case(IMAGE, X, floats(3, 1, 1), kinds=("Affine",)),
        case(IMAGE, X, X, kinds=("Add",)),
        case((1, 5), X, floats(1, 4, 5), kinds=("Expand", "Affine")),
        case(IMAGE, floats(1), X),
    ],
    "Sub": [case(IMAGE, X, floats(8)), case(IMAGE, floats(3, 1, 1), X), case(IMAGE, X, "relu")],
    "Mul": [case(IMAGE, X, floats(3, 1, 1)), case(IMAGE, X, "relu", kinds=("Relu", "Multiply")), case(IMAGE, X, X)],
    "Div": [
        case(IMAGE, X, floats(3, 1, 1, low=1, high=2)),
        case(IMAGE, floats(3, 1, 1), X, positive=True),
        case(IMAGE, X, "sigmoid", kinds=("Elementwise", "Divide")),
    ],
    "Pow": [
        case(IMAGE, X, np.float32(2)),
        case(IMAGE, X, np.float32(1.7), positive=True),
        case(IMAGE, X, np.float32(0.5), positive=True, opset=7),
        case(IMAGE, np.float32(2.5), X),
        case(IMAGE, X, np.float32(1)),
    ],
    "Sum": [case(IMAGE, X, "relu", floats(3, 1, 1)), case(IMAGE, opset=8)],
    "Mean": [case(IMAGE, X, "relu", "sigmoid")],
    "Max": [
        case(IMAGE, X, np.float32(0), kinds=("Relu",)),
        case(IMAGE, X, np.float32(0.2)),
        case(IMAGE, X, floats(3, 1, 1)),
        case(IMAGE, X, "sigmoid"),
    ],
    "Min": [
        case(IMAGE, X, np.float32(0.2)),
        case(IMAGE, "relu", np.float32(0.2), kinds=("Relu", "Clip")),
        case(IMAGE, X, "sigmoid", floats(3, 1, 1)),
    ],
    "Greater": [case(IMAGE, X, np.float32(0.2)), case(IMAGE, X, "sigmoid"), case((4,), np.float32(0.1), X)],
    "GreaterOrEqual": [case(IMAGE, X, floats(3, 1, 1)), case((4,), "relu", np.float32(0))],
    "Less": [case(IMAGE, X, np.float32(0.2)), case((4,), "relu", np.float32(0))],
    "LessOrEqual": [case(IMAGE, X, floats(8)), case((4,), "relu", np.float32(0))],
    "And": [case(IMAGE, "above", "below"), case((4,), "above", np.array([True, False, True, True]))],
    "Or": [case(IMAGE, "above", "below"), case((4,), "above", np.array([True, False, True, True]))],
    "Not": [case(IMAGE, "above")],
    "Shrink": [
        case(IMAGE, lambd=0.3, bias=0.3),
        case(IMAGE, lambd=0.3),
        case(IMAGE, lambd=0.4, bias=-0.2),
        case((4,), opset=9),
    ],
    "Where": [
        case(IMAGE, "above", X, "relu"),
        case(IMAGE, "above", np.float32(2), "sigmoid"),
        case(IMAGE, "above", "log", X),  # which is NaN where it is not chosen
        case((4, 4), np.tri(4, dtype=bool), X, np.float32(-9)),
        case((4, 4), np.tri(4, dtype=bool)[None], X, "relu"),
        case((4, 4), np.tri(4, dtype=bool), np.float32(-np.inf), X),
    ],
    "Identity": [case(IMAGE)],
    "Dropout": [case(IMAGE), case(IMAGE, ratio=0.3, opset=7), case(IMAGE, X, np.float32(0.3), np.array(False))],
    "Cast": [case(IMAGE, to=TensorProto.FLOAT), case(IMAGE, "above", to=TensorProto.FLOAT)],
    "CastLike": [case(IMAGE, X, np.float32(1))],
    "Scaler": [
        case((3,), domain="ai.onnx.ml", offset=[0.5, -1.0, 2.0], scale=[2.0, 1.0, 0.5]),
        case((3,), domain="ai.onnx.ml", offset=[0.5], scale=[2.0]),
    ],
    "ArgMax": [case((5,), axis=1, keepdims=0), case((5,), axis=-1)],
    "LRN": [
        case((7, 4, 4), size=5, alpha=0.1, beta=0.75, bias=2.0),
        case((7, 4, 4), size=3, alpha=0.1),
    ],
    "Shape": [case(IMAGE, X, opset=15, start=1, end=3)],
    "Size": [case(IMAGE)],
    "Reshape": [
        case(IMAGE, X, ints(0, -1), kinds=("Reshape",)),
        case(IMAGE, X, ints(-1, 3, 64)),
        case(IMAGE, X, ints(0, 0, 64), opset=7),
    ],
    "Flatten": [case(IMAGE), case(IMAGE, axis=2), case(IMAGE, axis=-3, opset=11)],
    "Squeeze": [case((3, 1, 5), X, ints(2)), case((3, 1, 5), axes=[2], opset=11)],
    "Unsqueeze": [case((3, 5), X, ints(1, -1)), case((3, 5), axes=[2], opset=11), case((3, 5), X, ints(0))],
    "Transpose": [
        case(IMAGE, perm=[0, 2, 3, 1], kinds=("Permute",)),
        case(IMAGE, perm=[2, 0, 1, 3], kinds=("Permute",)),
        case((4, 5)),
    ],
    "Slice": [
        case(IMAGE, X, ints(1, 0), ints(7, 2**31), ints(2, 3), ints(2, 3), kinds=("Slice", "Slice")),
        case(IMAGE, X, ints(-1), ints(-100), ints(3), ints(-1), kinds=("Select",)),
        case(IMAGE, X, ints(6), ints(1), ints(3), ints(-2), kinds=("Select",)),
        case(IMAGE, starts=[0, 1], ends=[2**31 - 1, 3], axes=[0, 1], opset=9),
        case(IMAGE, X, ints(-3), ints(-1), ints(-1)),
    ],
    "Split": [
        case((6, 4), X, ints(2, 4), axis=1, outputs=2),
        case((6, 4), axis=1, split=[1, 2, 3], outputs=3, opset=11),
        case((6, 4), axis=-1, outputs=2, opset=11),
        case((7, 4), axis=1, outputs=3, opset=18, num_outputs=3),
    ],
    "Gather": [
        case((5, 4), X, ints(3, 0, 0), axis=1, kinds=("Select",)),
        case((5, 4), X, np.int64(-1), axis=1),
        case((5, 4), X, np.array([[0, 1], [2, 3]]), axis=2),
    ],
    "GatherND": [
        case((5, 4), X, np.array([[[1, 2], [0, -1], [3, 3]]]), batch_dims=1, opset=12),
        case((5, 4), X, np.array([[[[1], [0]], [[3], [3]]]]), batch_dims=1, opset=12),
    ],
    "Concat": [
        case((3, 4), X, "relu", axis=1, kinds=("Relu", "Concat")),
        case((3, 4), X, "relu", X, axis=-1, opset=11),
    ],
    "Expand": [case((1, 4), X, ints(1, 3, 4)), case((1, 4), X, ints(3, 1))],
    "Tile": [case((3, 4), X, ints(1, 2, 3))],
    "Pad": [
        case(IMAGE, X, ints(0, 1, 0, 2, 0, 0, 3, 1), np.float32(0.5), kinds=("Pad",)),
        case(IMAGE, X, ints(0, 0, 2, 1, 0, 0, 0, 3), mode="reflect"),
        case(IMAGE, X, ints(0, 0, 2, 1, 0, 0, 0, 3), mode="edge"),
        case(IMAGE, X, ints(1, 2), None, ints(3), opset=18),
        case(IMAGE, X, ints(0, 0, -2, 1, 0, 0, 0, -3)),
        case(IMAGE, pads=[0, 0, 1, 1, 0, 0, 1, 1], value=0.25, opset=9),
        case(IMAGE, X, ints(0, 0, 2, 1, 0, 0, 0, 3), mode="wrap", opset=19),
    ],
    "DepthToSpace": [case((8, 3, 3), blocksize=2), case((8, 3, 3), blocksize=2, mode="CRD")],
    "SpaceToDepth": [case((3, 4, 6), blocksize=2)],
    "MaxPool": [
        case(IMAGE, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], kinds=("MaxPool",)),
        case(IMAGE, kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER", kinds=("MaxPool",)),
        case(IMAGE, kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_LOWER", kinds=("Pad", "MaxPool")),
        case(IMAGE, "relu", kernel_shape=[2, 2], pads=[1, 1, 0, 0], kinds=("Relu", "Pad", "MaxPool")),
        case(ODD, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1, opset=10),
        case(IMAGE, kernel_shape=[2, 2], dilations=[2, 2], opset=10),
        case((3, 9), kernel_shape=[3], strides=[2]),
        case(IMAGE, kernel_shape=[3, 3], pads=[2, 2, 2, 2], opset=8),
        case((2, 4, 5, 6), kernel_shape=[2, 3, 2], strides=[2, 1, 2], pads=[0, 1, 0, 1, 1, 0]),
    ],
    "AveragePool": [
        case(IMAGE, kernel_shape=[2, 2], strides=[2, 2], kinds=("AveragePool",)),
        case(IMAGE, kernel_shape=[3, 3], pads=[1, 1, 1, 1], kinds=("AveragePool",)),
        case(IMAGE, kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
        case(ODD, kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"),
        case(IMAGE, kernel_shape=[3, 3], strides=[2, 2], pads=[0, 1, 1, 2], kinds=("Pad", "AveragePool", "Affine")),
        case(IMAGE, kernel_shape=[3, 3], strides=[2, 2], pads=[0, 1, 1, 2], count_include_pad=1),
        case(IMAGE, kernel_shape=[2, 2], dilations=[2, 2], opset=19),
        case(ODD, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1, opset=19),
        case((3, 9), kernel_shape=[3], strides=[2], opset=7),
        case((2, 4, 4, 4), kernel_shape=[2, 2, 2], strides=[2, 2, 2]),
    ],
    "GlobalAveragePool": [case(IMAGE, kinds=("Mean",)), case((3, 9))],
    "GlobalMaxPool": [case(IMAGE, kinds=("MaxPool",)), case((2, 3, 4, 5))],
    "LpNormalization": [case((4, 5), axis=1), case((4, 5), p=1)],
    "Resize": [
        case(IMAGE, X, None, IMAGE_SCALES, mode="nearest", kinds=("Resize",)),
        case(IMAGE, X, EMPTY, EMPTY, ints(1, 3, 11, 5), mode="nearest", kinds=("Select", "Select")),
        case(
            IMAGE,
            X,
            EMPTY,
            IMAGE_SCALES,
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
            opset=11,
            kinds=("Resize",),
        ),
        case(IMAGE, X, None, IMAGE_SCALES, mode="cubic"),
        case(ODD, X, None, None, ints(1, 3, 11, 5), mode="cubic", coordinate_transformation_mode="align_corners"),
        case(IMAGE, X, None, IMAGE_SCALES, mode="cubic", exclude_outside=1, cubic_coeff_a=-0.5),
        case(IMAGE, X, None, IMAGE_SCALES, mode="linear", kinds=("Resize",)),
        case(IMAGE, X, None, None, ints(1, 3, 11, 5), mode="linear", opset=13),
        case(IMAGE, X, None, IMAGE_SCALES, mode="linear", coordinate_transformation_mode="align_corners"),
        case(IMAGE, X, None, IMAGE_SCALES, mode="linear", coordinate_transformation_mode="pytorch_half_pixel"),
        case(IMAGE, X, None, np.array([2, 2], dtype=np.float32), axes=[2, 3], opset=18),
        case(IMAGE, X, IMAGE_SCALES, opset=10),
        case((3, 9), X, None, np.array([1, 1, 2], dtype=np.float32), mode="linear"),
    ],
    "Upsample": [
        case(IMAGE, X, IMAGE_SCALES, opset=9, kinds=("Resize",)),
        case(IMAGE, scales=[1.0, 1.0, 2.0, 2.0], opset=7),
    ],
    "QuantizeLinear": [case((5,), "quantised", opset=13, tolerance=0.05)],
    "DequantizeLinear": [case((5,), "quantised", opset=13, tolerance=0.05)],
    "HardSwish": [case(IMAGE)],
    "Mish": [case(IMAGE, opset=18)],
}
SIGNED = ("Sigmoid", "Tanh", "Softplus", "Softsign", "Erf", "Exp", "Abs", "Sin", "Cos", "Floor", "Sign")
CASES |= {name: [case(IMAGE)] for name in SIGNED}
CASES |= {name: [case(IMAGE, positive=True)] for name in ("Log", "Sqrt", "Reciprocal")}
for _name in ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceL1", "ReduceSumSquare"):
    _old = {"opset": 11, "axes": [2, 3]}
    CASES[_name] = [case(IMAGE, **_old), case(IMAGE, **_old, keepdims=0), case(IMAGE, X, ints(-1), opset=18)]
CASES["ReduceLogSumExp"] = [case(IMAGE, opset=11, axes=[1])]


def test_every_operator_has_a_case() -> None:
    named = {name.rpartition(".")[2] for name in OPERATORS}
    assert named == set(CASES) | set(QUANTISED)


def model_of(
    nodes: list[onnx.NodeProto], case: Case, constants: dict[str, np.ndarray], batch: int | str
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(X, TensorProto.FLOAT, [batch, *case.shape])],
        [helper.make_empty_tensor_value_info(f"y{index}") for index in range(case.outputs)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [
        helper.make_opsetid("", case.opset),
        helper.make_opsetid("com.microsoft", 1),
        helper.make_opsetid("ai.onnx.ml", 3),
    ]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def one_node(operator: str, case: Case, batch: int | str) -> onnx.ModelProto:
    nodes, constants, names = [], {}, []
    for index, value in enumerate(case.inputs):
        if value is None:
            names.append("")
        elif isinstance(value, str) and value == X:
            names.append(X)
        elif value == "quantised" if isinstance(value, str) else False:
            constants |= {"scale": np.float32(0.02), "zero": np.uint8(100)}
            nodes.append(helper.make_node("QuantizeLinear", [X, "scale", "zero"], ["q"]))
            nodes.append(helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y0"], name="node"))
            return model_of(nodes, case, constants, batch)
        elif value in ("above", "below") if isinstance(value, str) else False:
            constants[f"{value}_edge"] = np.float32(0.25 if value == "above" else 0.75)
            nodes.append(helper.make_node("Greater" if value == "above" else "Less", [X, f"{value}_edge"], [value]))
            names.append(value)
        elif isinstance(value, str):
            nodes.append(helper.make_node(value.capitalize(), [X], [value]))
            names.append(value)
        else:
            names.append(f"c{index}")
            constants[names[-1]] = np.asarray(value)
    outputs = [f"y{index}" for index in range(case.outputs)]
    if operator == "Cast" and names == ["above"]:  # a condition in another type, and back
        nodes.append(helper.make_node("Cast", ["above"], ["whole"], to=TensorProto.INT32))
        nodes.append(helper.make_node("Cast", ["whole"], ["again"], to=TensorProto.BOOL))
        names = ["again"]
    nodes.append(helper.make_node(operator, names, outputs, name="node", **case.attributes))
    if operator in ("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Not"):  # numbers, for a model
        nodes[-1].output[0] = "truth"
        nodes.append(helper.make_node("Cast", ["truth"], ["y0"], to=TensorProto.FLOAT))
    if operator in ("Shape", "Size"):  # their results are constants; scale the activation by them
        nodes[-1].output[0] = "s"
        nodes.append(helper.make_node("Cast", ["s"], ["f"], to=TensorProto.FLOAT))
        if operator == "Size":
            constants["one"] = np.float32(0)
            nodes.append(helper.make_node("Mul", ["f", "one"], ["z"]))
            nodes.append(helper.make_node("Add", [X, "z"], ["y0"]))
        else:
            nodes.append(helper.make_node("ReduceSum", ["f"], ["sum"], keepdims=0))
            nodes.append(helper.make_node("Mul", [X, "sum"], ["y0"]))
    return model_of(nodes, case, constants, batch)


ALL = [(name, index, batch) for name, cases in CASES.items() for index in range(len(cases)) for batch in ("N", 1)]


@pytest.mark.parametrize(("operator", "index", "batch"), ALL, ids=[f"{n}-{i}-{b}" for n, i, b in ALL])
def test_operator_matches_onnxruntime(operator: str, index: int, batch: int | str, tmp_path: Path) -> None:
    chosen = CASES[operator][index]
    path = tmp_path / "model.onnx"
    onnx.save(one_node(operator, chosen, batch), path)
    ann = import_onnx(path)
    verify(ann.graph, Stage.ANN)
    assert ann.input_shape == chosen.shape
    samples = torch.rand(3, *chosen.shape, generator=torch.Generator().manual_seed(1)) * 2 - 1
    if chosen.positive:
        samples = samples.abs() + 0.1
    comparison = compare_with_onnxruntime(ann, path, samples, tolerance=chosen.tolerance)
    assert comparison.ran, comparison.reason
    if chosen.kinds is not None:
        assert tuple(type(op).__name__ for _, op in calls(ann.graph)) == chosen.kinds
