"""Activation functions: those that become neurons, and scalar functions without a spiking form."""

# ruff: noqa: N802 (functions are named, and take inputs and attributes, as ONNX has it)

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from snnconvert.convert.lowering.elementwise import clipped, elu, function, leaky, relu, shrunk, thresholded
from snnconvert.convert.lowering.flow import Flow, Value
from snnconvert.convert.lowering.scope import LARGEST, moving
from snnconvert.convert.onnx_ops.scope import Scope, fixed, scalar
from snnconvert.graph import kinds

_SIMPLE = (
    *("Sigmoid", "Tanh", "Softplus", "Softsign", "Mish", "Erf", "Exp", "Log", "Sqrt", "Reciprocal", "Abs", "Sin"),
    *("Cos", "Floor", "Sign", "HardSwish"),
)


def _simple(name: str) -> Callable[[Scope, Value], Flow]:
    def operator(scope: Scope, x: Value) -> Flow:
        return function(scope, moving(x), name)

    return operator


SIMPLE: dict[str, Callable[[Scope, Value], Flow]] = {name: _simple(name.lower()) for name in _SIMPLE}


def Relu(scope: Scope, x: Value) -> Flow:
    return relu(scope, moving(x))


def Clip(
    scope: Scope,
    x: Value,
    low: Value | None = None,
    high: Value | None = None,
    *,
    min: float = -LARGEST,
    max: float = LARGEST,
) -> Flow:
    least = min if low is None else scalar(low, "its lower limit")
    most = max if high is None else scalar(high, "its upper limit")
    return clipped(scope, moving(x), least, most)


def LeakyRelu(scope: Scope, x: Value, *, alpha: float = 0.01) -> Flow:
    return leaky(scope, moving(x), alpha)


def PRelu(scope: Scope, x: Value, slope: Value) -> Flow:
    return leaky(scope, moving(x), fixed(slope, "its slope"))


def ThresholdedRelu(scope: Scope, x: Value, *, alpha: float = 1.0) -> Flow:
    return thresholded(scope, moving(x), alpha, 0.0)


def Elu(scope: Scope, x: Value, *, alpha: float = 1.0) -> Flow:
    return elu(scope, moving(x), alpha)


def Selu(scope: Scope, x: Value, *, alpha: float = 1.6732631921768188, gamma: float = 1.0507010221481323) -> Flow:
    if abs(alpha - 1.6732632423543772) < 1e-4 and abs(gamma - 1.0507009873554805) < 1e-4:
        return function(scope, moving(x), "selu")
    return scope.affine(Elu(scope, x, alpha=alpha), gamma)


def Celu(scope: Scope, x: Value, *, alpha: float = 1.0) -> Flow:
    return scope.affine(function(scope, scope.affine(moving(x), 1 / alpha), "elu"), alpha)


def Gelu(scope: Scope, x: Value, *, approximate: str = "none") -> Flow:
    return function(scope, moving(x), {"none": "gelu", "tanh": "gelu_tanh"}[approximate])


def Swish(scope: Scope, x: Value, *, alpha: float = 1.0) -> Flow:
    # alpha scales the argument of the sigmoid only: x sigmoid(alpha x) = silu(alpha x) / alpha
    return scope.affine(function(scope, scope.affine(moving(x), alpha), "silu"), 1 / alpha)


def HardSigmoid(scope: Scope, x: Value, *, alpha: float = 0.2, beta: float = 0.5) -> Flow:
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return function(scope, moving(x), "hardsigmoid")
    return scope.apply(kinds.Clip(high=1.0), scope.affine(moving(x), alpha, beta))


def Shrink(scope: Scope, x: Value, *, bias: float = 0.0, lambd: float = 0.5) -> Flow:
    return shrunk(scope, moving(x), lambd, bias)


def Ceil(scope: Scope, x: Value) -> Flow:
    return scope.affine(function(scope, scope.affine(moving(x), -1.0), "floor"), -1.0)


def Neg(scope: Scope, x: Value) -> Flow:
    return scope.affine(moving(x), -1.0)


def Softmax(scope: Scope, x: Value, *, axis: int | None = None, log: bool = False) -> Flow:
    flow = moving(x)
    if scope.opset >= 13:
        return scope.apply(kinds.Softmax(dim=flow.axis(-1 if axis is None else axis), log=log), flow)
    # Before opset 13 all axes from `axis` on were one axis.
    first = flow.normal(1 if axis is None else axis)
    dims = [flow.axis(each) for each in range(first, flow.rank)]
    kept = flow.dims[: dims[0] - 1]
    node = scope.sample_reshape(flow.node, (*kept, int(np.prod(flow.dims[dims[0] - 1 :]))))
    node = scope.emit(kinds.Softmax(dim=dims[0], log=log), node)
    return flow.on(scope.sample_reshape(node, flow.dims))


def LogSoftmax(scope: Scope, x: Value, *, axis: int | None = None) -> Flow:
    return Softmax(scope, x, axis=axis, log=True)
