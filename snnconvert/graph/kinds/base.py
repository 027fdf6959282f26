"""What every kind of node is: a module, and a declaration of how the rest of the program may treat it.

A kind says once what others have to know of it: its role, where it is legal, whether it hands spikes on, its linear
part, its multiplications. Nobody else keeps a list of kinds. A kind is a class in one file of this package and a row of
KINDS.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from enum import Enum, IntEnum
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

Shape = tuple[int, ...]


class Stage(IntEnum):
    """How far a graph has come."""

    ANN = 1
    CALIBRATED = 2
    SNN = 3


class Role(Enum):
    """What a node does to the values that flow through it."""

    WEIGHTED = "linear with weights"
    AFFINE = "per-channel scale and shift"
    WIRING = "moves values, computes nothing"
    POOL = "linear average"
    MAXPOOL = "maximum over a window"
    JOIN = "sum of branches"
    PRODUCT = "sum of products of spikes"
    SITE = "activation that becomes a neuron"
    ANALOG = "non-linear operator without a spiking form of its own"
    NEURON = "spiking neuron"
    DELAY = "synchronous neuron"
    EVENTS = "events that come in over time"


class Op(nn.Module):
    """A node of the dialect.

    Every class lists its JSON-able constructor arguments in `fields` and keeps its tensors as buffers, so a node is
    fully described by (kind, fields, tensors). Dimension 0 of every value is the batch (or time x batch); shapes in
    fields never include it, axes in fields always do (channel axis = 1).

    Attributes:
        role: what it does, as far as rules for a whole family need to know.
        stages: where it is legal.
        keeps_sign: whether its output has no negative value where none of its inputs has one.
        rectifies: whether its output never has a negative value.
        signed: whether a site needs a neuron that sends both signs.
        reads: whether its output depends on what it is called with.
        elementwise: whether every value depends on those at its own place only.
        gathers: whether every output is a weighted sum over one window of the inputs, which `weight`, `stride`,
            `padding` and `dilation` describe in full, so that kernels and least squares may compute it too.
        repeatable: whether it costs so little that each of its readers may compute it anew.
    """

    role: ClassVar[Role]
    fields: ClassVar[tuple[str, ...]] = ()
    stages: ClassVar[tuple[Stage, ...]] = tuple(Stage)
    keeps_sign: ClassVar[bool] = False
    rectifies: ClassVar[bool] = False
    reads: ClassVar[bool] = True
    elementwise: ClassVar[bool] = False
    gathers: ClassVar[bool] = False
    repeatable: ClassVar[bool] = False
    signed: bool = False

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """As of every module, but for its dozen empty tables of hooks, which take most of the time in a graph."""
        made = type(self).__new__(type(self))
        memo[id(self)] = made
        for name, value in self.__dict__.items():
            made.__dict__[name] = value.copy() if isinstance(value, dict | set) and not value else deepcopy(value, memo)
        return made

    def tensor(self, name: str, value: Tensor | None) -> None:
        """Keep `value` as a detached buffer, so that it is stored with the graph and never trained by accident."""
        self.register_buffer(name, None if value is None else value.detach().clone())

    def arguments(self) -> dict[str, object]:
        """The JSON-able constructor arguments."""
        return {name: getattr(self, name) for name in self.fields}

    def tensors(self) -> dict[str, Tensor | None]:
        """The tensors, by constructor argument."""
        return dict(self._buffers)

    def rebuilt(self, **tensors: Tensor | None) -> Self:
        """The same node with some of its tensors replaced."""
        made: Any = type(self)
        rebuilt: Self = made(**{**self.tensors(), **tensors}, **self.arguments())
        return rebuilt

    @property
    def in_parts(self) -> bool:
        """Whether it first adds up parts of its input, in whatever precision they come."""
        return False

    @property
    def plain_name(self) -> str:
        """Its name in a sentence."""
        return type(self).__name__.lower()

    @property
    def window(self) -> tuple[int, ...]:
        """The sides of the windows that it pools over, where it has any."""
        return tuple(getattr(self, "kernel", ()))

    @property
    def brings(self) -> float:
        """The largest absolute value that it puts among those that it moves."""
        return 0.0

    # --- spikes ---

    @property
    def sends(self) -> bool:
        """Whether it sends spikes of its own: what it hands on moves in time and is a whole number of units."""
        return self.role in (Role.SITE, Role.NEURON, Role.DELAY)

    @property
    def sends_negative(self) -> bool:
        """Whether the spikes that leave it may be negative."""
        return True

    @property
    def keeps_spikes(self) -> bool:
        """Whether spikes that come in leave as spikes: moved, pooled or held back."""
        return False

    def moved_amplitude(self, *amplitudes: Tensor) -> Tensor:
        """What a unit is worth at every place of the output, (1, *sample), from the same of every input.

        For kinds that move spikes.
        """
        moved: Tensor = self(*amplitudes)
        return moved

    def on_spikes(self) -> tuple[Op, int] | None:
        """For pools: the kind that does its work on whole numbers of units, and by what its result is too large.

        None where there is none, so that spikes have to become a current first.
        """
        return None

    def on_units(self, *amplitudes: Tensor) -> Op | None:
        """For products: itself on unit spikes that are worth `amplitudes`; None where they do not fit it."""
        return None

    # --- arithmetic ---

    @property
    def passes_units(self) -> bool:
        """Whether what comes in and what leaves are summed into the same neurons, so that they share one unit."""
        return self.role in (Role.JOIN, Role.POOL, Role.WIRING)

    def pooled_axes(self, rank: int) -> tuple[int, ...]:
        """For pools: the axes that it mixes of samples of so many axes (the batch's is 0)."""
        return tuple(range(2, rank + 1))

    def linear_part(self) -> Op | None:
        """Itself without its constant part; None where it is not linear."""
        return self

    def largest(self, *inputs: float) -> float:
        """The largest absolute value that it can hand on in one frame, units for spikes; infinite if nothing says.

        Args:
            inputs: the same of its inputs.
        """
        return max((*inputs, self.brings)) if self.keeps_sign or self.role == Role.DELAY else math.inf

    def result_shape(self, *inputs: Shape) -> Shape | None:
        """The shape of what it makes of values of the shapes `inputs`, the batch first.

        None where that is only found by calling it, as for inputs that it does not take.
        """
        return self.broadcast(*inputs) if self.elementwise else None

    def broadcast(self, *inputs: Shape) -> Shape | None:
        """The shape to which inputs and the operator's own tensors broadcast; None if they do not."""
        try:
            return np.broadcast_shapes(*inputs, *(tuple(buffer.shape) for buffer in self.buffers()))
        except ValueError:
            return None

    def multiply_accumulates(self, inputs: Sequence[Shape], output: Shape) -> int:
        """Multiply-accumulates of one sample, with every tap at every place, whether or not it lies on padding.

        Args:
            inputs: shapes of one sample.
            output: the same.
        """
        return 0

    def reached(self, index: int, inputs: Sequence[Shape]) -> int:
        """For products: additions that a spike of input `index` causes while, or after, the other is counted."""
        return 0

    def additions(self, inputs: Sequence[Shape], output: Shape) -> int:
        """Additions of one sample that no spike causes; those of joins are charged to nobody."""
        return 0

    def work(self, *inputs: Tensor) -> float:
        """About how long it takes on `inputs`, in multiply-adds or elements."""
        return float(sum(tensor.numel() for tensor in inputs))


def windows_in(sizes: Shape, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape) -> Shape | None:
    """How many windows fit along each axis; None where an axis has none, or there are other axes."""
    if len(sizes) != len(kernel):
        return None
    reach = [step * (side - 1) + 1 for side, step in zip(kernel, dilation, strict=True)]
    room = [size + 2 * pad - own for size, pad, own in zip(sizes, padding, reach, strict=True)]
    return None if min(room) < 0 else tuple(left // step + 1 for left, step in zip(room, stride, strict=True))


def pixel_by_pixel(maps: Tensor) -> Tensor:
    """Float32 maps with channels last in memory, where torch convolves and pools up to ten times as fast on processors.

    What operators make of them lies so again, so that only a network's inputs are moved. Others are what they were.
    """
    fits = maps.ndim == 4 and maps.dtype == torch.float32 and maps.device.type == "cpu"
    if not fits or maps.shape[1] == 1 or torch.compiler.is_compiling() or maps.stride(1) == 1:
        return maps
    return maps.contiguous(memory_format=torch.channels_last)
