"""Moves values, computes nothing; spikes stay spikes."""

from __future__ import annotations

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


class Permute(Wiring):
    """Reorder the axes; `dims` is a full permutation that starts with 0 (the batch stays first)."""

    fields = ("dims",)

    def __init__(self, *, dims: tuple[int, ...]) -> None:
        super().__init__()
        self.dims = tuple(dims)

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.dims)


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


class Select(Wiring):
    """Pick `indices` along `dim`, in order, repeats allowed (channel shuffle, roll, gather by constants)."""

    fields = ("dim", "indices")

    def __init__(self, *, dim: int, indices: tuple[int, ...]) -> None:
        super().__init__()
        self.dim, self.indices = dim, tuple(indices)

    def forward(self, x: Tensor) -> Tensor:
        return x.index_select(self.dim, torch.tensor(self.indices, device=x.device))


class Pad(Wiring):
    """Constant padding; `pads` as in torch.nn.functional.pad (last axis first, pairs), negative crops."""

    fields = ("pads", "value")
    keeps_sign = False

    def __init__(self, *, pads: tuple[int, ...], value: float = 0.0) -> None:
        super().__init__()
        self.pads, self.value = tuple(pads), float(value)

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, self.pads, value=self.value)

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

    @property
    def brings(self) -> float:
        """All of it."""
        return float(self.value.abs().max())

    @property
    def keeps_spikes(self) -> bool:
        """It reads nothing."""
        return False
