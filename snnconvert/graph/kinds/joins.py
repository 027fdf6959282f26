"""Sums of branches."""

from __future__ import annotations

import math

from torch import Tensor

from snnconvert.graph.kinds.base import Op, Role


class Add(Op):
    """Sum of any number of branches (broadcasting allowed)."""

    role = Role.JOIN
    elementwise = True

    def forward(self, first: Tensor, *others: Tensor) -> Tensor:
        for other in others:
            first = first + other
        return first

    def largest(self, *inputs: float) -> float:
        """All of them together."""
        return math.fsum(inputs)
