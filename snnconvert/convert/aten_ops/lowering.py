"""What every operator rule of this package works with: values, shapes, and the place to append dialect nodes to.

ATen lets the batch sit on any axis, and even merges it with its neighbours (windowed attention flattens batch and
windows; `nn.MultiheadAttention` puts the batch second). The dialect keeps the batch on axis 0. An `Activation`
therefore records where ATen would have the batch, and moving the batch about costs no node at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, fx

from snnconvert.graph import ops
from snnconvert.graph.dialect import Builder
from snnconvert.graph.kinds import Op
from snnconvert.graph.types import Origin

Rule = Callable[..., Any]


class UnsupportedNodeError(Exception):
    """One node has no form in the dialect; its text says why. The importer gathers these into an UnsupportedError."""


@dataclass(frozen=True)
class BatchSize:
    """The symbolic number multiple * batch."""

    multiple: int = 1

    def __mul__(self, other: object) -> BatchSize:
        if not isinstance(other, int):
            raise UnsupportedNodeError("the shape arithmetic is not a multiple of the batch size")
        return BatchSize(self.multiple * other)

    __rmul__ = __mul__

    def __floordiv__(self, other: object) -> BatchSize | int:
        divisor = other.multiple if isinstance(other, BatchSize) else other
        if not isinstance(divisor, int) or divisor == 0 or self.multiple % divisor:
            raise UnsupportedNodeError("the shape arithmetic is not a multiple of the batch size")
        return self.multiple // divisor if isinstance(other, BatchSize) else BatchSize(self.multiple // divisor)

    __truediv__ = __floordiv__


Dimension = int | BatchSize
Shape = list[Dimension]


@dataclass(frozen=True, eq=False)
class Activation:
    """A value that depends on the model's input.

    Its ATen shape has before * batch * after on `axis` (row-major, `before` outermost). The sample shape of `node` is
    the ATen shape with that axis replaced by `before` and `after`, each left out where it is 1.
    """

    node: fx.Node
    axis: int = 0
    before: int = 1
    after: int = 1

    @property
    def width(self) -> int:
        """How many axes of the sample stand for the batch axis."""
        return (self.before > 1) + (self.after > 1)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one sample in the dialect."""
        return tuple(self.node.meta["shape"])

    @property
    def shape(self) -> Shape:
        """The ATen shape."""
        inner = self.sample_shape
        merged = BatchSize(self.before * self.after)
        return [*inner[: self.axis], merged, *inner[self.axis + self.width :]]

    @property
    def rank(self) -> int:
        """Number of ATen axes."""
        return len(self.sample_shape) - self.width + 1

    @property
    def batch_first(self) -> bool:
        """True when ATen and the dialect agree on every axis."""
        return self.axis == 0 and self.width == 0

    def normal(self, dim: int) -> int:
        """The ATen axis `dim`, counted from the front."""
        return dim + self.rank if dim < 0 else dim

    def dim(self, dim: int) -> int:
        """The dialect axis of the ATen axis `dim`.

        Raises:
            UnsupportedNodeError: for the batch axis.
        """
        dim = self.normal(dim)
        if dim == self.axis:
            raise UnsupportedNodeError("it works along the batch axis, which would mix samples")
        return dim + 1 if dim < self.axis else dim + self.width

    def size(self, dim: int) -> int:
        """The size of an ATen axis other than the batch."""
        return int(self.sample_shape[self.dim(dim) - 1])


class Context:
    """The dialect graph under construction, as the rules see it."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        self.origin = Origin("", "")
        self._calls: dict[str, int] = {}
        self._started = False
        self._any_input = next(iter(builder.inputs.values()))

    def enter(self, name: str, operator: str) -> None:
        """Start a new ATen node; the name gets "#2", "#3" ... when it was given to dialect nodes before."""
        self._started = False
        self.origin = Origin(name, operator)
        self._parts: dict[str, int] = {}

    def emit(self, op: Op, *inputs: fx.Node, part: str = "") -> fx.Node:
        """Append `op`; `part` names the helper nodes of an ATen operator that becomes several."""
        if not self._started:
            base = self.origin.name
            count = self._calls[base] = self._calls.get(base, 0) + 1
            self.origin = Origin(base if count == 1 else f"{base}#{count}", self.origin.operator)
            self._started = True
        count = self._parts[part] = self._parts.get(part, 0) + 1
        name = self.origin.name + (f".{part}" if part else "") + (f".{count}" if count > 1 else "")
        return self.builder.call(op, *inputs, origin=Origin(name, self.origin.operator))

    def map(self, op: Op, x: Activation, *others: Activation, part: str = "") -> Activation:
        """Append an `op` that keeps the layout of `x`."""
        node = self.emit(op, x.node, *(other.node for other in others), part=part)
        return Activation(node, x.axis, x.before, x.after)

    def relayout(self, x: Activation, shape: Sequence[Dimension], part: str = "") -> Activation:
        """`x` viewed as the ATen `shape`, which holds at most one -1; no node where the sample keeps its shape."""
        sizes = list(shape)
        total = x.before * x.after * prod(s for s in x.shape if isinstance(s, int))
        if any(size == -1 for size in sizes):
            known = prod(s.multiple if isinstance(s, BatchSize) else s for s in sizes if s != -1)
            has_batch = any(isinstance(size, BatchSize) for size in sizes)
            missing = total // known if known else 0
            sizes[sizes.index(-1)] = missing if has_batch else BatchSize(missing)
        places = [index for index, size in enumerate(sizes) if isinstance(size, BatchSize)]
        if len(places) != 1:
            raise UnsupportedNodeError("its shape fixes the batch size or loses the batch axis")
        axis = places[0]
        merged = sizes[axis]
        assert isinstance(merged, BatchSize)
        others = [size for size in sizes if isinstance(size, int)]
        ahead, behind = prod(others[:axis]), prod(others[axis:])
        ahead_now = x.before * prod(x.sample_shape[: x.axis])
        if merged.multiple * ahead * behind != total:
            raise UnsupportedNodeError("it reshapes to another number of elements")
        before, rest = divmod(ahead_now, ahead)
        if rest or merged.multiple % before:
            raise UnsupportedNodeError("it mixes the batch axis with others in an order the dialect cannot keep")
        after = merged.multiple // before
        inner = [*others[:axis], *(size for size in (before, after) if size > 1), *others[axis:]]
        node = x.node
        if tuple(inner) != x.sample_shape:
            node = self.emit(ops.Reshape(shape=tuple(inner)), node, part=part)
        return Activation(node, axis, before, after)

    def aligned(self, value: Tensor, x: Activation) -> Tensor:
        """A constant that broadcasts with `x` in ATen, reshaped to broadcast with one sample of it.

        Raises:
            UnsupportedNodeError: when the constant differs from sample to sample.
        """
        value = value.to(torch.float32)
        if value.numel() == 1:
            return value.reshape(())
        if value.ndim > x.rank:
            raise UnsupportedNodeError("a constant of higher rank is broadcast over the batch axis")
        value = value.reshape((1,) * (x.rank - value.ndim) + tuple(value.shape))
        if value.shape[x.axis] != 1:
            raise UnsupportedNodeError("a constant differs from sample to sample")
        shape = tuple(value.shape)
        value = value.reshape(shape[: x.axis] + (1,) * x.width + shape[x.axis + 1 :])
        while value.ndim > 1 and value.shape[0] == 1:
            value = value.squeeze(0)
        # Leading axes of size 1 say nothing, except that batch norm and channel constants read best as (C, 1, 1).
        return value

    def affine(self, x: Activation, scale: Tensor, shift: Tensor, part: str = "") -> Activation:
        """x * scale + shift, both already aligned; `x` is expanded first where they are larger than it."""
        scale, shift = (t.to(torch.float32) for t in (scale, shift))
        both = (scale + shift).shape
        wanted = tuple((torch.empty(x.sample_shape, device="meta") + torch.empty(both, device="meta")).shape)
        if wanted != x.sample_shape:
            x = self.map(ops.Expand(shape=wanted), x, part="expand")
        return self.map(ops.Affine(scale.expand(both).contiguous(), shift.expand(both).contiguous()), x, part=part)

    def constant(self, value: Tensor, like: Activation | None = None) -> Activation:
        """A batch-first activation that has `value` for every sample."""
        node = self._any_input if like is None else like.node
        return Activation(self.emit(ops.Constant(value.to(torch.float32)), node, part="constant"))

    def same_layout(self, value: Any, x: Activation) -> Activation:
        """`value` as an activation that broadcasts with `x`."""
        if isinstance(value, Activation):
            if (value.axis - value.rank, value.before, value.after) != (x.axis - x.rank, x.before, x.after):
                raise UnsupportedNodeError("its inputs carry the batch on different axes")
            return value
        tensor = value if isinstance(value, Tensor) else torch.tensor(float(value))
        inner = self.aligned(tensor, x)
        inner = inner.reshape((1,) * (len(x.sample_shape) - inner.ndim) + tuple(inner.shape))
        constant = self.constant(inner, x)
        return Activation(constant.node, x.axis, x.before, x.after)


def batch_first(x: Any) -> Activation:
    """`x`, which must be an activation in the dialect's own layout."""
    if not isinstance(x, Activation):
        raise UnsupportedNodeError("it needs an input that depends on the data")
    if not x.batch_first:
        raise UnsupportedNodeError("its batch is not on axis 0")
    return x


def constant_tensor(value: Any, what: str) -> Tensor:
    """`value`, which must be a constant tensor; `what` is named otherwise."""
    if not isinstance(value, Tensor):
        raise UnsupportedNodeError(f"its {what} depends on the data; only constants can become weights")
    return value.to(torch.float32) if value.is_floating_point() else value


def integers(value: Any, count: int) -> tuple[int, ...]:
    """An int or a list of ints as a tuple of `count` (a single value is repeated)."""
    values = [value] if isinstance(value, int) else list(value)
    if not all(isinstance(item, int) for item in values):
        raise UnsupportedNodeError("a size depends on the batch")
    return tuple(values * count if len(values) == 1 else values)
