"""Linear with weights: convolutions and matrix products."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from snnconvert.graph.kinds.base import Op, Role, Shape, pixel_by_pixel, windows_in


class Weighted(Op):
    """Sums of inputs times weights, plus a bias per output channel.

    The weight is (output channels, input channels / groups, *kernel), unless a kind says otherwise below.

    Attributes:
        groups: how many parts of the channels are computed each on its own.
        stride: steps between neighbouring outputs.
        padding, dilation: as in a convolution.
        features_last: whether channels are the last axis (features) instead of the first of a sample.
    """

    role = Role.WEIGHTED
    features_last: ClassVar[bool] = False
    weight: Tensor
    bias: Tensor | None
    groups: int = 1
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()

    @property
    def inputs(self) -> int:
        """Input channels."""
        return self.weight.shape[1] * self.groups

    @property
    def outputs(self) -> int:
        """Output channels."""
        return self.weight.shape[0]

    def by_rows(self, weight: Tensor) -> Tensor:
        """Weights as (output channels, everything that reaches one)."""
        return weight.reshape(weight.shape[0], -1)

    def by_output(self, values: Tensor) -> Tensor:
        """One value per output channel, shaped to multiply the weights."""
        return values.reshape(-1, *([1] * (self.weight.ndim - 1)))

    def by_input(self, values: Tensor) -> Tensor:
        """One value per input channel, shaped to multiply the weights."""
        by_group = values.reshape(self.groups, 1, -1).expand(-1, self.weight.shape[0] // self.groups, -1)
        return by_group.reshape(*self.weight.shape[:2], *([1] * (self.weight.ndim - 2)))

    def reading(self, amplitude: Tensor) -> Self:
        """Itself on unit spikes: weights times the amplitude of each input channel, in float64."""
        bias = None if self.bias is None else self.bias.double()
        return self.rebuilt(weight=self.weight.double() * self.by_input(amplitude), bias=bias)

    @property
    def depthwise(self) -> bool:
        """Whether each of several outputs reads a channel of its own."""
        return self.groups > 1 and self.weight.shape[1] == 1 and self.outputs == self.groups

    @property
    def parts(self) -> int:
        """How many parts of its inputs have the same weights, times scales."""
        return 1

    @property
    def in_parts(self) -> bool:
        """Whether there are several."""
        return self.parts > 1

    def part(self) -> tuple[Tensor, Tensor]:
        """Scales, (parts, channels of a part), and weights: these times each part's scales are the weights of all."""
        return torch.ones(1, 1), self.weight

    def summed(self, x: Tensor, axis: int) -> Tensor:
        """The scaled sum of the parts of `x` along `axis`; `x` where there is one."""
        del axis
        return x

    def on_sums(self) -> Self:
        """Itself for inputs whose parts are added up."""
        return self.rebuilt(weight=self.part()[1]) if self.in_parts else self

    def of_part(self, weight: Tensor, bias: Tensor | None, scales: Tensor) -> Self:
        """Itself with other weights of a part, and other scales."""
        del scales
        return self.rebuilt(weight=weight, bias=bias)

    def counting(self, *, only_nonzero: bool = False) -> Self:
        """Itself with 1 for every weight (or for those that are not 0) and no bias, in float64: counts synapses."""
        weight = self.weight.detach().to("cpu", torch.float64)
        return self.rebuilt(weight=(weight != 0).double() if only_nonzero else torch.ones_like(weight), bias=None)

    def largest(self, *inputs: float) -> float:
        """With the worst inputs."""
        reach = self.by_rows(self.weight.double().abs()).sum(1) * max(inputs)
        return float((reach if self.bias is None else reach + self.bias.double().abs()).max())

    def linear_part(self) -> Op | None:
        """Without the bias."""
        return self.rebuilt(bias=None)

    def fans(self) -> tuple[int, int]:
        """The most inputs that reach an output, and the most outputs that an input reaches."""
        return self.weight[0].numel(), self.outputs // self.groups * self._reached()

    def _reached(self) -> int:
        """The most places of a kernel that one value meets as the kernel moves on."""
        sides = zip(self.weight.shape[2:], self.stride, strict=True)
        return math.prod(math.ceil(size / step) for size, step in sides)

    def multiply_accumulates(self, inputs: Sequence[Shape], output: Shape) -> int:
        """What one output needs, at every output."""
        return math.prod(output) * self.weight[0].numel()

    def work(self, *inputs: Tensor) -> float:
        """Multiply-adds, give or take the borders."""
        return super().work(*inputs) / self.inputs / math.prod(self.stride) * self.weight.numel()


class Gathering(Weighted):
    """Sums over one window of the inputs each.

    Attributes:
        scales: where the input channels are parts that have the same weights times a scale of each channel, these
            scales, (parts, channels of a part or 1): the parts are added up before they are multiplied. None for other
            weights.
    """

    gathers = True
    scales: Tensor | None

    def rebuilt(self, **tensors: Tensor | None) -> Self:
        """The same node with some of its tensors replaced; scales belong to the weights that they came with."""
        return super().rebuilt(**({"scales": None, **tensors} if "weight" in tensors else tensors))

    def reading(self, amplitude: Tensor) -> Self:
        """Itself on unit spikes: what a unit is worth is a scale of its channel."""
        made = super().reading(amplitude)
        if not self.in_parts or self.scales is None:
            return made
        return made.rebuilt(weight=made.weight, scales=self.scales.double() * amplitude.reshape(len(self.scales), -1))

    def tie(self, scales: Tensor | None) -> None:
        """Say that the weights are those of one part times these scales; others, put in their place, are not."""
        self.scales = None if scales is None else scales.detach().clone().reshape(len(scales), -1)
        self._tied = self.weight

    def tensors(self) -> dict[str, Tensor | None]:
        """With the scales, which say something of the weights and are no numbers of the network's own."""
        return {**super().tensors(), "scales": self.scales if self.in_parts else None}

    @property
    def parts(self) -> int:
        """How many there are scales for, if these are those of the weights."""
        return len(self.scales) if self.scales is not None and self.weight is self._tied else 1

    def part(self) -> tuple[Tensor, Tensor]:
        """The scales, over the largest of each channel, and the weights that channels have where that is 1."""
        if not self.in_parts:
            return super().part()
        scales, largest = self._over_largest()
        width = len(largest)
        return scales, self.weight[:, largest * width + torch.arange(width, device=largest.device)]

    def _over_largest(self) -> tuple[Tensor, Tensor]:
        """The scales, (parts, channels of a part), over the largest of each channel; and in which part that is."""
        assert self.scales is not None
        scales = self.scales.expand(self.parts, self.weight.shape[1] // self.parts)
        largest = scales.abs().argmax(0)
        own = scales.gather(0, largest[None])[0]
        return scales / torch.where(own == 0, 1.0, own), largest

    def summed(self, x: Tensor, axis: int) -> Tensor:
        """The scaled sum of the parts of `x` along `axis`; `x` where there is one."""
        if not self.in_parts:
            return x
        scales, _ = self._over_largest()
        precision = x.dtype if x.is_floating_point() else torch.float32
        factors = scales.to(precision).reshape(*scales.shape, *([1] * (x.ndim - 1 - axis)))
        first, *others = x.chunk(len(scales), axis)
        total = first * factors[0]
        for part, factor in zip(others, factors[1:], strict=True):
            total.addcmul_(part, factor)
        return total

    def of_part(self, weight: Tensor, bias: Tensor | None, scales: Tensor) -> Self:
        """Itself with other weights of a part, and other scales."""
        if len(scales) == 1:
            return super().of_part(weight, bias, scales)
        by_channel = scales.reshape(len(scales), 1, -1, *([1] * (weight.ndim - 2)))
        whole = (by_channel * weight).transpose(0, 1).flatten(1, 2)
        return self.rebuilt(weight=whole, bias=bias, scales=scales)

    def added_up(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What is multiplied with what: `x` with the weights, or the scaled sum of its parts with those of one."""
        if not self.in_parts:
            return x, self.weight
        _, weight = self.part()
        return self.summed(x, x.ndim - 1 if self.features_last else 1).to(weight.dtype), weight


class Conv(Gathering):
    """Convolution over 1, 2 or 3 spatial axes (by the rank of `weight`), groups and dilation included.

    Shapes: weight (C_out, C_in / groups, *kernel), bias (C_out) or None.
    """

    fields = ("stride", "padding", "dilation", "groups")

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        stride: tuple[int, ...],
        padding: tuple[int, ...],
        dilation: tuple[int, ...],
        groups: int = 1,
        scales: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.tensor("weight", weight)
        self.tensor("bias", bias)
        self.tie(scales)
        self.stride, self.padding, self.groups = tuple(stride), tuple(padding), groups
        # a kernel of one has nothing to dilate, and torch 2.13 crashes on some of those that are
        self.dilation = tuple(1 if size == 1 else step for size, step in zip(weight.shape[2:], dilation, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        rank = self.weight.ndim - 2
        function = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]
        if rank == 2 and x.shape[1] == 1 and x.stride(1) != x.shape[2] * x.shape[3]:
            x = x.reshape(-1).view(x.shape)  # torch 2.13 is wrong on one channel whose stride is that of channels last
        x, weight = self.added_up(x)
        x = pixel_by_pixel(x)
        return function(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def result_shape(self, *inputs: Shape) -> Shape | None:
        """A window of each channel for every output."""
        ((batch, channels, *sizes),) = inputs
        kernel = tuple(self.weight.shape[2:])
        windows = windows_in(tuple(sizes), kernel, self.stride, self.padding, self.dilation)
        return None if windows is None or channels != self.inputs else (batch, self.outputs, *windows)


class ConvTranspose(Weighted):
    """Transposed convolution. Shapes: weight (C_in, C_out / groups, *kernel), bias (C_out) or None."""

    fields = ("stride", "padding", "output_padding", "dilation", "groups")

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        stride: tuple[int, ...],
        padding: tuple[int, ...],
        output_padding: tuple[int, ...],
        dilation: tuple[int, ...],
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.tensor("weight", weight)
        self.tensor("bias", bias)
        self.stride, self.padding, self.dilation = tuple(stride), tuple(padding), tuple(dilation)
        self.output_padding = tuple(output_padding)
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        rank = self.weight.ndim - 2
        function = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rank - 1]
        return function(
            x, self.weight, self.bias, self.stride, self.padding, self.output_padding, self.groups, self.dilation
        )

    @property
    def inputs(self) -> int:
        """Input channels."""
        return self.weight.shape[0]

    @property
    def outputs(self) -> int:
        """Output channels."""
        return self.weight.shape[1] * self.groups

    def by_rows(self, weight: Tensor) -> Tensor:
        """Weights as (output channels, everything that reaches one)."""
        grouped = weight.reshape(self.groups, weight.shape[0] // self.groups, weight.shape[1], -1)
        return grouped.permute(0, 2, 1, 3).reshape(self.groups * weight.shape[1], -1)

    def by_output(self, values: Tensor) -> Tensor:
        """One value per output channel, shaped to multiply the weights."""
        own = values.reshape(self.groups, 1, -1).expand(-1, self.weight.shape[0] // self.groups, -1)
        return own.reshape(self.weight.shape[0], -1, *([1] * (self.weight.ndim - 2)))

    def by_input(self, values: Tensor) -> Tensor:
        """One value per input channel, shaped to multiply the weights."""
        return values.reshape(-1, *([1] * (self.weight.ndim - 1)))

    def fans(self) -> tuple[int, int]:
        """The most inputs that reach an output, and the most outputs that an input reaches."""
        return self.inputs // self.groups * self._reached(), self.weight[0].numel()

    def multiply_accumulates(self, inputs: Sequence[Shape], output: Shape) -> int:
        """What one input is spread to, at every input."""
        return math.prod(inputs[0]) * self.weight[0].numel()


class Linear(Gathering):
    """Matrix product on the last axis. Shapes: weight (out, in), bias (out) or None."""

    features_last = True

    def __init__(self, weight: Tensor, bias: Tensor | None = None, *, scales: Tensor | None = None) -> None:
        super().__init__()
        self.tensor("weight", weight)
        self.tensor("bias", bias)
        self.tie(scales)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(*self.added_up(x), self.bias)

    def result_shape(self, *inputs: Shape) -> Shape | None:
        """Other features."""
        ((*before, features),) = inputs
        return (*before, self.outputs) if features == self.inputs else None
