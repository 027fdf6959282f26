"""Constant folding: nodes whose inputs are all constant are computed at once by the reference code of onnx."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.shape_inference import infer_node_outputs

from snnconvert.budget import Claims, elements
from snnconvert.convert.lowering.flow import BATCH, Array, Refusal
from snnconvert.convert.onnx_ops.reading import as_float32
from snnconvert.convert.onnx_ops.scope import without_batch

_SHAPED = {"ConstantOfShape": 0, "Expand": 1, "Tile": 1}
_PER_SAMPLE = ("Add", "Sub", "Mul", "Unsqueeze", "Cast", "Identity")
# the first opset whose form onnx can compute itself; the forms before it mean the same
_COMPUTED_FROM = {"QuantizeLinear": 19, "DequantizeLinear": 19}
_RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli")
# decode files in the file, or search texts: nothing that weights and shapes are made with
_FOREIGN = ("ImageDecoder", "RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit", "TfIdfVectorizer")
# of an input whose values decide the shape of a result
_MOST_SIZES = 64


@dataclass(frozen=True)
class PerSample:
    """Integers that depend on a sample's number n only, as first + n * (second - first); axis 0 is the batch.

    Exporters make such index arithmetic of the whole batch out of a Range (for torch.as_strided, for instance).

    Attributes:
        first, second: the values for samples 0 and 1, each with a batch axis of size 1.
    """

    first: Array
    second: Array


def fold(node: onnx.NodeProto, inputs: list[Array | None], opset: int, claims: Claims) -> list[Array]:
    """Outputs of `node` on constants.

    Raises:
        Refusal: if the operator is random, not part of ONNX, or cannot be computed.
        ClaimError: if the outputs are more than the file may ask for.
    """
    if node.domain not in ("", "ai.onnx") or node.op_type in (*_RANDOM, *_FOREIGN):
        raise Refusal("it is random, or no operator of ONNX that computes with numbers")
    if node.op_type == "BatchNormalization" and opset < 14:
        raise Refusal("a batch norm of a constant; onnx's own code takes it for training there")
    inputs = list(inputs)
    position = _SHAPED.get(node.op_type)
    if position is not None and len(inputs) > position:
        # The batch in a constant's shape becomes 1: a constant is the same for every sample.
        asked = inputs[position]
        assert asked is not None
        inputs[position] = np.array(without_batch(asked.reshape(-1).tolist()), dtype=np.int64)
    if node.op_type == "Range":
        start, limit, step = (float(np.reshape(value, -1)[0]) for value in inputs if value is not None)
        if not all(map(math.isfinite, (start, limit, step))) or step == 0 or (limit - start) / step > BATCH - 1:
            raise Refusal("a range over the batch, or too large")
    names = [f"i{index}" if value is not None else "" for index, value in enumerate(inputs)]
    outputs = [f"o{index}" for index in range(len(node.output))]
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    del copy.input[:], copy.output[:]
    copy.input.extend(names)
    copy.output.extend(outputs)
    graph = helper.make_graph(
        [copy],
        "fold",
        [helper.make_value_info(name, onnx.TypeProto()) for name in names if name],
        [helper.make_value_info(name, onnx.TypeProto()) for name in outputs],
    )
    opset = max(opset, _COMPUTED_FROM.get(node.op_type, 0))
    claims.add(_size(copy, inputs, opset), f"the constant that {node.name or node.op_type} computes")
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    feeds = {name: value for name, value in zip(names, inputs, strict=True) if name}
    try:
        results = ReferenceEvaluator(model).run(None, feeds)
    except Exception as error:  # the reference code raises whatever numpy raises
        raise Refusal(f"it cannot be computed on constants: {error}") from error
    return [as_float32(np.asarray(result))[0] for result in results]


def _size(node: onnx.NodeProto, inputs: list[Array | None], opset: int) -> int:
    """Bytes of all outputs of `node`, by the rules of ONNX for shapes; a size that only values tell is the inputs'."""
    given = {name: value for name, value in zip(node.input, inputs, strict=True) if name and value is not None}
    try:
        found = infer_node_outputs(
            onnx.defs.get_schema(node.op_type, opset, ""),
            node,
            {name: helper.make_tensor_type_proto(_element(value), value.shape) for name, value in given.items()},
            {name: numpy_helper.from_array(value) for name, value in given.items() if value.size <= _MOST_SIZES},
            opset_imports=[helper.make_opsetid("", opset)],
        )
    except Exception:  # what does not fit is refused by the reference code, in its own words
        return 0
    largest = max((value.size for value in given.values()), default=1)
    sizes = []
    for output in found.values():
        axes = output.tensor_type.shape.dim
        bytes_each = helper.tensor_dtype_to_np_dtype(output.tensor_type.elem_type or 1).itemsize
        sizes.append(bytes_each * elements(axis.dim_value if axis.HasField("dim_value") else largest for axis in axes))
    return sum(sizes)


def _element(value: Array) -> int:
    return int(helper.np_dtype_to_tensor_dtype(value.dtype))


def range_over_batch(inputs: list[Array | None]) -> PerSample | None:
    """The numbers of the samples, if these are the inputs of a Range from 0 to the batch size."""
    values = [float(np.reshape(value, -1)[0]) for value in inputs if value is not None]
    return PerSample(np.array([0]), np.array([1])) if values == [0, BATCH, 1] else None


def fold_per_sample(
    node: onnx.NodeProto, inputs: list[Array | PerSample | None], opset: int, claims: Claims
) -> PerSample:
    """An affine operator on numbers that depend on the sample.

    Raises:
        Refusal: if the operator is not known to be affine, or moves the batch axis.
    """
    rank = max(value.first.ndim for value in inputs if isinstance(value, PerSample))
    moving = sum(isinstance(value, PerSample) for value in inputs)
    if node.op_type not in _PER_SAMPLE or (node.op_type == "Mul" and moving > 1):
        raise Refusal("it computes with the numbers of the samples in a batch")
    given = [
        [getattr(value, name) if isinstance(value, PerSample) else value for value in inputs]
        for name in ("first", "second")
    ]
    both = [fold(node, one, opset, claims)[0] for one in given]
    axes = [axis for value in inputs[1:] if isinstance(value, np.ndarray) for axis in value.reshape(-1).tolist()]
    if node.op_type == "Unsqueeze":
        if 0 in axes or -both[0].ndim in axes:
            raise Refusal("it moves the batch of an index computation")
    elif both[0].ndim != rank or both[0].shape[0] != 1:
        raise Refusal("it moves the batch of an index computation")
    return PerSample(both[0], both[1])
