"""What a rule may use: the graph under construction, and the few verbs most operators share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, fx

from snnconvert.budget import check_claim
from snnconvert.convert.lowering.flow import Array, Flow, Refusal, Value, reshaped
from snnconvert.graph import kinds
from snnconvert.graph.dialect import Builder, arguments
from snnconvert.graph.kinds import Op, Role
from snnconvert.graph.types import Origin

LARGEST = float(np.finfo(np.float32).max)

_NON_NEGATIVE_FUNCTIONS = ("sigmoid", "hardsigmoid", "softplus", "abs", "square", "exp")


class Scope:
    """The import of one model, as seen by the rule of one operator.

    Attributes:
        builder: the graph under construction.
        batch: batch size fixed in the source, or None where it is free.
        origin: the node of the source at work.
        kept: how a batch of 1 is followed through reshapes, see `flow.reshaped`.
    """

    kept = False

    def __init__(self, builder: Builder, batch: int | None = None) -> None:
        self.builder = builder
        self.batch = batch
        self.origin = Origin("", "")
        self._non_negative: set[fx.Node] = set()

    def origin_of(self, part: str) -> Origin:
        """How the next node is named; `part` names the helper nodes of an operator that becomes several."""
        del part
        return self.origin

    def claim(self, size: int, what: str) -> None:
        """Make sure, before a table is computed that the file does not hold, that it may ask for `size` bytes.

        Raises:
            ClaimError: it may not.
        """
        check_claim(size, f"{what} of {self.origin}", self.builder.source)

    def emit(self, op: Op, *nodes: fx.Node, part: str = "") -> fx.Node:
        """Append `op` to the graph."""
        node = self.builder.call(op, *nodes, origin=self.origin_of(part))
        if _is_non_negative(op, all(self.non_negative(argument) for argument in nodes)):
            self._non_negative.add(node)
        return node

    def apply(self, op: Op, flow: Flow, *others: Flow, part: str = "") -> Flow:
        """Append `op`, which keeps the number and meaning of all axes."""
        return flow.on(self.emit(op, flow.node, *(other.node for other in others), part=part))

    def affine(self, flow: Flow, scale: Array | float = 1.0, shift: Array | float = 0.0, part: str = "") -> Flow:
        """flow * scale + shift; both broadcast against the source's tensor."""
        flow = self.meeting(flow, np.ndim(scale), np.ndim(shift))
        factors = [flow.aligned(np.asarray(value, dtype=np.float32)) for value in (scale, shift)]
        flow = self.expand_dims(flow, np.broadcast_shapes(flow.dims, *(value.shape for value in factors)))
        if (factors[0] == 1).all() and (factors[1] == 0).all():
            return flow
        return self.apply(kinds.Affine(tensor(factors[0]), tensor(factors[1])), flow, part=part)

    def meeting(self, flow: Flow, *ranks: int) -> Flow:
        """`flow` as it meets constants of `ranks` axes, which may put axes of size 1 in front of one without a batch.

        The first of them is the batch that it lost. Where the batch is there, no axis can be put in front of it:
        `Flow.aligned` refuses such constants.
        """
        rank = max(ranks)
        if flow.position is not None or rank <= flow.rank:
            return flow
        return replace(self.ranked(flow, rank - 1), position=0)

    def expand_dims(self, flow: Flow, dims: tuple[int, ...]) -> Flow:
        """`flow` broadcast to the sample shape `dims`."""
        if dims == flow.dims:
            return flow
        shared = slice(flow.position, (flow.position or 0) + flow.merged)
        if flow.merged and dims[shared] != flow.dims[shared]:
            raise Refusal("it broadcasts an axis that is merged with the batch")
        return self.apply(kinds.Expand(shape=dims), flow, part="expand")

    def reshape(self, flow: Flow, target: Iterable[int], part: str = "") -> Flow:
        """`flow` reshaped as the source has it; BATCH stands for the batch, -1 for what is left."""
        dims, position, before, after = reshaped(flow, [int(size) for size in target], self.batch, kept=self.kept)
        return Flow(self.sample_reshape(flow.node, dims, part), position, before, after)

    def sample_reshape(self, node: fx.Node, dims: tuple[int, ...], part: str = "") -> fx.Node:
        """`node` with samples of shape `dims`; nothing is added where that is its shape already."""
        return node if tuple(node.meta["shape"]) == dims else self.emit(kinds.Reshape(shape=dims), node, part=part)

    def transpose(self, flow: Flow, permutation: Iterable[int], part: str = "") -> Flow:
        """`flow` with its axes reordered."""
        permutation = [flow.normal(axis) for axis in permutation]
        if sorted(permutation) != list(range(flow.rank)):
            raise Refusal(f"{permutation} is no permutation of {flow.rank} axes")
        dims = [0]
        for axis in permutation:
            if axis == flow.position:
                dims += range(axis + 1, axis + 1 + flow.merged)
            else:
                dims.append(flow.axis(axis))
        position = None if flow.position is None else permutation.index(flow.position)
        same = dims == sorted(dims)
        node = flow.node if same else self.emit(kinds.Permute(dims=tuple(dims)), flow.node, part=part)
        return Flow(node, position, flow.before, flow.after)

    def swapped(self, flow: Flow, first: int, second: int, part: str = "") -> Flow:
        """`flow` with two axes exchanged."""
        order = list(range(flow.rank))
        first, second = flow.normal(first), flow.normal(second)
        order[first], order[second] = second, first
        return self.transpose(flow, order, part)

    def constant(self, array: Array, like: Flow) -> Flow:
        """A constant tensor of the rank of `like` as a flow with the same batch axis (its size there must be 1)."""
        if array.ndim != like.rank:
            raise Refusal(f"a constant of shape {array.shape} meets a tensor with {like.rank} axes")
        if like.merged and array.shape[like.position or 0] > 1:
            raise Refusal("a constant meets an axis that is merged with the batch")
        value = like.aligned(array) if array.size > 1 else array.reshape((1,) * len(like.dims))
        return like.on(self.emit(kinds.Constant(tensor(value)), like.node, part="constant"))

    def together(self, *values: Value) -> list[Flow]:
        """Flows of one rank and one batch axis, ready for an elementwise operator; constants become nodes.

        Raises:
            Refusal: if their batch axes cannot be brought in line.
        """
        rank = max(value.rank if isinstance(value, Flow) else value.ndim for value in values)
        flows = [value for value in values if isinstance(value, Flow)]
        lead = min(flows, key=lambda flow: (flow.position is None, -flow.rank))
        position = None if lead.position is None else lead.position + rank - lead.rank
        found = []
        for value in values:
            if not isinstance(value, Flow):
                shape = (1,) * (rank - value.ndim) + value.shape
                if any(size != 1 for size in shape[: rank - lead.rank]):
                    raise Refusal(f"a constant of shape {value.shape} would add axes to a tensor with {lead.rank} axes")
                array = value.reshape(shape[rank - lead.rank :])
                found.append(self.ranked(self.constant(array, lead), rank))
                continue
            flow = self.ranked(value, rank)
            if flow.position is None and position is not None:
                # A tensor without a batch axis meets one that has it: its axis of size 1 there is the batch.
                if flow.dims[position] != 1:
                    raise Refusal("its inputs hold the batch on different axes")
                dims = (*flow.dims[:position], *flow.dims[position + 1 :])
                flow = Flow(self.sample_reshape(value.node, dims), position)
            if flow.position != position or (flow.before, flow.after) != (lead.before, lead.after):
                raise Refusal("its inputs hold the batch on different axes")
            found.append(flow)
        return found

    def ranked(self, flow: Flow, rank: int) -> Flow:
        """`flow` with leading axes of size 1, up to `rank` axes."""
        missing = rank - flow.rank
        if missing <= 0:
            return flow
        node = self.sample_reshape(flow.node, (1,) * missing + flow.dims, "view")
        return Flow(node, None if flow.position is None else flow.position + missing, flow.before, flow.after)

    def joined(self, op: Op, *values: Value, part: str = "") -> Flow:
        """Append an elementwise `op` of several values."""
        return self.apply(op, *self.together(*values), part=part)

    def is_whole(self, node: fx.Node) -> bool:
        """Whether the values of `node` are whole numbers of the input, moved at most."""
        op = self.builder.op(node)
        if node.meta.get("whole") or op is None:
            return bool(node.meta.get("whole"))
        return op.role == Role.WIRING and op.reads and all(map(self.is_whole, arguments(node)))

    def non_negative(self, node: fx.Node) -> bool:
        """Whether the values of `node` are provably at least 0."""
        return node in self._non_negative


def _is_non_negative(op: Op, inputs: bool) -> bool:
    """Whether `op` gives no negative values; `inputs` says whether none of its inputs is negative."""
    if op.rectifies or getattr(op, "function", "") in _NON_NEGATIVE_FUNCTIONS:
        return True
    if isinstance(op, kinds.Softmax):
        return not op.log
    return inputs and (op.keeps_sign or isinstance(op, kinds.Add) or (isinstance(op, kinds.Pad) and op.value >= 0))


def tensor(array: Array | float) -> Tensor:
    """A float32 tensor of a numpy array."""
    return torch.from_numpy(np.array(array, dtype=np.float32))


def optional(array: Array | None) -> Tensor | None:
    """As `tensor`; None stays None."""
    return None if array is None else tensor(array)


def moving(value: Value | None, what: str = "its input") -> Flow:
    """An activation."""
    if not isinstance(value, Flow):
        raise Refusal(f"{what} must be an activation")
    return value


def split(values: Sequence[Value]) -> tuple[list[Flow], list[Array]]:
    """Activations and constants among `values`."""
    flows = [value for value in values if isinstance(value, Flow)]
    return flows, [value for value in values if not isinstance(value, Flow)]
