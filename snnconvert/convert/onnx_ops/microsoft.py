"""Operators of the domain com.microsoft, which ONNX Runtime's quantiser writes: see quantised.py."""

# ruff: noqa: N802, N803, ARG001, PLR0917 (functions are named, and take inputs and attributes, as ONNX Runtime has it)

from __future__ import annotations

import numpy as np

from snnconvert.convert.lowering.elementwise import add, function, leaky, multiply
from snnconvert.convert.lowering.flow import Flow, Refusal, Value
from snnconvert.convert.lowering.moves import concat
from snnconvert.convert.lowering.scope import moving
from snnconvert.convert.onnx_ops.activations import Softmax
from snnconvert.convert.onnx_ops.pooling import AveragePool, GlobalAveragePool
from snnconvert.convert.onnx_ops.quantised import ROUNDING, quantised, real
from snnconvert.convert.onnx_ops.scope import Scope, fixed, scalar
from snnconvert.convert.onnx_ops.weighted import Gemm


def QLinearAdd(
    scope: Scope,
    a: Value,
    a_scale: Value,
    a_zero: Value,
    b: Value,
    b_scale: Value,
    b_zero: Value,
    y_scale: Value,
    y_zero: Value | None = None,
) -> Flow:
    total = add(scope, real(a, a_scale, a_zero, 0), real(b, b_scale, b_zero, 0))
    return quantised(scope, total, y_scale, y_zero)


def QLinearMul(
    scope: Scope,
    a: Value,
    a_scale: Value,
    a_zero: Value,
    b: Value,
    b_scale: Value,
    b_zero: Value,
    y_scale: Value,
    y_zero: Value | None = None,
) -> Flow:
    product = multiply(scope, real(a, a_scale, a_zero, 0), real(b, b_scale, b_zero, 0))
    return quantised(scope, product, y_scale, y_zero)


def QLinearGlobalAveragePool(
    scope: Scope,
    x: Value,
    x_scale: Value,
    x_zero: Value,
    y_scale: Value,
    y_zero: Value,
    *,
    channels_last: int = 0,
) -> Flow:
    if channels_last:
        raise Refusal("channels_last")
    scope.note(ROUNDING)
    return GlobalAveragePool(scope, x)


def QLinearAveragePool(
    scope: Scope,
    x: Value,
    x_scale: Value,
    x_zero: Value | None,
    y_scale: Value,
    y_zero: Value | None = None,
    *,
    channels_last: int = 0,
    **attributes: object,
) -> Flow:
    if channels_last:
        raise Refusal("channels_last")
    return quantised(scope, AveragePool(scope, x, **attributes), y_scale, y_zero)  # type: ignore[arg-type]


def QLinearConcat(scope: Scope, y_scale: Value, y_zero: Value, *parts: Value, axis: int = 1) -> Flow:
    triples = zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    values = [real(part, scale, zero, axis) for part, scale, zero in triples]
    return quantised(scope, concat(scope, values, axis), y_scale, y_zero)


def QLinearLeakyRelu(
    scope: Scope,
    x: Value,
    x_scale: Value,
    x_zero: Value | None,
    y_scale: Value,
    y_zero: Value | None = None,
    *,
    alpha: float = 0.01,
) -> Flow:
    return quantised(scope, leaky(scope, moving(x), alpha), y_scale, y_zero)


def QLinearSoftmax(
    scope: Scope,
    x: Value,
    x_scale: Value,
    x_zero: Value | None,
    y_scale: Value,
    y_zero: Value | None = None,
    *,
    axis: int = -1,
    opset: int = 13,
) -> Flow:
    flow = moving(x)
    if min(opset, scope.opset) < 13 and flow.normal(axis) != flow.rank - 1:
        raise Refusal("a softmax over several axes")
    scope.note(ROUNDING)
    return Softmax(scope, x, axis=axis)


def QLinearSigmoid(
    scope: Scope, x: Value, x_scale: Value, x_zero: Value, y_scale: Value, y_zero: Value | None = None
) -> Flow:
    scope.note(ROUNDING)
    return function(scope, moving(x), "sigmoid")


def QGemm(
    scope: Scope,
    a: Value,
    a_scale: Value,
    a_zero: Value,
    b: Value,
    b_scale: Value,
    b_zero: Value,
    c: Value | None = None,
    y_scale: Value | None = None,
    y_zero: Value | None = None,
    *,
    alpha: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Flow:
    unit = scalar(a_scale, "its input scale") * fixed(b_scale, "its weight scale").astype(np.float64)
    offset = None if c is None else fixed(c, "its bias") * unit.reshape(-1 if unit.size > 1 else ()) * alpha
    weight = real(b, b_scale, b_zero, 0 if transB else 1)
    result = Gemm(scope, a, weight, offset, alpha=alpha, transA=transA, transB=transB)
    return result if y_scale is None else quantised(scope, result, y_scale, y_zero)
