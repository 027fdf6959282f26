"""Comparisons of activations: where(x > 0, x, a * x) and x * (x > 0) are rectifiers; all others stay analog."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from snnconvert.convert.aten_ops.context import Context, Rule, operator, value
from snnconvert.convert.lowering.elementwise import decided, greater, maximum, multiply, relu
from snnconvert.convert.lowering.flow import Flow
from snnconvert.graph import kinds
from snnconvert.graph.dialect import arguments


@dataclass(frozen=True)
class Comparison:
    """Where an activation is positive, or (not `above`) where it is negative; `equal`: or 0."""

    of: Flow
    above: bool
    equal: bool = False

    def numbers(self, ctx: Context) -> Flow:
        """1 where it holds, else 0."""
        zero = np.zeros((), np.float32)
        return greater(ctx, *((self.of, zero) if self.above else (zero, self.of)), equal=self.equal)


def compare(ctx: Context, x: Any, other: Any, *, above: bool, equal: bool) -> Comparison | Flow:
    if isinstance(x, Flow) and _is_zero(other):
        return Comparison(x, above, equal)
    return greater(ctx, *map(value, (x, other) if above else (other, x)), equal=equal)


def choose(ctx: Context, condition: Comparison, x: Any, other: Any) -> Flow:
    """A where on a comparison: (Leaky)ReLU, at whose 0 both sides agree, or what stays analog."""
    positive, negative = (x, other) if condition.above else (other, x)
    rectified = _rectified(ctx, condition, negative) if _same(positive, condition.of) else None
    return decided(ctx, condition.numbers(ctx), value(x), value(other)) if rectified is None else rectified


def _rectified(ctx: Context, condition: Comparison, negative: Any) -> Flow | None:
    """The activation itself where it is positive, else `negative`, as an activation function; None if it is none."""
    if _is_zero(negative):
        return relu(ctx, condition.of)
    if isinstance(negative, Flow) and _layout(negative) == _layout(condition.of):
        op = ctx.builder.op(negative.node)
        if isinstance(op, kinds.Constant) and not op.get_buffer("value").any():
            return relu(ctx, condition.of)
        scaled = isinstance(op, kinds.Affine) and arguments(negative.node) == [condition.of.node]
        if op is not None and scaled and not op.get_buffer("shift").any():
            return ctx.apply(kinds.LeakyRelu(op.get_buffer("scale").clone()), condition.of)
    return None


def masked(ctx: Context, x: Any, other: Any) -> Flow:
    """A product with a comparison: ReLU, or what stays analog."""
    comparison, kept = (x, other) if isinstance(x, Comparison) else (other, x)
    if comparison.above and _same(kept, comparison.of):
        return relu(ctx, kept)
    return multiply(ctx, comparison.numbers(ctx), kept.numbers(ctx) if isinstance(kept, Comparison) else value(kept))


def converted(ctx: Context, x: Comparison, **_: Any) -> Comparison:
    """A comparison as numbers, 0 and 1."""
    del ctx
    return x


def _layout(x: Flow) -> tuple[Any, ...]:
    return (x.dims, x.position, x.before, x.after)


def _same(value: Any, of: Flow) -> bool:
    return isinstance(value, Flow) and value.node is of.node and _layout(value) == _layout(of)


def _is_zero(value: Any) -> bool:
    """One zero; a larger tensor could broadcast its partner."""
    if isinstance(value, Tensor):
        return value.ndim == 0 and not value.any()
    return isinstance(value, int | float) and value == 0


# what may read a comparison
READERS: dict[str, Rule] = {
    "where": lambda ctx, condition, **names: choose(ctx, condition, names["self"], names["other"]),
    "mul": masked,
    "multiply": masked,
    "to": converted,
    "_to_copy": converted,
}

for _name, _above, _equal in (("gt", True, False), ("ge", True, True), ("lt", False, False), ("le", False, True)):
    operator(_name)(partial(compare, above=_above, equal=_equal))


@operator("logical_and", "bitwise_and", "__and__")
def both(ctx: Context, x: Any, other: Any) -> Flow:
    return multiply(ctx, value(x), value(other))


@operator("logical_or", "bitwise_or", "__or__")
def either(ctx: Context, x: Any, other: Any) -> Flow:
    return maximum(ctx, value(x), value(other))


@operator("logical_not", "bitwise_not")
def neither(ctx: Context, x: Flow) -> Flow:
    return ctx.affine(x, -1.0, 1.0)
