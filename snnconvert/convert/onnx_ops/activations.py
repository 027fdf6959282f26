"""Activation functions: those that become neurons, and scalar functions without a spiking form."""

# ruff: noqa: N802 (functions are named, and take inputs and attributes, as ONNX has it)

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from snnconvert.convert.onnx_ops.flow import Flow, Refusal, Value
from snnconvert.convert.onnx_ops.scope import LARGEST, Scope, fixed, moving, scalar, tensor
from snnconvert.graph import analog_ops, ops

_SIMPLE = {
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "Mish": "mish",
    "Erf": "erf",
    "Exp": "exp",
    "Log": "log",
    "Sqrt": "sqrt",
    "Reciprocal": "reciprocal",
    "Abs": "abs",
    "Sin": "sin",
    "Cos": "cos",
    "Floor": "floor",
    "Sign": "sign",
    "HardSwish": "hardswish",
}


def function(scope: Scope, flow: Flow, name: str) -> Flow:
    """`flow` through a scalar function of `analog_ops.FUNCTIONS`."""
    return scope.apply(analog_ops.Elementwise(function=name), flow)


def _simple(name: str) -> Callable[[Scope, Value], Flow]:
    def operator(scope: Scope, x: Value) -> Flow:
        return function(scope, moving(x), name)

    return operator


SIMPLE: dict[str, Callable[[Scope, Value], Flow]] = {name: _simple(spelled) for name, spelled in _SIMPLE.items()}


def add(scope: Scope, *values: Value) -> Flow:
    """Sum of flows (and constants) as one node."""
    flows = scope.together(*values)
    return flows[0].on(scope.emit(ops.Add(), *(flow.node for flow in flows)))


def Relu(scope: Scope, x: Value) -> Flow:
    return scope.apply(ops.Relu(), moving(x))


def clipped(scope: Scope, flow: Flow, low: float, high: float) -> Flow:
    """`flow` clipped to [low, high]; a lower limit of 0 makes it an activation site."""
    low = min(low, high)
    if low == 0 and high >= LARGEST:
        return scope.apply(ops.Relu(), flow)
    if low == 0 or (low <= 0 and high > 0 and scope.non_negative(flow.node)):
        if high >= LARGEST:
            return flow
        return scope.apply(ops.Clip(high=high), flow)
    if low <= -LARGEST and high >= LARGEST:
        return flow
    return scope.apply(analog_ops.Clamp(low=max(low, -LARGEST), high=min(high, LARGEST)), flow)


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
    return scope.apply(ops.LeakyRelu(tensor(alpha)), moving(x))


def PRelu(scope: Scope, x: Value, slope: Value) -> Flow:
    flow = moving(x)
    return scope.apply(ops.LeakyRelu(tensor(flow.aligned(fixed(slope, "its slope")))), flow)


def ThresholdedRelu(scope: Scope, x: Value, *, alpha: float = 1.0) -> Flow:
    if alpha != 0:
        raise Refusal(f"alpha {alpha:g}: a jump at a threshold has no form here; only alpha 0 (a ReLU) is supported")
    return Relu(scope, x)


def Elu(scope: Scope, x: Value, *, alpha: float = 1.0) -> Flow:
    flow = moving(x)
    if alpha == 1.0:
        return function(scope, flow, "elu")
    # elu with alpha = alpha elu(x) + (1 - alpha) relu(x)
    straight = scope.affine(scope.apply(ops.Relu(), flow), 1 - alpha)
    return add(scope, scope.affine(function(scope, flow, "elu"), alpha), straight)


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
    return scope.apply(ops.Clip(high=1.0), scope.affine(moving(x), alpha, beta))


def Ceil(scope: Scope, x: Value) -> Flow:
    return scope.affine(function(scope, scope.affine(moving(x), -1.0), "floor"), -1.0)


def Neg(scope: Scope, x: Value) -> Flow:
    return scope.affine(moving(x), -1.0)


def Softmax(scope: Scope, x: Value, *, axis: int | None = None, log: bool = False) -> Flow:
    flow = moving(x)
    if scope.opset >= 13:
        return scope.apply(analog_ops.Softmax(dim=flow.axis(-1 if axis is None else axis), log=log), flow)
    # Before opset 13 all axes from `axis` on were one axis.
    first = flow.normal(1 if axis is None else axis)
    dims = [flow.axis(each) for each in range(first, flow.rank)]
    if len(dims) == 1:
        return scope.apply(analog_ops.Softmax(dim=dims[0], log=log), flow)
    kept = flow.dims[: dims[0] - 1]
    node = scope.sample_reshape(flow.node, (*kept, int(np.prod(flow.dims[dims[0] - 1 :]))))
    node = scope.emit(analog_ops.Softmax(dim=dims[0], log=log), node)
    return flow.on(scope.sample_reshape(node, flow.dims))


def LogSoftmax(scope: Scope, x: Value, *, axis: int | None = None) -> Flow:
    return Softmax(scope, x, axis=axis, log=True)
