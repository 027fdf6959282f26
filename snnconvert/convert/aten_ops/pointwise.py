"""ATen operators that work element by element: activations and arithmetic."""

# Rules take the argument lists of ATen as they are.
# ruff: noqa: PLR0917

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from snnconvert.convert.aten_ops.lowering import Activation, Context, Rule, UnsupportedNodeError, constant_tensor
from snnconvert.graph import analog_ops, ops

_LARGEST = torch.finfo(torch.float32).max


def function(ctx: Context, x: Activation, *, name: str) -> Any:
    return ctx.map(analog_ops.Elementwise(function=name), x)


def relu(ctx: Context, x: Activation) -> Any:
    return ctx.map(ops.Relu(), x)


def relu6(ctx: Context, x: Activation) -> Any:
    return ctx.map(ops.Clip(high=6.0), x)


def clamp(ctx: Context, x: Activation, min: Any = None, max: Any = None) -> Any:
    low, high = _number(min), _number(max)
    if low == 0 and high is None:
        return ctx.map(ops.Relu(), x)
    if low == 0 and high is not None and high > 0:
        return ctx.map(ops.Clip(high=high), x)
    bounds = (-_LARGEST if low is None else low, _LARGEST if high is None else high)
    return ctx.map(analog_ops.Clamp(low=bounds[0], high=bounds[1]), x)


def hardtanh(ctx: Context, x: Activation, min_val: Any = -1, max_val: Any = 1) -> Any:
    return clamp(ctx, x, min_val, max_val)


def threshold(ctx: Context, x: Activation, threshold: Any, value: Any) -> Any:
    if threshold != 0 or value != 0:
        raise UnsupportedNodeError("threshold other than 0 with value 0")
    return ctx.map(ops.Relu(), x)


def leaky_relu(ctx: Context, x: Activation, negative_slope: float = 0.01) -> Any:
    return ctx.map(ops.LeakyRelu(torch.tensor(float(negative_slope))), x)


def rrelu(
    ctx: Context,
    x: Activation,
    lower: float = 0.125,
    upper: float = 1 / 3,
    training: bool = False,
    generator: Any = None,
) -> Any:
    if training or generator is not None:
        raise UnsupportedNodeError("rrelu draws random slopes in training mode; call eval()")
    return leaky_relu(ctx, x, (lower + upper) / 2)


def prelu(ctx: Context, x: Activation, weight: Any) -> Any:
    slope = constant_tensor(weight, "slope")
    if slope.numel() == 1:
        return ctx.map(ops.LeakyRelu(slope.reshape(())), x)
    x.dim(1)
    channels_first = slope.reshape(1, -1, *(1,) * (x.rank - 2))
    return ctx.map(ops.LeakyRelu(ctx.aligned(channels_first, x)), x)


def gelu(ctx: Context, x: Activation, *, approximate: str = "none") -> Any:
    return function(ctx, x, name="gelu_tanh" if approximate == "tanh" else "gelu")


def elu(ctx: Context, x: Activation, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Any:
    if (alpha, scale, input_scale) != (1, 1, 1):
        raise UnsupportedNodeError(f"elu with alpha {alpha}, scale {scale}, input scale {input_scale}; only 1 is known")
    return function(ctx, x, name="elu")


def softplus(ctx: Context, x: Activation, beta: float = 1, threshold: float = 20) -> Any:
    if (beta, threshold) != (1, 20):
        raise UnsupportedNodeError(f"softplus with beta {beta}, threshold {threshold}; only 1 and 20 are known")
    return function(ctx, x, name="softplus")


def log_sigmoid(ctx: Context, x: Activation) -> Any:
    return ctx.map(analog_ops.Elementwise(function="log"), ctx.map(analog_ops.Elementwise(function="sigmoid"), x))


def glu(ctx: Context, x: Activation, dim: int = -1) -> Any:
    axis, half = x.dim(dim), x.size(dim) // 2
    value = ctx.map(ops.Slice(dim=axis, start=0, stop=half), x, part="value")
    gate = ctx.map(ops.Slice(dim=axis, start=half, stop=2 * half), x, part="gate")
    gate = ctx.map(analog_ops.Elementwise(function="sigmoid"), gate, part="sigmoid")
    return ctx.map(analog_ops.Multiply(), value, gate)


def _number(value: Any) -> float | None:
    """A Python number or a constant of one element; None stays None."""
    if value is None or isinstance(value, int | float):
        return None if value is None else float(value)
    if isinstance(value, Tensor) and value.numel() == 1:
        return float(value)
    raise UnsupportedNodeError("a limit is not one number")


def _tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else torch.tensor(float(value))


def _scaled(ctx: Context, x: Activation, factor: Any, part: str = "") -> Activation:
    scale = ctx.aligned(_tensor(factor), x)
    return ctx.affine(x, scale, torch.zeros_like(scale), part=part)


def _shifted(ctx: Context, x: Activation, shift: Any, factor: float = 1.0) -> Activation:
    aligned = ctx.aligned(_tensor(shift), x)
    return ctx.affine(x, torch.full_like(aligned, factor), aligned)


def _joined(ctx: Context, op: ops.Op, a: Activation, b: Activation) -> Activation:
    """An elementwise `op` of two activations; the one of lower rank is viewed with leading axes of size 1."""
    if a.rank != b.rank:
        raise UnsupportedNodeError("its operands differ in rank")
    return ctx.map(op, a, ctx.same_layout(b, a))


def add(ctx: Context, x: Any, other: Any, *, alpha: Any = 1) -> Any:
    if isinstance(x, Activation) and isinstance(other, Activation):
        return _joined(ctx, ops.Add(), x, other if alpha == 1 else _scaled(ctx, other, alpha, part="alpha"))
    if isinstance(x, Activation):
        return _shifted(ctx, x, _tensor(other) * alpha)
    return _shifted(ctx, other, x, factor=float(alpha))


def sub(ctx: Context, x: Any, other: Any, *, alpha: Any = 1) -> Any:
    return add(ctx, x, other, alpha=-alpha)


def rsub(ctx: Context, x: Any, other: Any, *, alpha: Any = 1) -> Any:
    return sub(ctx, other, x, alpha=alpha)


def neg(ctx: Context, x: Activation) -> Any:
    return _scaled(ctx, x, -1.0)


def mul(ctx: Context, x: Any, other: Any) -> Any:
    if isinstance(x, Activation) and isinstance(other, Activation):
        if x.node is other.node and x.shape == other.shape:
            return function(ctx, x, name="square")
        return _joined(ctx, analog_ops.Multiply(), x, other)
    return _scaled(ctx, x, other) if isinstance(x, Activation) else _scaled(ctx, other, x)


def div(ctx: Context, x: Any, other: Any, *, rounding_mode: str | None = None) -> Any:
    if rounding_mode is not None:
        raise UnsupportedNodeError(f"division rounded by {rounding_mode!r}")
    if isinstance(x, Activation) and isinstance(other, Activation):
        return _joined(ctx, analog_ops.Divide(), x, other)
    if isinstance(x, Activation):
        return _scaled(ctx, x, 1.0 / _tensor(other).double())
    inverse = ctx.map(analog_ops.Elementwise(function="reciprocal"), other, part="reciprocal")
    return _scaled(ctx, inverse, x)


def addcmul(ctx: Context, x: Any, tensor1: Any, tensor2: Any, *, value: Any = 1) -> Any:
    product = tensor1 * tensor2 if not _any_activation(tensor1, tensor2) else mul(ctx, tensor1, tensor2)
    return add(ctx, x, product, alpha=value)


def addcdiv(ctx: Context, x: Any, tensor1: Any, tensor2: Any, *, value: Any = 1) -> Any:
    quotient = tensor1 / tensor2 if not _any_activation(tensor1, tensor2) else div(ctx, tensor1, tensor2)
    return add(ctx, x, quotient, alpha=value)


def _any_activation(*values: Any) -> bool:
    return any(isinstance(value, Activation) for value in values)


def power(ctx: Context, x: Any, exponent: Any) -> Any:
    if not isinstance(x, Activation) or isinstance(exponent, Activation):
        raise UnsupportedNodeError("an exponent depends on the data")
    number = _number(exponent)
    assert number is not None
    known = {2.0: "square", 0.5: "sqrt", -0.5: "rsqrt", -1.0: "reciprocal"}
    if number in known:
        return function(ctx, x, name=known[number])
    return ctx.map(analog_ops.Power(exponent=number), x)


def maximum(ctx: Context, x: Any, other: Any) -> Any:
    if not isinstance(x, Activation):
        x, other = other, x
    if isinstance(other, Tensor) and other.numel() == 1:
        return clamp(ctx, x, other)
    if isinstance(other, Activation):
        return _joined(ctx, analog_ops.Maximum(), x, other)
    return ctx.map(analog_ops.Maximum(), x, ctx.same_layout(other, x))


def minimum(ctx: Context, x: Any, other: Any) -> Any:
    def negated(value: Any) -> Any:
        return _scaled(ctx, value, -1.0, part="negate") if isinstance(value, Activation) else -_tensor(value)

    if any(isinstance(value, Tensor) and value.numel() == 1 for value in (x, other)):
        x, other = (x, other) if isinstance(x, Activation) else (other, x)
        return clamp(ctx, x, None, other)
    return _scaled(ctx, maximum(ctx, negated(x), negated(other)), -1.0, part="negate_back")


def where(ctx: Context, condition: Any, x: Any = None, other: Any = None, **names: Any) -> Any:
    x = names.pop("self", x)
    if not isinstance(condition, Tensor):
        raise UnsupportedNodeError("its condition depends on the data")
    keep = condition.to(torch.float32)
    if isinstance(x, Activation) and isinstance(other, Activation):
        first = _scaled(ctx, x, keep, part="chosen")
        return _joined(ctx, ops.Add(), first, _scaled(ctx, other, 1 - keep, part="other"))
    if isinstance(other, Activation):
        x, other, keep = other, x, 1 - keep
    value = torch.where(keep.bool(), torch.zeros(()), _tensor(other).to(torch.float32))
    return ctx.affine(x, ctx.aligned(keep, x), ctx.aligned(value, x))


def masked_fill(ctx: Context, x: Any, mask: Any, value: Any) -> Any:
    if isinstance(mask, Activation) or isinstance(value, Activation):
        raise UnsupportedNodeError("its mask depends on the data")
    return where(ctx, mask.logical_not(), x, value)


OPERATORS: dict[str, Rule] = {
    "relu": relu,
    "relu6": relu6,
    "clamp": clamp,
    "clip": clamp,
    "clamp_min": clamp,
    "clamp_max": lambda ctx, x, max: clamp(ctx, x, None, max),
    "hardtanh": hardtanh,
    "threshold": threshold,
    "leaky_relu": leaky_relu,
    "rrelu": rrelu,
    "prelu": prelu,
    "_prelu_kernel": prelu,
    "gelu": gelu,
    "elu": elu,
    "softplus": softplus,
    "log_sigmoid": log_sigmoid,
    "glu": glu,
    "add": add,
    "sub": sub,
    "subtract": sub,
    "rsub": rsub,
    "neg": neg,
    "mul": mul,
    "multiply": mul,
    "div": div,
    "divide": div,
    "true_divide": div,
    "addcmul": addcmul,
    "addcdiv": addcdiv,
    "pow": power,
    "maximum": maximum,
    "minimum": minimum,
    "where": where,
    "masked_fill": masked_fill,
}
OPERATORS |= {
    name: partial(function, name=name)
    for name in (
        *("sigmoid", "tanh", "hardsigmoid", "hardswish", "silu", "selu", "mish", "erf", "exp", "log"),
        *("sqrt", "rsqrt", "reciprocal", "abs", "square", "sin", "cos", "floor", "sign"),
    )
}
