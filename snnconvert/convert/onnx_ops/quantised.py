"""Quantised graphs, read as the real numbers they stand for.

Weights are dequantised; rounding of activations is dropped with a note. One effect of quantising an activation is
kept: an unsigned type whose zero point is its lowest value cannot hold negative numbers, so it acts as a ReLU that
quantisers rely on when they remove the real one.
"""

# ruff: noqa: N802, N803, ARG001, PLR0917 (functions are named, and take inputs and attributes, as ONNX has it)

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from snnconvert.convert.lowering.elementwise import add, multiply
from snnconvert.convert.lowering.flow import Array, Flow, Refusal, Value
from snnconvert.convert.lowering.moves import concat
from snnconvert.convert.lowering.products import matmul
from snnconvert.convert.lowering.scope import moving
from snnconvert.convert.onnx_ops import activations
from snnconvert.convert.onnx_ops.pooling import AveragePool, GlobalAveragePool
from snnconvert.convert.onnx_ops.scope import Scope, fixed, scalar
from snnconvert.convert.onnx_ops.weighted import Conv, Gemm
from snnconvert.graph import kinds

Operator = Callable[..., Flow]
ROUNDING = "the model is quantised: its weights were dequantised, rounding of its activations was dropped"


def real(value: Value, scale: Value, zero: Value | None, axis: int) -> Value:
    """The real numbers a quantised constant stands for; activations that were quantised here are real already."""
    if isinstance(value, Flow):
        return replace(value, unit=None)
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
    """What remains of quantising an activation: a clip at 0 where the type holds no negative numbers, and the unit."""
    scope.note(ROUNDING)
    factor = fixed(scale, "its scale").reshape(-1)
    offset = np.zeros(1, np.uint8) if zero is None else fixed(zero, "its zero point").reshape(-1)
    flow = _held(scope, flow, factor, offset)
    one = factor.size == offset.size == 1
    unit = (float(factor[0]), float(offset[0])) if one else (0.0, 0.0)
    if one and offset.dtype.kind in "iu":
        limits = np.iinfo(offset.dtype)
        steps = (*unit, float(limits.min), float(limits.max))
        # None where the same value is rounded in two ways
        flow.node.meta["steps"] = steps if flow.node.meta.get("steps", steps) == steps else None
    return replace(flow, unit=unit)


def _held(scope: Scope, flow: Flow, scale: Array, offset: Array) -> Flow:
    """`flow`, clipped at 0 where the type that holds it has no negative numbers."""
    if offset.dtype.kind not in "iu" or int(offset[0]) != np.iinfo(offset.dtype).min:
        return flow
    if flow.node.op == "placeholder" or scope.non_negative(flow.node):
        return flow
    return scope.apply(kinds.Clip(high=(2.0 ** (8 * offset.dtype.itemsize) - 1) * float(scale.max())), flow)


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
        return quantised(scope, moving(x), scale, np.zeros(1, np.int8))
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
    if isinstance(x, Flow) and x.unit is None:  # integers that nothing in the file has quantised: its input
        factor, offset = scalar(scale, "its scale"), 0.0 if zero is None else scalar(zero, "its zero point")
        return scope.affine(x, factor, -factor * offset)
    scope.note(ROUNDING)
    return real(x, scale, zero, axis)


def integers_of(scope: Scope, flow: Flow) -> Flow:
    """The integers that stand for `flow`, as numbers to compute with; rounding is dropped."""
    assert flow.unit is not None
    scale, zero = flow.unit
    if scale == 0:
        raise Refusal("it computes with quantised values whose scale differs from channel to channel")
    return scope.affine(replace(flow, unit=None), 1 / scale, zero)


def _on_triples(operator: Operator, *axes: int) -> Operator:
    """`operator` on values that each come with a scale and a zero point, as those of the result do behind them.

    Args:
        axes: for each value, the axis along which the scales of a constant lie.
    """

    def apply(scope: Scope, *inputs: Any, channels_last: int = 0, **attributes: Any) -> Flow:
        if channels_last:
            raise Refusal("channels_last")
        own = 3 * len(axes)
        triples = zip(inputs[:own:3], inputs[1:own:3], inputs[2:own:3], axes, strict=True)
        result = operator(scope, *(real(*triple) for triple in triples), **attributes)
        scale, zero = (*inputs[own:], None)[:2]
        return quantised(scope, result, scale, zero)

    return apply


def _bias(value: Value | None, x_scale: Value, weight_scale: Value) -> Array | None:
    """The real numbers of a bias: it has no scale of its own."""
    if value is None:
        return None
    unit = scalar(x_scale, "its input scale") * fixed(weight_scale, "its weight scale").astype(np.float64)
    return fixed(value, "its bias").astype(np.float64) * unit.reshape(-1 if unit.size > 1 else ())


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
    **attributes: Any,
) -> Flow:
    kernel = fixed(real(weight, weight_scale, weight_zero, 0), "its weight")
    return quantised(scope, Conv(scope, x, kernel, _bias(bias, x_scale, weight_scale), **attributes), y_scale, y_zero)


def _concat(scope: Scope, y_scale: Value, y_zero: Value, *parts: Value, axis: int = 1) -> Flow:
    triples = zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    return quantised(scope, concat(scope, [real(*triple, axis) for triple in triples], axis), y_scale, y_zero)


def _softmax(scope: Scope, x: Value, *, axis: int = -1, opset: int = 13) -> Flow:
    flow = moving(x)
    if min(opset, scope.opset) < 13 and flow.normal(axis) != flow.rank - 1:
        raise Refusal("a softmax over several axes")
    return activations.Softmax(scope, x, axis=axis)


def _gemm(
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
    transB: int = 0,
    **attributes: Any,
) -> Flow:
    bias = _bias(c, a_scale, b_scale)
    weight = real(b, b_scale, b_zero, 0 if transB else 1)
    offset = None if bias is None else bias * alpha
    result = Gemm(scope, a, weight, offset, alpha=alpha, transB=transB, **attributes)
    return result if y_scale is None else quantised(scope, result, y_scale, y_zero)


# those of the domain com.microsoft are what ONNX Runtime's quantiser writes
TABLE: dict[str, Operator] = {
    "QLinearMatMul": _on_triples(matmul, -2, -1),
    "com.microsoft.QLinearAdd": _on_triples(add, 0, 0),
    "com.microsoft.QLinearMul": _on_triples(multiply, 0, 0),
    "com.microsoft.QLinearGlobalAveragePool": _on_triples(GlobalAveragePool, 0),
    "com.microsoft.QLinearAveragePool": _on_triples(AveragePool, 0),
    "com.microsoft.QLinearLeakyRelu": _on_triples(activations.LeakyRelu, 0),
    "com.microsoft.QLinearSigmoid": _on_triples(activations.SIMPLE["Sigmoid"], 0),
    "com.microsoft.QLinearSoftmax": _on_triples(_softmax, 0),
    "com.microsoft.QLinearConcat": _concat,
    "com.microsoft.QGemm": _gemm,
}
