"""Activation functions and arithmetic."""

from __future__ import annotations

import numpy as np

from snnconvert.convert.lowering.flow import Array, Flow, Refusal, Value
from snnconvert.convert.lowering.scope import LARGEST, Scope, moving, split, tensor
from snnconvert.graph import kinds

_POWERS = {2.0: "square", 0.5: "sqrt", -0.5: "rsqrt", -1.0: "reciprocal"}


def function(scope: Scope, flow: Flow, name: str, part: str = "") -> Flow:
    """`flow` through a scalar function of `kinds.FUNCTIONS`."""
    return scope.apply(kinds.Elementwise(function=name), flow, part=part)


def relu(scope: Scope, flow: Flow) -> Flow:
    return scope.apply(kinds.Relu(), flow)


def leaky(scope: Scope, flow: Flow, slope: Array | float) -> Flow:
    """x for x > 0, else slope * x; the slope broadcasts against the source's tensor."""
    return scope.apply(kinds.LeakyRelu(tensor(flow.aligned(np.asarray(slope)))), flow)


def elu(scope: Scope, flow: Flow, alpha: float = 1.0) -> Flow:
    if alpha == 1.0:
        return function(scope, flow, "elu")
    # elu with alpha = alpha elu(x) + (1 - alpha) relu(x)
    straight = scope.affine(relu(scope, flow), 1 - alpha)
    return add(scope, scope.affine(function(scope, flow, "elu"), alpha), straight)


def clipped(scope: Scope, flow: Flow, low: float, high: float) -> Flow:
    """`flow` clipped to [low, high]; a lower limit of 0 makes it an activation site."""
    low = min(low, high)
    if low == 0 and high >= LARGEST:
        return relu(scope, flow)
    if low <= 0 < high and (low == 0 or scope.non_negative(flow.node)):
        return flow if high >= LARGEST else scope.apply(kinds.Clip(high=high), flow)
    if low <= -LARGEST and high >= LARGEST:
        return flow
    return scope.apply(kinds.Clamp(low=max(low, -LARGEST), high=min(high, LARGEST)), flow)


def negated(scope: Scope, value: Value, part: str = "negate") -> Value:
    return scope.affine(value, -1.0, part=part) if isinstance(value, Flow) else -value


def add(scope: Scope, *values: Value) -> Flow:
    """The sum of all values: of the activations one node, constants as shifts of it."""
    flows, constants = split(values)
    total = scope.joined(kinds.Add(), *flows) if len(flows) > 1 else moving(flows[0] if flows else None)
    for constant in constants:
        total = scope.affine(total, shift=constant)
    return total


def multiply(scope: Scope, a: Value, b: Value) -> Flow:
    flows, constants = split((a, b))
    if constants:
        return scope.affine(flows[0], constants[0])
    first, second = scope.together(a, b)
    if first.node is second.node:
        return function(scope, first, "square")
    return scope.apply(kinds.Multiply(), first, second)


def divide(scope: Scope, a: Value, b: Value) -> Flow:
    if not isinstance(b, Flow):
        if (b == 0).any():
            raise Refusal("it divides by a constant 0")
        return scope.affine(moving(a), 1.0 / b.astype(np.float64))
    if not isinstance(a, Flow):
        return scope.affine(function(scope, b, "reciprocal", "reciprocal"), a)
    return scope.joined(kinds.Divide(), a, b)


def power(scope: Scope, base: Value, exponent: Value) -> Flow:
    if not isinstance(base, Flow):
        if (base <= 0).any():
            raise Refusal("a power of a constant that is not positive")
        return function(scope, scope.affine(moving(exponent), np.log(base.astype(np.float64)), part="log"), "exp")
    if isinstance(exponent, Flow):
        raise Refusal("its exponent is computed from activations; only constants are supported")
    base = _with_axes_of(scope, base, exponent)
    if exponent.size == 0 or (exponent != exponent.reshape(-1)[0]).any():
        raise Refusal("exponents that differ between elements")
    number = float(exponent.reshape(-1)[0])
    if number == 1.0:
        return base
    if number in _POWERS:
        return function(scope, base, _POWERS[number])
    return scope.apply(kinds.Power(exponent=number), base)


def _with_axes_of(scope: Scope, flow: Flow, *numbers: Array) -> Flow:
    """`flow` as it meets constants of one element, which are read as plain numbers: their axes count all the same."""
    flow = scope.meeting(flow, *(number.ndim for number in numbers), 0)
    for number in numbers:
        flow.aligned(number)
    return flow


def maximum(scope: Scope, *values: Value) -> Flow:
    """Elementwise maximum of any number of values."""
    flows, constants = split(values)
    result = flows[0]
    for flow in flows[1:]:
        result = scope.joined(kinds.Maximum(), result, flow)
    for constant in constants:
        if constant.size == 1:
            result = _with_axes_of(scope, result, constant)
            result = clipped(scope, result, float(constant.reshape(-1)[0]), LARGEST)
        else:  # max(x, c) = relu(x - c) + c
            difference = clipped(scope, scope.affine(result, shift=-constant, part="difference"), 0.0, LARGEST)
            result = scope.affine(difference, shift=constant)
    return result


def minimum(scope: Scope, *values: Value) -> Flow:
    """Elementwise minimum of any number of values."""
    flows, constants = split(values)
    if len(flows) == 1 and all(constant.size == 1 for constant in constants):
        return clipped(
            scope,
            _with_axes_of(scope, flows[0], *constants),
            -LARGEST,
            min(float(constant.reshape(-1)[0]) for constant in constants),
        )
    largest = maximum(scope, *(negated(scope, value) for value in values))
    return scope.affine(largest, -1.0, part="negate_back")


def greater(scope: Scope, a: Value, b: Value, *, equal: bool = False) -> Flow:
    """1 where a > b (`equal`: a >= b), else 0."""
    if equal:
        return marked(scope.affine(greater(scope, b, a), -1.0, 1.0, part="not"))
    beyond = kinds.Clamp(low=0.0, high=LARGEST)
    difference = add(scope, a, negated(scope, b))
    return marked(function(scope, scope.apply(beyond, difference, part="beyond"), "sign", "greater"))


def marked(flow: Flow) -> Flow:
    """A condition, 0 or 1, which is the same in every type of numbers."""
    flow.node.meta["condition"] = True
    return flow


def thresholded(scope: Scope, flow: Flow, limit: float, otherwise: float) -> Flow:
    """x where x > limit, else the number `otherwise`: a rectifier where the two meet, else analog."""
    if limit == otherwise:
        return clipped(scope, flow, limit, LARGEST)
    above = greater(scope, flow, np.array(limit, np.float32))
    return decided(scope, above, flow, scope.affine(flow, 0.0, otherwise, part="otherwise"))


def shrunk(scope: Scope, flow: Flow, limit: float, bias: float) -> Flow:
    """x - bias where x > limit, x + bias where x < -limit, else 0."""
    if bias == limit >= 0:
        below = scope.affine(relu(scope, scope.affine(flow, -1.0, -limit, part="below")), -1.0)
        return add(scope, relu(scope, scope.affine(flow, shift=-limit, part="above")), below)
    high, low = (np.array(edge, np.float32) for edge in (limit, -limit))
    sides = [greater(scope, flow, high), greater(scope, low, flow)]
    nothing = scope.affine(flow, 0.0)
    for side, shift in zip(sides, (-bias, bias), strict=True):
        nothing = decided(scope, side, scope.affine(flow, shift=shift), nothing)
    return nothing


def decided(scope: Scope, condition: Flow, a: Value, b: Value) -> Flow:
    """`a` where `condition` is 1, else `b`; where it is 0 the other may be anything."""
    return scope.joined(kinds.Choose(), condition, a, b)


def choose(scope: Scope, condition: Array, a: Value, b: Value) -> Flow:
    """`a` where the constant `condition` holds, else `b`."""
    condition = condition.astype(bool)
    if isinstance(a, Flow) and isinstance(b, Flow):
        first = scope.affine(a, condition.astype(np.float32), part="chosen")
        return add(scope, first, scope.affine(b, (~condition).astype(np.float32), part="other"))
    if not isinstance(a, Flow):
        a, b, condition = b, a, ~condition
    assert not isinstance(b, Flow)
    value = np.where(condition, np.float32(0), b.astype(np.float32))
    return scope.affine(moving(a), condition.astype(np.float32), value)


def batch_norm(
    scope: Scope, flow: Flow, *, scale: Array, bias: Array, mean: Array, variance: Array, eps: float
) -> Flow:
    """(x - mean) / sqrt(variance + eps) * scale + bias over axis 1, folded into one scale and shift in float64."""
    flow.axis(1)
    gain, offset, centre, spread = (value.astype(np.float64) for value in (scale, bias, mean, variance))
    factor = gain / np.sqrt(spread + eps)
    shift = offset - centre * factor
    shape = (1, -1, *(1,) * (flow.rank - 2)) if gain.ndim <= 1 else (1, *gain.shape)
    return scope.affine(flow, factor.reshape(shape), shift.reshape(shape))
