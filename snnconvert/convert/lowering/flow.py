"""Values during an import: constants are numpy arrays, activations are Flows.

The dialect keeps the batch on axis 0. The graphs of ONNX and PyTorch do not always: they move it (sequence-first
attention), merge it with other axes (batch * heads, batch * windows), or drop it (a fixed batch of 1, squeezed away).
A `Flow` records how the source's tensor relates to the node of the dialect, so that such graphs need no guess, and
moving the batch about costs no node at all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import fx

# Stands for the batch size in shape arithmetic: a prime far from any real size, so that every multiple of it is
# recognised as "batch times something" (and is exact in float32, which exporters use for resize arithmetic).
BATCH = 1_000_003

Array: TypeAlias = NDArray[Any]


class Refusal(Exception):  # noqa: N818 (it is caught inside this package)
    """Why one node has no form in the dialect; the doors collect all of them into one UnsupportedError."""


@dataclass(frozen=True, eq=False)
class Flow:
    """An activation: a node of the dialect, and where its batch sits in the source's tensor.

    The sample axes of `node` are the source's axes in order, without the batch. With `position` p and sizes
    `before` and `after`, axis p of the source is the product (before, batch, after); parts larger than 1 are axes of
    `node`.

    Attributes:
        position: axis of the batch, or None where the source's tensor has no batch axis (a squeezed batch of 1).
        unit: scale s and zero point z, where the source's numbers are integers q and stand for s (q - z), which is what
            `node` computes; scale 0 where it differs from channel to channel.
    """

    node: fx.Node
    position: int | None = 0
    before: int = 1
    after: int = 1
    unit: tuple[float, float] | None = None

    @property
    def dims(self) -> tuple[int, ...]:
        """Shape of one sample in the dialect."""
        return tuple(self.node.meta["shape"])

    @property
    def merged(self) -> int:
        """How many axes of `node` share the batch axis of the source's tensor."""
        return (self.before > 1) + (self.after > 1)

    @property
    def rank(self) -> int:
        """Number of axes of the source's tensor."""
        return len(self.dims) - self.merged + (self.position is not None)

    @property
    def plain(self) -> bool:
        """Whether the source's tensor is batch-first, as in the dialect."""
        return self.position == 0 and self.merged == 0

    @property
    def split(self) -> int:
        """How many sample axes come before the batch in memory order of the source's tensor."""
        return 0 if self.position is None else self.position + (self.before > 1)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Shape of the source's tensor, with BATCH for the batch."""
        if self.position is None:
            return self.dims
        prefix, suffix = self.dims[: self.position], self.dims[self.position + self.merged :]
        return (*prefix, BATCH * self.before * self.after, *suffix)

    def normal(self, axis: int) -> int:
        """`axis` counted from the front.

        Raises:
            Refusal: if there is no such axis.
        """
        if not -self.rank <= axis < self.rank:
            raise Refusal(f"axis {axis} does not exist in a tensor with {self.rank} axes")
        return axis % self.rank

    def axis(self, axis: int) -> int:
        """The axis of `node` for an axis of the source's tensor.

        Raises:
            Refusal: if it is the batch axis, or does not exist.
        """
        axis = self.normal(axis)
        if axis == self.position:
            raise Refusal(f"it works along axis {axis}, which holds the batch; samples must stay independent")
        if self.position is None or axis < self.position:
            return axis + 1
        return axis + self.merged

    def require_plain(self) -> Flow:
        """This flow, if its batch is the first axis.

        Raises:
            Refusal: otherwise.
        """
        if not self.plain:
            where = "has no batch axis" if self.position is None else "has its batch merged or moved"
            raise Refusal(f"it needs a batch-first input, but its input {where}")
        return self

    def on(self, node: fx.Node) -> Flow:
        """`node` with the same relation to the source's tensor."""
        return replace(self, node=node)

    def dropped(self, node: fx.Node, axes: tuple[int, ...]) -> Flow:
        """`node` after the axes `axes` (none of them the batch) were removed."""
        if self.position is None:
            return self.on(node)
        return replace(self, node=node, position=self.position - sum(axis < self.position for axis in axes))

    def aligned(self, array: Array) -> Array:
        """`array`, which broadcasts against the source's tensor, shaped to broadcast against one sample of the dialect.

        Raises:
            Refusal: if it holds different values for each sample of a batch, or has more axes than that tensor.
        """
        if array.ndim > self.rank:
            raise Refusal(f"a constant of shape {array.shape} would add axes to a tensor with {self.rank} axes")
        if array.size == 1:
            return array.reshape(())
        array = array.reshape((1,) * (self.rank - array.ndim) + array.shape)
        if self.position is None:
            return array
        first = np.take(array, [0], axis=self.position)
        if array.shape[self.position] > 1 and not (array == first).all():
            raise Refusal(f"a constant of shape {array.shape} differs between the samples of a batch")
        shape = (*array.shape[: self.position], *(1,) * self.merged, *array.shape[self.position + 1 :])
        return first.reshape(shape)


Value: TypeAlias = Flow | Array


def reshaped(
    flow: Flow, target: list[int], batch: int | None, *, kept: bool = False
) -> tuple[tuple[int, ...], int | None, int, int]:
    """How the sample of `flow` is reshaped when the source's tensor is reshaped to `target`.

    Args:
        target: sizes; multiples of BATCH stand for the batch, -1 (at most once) for what is left.
        batch: the batch size fixed in the file, or None.
        kept: a batch of 1 stays where it is in memory, merged with another axis if need be, instead of being squeezed
            away and found again at an axis of size 1.

    Returns:
        The new sample shape, position, before and after (see Flow).

    Raises:
        Refusal: if the samples of a batch would mix, or the sizes do not fit.
    """
    total = math.prod(flow.dims)
    if target.count(-1) > 1 or any(size < -1 for size in target):
        raise Refusal(f"target shape {_spelled(target)} is not valid")
    marked = [index for index, size in enumerate(target) if size >= BATCH and size % BATCH == 0]
    if len(marked) > 1:
        raise Refusal(f"target shape {_spelled(target)} holds the batch twice")
    if not marked and batch == 1 and not kept:
        sizes = filled(target, total)
        ones = [index for index, size in enumerate(sizes) if size == 1]
        if not ones:
            return tuple(sizes), None, 1, 1
        index = flow.position if flow.position in ones else ones[0]
        return (*sizes[:index], *sizes[index + 1 :]), index, 1, 1
    unit = BATCH if marked or batch is None else batch
    candidates = marked
    if not marked and batch is None:
        if -1 not in target:
            raise Refusal(f"target shape {_spelled(target)} leaves no room for the batch")
        candidates = [target.index(-1)]
    sizes = filled(target, total * unit)
    if not candidates:
        # First the axis that holds exactly the batch (where it was, if possible), then one that holds a multiple.
        every = sorted(range(len(sizes)), key=lambda index: (sizes[index] != batch, index != flow.position, index))
        candidates = [index for index in every if sizes[index] and sizes[index] % unit == 0]
    prefix = math.prod(flow.dims[: flow.split])
    for index in candidates:
        ahead, factor = math.prod(sizes[:index]), sizes[index] // unit
        if sizes[index] % unit or ahead == 0 or prefix % ahead or factor % (prefix // ahead):
            continue
        before = prefix // ahead
        after = factor // before
        extra = tuple(size for size in (before, after) if size > 1)
        return (*sizes[:index], *extra, *sizes[index + 1 :]), index, before, after
    raise Refusal(f"reshaping {_spelled(list(flow.sizes))} to {_spelled(target)} would mix the samples of a batch")


def filled(target: list[int], total: int) -> list[int]:
    """`target` with -1 replaced by what is left of `total` elements."""
    known = math.prod(size for size in target if size != -1)
    if -1 in target:
        if known == 0 or total % known:
            raise Refusal(f"target shape {_spelled(target)} does not fit {_spelled([total])} elements")
        return [total // known if size == -1 else size for size in target]
    if known != total:
        raise Refusal(f"target shape {_spelled(target)} does not fit {_spelled([total])} elements")
    return list(target)


def _spelled(sizes: list[int]) -> str:
    """Sizes for a message, with the batch spelled out."""

    def one(size: int) -> str:
        if size < BATCH or size % BATCH:
            return str(size)
        return "batch" if size == BATCH else f"batch*{size // BATCH}"

    return f"({', '.join(one(size) for size in sizes)})"
