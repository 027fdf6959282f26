"""Arithmetic on activations, and the operators that do nothing at inference."""

# ruff: noqa: N802, ARG001 (functions are named, and take inputs and attributes, as ONNX has it)

from __future__ import annotations

import math

import numpy as np

from snnconvert.convert.onnx_ops.activations import add, clipped, function
from snnconvert.convert.onnx_ops.flow import Array, Flow, Refusal, Value
from snnconvert.convert.onnx_ops.scope import LARGEST, Scope, fixed, moving
from snnconvert.graph import analog_ops

_FLOATS = (1, 10, 11, 16)  # FLOAT, FLOAT16, DOUBLE, BFLOAT16 of onnx.TensorProto


def Add(scope: Scope, a: Value, b: Value) -> Flow:
    if isinstance(a, Flow) and isinstance(b, Flow):
        return add(scope, a, b)
    flow, constant = (a, b) if isinstance(a, Flow) else (b, a)
    return scope.affine(moving(flow), shift=fixed(constant, "its second input"))


def Sub(scope: Scope, a: Value, b: Value) -> Flow:
    if isinstance(b, np.ndarray):
        return scope.affine(moving(a), shift=-b)
    negated = scope.affine(b, -1.0)
    return scope.affine(negated, shift=a) if isinstance(a, np.ndarray) else add(scope, a, negated)


def Mul(scope: Scope, a: Value, b: Value) -> Flow:
    if isinstance(a, Flow) and isinstance(b, Flow):
        first, second = scope.together(a, b)
        if first.node is second.node:
            return function(scope, first, "square")
        return first.on(scope.emit(analog_ops.Multiply(), first.node, second.node))
    flow, constant = (a, b) if isinstance(a, Flow) else (b, a)
    return scope.affine(moving(flow), fixed(constant, "its second input"))


def Div(scope: Scope, a: Value, b: Value) -> Flow:
    if isinstance(b, np.ndarray):
        if (b == 0).any():
            raise Refusal("it divides by a constant 0")
        return scope.affine(moving(a), 1.0 / b.astype(np.float64))
    if isinstance(a, np.ndarray):
        return scope.affine(function(scope, b, "reciprocal"), a)
    first, second = scope.together(a, b)
    return first.on(scope.emit(analog_ops.Divide(), first.node, second.node))


def Pow(scope: Scope, a: Value, b: Value) -> Flow:
    if isinstance(a, np.ndarray):
        if (a <= 0).any():
            raise Refusal("a power of a constant that is not positive")
        return function(scope, scope.affine(moving(b), np.log(a.astype(np.float64))), "exp")
    exponents = fixed(b, "its exponent")
    if exponents.size == 0 or (exponents != exponents.reshape(-1)[0]).any():
        raise Refusal("exponents that differ between elements")
    exponent = float(exponents.reshape(-1)[0])
    named = {2.0: "square", 0.5: "sqrt", -0.5: "rsqrt", -1.0: "reciprocal"}
    if exponent == 1.0:
        return a
    if exponent in named:
        return function(scope, a, named[exponent])
    return scope.apply(analog_ops.Power(exponent=exponent), a)


def Sum(scope: Scope, *values: Value) -> Flow:
    flows = [value for value in values if isinstance(value, Flow)]
    total = add(scope, *flows) if len(flows) > 1 else moving(flows[0])
    constants: list[Array] = [value for value in values if isinstance(value, np.ndarray)]
    for constant in constants:
        total = scope.affine(total, shift=constant)
    return total


def Mean(scope: Scope, *values: Value) -> Flow:
    return scope.affine(Sum(scope, *values), 1.0 / len(values))


def _extreme(scope: Scope, values: tuple[Value, ...], sign: float) -> Flow:
    """Elementwise maximum (sign 1) or minimum (sign -1) of any number of values."""
    flows = [value for value in values if isinstance(value, Flow)]
    constants: list[Array] = [value for value in values if isinstance(value, np.ndarray)]
    result = flows[0]
    if sign < 0 and (len(flows) > 1 or any(constant.size > 1 for constant in constants)):
        negated = tuple(scope.affine(value, -1.0) if isinstance(value, Flow) else -value for value in values)
        return scope.affine(_extreme(scope, negated, 1.0), -1.0)
    for flow in flows[1:]:
        first, second = scope.together(result, flow)
        result = first.on(scope.emit(analog_ops.Maximum(), first.node, second.node))
    for constant in constants:
        if constant.size == 1:
            limit = float(constant.reshape(-1)[0])
            result = clipped(scope, result, limit, LARGEST) if sign > 0 else clipped(scope, result, -LARGEST, limit)
            continue
        # max(x, c) = relu(x - c) + c
        difference = clipped(scope, scope.affine(result, shift=-constant), 0.0, LARGEST)
        result = scope.affine(difference, shift=constant)
    return result


def Max(scope: Scope, *values: Value) -> Flow:
    return _extreme(scope, values, 1.0)


def Min(scope: Scope, *values: Value) -> Flow:
    return _extreme(scope, values, -1.0)


def Where(scope: Scope, condition: Value, a: Value, b: Value) -> Flow:
    """A choice by a constant condition: a * chosen + b * (1 - chosen)."""
    chosen = fixed(condition, "its condition").astype(bool)

    def part(value: Value, mask: Array) -> Flow | Array:
        if isinstance(value, Flow):
            return scope.affine(value, mask.astype(np.float32))
        return np.where(mask, value.astype(np.float32), np.float32(0))

    first, second = part(a, chosen), part(b, ~chosen)
    if isinstance(first, Flow) and isinstance(second, Flow):
        return add(scope, first, second)
    flow, constant = (first, second) if isinstance(first, Flow) else (second, first)
    return scope.affine(moving(flow), shift=fixed(constant, "its constant branch"))


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
    if isinstance(x, Flow) and to not in _FLOATS:
        raise Refusal("it casts activations to a type that is not floating point")
    return x


def CastLike(scope: Scope, x: Value, like: Value, *, saturate: int = 1, round_mode: str = "up") -> Value:
    if isinstance(like, np.ndarray) and like.dtype.kind != "f":
        raise Refusal("it casts activations to a type that is not floating point")
    return x


def ArgMax(scope: Scope, x: Value, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Flow:
    flow = moving(x)
    if not scope.final or flow.axis(axis) != 1:
        raise Refusal("an index of the largest activation is supported only as the output of a classifier")
    flow.node.meta["chosen_by"] = (*flow.node.meta.get("chosen_by", ()), scope.origin)
    scope.renamed[scope.outputs[0]] = str(flow.node.meta.get("onnx_value", scope.outputs[0]))
    scope.note(f"{scope.origin}: the final ArgMax was dropped; the output is the scores it chose from")
    return flow


def LRN(scope: Scope, x: Value, *, size: int, alpha: float = 0.0001, beta: float = 0.75, bias: float = 1.0) -> Flow:
    """x / (bias + alpha / size * sum of squares over neighbouring channels) ** beta."""
    from snnconvert.convert.onnx_ops.weighted import Conv

    flow = moving(x).require_plain()
    channels, rank = flow.dims[0], len(flow.dims) - 1
    offset = np.arange(channels)[None, :] - np.arange(channels)[:, None]
    near = (offset >= -math.floor((size - 1) / 2)) & (offset <= math.ceil((size - 1) / 2))
    kernel = (near * (alpha / size)).reshape(channels, channels, *(1,) * rank)
    total = Conv(scope, function(scope, flow, "square"), kernel, np.full(channels, bias))
    first, second = scope.together(flow, scope.apply(analog_ops.Power(exponent=-beta), total))
    return first.on(scope.emit(analog_ops.Multiply(), first.node, second.node))
