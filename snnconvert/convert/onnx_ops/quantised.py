"""Quantised graphs, read as the real numbers they stand for.

Weights are dequantised; rounding of activations is dropped with a note. One effect of quantising an activation is
kept: an unsigned type whose zero point is its lowest value cannot hold negative numbers, so it acts as a ReLU that
quantisers rely on when they remove the real one.
"""

# ruff: noqa: N802, ARG001, PLR0917 (functions are named, and take inputs and attributes, as ONNX has it)

from __future__ import annotations

import numpy as np

from snnconvert.convert.lowering.flow import Array, Flow, Refusal, Value
from snnconvert.convert.lowering.scope import moving
from snnconvert.convert.onnx_ops.scope import Scope, fixed, scalar
from snnconvert.convert.onnx_ops.weighted import Conv, MatMul
from snnconvert.graph import kinds

ROUNDING = "the model is quantised: its weights were dequantised, rounding of its activations was dropped"


def real(value: Value, scale: Value, zero: Value | None, axis: int) -> Value:
    """The real numbers a quantised constant stands for; activations are real already."""
    if isinstance(value, Flow):
        return value
    factor, offset = (
        fixed(scale, "its scale").astype(np.float64),
        fixed(zero, "its zero point") if zero is not None else 0,
    )
    if factor.size > 1 and factor.ndim != 1:
        raise Refusal("blocked quantisation")
    shape = [1] * value.ndim
    if factor.size > 1:
        shape[axis] = factor.size
    spread = np.reshape(offset, shape) if np.size(offset) > 1 else np.ravel(offset)[0]
    real = (value.astype(np.float64) - np.asarray(spread, dtype=np.float64)) * factor.reshape(
        shape if factor.size > 1 else ()
    )
    return real.astype(np.float32)


def quantised(scope: Scope, flow: Flow, scale: Value, zero: Value | None) -> Flow:
    """What remains of quantising an activation: a clip at 0 where the type holds no negative numbers."""
    scope.note(ROUNDING)
    offset = None if zero is None else fixed(zero, "its zero point")
    unsigned = offset is None or offset.dtype.kind == "u"
    lowest = 0 if unsigned else np.iinfo(offset.dtype).min if offset is not None and offset.dtype.kind == "i" else None
    if lowest is None or (0 if offset is None else int(np.ravel(offset)[0])) != lowest:
        return flow
    if flow.node.op == "placeholder" or scope.non_negative(flow.node):
        return flow
    width = 8 if offset is None else 8 * offset.dtype.itemsize
    return scope.apply(kinds.Clip(high=(2**width - 1) * float(np.max(fixed(scale, "its scale")))), flow)


def QuantizeLinear(
    scope: Scope,
    x: Value,
    scale: Value,
    zero: Value | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    precision: int = 0,
    saturate: int = 1,
) -> Flow:
    if zero is None and output_dtype not in (0, 2):
        scope.note(ROUNDING)
        return moving(x)
    return quantised(scope, moving(x), scale, zero)


def DequantizeLinear(
    scope: Scope,
    x: Value,
    scale: Value,
    zero: Value | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
) -> Value:
    if isinstance(x, np.ndarray) and block_size:
        raise Refusal("blocked quantisation")
    scope.note(ROUNDING)
    return real(x, scale, zero, axis)


def QLinearConv(
    scope: Scope,
    x: Value,
    x_scale: Value,
    x_zero: Value,
    weight: Value,
    weight_scale: Value,
    weight_zero: Value,
    y_scale: Value,
    y_zero: Value,
    bias: Value | None = None,
    **attributes: object,
) -> Flow:
    kernel = real(weight, weight_scale, weight_zero, 0)
    offset: Array | None = None
    if bias is not None:
        unit = scalar(x_scale, "its input scale") * fixed(weight_scale, "its weight scale").astype(np.float64)
        offset = fixed(bias, "its bias").astype(np.float64) * unit.reshape(-1 if unit.size > 1 else ())
    result = Conv(scope, x, kernel, offset, **attributes)  # type: ignore[arg-type]
    return quantised(scope, result, y_scale, y_zero)


def QLinearMatMul(
    scope: Scope,
    a: Value,
    a_scale: Value,
    a_zero: Value,
    b: Value,
    b_scale: Value,
    b_zero: Value,
    y_scale: Value,
    y_zero: Value,
) -> Flow:
    product = MatMul(scope, real(a, a_scale, a_zero, -2), real(b, b_scale, b_zero, -1))
    return quantised(scope, product, y_scale, y_zero)
