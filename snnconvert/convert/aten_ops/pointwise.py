"""ATen operators that work element by element: activations and arithmetic."""

# Rules take the argument lists of ATen as they are.
# ruff: noqa: PLR0917

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from snnconvert.convert.aten_ops.context import Context, fixed, moving, of_values, operator, value
from snnconvert.convert.lowering import elementwise
from snnconvert.convert.lowering.elementwise import clipped, function, leaky
from snnconvert.convert.lowering.flow import Flow, Refusal, Value
from snnconvert.convert.lowering.moves import split
from snnconvert.convert.lowering.scope import LARGEST
from snnconvert.graph import kinds

for _name in (
    *("sigmoid", "tanh", "hardsigmoid", "hardswish", "silu", "selu", "mish", "erf", "exp", "log"),
    *("sqrt", "rsqrt", "reciprocal", "abs", "square", "sin", "cos", "floor", "sign"),
):
    operator(_name)(partial(function, name=_name))
operator("relu")(elementwise.relu)


@operator("relu6")
def relu6(ctx: Context, x: Flow) -> Flow:
    return clipped(ctx, x, 0.0, 6.0)


@operator("clamp", "clip", "clamp_min", "clamp_max", "hardtanh")
def clamp(ctx: Context, x: Flow, min: Any = None, max: Any = None, **hardtanh: Any) -> Flow:
    low, high = _number(hardtanh.get("min_val", min)), _number(hardtanh.get("max_val", max))
    return clipped(ctx, x, -LARGEST if low is None else low, LARGEST if high is None else high)


@operator("threshold")
def threshold(ctx: Context, x: Any, threshold: Any, value: Any) -> Flow:
    return elementwise.thresholded(ctx, moving(x), float(threshold), float(value))


operator("leaky_relu")(lambda ctx, x, negative_slope=0.01: leaky(ctx, x, negative_slope))


@operator("rrelu")
def rrelu(
    ctx: Context,
    x: Flow,
    lower: float = 0.125,
    upper: float = 1 / 3,
    training: bool = False,
    generator: Any = None,
) -> Flow:
    if training or generator is not None:
        raise Refusal("rrelu draws random slopes in training mode; call eval()")
    return leaky(ctx, x, (lower + upper) / 2)


@operator("prelu", "_prelu_kernel")
def prelu(ctx: Context, x: Flow, weight: Any) -> Flow:
    slope = fixed(weight, "slope")
    if slope.size > 1:
        x.axis(1)
        slope = slope.reshape(1, -1, *(1,) * (x.rank - 2))
    return leaky(ctx, x, slope)


@operator("gelu")
def gelu(ctx: Context, x: Flow, *, approximate: str = "none") -> Flow:
    return function(ctx, x, "gelu_tanh" if approximate == "tanh" else "gelu")


@operator("elu")
def elu(ctx: Context, x: Flow, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Flow:
    if scale != 1 or input_scale != 1:
        raise Refusal(f"elu with scale {scale}, input scale {input_scale}; only 1 is known")
    return elementwise.elu(ctx, x, alpha)


@operator("celu")
def celu(ctx: Context, x: Flow, alpha: float = 1.0) -> Flow:
    """max(0, x) + min(0, alpha (exp(x / alpha) - 1)) = alpha elu(x / alpha)."""
    return ctx.affine(function(ctx, ctx.affine(x, 1 / alpha, part="inside"), "elu"), alpha, part="outside")


@operator("softplus")
def softplus(ctx: Context, x: Flow, beta: float = 1, threshold: float = 20) -> Flow:
    """log(1 + exp(beta x)) / beta; where beta x is beyond the threshold, x, which from 10 on is the same to 5e-6."""
    if threshold < 10:
        raise Refusal(f"softplus with threshold {threshold}; from 10 on it is the function itself")
    return ctx.affine(function(ctx, ctx.affine(x, beta, part="inside"), "softplus"), 1 / beta, part="outside")


@operator("log1p")
def log1p(ctx: Context, x: Flow) -> Flow:
    return function(ctx, ctx.affine(x, shift=1.0, part="one_more"), "log")


@operator("log_sigmoid")
def log_sigmoid(ctx: Context, x: Flow) -> Flow:
    return function(ctx, function(ctx, x, "sigmoid"), "log")


@operator("glu")
def glu(ctx: Context, x: Flow, dim: int = -1) -> Flow:
    half = x.dims[x.axis(dim) - 1] // 2
    first, gate = split(ctx, x, dim, (half, half))
    return ctx.joined(kinds.Multiply(), first, function(ctx, gate, "sigmoid", "sigmoid"))


def _number(limit: Any) -> float | None:
    """A Python number or a constant of one element; None stays None."""
    if limit is None or isinstance(limit, int | float):
        return None if limit is None else float(limit)
    if isinstance(limit, Tensor) and limit.numel() == 1:
        return float(limit)
    raise Refusal("a limit is not one number")


def _scaled(ctx: Context, x: Value, factor: float, part: str = "") -> Value:
    if factor == 1:
        return x
    return ctx.affine(x, factor, part=part) if isinstance(x, Flow) else x * np.float32(factor)


@operator("add")
def add(ctx: Context, x: Any, other: Any, *, alpha: Any = 1) -> Flow:
    return elementwise.add(ctx, value(x), _scaled(ctx, value(other), alpha, "alpha"))


@operator("sub", "subtract")
def sub(ctx: Context, x: Any, other: Any, *, alpha: Any = 1) -> Flow:
    return add(ctx, x, other, alpha=-alpha)


@operator("rsub")
def rsub(ctx: Context, x: Any, other: Any, *, alpha: Any = 1) -> Flow:
    return sub(ctx, other, x, alpha=alpha)


@operator("neg")
def neg(ctx: Context, x: Flow) -> Flow:
    return ctx.affine(x, -1.0)


mul = of_values(elementwise.multiply, "mul", "multiply")
maximum = of_values(elementwise.maximum, "maximum")
minimum = of_values(elementwise.minimum, "minimum")
of_values(elementwise.power, "pow")


@operator("div", "divide", "true_divide")
def div(ctx: Context, x: Any, other: Any, *, rounding_mode: str | None = None) -> Flow:
    if rounding_mode is not None:
        raise Refusal(f"division rounded by {rounding_mode!r}")
    return elementwise.divide(ctx, value(x), value(other))


@operator("addcmul")
def addcmul(ctx: Context, x: Any, tensor1: Any, tensor2: Any, *, value: Any = 1) -> Flow:
    plain = isinstance(tensor1, Tensor) and isinstance(tensor2, Tensor)
    return add(ctx, x, tensor1 * tensor2 if plain else mul(ctx, tensor1, tensor2), alpha=value)


@operator("addcdiv")
def addcdiv(ctx: Context, x: Any, tensor1: Any, tensor2: Any, *, value: Any = 1) -> Flow:
    plain = isinstance(tensor1, Tensor) and isinstance(tensor2, Tensor)
    return add(ctx, x, tensor1 / tensor2 if plain else div(ctx, tensor1, tensor2), alpha=value)


@operator("where")
def where(ctx: Context, condition: Any, x: Any = None, other: Any = None, **names: Any) -> Flow:
    if isinstance(condition, Flow):
        return elementwise.decided(ctx, condition, value(names.get("self", x)), value(other))
    return elementwise.choose(ctx, fixed(condition, "condition"), value(names.get("self", x)), value(other))


@operator("hardshrink")
def hardshrink(ctx: Context, x: Flow, lambd: float = 0.5) -> Flow:
    return elementwise.shrunk(ctx, moving(x), lambd, 0.0)


@operator("softshrink")
def softshrink(ctx: Context, x: Flow, lambd: float = 0.5) -> Flow:
    return elementwise.shrunk(ctx, moving(x), lambd, lambd)


@operator("masked_fill")
def masked_fill(ctx: Context, x: Any, mask: Any, value: Any) -> Flow:
    if isinstance(mask, Flow):
        return where(ctx, mask, value, moving(x))
    if isinstance(value, Flow):
        raise Refusal("its value depends on the data")
    return where(ctx, mask.logical_not(), moving(x), value)
