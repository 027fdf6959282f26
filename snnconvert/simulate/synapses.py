"""Which places one input of a linear operator reaches, and by which weights: what a single spike has to know."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from snnconvert.errors import InternalError
from snnconvert.graph.kinds import Conv, Linear, MaxPool, Op, Role, SumPool

Floats = NDArray[np.float64]
Places = NDArray[np.int64]
Shape = tuple[int, ...]
Reached = tuple[Places, Floats]
AT_ONCE = 256


class Synapses(ABC):
    """The synapses behind the places of one input of an operator, by flat indices."""

    @abstractmethod
    def behind(self, index: int) -> Reached:
        """The places of the output that one place reaches, each once, and the weights."""

    def spread(self, places: Places, weights: Floats) -> Reached:
        """What spikes of these `weights` at these `places` reach in all, each place once."""
        if len(places) == 1:
            where, each = self.behind(int(places[0]))
            return where, weights * each
        parts = [self.behind(int(one)) for one in places]
        if not parts:
            return places, weights
        reached = np.concatenate([there for there, _ in parts])
        by = np.concatenate([weight * each for weight, (_, each) in zip(weights, parts, strict=True)])
        where, back = np.unique(reached, return_inverse=True)
        return where, np.bincount(back, by, len(where)).astype(np.float64)


def synapses(op: Op, shapes: Sequence[Shape], made: Shape, number: int) -> Synapses:
    """Those of one input.

    Args:
        op: any that is linear, or a maximum, which reaches all windows around a place by weight 1.
        shapes: of its inputs, batch excluded.
        made: of its output.
        number: which input.
    """
    linear, shape = (op if op.role == Role.MAXPOOL else op.linear_part()), shapes[number]
    match linear:
        case None:
            raise InternalError(f"{op.plain_name} is not linear")
        case Conv() | SumPool() | MaxPool() if len(shape) == 3:
            return _Windows(linear, shape, made)
        case Linear() if len(shape) == 1:
            return _Columns(linear)
    if linear.role == Role.AFFINE or (linear.role == Role.JOIN and shape == made):
        return _InPlace(linear, shapes, number)
    return _Moves(linear, shapes, number) if linear.role in (Role.WIRING, Role.JOIN) else _Probed(linear, shape)


def _with_one(op: Op, shapes: Sequence[Shape], number: int, given: torch.Tensor) -> Floats:
    """What a linear operator makes of `given`, flat, where its other inputs are zero."""
    inputs = [torch.zeros(1, *shape, dtype=torch.float64) for shape in shapes]
    inputs[number] = given.double().view(1, *shapes[number])
    made: Floats = op(*inputs).flatten().numpy()
    return made


class _Columns(Synapses):
    """A matrix product."""

    def __init__(self, op: Linear) -> None:
        self.weight = op.weight.numpy()
        self.places = np.arange(len(self.weight))

    def behind(self, index: int) -> Reached:
        return self.places, self.weight[:, index]


class _InPlace(Synapses):
    """Elementwise: each place reaches itself."""

    def __init__(self, op: Op, shapes: Sequence[Shape], number: int) -> None:
        self.factors = _with_one(op, shapes, number, torch.ones(math.prod(shapes[number])))

    def behind(self, index: int) -> Reached:
        return np.array([index]), self.factors[index : index + 1]

    def spread(self, places: Places, weights: Floats) -> Reached:
        return places, weights * self.factors[places]


class _Windows(Synapses):
    """Convolutions and pools over two axes: the taps under which an input lies as the window moves on."""

    def __init__(self, op: Conv | SumPool | MaxPool, shape: Shape, made: Shape) -> None:
        channels, height, self.width = shape
        self.across, self.area = made[2], made[1] * made[2]
        self.plane = height * self.width
        weight = op.weight.numpy() if isinstance(op, Conv) else np.ones((channels, 1, *op.window))
        self.inner, kernel = int(weight.shape[1]), weight.shape[2:]
        self.outputs, self.taps_across = len(weight) * self.inner // channels, kernel[1]
        by_group = weight.reshape(-1, self.outputs, self.inner, math.prod(kernel)).swapaxes(1, 2)
        self.weight = by_group.reshape(channels, self.outputs, -1)
        self.first = np.arange(self.outputs)[:, None] * self.area
        dilation = getattr(op, "dilation", (1, 1))
        self.under = [
            [
                _taps_over(at, kernel[axis], made[1 + axis], (op.stride[axis], op.padding[axis], dilation[axis]))
                for at in range(shape[1 + axis])
            ]
            for axis in (0, 1)
        ]

    def behind(self, index: int) -> Reached:
        channel, at = divmod(index, self.plane)
        row, column = divmod(at, self.width)
        (down, taps_down), (right, taps_right) = self.under[0][row], self.under[1][column]
        places = (down[:, None] * self.across + right).ravel()
        weights = self.weight[channel]
        if len(places) < weights.shape[1]:
            weights = weights[:, (taps_down[:, None] * self.taps_across + taps_right).ravel()]
        group = channel // self.inner * self.outputs * self.area
        return (self.first + (places + group)).ravel(), weights.ravel()


def _taps_over(at: int, taps: int, made: int, moved: tuple[int, int, int]) -> tuple[Places, Places]:
    """Along one axis: the outputs that read the input `at`, and under which tap; `moved` is stride, padding, dilation.

    Taps are in rising order.
    """
    stride, padding, dilation = moved
    tap = np.arange(taps)
    place, rest = np.divmod(at + padding - tap * dilation, stride)
    reads = (rest == 0) & (place >= 0) & (place < made)
    return place[reads], tap[reads]


class _Moves(Synapses):
    """Wiring and joins: each output is one of the inputs, or the sum of one of each."""

    def __init__(self, op: Op, shapes: Sequence[Shape], number: int) -> None:
        size = math.prod(shapes[number])
        found = _with_one(op, shapes, number, torch.arange(1, size + 1)).astype(np.int64) - 1
        self.places = np.argsort(found, kind="stable")
        self.starts = np.searchsorted(found[self.places], np.arange(size + 1))

    def behind(self, index: int) -> Reached:
        places = self.places[self.starts[index] : self.starts[index + 1]]
        return places, np.ones(len(places))


class _Probed(Synapses):
    """By what the operator makes of ones at each place alone; some neighbours are found at once, and all are kept."""

    def __init__(self, op: Op, shape: Shape) -> None:
        self.op, self.shape = op, shape
        self.known: dict[int, Reached] = {}

    def behind(self, index: int) -> Reached:
        if index not in self.known:
            size = math.prod(self.shape)
            first = index - index % AT_ONCE
            chosen = range(first, min(size, first + AT_ONCE))
            ones = torch.zeros(len(chosen), size, dtype=torch.float64)
            ones[torch.arange(len(chosen)), torch.tensor(chosen)] = 1.0
            for one, row in zip(chosen, self.op(ones.view(-1, *self.shape)).flatten(1).numpy(), strict=True):
                places = np.flatnonzero(row)
                self.known[one] = places, row[places]
        return self.known[index]
