"""The words of the dialect: one small module class per kind of node.

Every class lists its JSON-able constructor arguments in `fields` and keeps its tensors as buffers,
so a node is fully described by (kind, fields, tensors). Dimension 0 of every value is the batch
(or time x batch); shapes in fields never include it, axes in fields always do (channel axis = 1).

A little over 400 lines, because the vocabulary is read as one table; what has no spiking form is in `analog_ops`.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Role(Enum):
    """What a node does to the values that flow through it."""

    WEIGHTED = "linear with weights"
    AFFINE = "per-channel scale and shift"
    WIRING = "moves values, computes nothing"
    POOL = "linear average"
    MAXPOOL = "maximum over a window"
    JOIN = "sum of branches"
    SITE = "activation that becomes a neuron"
    ANALOG = "non-linear operator without a spiking form of its own"
    NEURON = "spiking neuron"
    DELAY = "synchronous neuron"


class Op(nn.Module):
    """A node of the dialect."""

    role: ClassVar[Role]
    fields: ClassVar[tuple[str, ...]] = ()
    spelling: ClassVar[str] = ""

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


# --- linear with weights -------------------------------------------------------------------------


class Conv(Op):
    """Convolution over 1, 2 or 3 spatial axes (by the rank of `weight`), groups and dilation included.

    Shapes: weight (C_out, C_in / groups, *kernel), bias (C_out) or None.
    """

    role = Role.WEIGHTED
    fields = ("stride", "padding", "dilation", "groups")
    weight: Tensor
    bias: Tensor | None

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        stride: tuple[int, ...],
        padding: tuple[int, ...],
        dilation: tuple[int, ...],
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.tensor("weight", weight)
        self.tensor("bias", bias)
        self.stride, self.padding, self.groups = tuple(stride), tuple(padding), groups
        # a kernel of one has nothing to dilate, and torch 2.13 crashes on some of those that are
        self.dilation = tuple(1 if size == 1 else step for size, step in zip(weight.shape[2:], dilation, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        rank = self.weight.ndim - 2
        function = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]
        if rank == 2 and x.shape[1] == 1 and x.stride(1) != x.shape[2] * x.shape[3]:
            x = x.reshape(-1).view(x.shape)  # torch 2.13 is wrong on one channel whose stride is that of channels last
        return function(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class ConvTranspose(Op):
    """Transposed convolution. Shapes: weight (C_in, C_out / groups, *kernel), bias (C_out) or None."""

    role = Role.WEIGHTED
    fields = ("stride", "padding", "output_padding", "dilation", "groups")
    weight: Tensor
    bias: Tensor | None

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


class Linear(Op):
    """Matrix product on the last axis. Shapes: weight (out, in), bias (out) or None."""

    role = Role.WEIGHTED
    weight: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.tensor("weight", weight)
        self.tensor("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class Affine(Op):
    """x * scale + shift; both broadcast against one sample, for instance (C, 1, 1). Batch norm in eval mode is one."""

    role = Role.AFFINE
    scale: Tensor
    shift: Tensor

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.tensor("scale", scale)
        self.tensor("shift", shift)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift


# --- wiring --------------------------------------------------------------------------------------


class Reshape(Op):
    """Reshape one sample to `shape` (batch excluded, no -1)."""

    role = Role.WIRING
    fields = ("shape",)

    def __init__(self, *, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], *self.shape)


class Permute(Op):
    """Reorder the axes; `dims` is a full permutation that starts with 0 (the batch stays first)."""

    role = Role.WIRING
    fields = ("dims",)

    def __init__(self, *, dims: tuple[int, ...]) -> None:
        super().__init__()
        self.dims = tuple(dims)

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.dims)


class Slice(Op):
    """x[start:stop:step] along `dim` (positive step, `dim` >= 1)."""

    role = Role.WIRING
    fields = ("dim", "start", "stop", "step")

    def __init__(self, *, dim: int, start: int, stop: int, step: int = 1) -> None:
        super().__init__()
        self.dim, self.start, self.stop, self.step = dim, start, stop, step

    def forward(self, x: Tensor) -> Tensor:
        stop = min(self.stop, x.shape[self.dim])
        index = torch.arange(self.start, stop, self.step, device=x.device)
        return x.narrow(self.dim, self.start, stop - self.start) if self.step == 1 else x.index_select(self.dim, index)


class Select(Op):
    """Pick `indices` along `dim`, in order, repeats allowed (channel shuffle, roll, gather by constants)."""

    role = Role.WIRING
    fields = ("dim", "indices")

    def __init__(self, *, dim: int, indices: tuple[int, ...]) -> None:
        super().__init__()
        self.dim, self.indices = dim, tuple(indices)

    def forward(self, x: Tensor) -> Tensor:
        return x.index_select(self.dim, torch.tensor(self.indices, device=x.device))


class Pad(Op):
    """Constant padding; `pads` as in torch.nn.functional.pad (last axis first, pairs), negative crops."""

    role = Role.WIRING
    fields = ("pads", "value")

    def __init__(self, *, pads: tuple[int, ...], value: float = 0.0) -> None:
        super().__init__()
        self.pads, self.value = tuple(pads), float(value)

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, self.pads, value=self.value)


class Expand(Op):
    """Broadcast one sample to `shape` (batch excluded)."""

    role = Role.WIRING
    fields = ("shape",)

    def __init__(self, *, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, x: Tensor) -> Tensor:
        return x.expand(x.shape[0], *self.shape)


class Concat(Op):
    """Concatenate any number of inputs along `dim` (>= 1)."""

    role = Role.WIRING
    fields = ("dim",)

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, *inputs: Tensor) -> Tensor:
        return torch.cat(inputs, self.dim)


class Constant(Op):
    """A constant per sample (class tokens, constant branches of a concat); takes any value to learn the batch size."""

    role = Role.WIRING
    value: Tensor

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.tensor("value", value)

    def forward(self, like: Tensor) -> Tensor:
        return self.value.to(like.dtype).expand(like.shape[0], *self.value.shape)


# --- linear without weights ----------------------------------------------------------------------


class AveragePool(Op):
    """Average over windows of 1 or 2 spatial axes."""

    role = Role.POOL
    fields = ("kernel", "stride", "padding", "ceil_mode", "count_include_pad")

    def __init__(
        self,
        *,
        kernel: tuple[int, ...],
        stride: tuple[int, ...],
        padding: tuple[int, ...],
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = tuple(kernel), tuple(stride), tuple(padding)
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad

    def forward(self, x: Tensor) -> Tensor:
        function = F.avg_pool1d if len(self.kernel) == 1 else F.avg_pool2d
        pooled: Tensor = function(x, self.kernel, self.stride, self.padding, self.ceil_mode, self.count_include_pad)
        return pooled


class Mean(Op):
    """Mean over the axes `dims` (all >= 1); global average pooling is Mean(dims=(2, 3), keepdim=True)."""

    role = Role.POOL
    fields = ("dims", "keepdim")

    def __init__(self, *, dims: tuple[int, ...], keepdim: bool) -> None:
        super().__init__()
        self.dims, self.keepdim = tuple(dims), keepdim

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(self.dims, self.keepdim)


class Resize(Op):
    """Spatial resize to `size` by `mode` nearest or bilinear; `align_corners` as in torch.nn.functional.interpolate."""

    role = Role.POOL
    fields = ("size", "mode", "align_corners")

    def __init__(self, *, size: tuple[int, ...], mode: str, align_corners: bool = False) -> None:
        super().__init__()
        self.size, self.mode, self.align_corners = tuple(size), mode, align_corners

    def forward(self, x: Tensor) -> Tensor:
        if self.mode == "nearest":
            return F.interpolate(x, size=self.size, mode="nearest")
        return F.interpolate(x, size=self.size, mode=self.mode, align_corners=self.align_corners)


class MaxPool(Op):
    """Maximum over windows of 1 or 2 spatial axes."""

    role = Role.MAXPOOL
    fields = ("kernel", "stride", "padding", "dilation", "ceil_mode")

    def __init__(
        self,
        *,
        kernel: tuple[int, ...],
        stride: tuple[int, ...],
        padding: tuple[int, ...],
        dilation: tuple[int, ...],
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = tuple(kernel), tuple(stride), tuple(padding)
        self.dilation, self.ceil_mode = tuple(dilation), ceil_mode

    def forward(self, x: Tensor) -> Tensor:
        function = F.max_pool1d if len(self.kernel) == 1 else F.max_pool2d
        pooled: Tensor = function(x, self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode)
        return pooled


class Add(Op):
    """Sum of any number of branches (broadcasting allowed)."""

    role = Role.JOIN

    def forward(self, first: Tensor, *others: Tensor) -> Tensor:
        for other in others:
            first = first + other
        return first


# --- activations that become neurons --------------------------------------------------------------


class Relu(Op):
    """max(x, 0)."""

    role = Role.SITE

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x)


class Clip(Op):
    """min(max(x, 0), high): ReLU6 and its relatives (a lower limit other than 0 is not a Clip of the dialect)."""

    role = Role.SITE
    fields = ("high",)

    def __init__(self, *, high: float) -> None:
        super().__init__()
        self.high = float(high)

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(0.0, self.high)


class LeakyRelu(Op):
    """x where positive, slope * x elsewhere; `slope` broadcasts against one sample (PReLU per channel)."""

    role = Role.SITE
    slope: Tensor

    def __init__(self, slope: Tensor) -> None:
        super().__init__()
        self.tensor("slope", slope)

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x > 0, x, x * self.slope)


class Identity(Op):
    """x: a place where a schedule or a quantiser needs a signed neuron on a sum without an activation."""

    role = Role.SITE

    def forward(self, x: Tensor) -> Tensor:
        return x.clone()
