"""The import of one ONNX file: what its operators may use beside the verbs of every door."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from snnconvert.convert.lowering import scope as lowering
from snnconvert.convert.lowering.flow import BATCH, Array, Flow, Refusal, Value, filled
from snnconvert.graph.dialect import Builder


class Scope(lowering.Scope):
    """The import of one file, as seen by the function of one operator.

    Attributes:
        opset: version of the default operator set.
        outputs: names of the outputs of the node at work ("" where unused).
        notes: remarks for the report, in order, without repeats.
    """

    def __init__(self, builder: Builder, opset: int, batch: int | None) -> None:
        super().__init__(builder, batch)
        self.opset = opset
        self.outputs: tuple[str, ...] = ()
        self.notes: dict[str, None] = {}

    def note(self, text: str) -> None:
        """Keep a remark for the report."""
        self.notes[text] = None

    def reshape(self, flow: Flow, target: Iterable[int], part: str = "") -> Flow:
        sizes = [int(size) for size in target]
        marked = any(size >= BATCH and size % BATCH == 0 for size in sizes)
        if marked or self.batch is not None or not flow.plain or sizes[:1] != [1]:
            return super().reshape(flow, sizes, part)
        # The file declares a free batch, but its exporter baked the batch of 1 it was traced with.
        dims = tuple(filled(sizes, math.prod(flow.dims))[1:])
        self.note(f"{self.origin}: reshapes to a batch of 1 although the file declares a free batch; read as the batch")
        return Flow(self.sample_reshape(flow.node, dims))


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


def fixed_or_none(value: Value | None, what: str) -> Array | None:
    """As `fixed`; None stays None."""
    return None if value is None else fixed(value, what)


def without_batch(sizes: Iterable[int]) -> tuple[int, ...]:
    """Sizes of a constant, with 1 for the batch: a constant is the same for every sample."""
    found = tuple(int(size) // BATCH if size >= BATCH and size % BATCH == 0 else int(size) for size in sizes)
    if any(size < 0 for size in found):
        raise Refusal(f"a constant of shape {found} is not valid")
    return found
