"""Averages, sums and maxima over windows."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional as F

from snnconvert.graph.kinds.base import Op, Role, Shape, Stage, pixel_by_pixel, windows_in


class _Windows(Op):
    """A pool of windows."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    ceil_mode: bool

    def result_shape(self, *inputs: Shape) -> Shape | None:
        """A value for every window."""
        ((batch, channels, *sizes),) = inputs
        dilation = getattr(self, "dilation", (1,) * len(self.kernel))
        shape = (self.kernel, self.stride, self.padding, dilation)
        windows = windows_in(tuple(sizes), *shape)
        if windows is None or any(2 * pad > side for pad, side in zip(self.padding, self.kernel, strict=True)):
            return None
        if self.ceil_mode:  # one more where values are left over, unless it begins on what is padded behind them
            stretched = tuple(size + step - 1 for size, step in zip(sizes, self.stride, strict=True))
            rounded_up = windows_in(stretched, *shape)
            assert rounded_up is not None
            axes = zip(rounded_up, sizes, self.stride, self.padding, strict=True)
            windows = tuple(many - ((many - 1) * step >= size + pad) for many, size, step, pad in axes)
        return (batch, channels, *windows)


class AveragePool(_Windows):
    """Average over windows of 1 or 2 spatial axes."""

    role = Role.POOL
    keeps_sign = True
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
        x = pixel_by_pixel(x)
        pooled: Tensor = function(x, self.kernel, self.stride, self.padding, self.ceil_mode, self.count_include_pad)
        return pooled

    @property
    def keeps_spikes(self) -> bool:
        """Where a sum can take its place."""
        return self.on_spikes() is not None

    def on_spikes(self) -> tuple[Op, int] | None:
        """A sum, where every window has the same number of members."""
        if self.ceil_mode or not (self.count_include_pad or not any(self.padding)):
            return None
        return SumPool(kernel=self.kernel, stride=self.stride, padding=self.padding), math.prod(self.kernel)


class Mean(Op):
    """Mean over the axes `dims` (all >= 1); global average pooling is Mean(dims=(2, 3), keepdim=True)."""

    role = Role.POOL
    keeps_sign = True
    fields = ("dims", "keepdim")

    def __init__(self, *, dims: tuple[int, ...], keepdim: bool) -> None:
        super().__init__()
        self.dims, self.keepdim = tuple(dims), keepdim

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(self.dims, self.keepdim)

    def result_shape(self, *inputs: Shape) -> Shape | None:
        """Without the axes, or one value along each."""
        (shape,) = inputs
        if not all(0 < axis < len(shape) for axis in self.dims):
            return None
        sizes = ((axis, 1 if axis in self.dims else size) for axis, size in enumerate(shape))
        return tuple(size for axis, size in sizes if self.keepdim or axis not in self.dims)

    def pooled_axes(self, rank: int) -> tuple[int, ...]:
        """Those that it says."""
        return self.dims


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

    def result_shape(self, *inputs: Shape) -> Shape | None:
        """The maps in their new size."""
        (shape,) = inputs
        return (*shape[:2], *self.size) if len(shape) == 2 + len(self.size) else None

    def largest(self, *inputs: float) -> float:
        """Means of what comes in."""
        return max(inputs)


class MaxPool(_Windows):
    """Maximum over windows of 1 or 2 spatial axes."""

    role = Role.MAXPOOL
    keeps_sign = True
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
        x = pixel_by_pixel(x)
        pooled: Tensor = function(x, self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode)
        return pooled

    @property
    def keeps_spikes(self) -> bool:
        """The growth of the largest count is a whole number."""
        return True

    def on_spikes(self) -> tuple[Op, int] | None:
        """Itself."""
        return self, 1

    def linear_part(self) -> Op | None:
        """None."""
        return None


class SumPool(_Windows):
    """Sum over windows (an average pool whose factor was folded into the next weights), exact on integers."""

    role = Role.POOL
    stages = (Stage.SNN,)
    fields = ("kernel", "stride", "padding", "ceil_mode")

    def __init__(
        self, *, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...], ceil_mode: bool = False
    ) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = tuple(kernel), tuple(stride), tuple(padding)
        self.ceil_mode = ceil_mode

    def forward(self, x: Tensor) -> Tensor:
        if len(self.kernel) == 1:  # torch's average over one axis has no divisor of one's own, and rounds
            flat = ((1, *self.kernel), (1, *self.stride), (0, *self.padding))
            return F.avg_pool2d(x.unsqueeze(-2), *flat, self.ceil_mode, divisor_override=1).squeeze(-2)
        return F.avg_pool2d(x, self.kernel, self.stride, self.padding, self.ceil_mode, divisor_override=1)

    def largest(self, *inputs: float) -> float:
        """As many as a window holds."""
        return max(inputs) * math.prod(self.kernel)

    @property
    def keeps_spikes(self) -> bool:
        """Sums of whole numbers."""
        return True
