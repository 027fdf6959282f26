"""Moves values, computes nothing; spikes stay spikes."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from snnconvert.graph.kinds.base import Op, Role, Shape


class Wiring(Op):
    """Moves the values of its inputs."""

    role = Role.WIRING
    keeps_sign = True

    @property
    def keeps_spikes(self) -> bool:
        """Always, unless a kind says otherwise below."""
        return True

    def largest(self, *inputs: float) -> float:
        """What it moves, and what it puts among it."""
        return max((*inputs, self.brings))


class Reshape(Wiring):
    """Reshape one sample to `shape` (batch excluded, no -1)."""

    fields = ("shape",)

    def __init__(self, *, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], *self.shape)

    def result_shape(self, *inputs: Shape) -> Shape | None:
        """Its own, of as many values."""
        ((batch, *sample),) = inputs
        return (batch, *self.shape) if math.prod(sample) == math.prod(self.shape) else None


class Permute(Wiring):
    """Reorder the axes; `dims` is a full permutation that starts with 0 (the batch stays first)."""

    fields = ("dims",)

    def __init__(self, *, dims: tuple[int, ...]) -> None:
        super().__init__()
        self.dims = tuple(dims)

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.dims)

    def result_shape(self, *inputs: Shape) -> Shape | None:
        """The axes in their new order."""
        (shape,) = inputs
        return tuple(shape[axis] for axis in self.dims) if sorted(self.dims) == list(range(len(shape))) else None


class Slice(Wiring):
    """x[start:stop:step] along `dim` (positive step, `dim` >= 1)."""

    fields = ("dim", "start", "stop", "step")

    def __init__(self, *, dim: int, start: int, stop: int, step: int = 1) -> None:
        super().__init__()
        self.dim, self.start, self.stop, self.step = dim, start, stop, step

    def forward(self, x: Tensor) -> Tensor:
        stop = min(self.stop, x.shape[self.dim])
        index = torch.arange(self.start, stop, self.step, device=x.device)
        return x.narrow(self.dim, self.start, stop - self.start) if self.step == 1 else x.index_select(self.dim, index)

    def result_shape(self, *inputs: Shape) -> Shape | None:
        """As many places as it picks, where there are any."""
        if self.start < 0 or self.stop < 0 or self.step < 1:
            return None
        return _with_axis(inputs[0], self.dim, lambda size: len(range(size)[self.start : self.stop : self.step]))


class Select(Wiring):
    """Pick `indices` along `dim`, in order, repeats allowed (channel shuffle, roll, gather by constants)."""

    fields = ("dim", "indices")

    def __init__(self, *, dim: int, indices: tuple[int, ...]) -> None:
        super().__init__()
        self.dim, self.indices = dim, tuple(indices)

    def forward(self, x: Tensor) -> Tensor:
        return x.index_select(self.dim, torch.tensor(self.indices, device=x.device))

    def result_shape(self, *inputs: Shape) -> Shape | None:
        """As many places as it picks, where all are there."""

        def picked(size: int) -> int:
            return len(self.indices) if all(0 <= index < size for index in self.indices) else 0

        return _with_axis(inputs[0], self.dim, picked)


class Pad(Wiring):
    """Constant padding; `pads` as in torch.nn.functional.pad (last axis first, pairs), negative crops."""

    fields = ("pads", "value")
    keeps_sign = False

    def __init__(self, *, pads: tuple[int, ...], value: float = 0.0) -> None:
        super().__init__()
        self.pads, self.value = tuple(pads), float(value)

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, self.pads, value=self.value)

    def result_shape(self, *inputs: Shape) -> Shape | None:
        """Longer at both ends of its axes, or shorter."""
        (shape,) = inputs
        added = [sum(self.pads[2 * axis : 2 * axis + 2]) for axis in range(len(self.pads) // 2)]
        if len(added) >= len(shape):
            return None
        padded = (*shape[: len(shape) - len(added)], *map(sum, zip(shape[-len(added) :], added[::-1], strict=True)))
        return padded if min(padded) > 0 and min((0, *self.pads)) == 0 else None

    @property
    def brings(self) -> float:
        """What it pads with."""
        return abs(self.value)

    @property
    def keeps_spikes(self) -> bool:
        """Where it pads with silence."""
        return self.value == 0.0

    def moved_amplitude(self, *amplitudes: Tensor) -> Tensor:
        """Padded places, which never spike, take the amplitude of their channel: so it stays one per channel."""
        moved, inside = self(*amplitudes)[0], self(torch.ones_like(amplitudes[0]))[0]
        flat, mask = moved.flatten(1), inside.flatten(1) > 0
        channel = torch.where(mask, flat, torch.zeros_like(flat)).amax(1, keepdim=True)
        return torch.where(mask, flat, channel.expand_as(flat)).reshape(moved.shape).unsqueeze(0)

    def linear_part(self) -> Op | None:
        """Padding with 0."""
        return Pad(pads=self.pads)


class Expand(Wiring):
    """Broadcast one sample to `shape` (batch excluded)."""

    fields = ("shape",)

    def __init__(self, *, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, x: Tensor) -> Tensor:
        return x.expand(x.shape[0], *self.shape)

    def result_shape(self, *inputs: Shape) -> Shape | None:
        """Its own, where only axes of 1 grow."""
        ((batch, *sample),) = inputs
        fits = len(sample) == len(self.shape) and all(map(lambda old, new: old in {1, new}, sample, self.shape))
        return (batch, *self.shape) if fits else None


class Concat(Wiring):
    """Concatenate any number of inputs along `dim` (>= 1)."""

    fields = ("dim",)

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, *inputs: Tensor) -> Tensor:
        return torch.cat(inputs, self.dim)

    def result_shape(self, *inputs: Shape) -> Shape | None:
        """As long along the axis as all of them together."""
        others = {(*shape[: self.dim], *shape[self.dim + 1 :]) for shape in inputs}
        if len(others) != 1 or not 0 <= self.dim < len(inputs[0]):
            return None
        return (*inputs[0][: self.dim], sum(shape[self.dim] for shape in inputs), *inputs[0][self.dim + 1 :])


class Constant(Wiring):
    """A constant per sample (class tokens, constant branches of a concat); takes any value to learn the batch size."""

    keeps_sign = False
    reads = False
    value: Tensor

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.tensor("value", value)

    def forward(self, like: Tensor) -> Tensor:
        return self.value.to(like.dtype).expand(like.shape[0], *self.value.shape)

    def result_shape(self, *inputs: Shape) -> Shape | None:
        """Its own for every sample."""
        return (inputs[0][0], *self.value.shape)

    @property
    def brings(self) -> float:
        """All of it."""
        return float(self.value.abs().max())

    @property
    def keeps_spikes(self) -> bool:
        """It reads nothing."""
        return False


def _with_axis(shape: Shape, axis: int, length: Callable[[int], int]) -> Shape | None:
    """`shape` with `length` of the size of an axis there; None where there is no such axis, or nothing left of it."""
    made = length(shape[axis]) if 0 < axis < len(shape) else 0
    return (*shape[:axis], made, *shape[axis + 1 :]) if made else None
