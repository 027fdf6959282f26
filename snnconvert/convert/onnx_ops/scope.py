"""What an operator's function may use: the builder, the opset, and the few verbs most operators share."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, fx

from snnconvert.convert.onnx_ops.flow import BATCH, Array, Flow, Refusal, Value, reshaped
from snnconvert.graph import ops
from snnconvert.graph.dialect import Builder
from snnconvert.graph.kinds import Op
from snnconvert.graph.types import Origin

LARGEST = float(np.finfo(np.float32).max)
MOST_ELEMENTS = 2**27  # of a folded constant; a hostile file could ask for any amount of memory

_NON_NEGATIVE = ("Relu", "Clip")
_NON_NEGATIVE_FUNCTIONS = ("sigmoid", "hardsigmoid", "softplus", "abs", "square", "exp")
_KEEPS_SIGN = ("Reshape", "Permute", "Slice", "Select", "Expand", "Concat", "AveragePool", "Mean", "MaxPool", "Add")


class Scope:
    """The import of one file, as seen by the function of one operator.

    Attributes:
        builder: the graph under construction.
        opset: version of the default operator set.
        batch: batch size fixed in the file, or None where it is free.
        origin: the ONNX node at work.
        outputs: names of its outputs ("" where unused).
        final: whether all its outputs are graph outputs and nothing else reads them.
        notes: remarks for the report, in order, without repeats.
    """

    def __init__(self, builder: Builder, opset: int, batch: int | None) -> None:
        self.builder = builder
        self.opset = opset
        self.batch = batch
        self.origin = Origin("", "")
        self.outputs: tuple[str, ...] = ()
        self.final = False
        self.notes: dict[str, None] = {}
        self.renamed: dict[str, str] = {}  # graph outputs that stand for an earlier value
        self._non_negative: set[fx.Node] = set()

    def note(self, text: str) -> None:
        """Keep a remark for the report."""
        self.notes[text] = None

    # --- building ---------------------------------------------------------------------------------

    def emit(self, op: Op, *nodes: fx.Node) -> fx.Node:
        """Append `op` to the graph."""
        node = self.builder.call(op, *nodes, origin=self.origin)
        if _is_non_negative(op, all(self.non_negative(argument) for argument in nodes)):
            self._non_negative.add(node)
        return node

    def apply(self, op: Op, flow: Flow) -> Flow:
        """Append `op`, which keeps the number and meaning of all axes."""
        return flow.on(self.emit(op, flow.node))

    def affine(self, flow: Flow, scale: Array | float = 1.0, shift: Array | float = 0.0) -> Flow:
        """flow * scale + shift; both broadcast against the ONNX tensor."""
        factors = [flow.aligned(np.asarray(value, dtype=np.float32)) for value in (scale, shift)]
        flow = self.expand_dims(flow, np.broadcast_shapes(flow.dims, *(value.shape for value in factors)))
        if (factors[0] == 1).all() and (factors[1] == 0).all():
            return flow
        return self.apply(ops.Affine(tensor(factors[0]), tensor(factors[1])), flow)

    def expand_dims(self, flow: Flow, dims: tuple[int, ...]) -> Flow:
        """`flow` broadcast to the sample shape `dims`."""
        if dims == flow.dims:
            return flow
        shared = slice(flow.position, (flow.position or 0) + flow.merged)
        if flow.merged and dims[shared] != flow.dims[shared]:
            raise Refusal("it broadcasts an axis that is merged with the batch")
        return self.apply(ops.Expand(shape=dims), flow)

    def reshape(self, flow: Flow, target: Iterable[int]) -> Flow:
        """`flow` reshaped as an ONNX tensor; BATCH stands for the batch, -1 for what is left."""
        dims, position, before, after, guessed = reshaped(flow, [int(size) for size in target], self.batch)
        if guessed:
            self.note(
                f"{self.origin}: reshapes to a batch of 1 although the file declares a free batch; read as the batch"
            )
        return Flow(self.sample_reshape(flow.node, dims), position, before, after)

    def sample_reshape(self, node: fx.Node, dims: tuple[int, ...]) -> fx.Node:
        """`node` with samples of shape `dims`; nothing is added where that is its shape already."""
        return node if tuple(node.meta["shape"]) == dims else self.emit(ops.Reshape(shape=dims), node)

    def transpose(self, flow: Flow, permutation: Iterable[int]) -> Flow:
        """`flow` with its ONNX axes reordered."""
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
        node = flow.node if dims == sorted(dims) else self.emit(ops.Permute(dims=tuple(dims)), flow.node)
        return Flow(node, position, flow.before, flow.after)

    def constant(self, array: Array, like: Flow) -> Flow:
        """A constant tensor of the rank of `like` as a flow with the same batch axis (its size there must be 1)."""
        if array.ndim != like.rank:
            raise Refusal(f"a constant of shape {array.shape} meets a tensor with {like.rank} axes")
        if like.merged and array.shape[like.position or 0] > 1:
            raise Refusal("a constant meets an axis that is merged with the batch")
        value = like.aligned(array) if array.size > 1 else array.reshape((1,) * len(like.dims))
        return like.on(self.emit(ops.Constant(tensor(value)), like.node))

    def together(self, *values: Value) -> list[Flow]:
        """Flows of one rank and one batch axis, ready for an elementwise operator; constants become nodes.

        Raises:
            Refusal: if their batch axes cannot be brought in line.
        """
        rank = max(value.rank if isinstance(value, Flow) else value.ndim for value in values)
        lead = min(
            (value for value in values if isinstance(value, Flow)), key=lambda flow: (flow.position is None, -flow.rank)
        )
        position = None if lead.position is None else lead.position + rank - lead.rank
        flows = []
        for value in values:
            if not isinstance(value, Flow):
                shape = (1,) * (rank - value.ndim) + value.shape
                if any(size != 1 for size in shape[: rank - lead.rank]):
                    raise Refusal(f"a constant of shape {value.shape} would add axes to a tensor with {lead.rank} axes")
                array = value.reshape(shape[rank - lead.rank :])
                flows.append(self._padded(self.constant(array, lead), rank))
                continue
            flow = self._padded(value, rank)
            if flow.position is None and position is not None:
                # A tensor without a batch axis meets one that has it: its axis of size 1 there is the batch.
                if flow.dims[position] != 1:
                    raise Refusal("its inputs hold the batch on different axes")
                dims = (*flow.dims[:position], *flow.dims[position + 1 :])
                flow = Flow(self.sample_reshape(value.node, dims), position)
            if flow.position != position or (flow.before, flow.after) != (lead.before, lead.after):
                raise Refusal("its inputs hold the batch on different axes")
            flows.append(flow)
        return flows

    def _padded(self, flow: Flow, rank: int) -> Flow:
        missing = rank - flow.rank
        if missing == 0:
            return flow
        node = self.sample_reshape(flow.node, (1,) * missing + flow.dims)
        return Flow(node, None if flow.position is None else flow.position + missing, flow.before, flow.after)

    # --- questions --------------------------------------------------------------------------------

    def non_negative(self, node: fx.Node) -> bool:
        """Whether the values of `node` are provably at least 0."""
        return node in self._non_negative


def _is_non_negative(op: Op, inputs: bool) -> bool:
    """Whether `op` gives no negative values; `inputs` says whether none of its inputs is negative."""
    kind = type(op).__name__
    if kind in _NON_NEGATIVE or getattr(op, "function", "") in _NON_NEGATIVE_FUNCTIONS:
        return True
    if kind == "Softmax":
        return not getattr(op, "log", False)
    return inputs and (kind in _KEEPS_SIGN or (kind == "Pad" and getattr(op, "value", -1.0) >= 0))


def tensor(array: Array | float) -> Tensor:
    """A float32 tensor of a numpy array."""
    return torch.from_numpy(np.array(array, dtype=np.float32))


def scalar(value: Value | None, what: str) -> float:
    """A constant with one element."""
    if not isinstance(value, np.ndarray) or value.size != 1:
        raise Refusal(f"{what} must be one constant number")
    return float(value.reshape(-1)[0])


def integers(value: Value | tuple[int, ...] | None, what: str) -> tuple[int, ...]:
    """A constant list of integers: an input, or in older opsets an attribute."""
    if isinstance(value, tuple):
        return value
    if not isinstance(value, np.ndarray):
        raise Refusal(f"{what} must be given, and must not be computed from activations")
    return tuple(int(item) for item in value.reshape(-1))


def fixed(value: Value | None, what: str) -> Array:
    """A constant array, for instance weights."""
    if not isinstance(value, np.ndarray):
        raise Refusal(f"{what} is computed from activations; only constants are supported")
    return value


def moving(value: Value | None, what: str = "its input") -> Flow:
    """An activation."""
    if not isinstance(value, Flow):
        raise Refusal(f"{what} must be an activation")
    return value


def without_batch(sizes: Iterable[int]) -> tuple[int, ...]:
    """Sizes of a constant, with 1 for the batch: a constant is the same for every sample."""
    found = tuple(int(size) // BATCH if size >= BATCH and size % BATCH == 0 else int(size) for size in sizes)
    if any(size < 0 for size in found) or math.prod(found) > MOST_ELEMENTS:
        raise Refusal(f"a constant of shape {found} is too large or not valid")
    return found
