"""Elementwise scale and shift, and the helpers that conversion puts where no weights can do their work."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from snnconvert.graph.kinds.base import Op, Role, Shape, Stage


class Affine(Op):
    """x * scale + shift; both broadcast against one sample, for instance (C, 1, 1). Batch norm in eval mode is one."""

    role = Role.AFFINE
    elementwise = True
    scale: Tensor
    shift: Tensor

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.tensor("scale", scale)
        self.tensor("shift", shift)

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.scale).add_(self.shift)  # one tensor, which takes half of the time

    def largest(self, *inputs: float) -> float:
        """Scaled, and shifted outwards."""
        return max(inputs) * float(self.scale.abs().max()) + float(self.shift.abs().max())

    def linear_part(self) -> Op | None:
        """Without the shift."""
        return self.rebuilt(shift=torch.zeros_like(self.shift))

    def multiply_accumulates(self, inputs: Sequence[Shape], output: Shape) -> int:
        """One for every value."""
        return math.prod(output)


class Scale(Op):
    """Elementwise x * factor: turns unit spikes into a current where no weights can carry their amplitude."""

    role = Role.AFFINE
    stages = (Stage.SNN,)
    elementwise = True
    repeatable = True
    factor: Tensor

    def __init__(self, factor: Tensor) -> None:
        super().__init__()
        self.tensor("factor", factor)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor

    def largest(self, *inputs: float) -> float:
        """Scaled."""
        return max(inputs) * float(self.factor.abs().max())

    def multiply_accumulates(self, inputs: Sequence[Shape], output: Shape) -> int:
        """One for every value."""
        return math.prod(output)


class Snap(Op):
    """Round to multiples of `grid` in float64, so that the sum that follows is exact in any order.

    `limit` is the largest absolute value for which it is; None where nothing can be larger. What is beyond it is cut
    off there, by every engine alike, and `cut_off` says that it happened.
    """

    role = Role.AFFINE
    stages = (Stage.SNN,)
    elementwise = True
    fields = ("grid", "limit")

    def __init__(self, *, grid: float, limit: float | None = None) -> None:
        super().__init__()
        self.grid, self.limit, self.cut_off = float(grid), limit, False

    def arguments(self) -> dict[str, object]:
        """Without a limit where there is none, as in files from before there was one."""
        return {name: value for name, value in super().arguments().items() if value is not None}

    def forward(self, x: Tensor) -> Tensor:
        rounded = (x.double() / self.grid).round() * self.grid
        if self.limit is None:
            return rounded
        inside = rounded.clamp(-self.limit, self.limit)
        if not x.is_meta:  # shapes alone are tried out before a checkpoint is used
            self.cut_off = self.cut_off or not torch.equal(inside, rounded)
        return inside

    def largest(self, *inputs: float) -> float:
        """Up to its limit."""
        return min(max(inputs), math.inf if self.limit is None else self.limit)

    @property
    def passes_units(self) -> bool:
        """It only rounds."""
        return True
