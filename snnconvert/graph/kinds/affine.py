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
        return x * self.scale + self.shift

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
    factor: Tensor

    def __init__(self, factor: Tensor) -> None:
        super().__init__()
        self.tensor("factor", factor)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor

    def multiply_accumulates(self, inputs: Sequence[Shape], output: Shape) -> int:
        """One for every value."""
        return math.prod(output)


class Snap(Op):
    """Round to multiples of `grid` in float64, so that the weighted sum that follows is exact in any order."""

    role = Role.AFFINE
    stages = (Stage.SNN,)
    fields = ("grid",)

    def __init__(self, *, grid: float) -> None:
        super().__init__()
        self.grid = float(grid)

    def forward(self, x: Tensor) -> Tensor:
        return (x.double() / self.grid).round() * self.grid

    @property
    def passes_units(self) -> bool:
        """It only rounds."""
        return True
