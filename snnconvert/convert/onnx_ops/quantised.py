"""Quantised graphs, read as the real numbers they stand for.

Weights are dequantised; rounding of activations is dropped with a note. One effect of quantising an activation is
kept: an unsigned type whose zero point is its lowest value cannot hold negative numbers, so it acts as a ReLU that
quantisers rely on when they remove the real one.
"""

# ruff: noqa: N802, N803, ARG001, PLR0917 (functions are named, and take inputs and attributes, as ONNX has it)

from __future__ import annotations

from collections.abc import Callable
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
