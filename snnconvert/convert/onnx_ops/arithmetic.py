"""Arithmetic on activations, and the operators that do nothing at inference."""

# ruff: noqa: N802, ARG001 (functions are named, and take inputs and attributes, as ONNX has it)

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from onnx import TensorProto

from snnconvert.convert.lowering.elementwise import (
    add,
    choose,
    decided,
    divide,
    function,
    greater,
    marked,
    maximum,
    minimum,
    multiply,
    negated,
    power,
)
from snnconvert.convert.lowering.flow import Flow, Refusal, Value
from snnconvert.convert.lowering.products import matmul
from snnconvert.convert.lowering.scope import moving
from snnconvert.convert.lowering.windows import conv
from snnconvert.convert.onnx_ops.quantised import integers_of
from snnconvert.convert.onnx_ops.scope import Scope, fixed
from snnconvert.graph import kinds

# as the verbs of every door have them
SAME: dict[str, Callable[..., Flow]] = {
    "Add": add,
    "Sum": add,
    "Mul": multiply,
    "Div": divide,
    "Pow": power,
    "Max": maximum,
    "Min": minimum,
    "MatMul": matmul,
}
_FLOATS = (1, 10, 11, 16)  # FLOAT, FLOAT16, DOUBLE, BFLOAT16 of onnx.TensorProto


def Sub(scope: Scope, a: Value, b: Value) -> Flow:
    return add(scope, a, negated(scope, b))


def Mean(scope: Scope, *values: Value) -> Flow:
    return scope.affine(add(scope, *values), 1.0 / len(values))


def Where(scope: Scope, condition: Value, a: Value, b: Value) -> Flow:
    if isinstance(condition, Flow):
        return decided(scope, condition, a, b)
    return choose(scope, fixed(condition, "its condition"), a, b)


def Greater(scope: Scope, a: Value, b: Value) -> Flow:
    return greater(scope, a, b)


def GreaterOrEqual(scope: Scope, a: Value, b: Value) -> Flow:
    return greater(scope, a, b, equal=True)


def Less(scope: Scope, a: Value, b: Value) -> Flow:
    return greater(scope, b, a)


def LessOrEqual(scope: Scope, a: Value, b: Value) -> Flow:
    return greater(scope, b, a, equal=True)


def And(scope: Scope, a: Value, b: Value) -> Flow:
    return marked(multiply(scope, _numbers(a), _numbers(b)))


def Or(scope: Scope, a: Value, b: Value) -> Flow:
    return marked(maximum(scope, _numbers(a), _numbers(b)))


def Not(scope: Scope, a: Value) -> Flow:
    return marked(scope.affine(moving(a), -1.0, 1.0))


def _numbers(value: Value) -> Value:
    return value if isinstance(value, Flow) else value.astype(np.float32)


def Identity(scope: Scope, x: Value) -> Value:
    return x


def Dropout(
    scope: Scope,
    x: Value,
    ratio: Value | float | None = None,
    training_mode: Value | None = None,
    *,
    seed: int = 0,
) -> Value:
    # `ratio` is an attribute before opset 12; nothing is dropped at inference.
    if training_mode is not None and np.any(fixed(training_mode, "its training_mode")):
        raise Refusal("training_mode is on; export the model in evaluation mode")
    return x


def Cast(scope: Scope, x: Value, *, to: int, saturate: int = 1, round_mode: str = "up") -> Value:
    if not isinstance(x, Flow):
        return x
    if scope.is_whole(x.node) or x.node.meta.get("condition"):
        return x
    if to not in _FLOATS and x.unit is None:
        raise Refusal("it casts activations to a type that is not floating point")
    return x if x.unit is None or to not in _FLOATS else integers_of(scope, x)


def CastLike(scope: Scope, x: Value, like: Value, *, saturate: int = 1, round_mode: str = "up") -> Value:
    whole = isinstance(like, np.ndarray) and like.dtype.kind != "f"
    return Cast(scope, x, to=TensorProto.INT32 if whole else TensorProto.FLOAT)


def ArgMax(scope: Scope, x: Value, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Flow:
    raise Refusal("an index of the largest activation is supported only as the output of a classifier")


def LRN(scope: Scope, x: Value, *, size: int, alpha: float = 0.0001, beta: float = 0.75, bias: float = 1.0) -> Flow:
    """x / (bias + alpha / size * sum of squares over neighbouring channels) ** beta."""
    flow = moving(x).require_plain()
    channels, rank = flow.dims[0], len(flow.dims) - 1
    scope.claim(16 * channels**2, "the sums over neighbouring channels")
    offset = np.arange(channels)[None, :] - np.arange(channels)[:, None]
    near = (offset >= -math.floor((size - 1) / 2)) & (offset <= math.ceil((size - 1) / 2))
    kernel = (near * (alpha / size)).reshape(channels, channels, *(1,) * rank)
    total = conv(scope, function(scope, flow, "square"), kernel, np.full(channels, bias))
    return scope.joined(kinds.Multiply(), flow, scope.apply(kinds.Power(exponent=-beta), total))
