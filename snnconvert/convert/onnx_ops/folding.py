"""Constant folding: nodes whose inputs are all constant are computed at once by the reference code of onnx."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator

from snnconvert.convert.lowering.flow import BATCH, Array, Refusal
from snnconvert.convert.onnx_ops.reading import as_float32
from snnconvert.convert.onnx_ops.scope import MOST_ELEMENTS, without_batch

_SHAPED = {"ConstantOfShape": 0, "Expand": 1, "Tile": 1}
_PER_SAMPLE = ("Add", "Sub", "Mul", "Unsqueeze", "Cast", "Identity")
# the first opset whose form onnx can compute itself; the forms before it mean the same
_COMPUTED_FROM = {"QuantizeLinear": 19, "DequantizeLinear": 19}
_RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli")


@dataclass(frozen=True)
class PerSample:
    """Integers that depend on a sample's number n only, as first + n * (second - first); axis 0 is the batch.

    Exporters make such index arithmetic of the whole batch out of a Range (for torch.as_strided, for instance).

    Attributes:
        first, second: the values for samples 0 and 1, each with a batch axis of size 1.
    """

    first: Array
    second: Array


def fold(node: onnx.NodeProto, inputs: list[Array | None], opset: int) -> list[Array]:
    """Outputs of `node` on constants.

    Raises:
        Refusal: if the operator is random, not part of ONNX, too large, or cannot be computed.
    """
    if node.domain not in ("", "ai.onnx") or node.op_type in _RANDOM:
        raise Refusal("it is random, or no operator of ONNX")
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
        if step == 0 or (limit - start) / step > min(MOST_ELEMENTS, BATCH - 1):
            raise Refusal("a range over the batch, or too large")
    if node.op_type == "Tile" and inputs[0] is not None and inputs[1] is not None:
        without_batch([inputs[0].size, *inputs[1].tolist()])
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
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    feeds = {name: value for name, value in zip(names, inputs, strict=True) if name}
    try:
        results = ReferenceEvaluator(model).run(None, feeds)
    except Exception as error:  # the reference code raises whatever numpy raises
        raise Refusal(f"it cannot be computed on constants: {error}") from error
    return [as_float32(np.asarray(result))[0] for result in results]


def range_over_batch(inputs: list[Array | None]) -> PerSample | None:
    """The numbers of the samples, if these are the inputs of a Range from 0 to the batch size."""
    values = [float(np.reshape(value, -1)[0]) for value in inputs if value is not None]
    return PerSample(np.array([0]), np.array([1])) if values == [0, BATCH, 1] else None


def fold_per_sample(node: onnx.NodeProto, inputs: list[Array | PerSample | None], opset: int) -> PerSample:
    """An affine operator on numbers that depend on the sample.

    Raises:
        Refusal: if the operator is not known to be affine, or moves the batch axis.
    """
    rank = max(value.first.ndim for value in inputs if isinstance(value, PerSample))
    moving = sum(isinstance(value, PerSample) for value in inputs)
    if node.op_type not in _PER_SAMPLE or (node.op_type == "Mul" and moving > 1):
        raise Refusal("it computes with the numbers of the samples in a batch")
    both = [
        fold(node, [getattr(value, name) if isinstance(value, PerSample) else value for value in inputs], opset)[0]
        for name in ("first", "second")
    ]
    axes = [axis for value in inputs[1:] if isinstance(value, np.ndarray) for axis in value.reshape(-1).tolist()]
    if node.op_type == "Unsqueeze":
        if 0 in axes or -both[0].ndim in axes:
            raise Refusal("it moves the batch of an index computation")
    elif both[0].ndim != rank or both[0].shape[0] != 1:
        raise Refusal("it moves the batch of an index computation")
    return PerSample(both[0], both[1])
