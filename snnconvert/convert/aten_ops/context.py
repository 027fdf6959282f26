"""What every rule of this package works with: values, shapes, and the place to append dialect nodes to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from snnconvert.convert.lowering.flow import BATCH, Array, Flow, Refusal, Value
from snnconvert.convert.lowering.scope import Scope, tensor
from snnconvert.convert.lowering.windows import Window
from snnconvert.graph import kinds
from snnconvert.graph.dialect import Builder
from snnconvert.graph.types import Origin

Rule = Callable[..., Any]
OPERATORS: dict[str, Rule] = {}


AnyRule = TypeVar("AnyRule", bound=Rule)


def operator(*names: str) -> Callable[[AnyRule], AnyRule]:
    """Make a function the rule of the ATen operators `names` (no namespace, overload or in-place underscore)."""

    def register(rule: AnyRule) -> AnyRule:
        OPERATORS.update(dict.fromkeys(names, rule))
        return rule

    return register


@dataclass(frozen=True)
class BatchSize:
    """The symbolic number multiple * batch."""

    multiple: int = 1

    def __mul__(self, other: object) -> BatchSize:
        if not isinstance(other, int):
            raise Refusal("the shape arithmetic is not a multiple of the batch size")
        return BatchSize(self.multiple * other)

    __rmul__ = __mul__

    def __floordiv__(self, other: object) -> BatchSize | int:
        divisor = other.multiple if isinstance(other, BatchSize) else other
        if not isinstance(divisor, int) or divisor == 0 or self.multiple % divisor:
            raise Refusal("the shape arithmetic is not a multiple of the batch size")
        return self.multiple // divisor if isinstance(other, BatchSize) else BatchSize(self.multiple // divisor)

    __truediv__ = __floordiv__


Dimension = int | BatchSize


def shape_of(x: Flow | Tensor) -> list[Dimension]:
    """The ATen shape."""
    if isinstance(x, Tensor):
        return list(x.shape)
    return [BatchSize(size // BATCH) if size >= BATCH and size % BATCH == 0 else size for size in x.sizes]


class Context(Scope):
    """The dialect graph under construction, as the rules see it."""

    def __init__(self, builder: Builder, batch: int | None = None) -> None:
        super().__init__(builder, batch)
        self._calls: dict[str, int] = {}
        self._started = False
        self._parts: dict[str, int] = {}

    def enter(self, name: str, operator: str) -> None:
        """Start a new ATen node; the name gets "#2", "#3" ... when it was given to dialect nodes before."""
        self._started = False
        self.origin = Origin(name, operator)
        self._parts = {}

    def origin_of(self, part: str) -> Origin:
        if not self._started:
            base = self.origin.name
            count = self._calls[base] = self._calls.get(base, 0) + 1
            self.origin = Origin(base if count == 1 else f"{base}#{count}", self.origin.operator)
            self._started = True
        count = self._parts[part] = self._parts.get(part, 0) + 1
        name = self.origin.name + (f".{part}" if part else "") + (f".{count}" if count > 1 else "")
        return Origin(name, self.origin.operator)

    def view(self, x: Flow, shape: Sequence[Dimension], part: str = "") -> Flow:
        """`x` viewed as the ATen `shape`, which holds at most one -1; no node where the sample keeps its shape."""
        sizes = [size.multiple * BATCH if isinstance(size, BatchSize) else size for size in shape]
        if self.batch is None and all(isinstance(size, int) and size != -1 for size in shape):
            raise Refusal("its shape fixes the batch size or loses the batch axis")
        return self.reshape(x, sizes, part)

    def repeated_for_each_sample(self, value: Array) -> Flow:
        """A batch-first activation that has `value` for every sample."""
        any_input = next(iter(self.builder.inputs.values()))
        return Flow(self.emit(kinds.Constant(tensor(value)), any_input, part="constant"))


def value(x: Any) -> Value:
    """An activation as it is; a tensor or a number as an array."""
    if isinstance(x, Flow):
        return x
    if isinstance(x, Tensor):
        return (x.float() if x.is_floating_point() else x).numpy()
    return np.asarray(x, dtype=np.float32)


def of_values(verb: Callable[..., Flow], *names: str) -> Rule:
    """Make a verb of every door the rule of the ATen operators `names`, whose arguments are values."""

    def rule(ctx: Context, x: Any, *others: Any, **named: Any) -> Flow:
        return verb(ctx, *map(value, (x, *others, *named.values())))

    return operator(*names)(rule)


def moving(x: Any) -> Flow:
    """`x`, which must be an activation."""
    if not isinstance(x, Flow):
        raise Refusal("it needs an input that depends on the data")
    return x


def fixed(x: Any, what: str) -> Array:
    """`x`, which must be a constant tensor; `what` is named otherwise."""
    if not isinstance(x, Tensor):
        raise Refusal(f"its {what} depends on the data; only constants can become weights")
    found = value(x)
    assert not isinstance(found, Flow)
    return found


def fixed_or_none(x: Any, what: str) -> Array | None:
    """As `fixed`; None stays None."""
    return None if x is None else fixed(x, what)


def integers(x: Any, count: int) -> tuple[int, ...]:
    """An int or a list of ints as a tuple of `count` (a single value is repeated)."""
    values = [x] if isinstance(x, int) else list(x)
    if not all(isinstance(item, int) for item in values):
        raise Refusal("a size depends on the batch")
    return tuple(values * count if len(values) == 1 else values)


def window(  # noqa: PLR0917
    kernel: Any, rank: int, stride: Any = 1, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> Window:
    """A kernel over `rank` axes; an empty stride is the size of the kernel, and padding may be same or valid."""
    sides = integers(kernel, rank)
    named = {"same": "SAME_UPPER", "valid": "VALID"}.get(padding) if isinstance(padding, str) else None
    pads = None if named else 2 * integers(padding, rank)
    strides = integers(stride, rank) if stride else sides
    return Window(sides, strides, integers(dilation, rank), pads, named or "NOTSET", ceil_mode)
