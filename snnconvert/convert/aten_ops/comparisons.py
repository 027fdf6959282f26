"""Flows written out with a comparison: where(x > 0, x, a * x), and x * (x > 0)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from snnconvert.convert.aten_ops.context import Context, Rule, operator
from snnconvert.convert.lowering.elementwise import relu
from snnconvert.convert.lowering.flow import Flow, Refusal
from snnconvert.graph import kinds
from snnconvert.graph.dialect import arguments

_KNOWN = "only where(x > 0, x, a * x) and x * (x > 0) are known"


@dataclass(frozen=True)
class Comparison:
    """Where an activation is positive, or (not `above`) where it is negative; at zero all forms agree."""

    of: Flow
    above: bool


def compare(ctx: Context, x: Any, other: Any, *, above: bool) -> Comparison:
    del ctx
    if not isinstance(x, Flow) or not _is_zero(other):
        raise Refusal(f"it compares an activation with other than 0; {_KNOWN}")
    return Comparison(x, above)


def choose(ctx: Context, condition: Comparison, x: Any, other: Any) -> Flow:
    """A where on a comparison: (Leaky)ReLU."""
    positive, negative = (x, other) if condition.above else (other, x)
    if not _same(positive, condition.of):
        raise Refusal(f"its condition depends on other data than what it chooses; {_KNOWN}")
    if _is_zero(negative):
        return relu(ctx, condition.of)
    if isinstance(negative, Flow) and _layout(negative) == _layout(condition.of):
        op = ctx.builder.op(negative.node)
        if isinstance(op, kinds.Constant) and not op.get_buffer("value").any():
            return relu(ctx, condition.of)
        scaled = isinstance(op, kinds.Affine) and arguments(negative.node) == [condition.of.node]
        if op is not None and scaled and not op.get_buffer("shift").any():
            return ctx.apply(kinds.LeakyRelu(op.get_buffer("scale").clone()), condition.of)
    raise Refusal(f"its condition depends on the data; {_KNOWN}")


def masked(ctx: Context, x: Any, other: Any) -> Flow:
    """A product with a comparison: ReLU."""
    comparison, value = (x, other) if isinstance(x, Comparison) else (other, x)
    if not comparison.above or not _same(value, comparison.of):
        raise Refusal(f"it multiplies by a comparison of other data; {_KNOWN}")
    return relu(ctx, value)


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
UNREADABLE = f"it takes a comparison of activations for values; {_KNOWN}"

for _names, _above in ((("gt", "ge"), True), (("lt", "le"), False)):
    operator(*_names)(partial(compare, above=_above))
