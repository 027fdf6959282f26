"""Activations: the sites that become neurons."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from snnconvert.graph.kinds.base import Op, Role, Stage
from snnconvert.graph.kinds.neurons import Neuron


class Activation(Op):
    """A site: what becomes a neuron.

    Attributes:
        ceiling: where it saturates of itself; infinite where it does not.
    """

    role = Role.SITE
    elementwise = True
    stages: ClassVar[tuple[Stage, ...]] = (Stage.ANN, Stage.CALIBRATED)

    @property
    def ceiling(self) -> float:
        """The largest value that it lets through."""
        return math.inf

    def levels_in(self, window: int, usual: int) -> int:
        """Units that its neurons send at most in a window of so many steps, `usual` ones of others."""
        del window
        return usual

    def neuron(self, calibrated: Neuron, window: int, worth: Tensor) -> Neuron:
        """What it becomes: the neuron that its calibration gives, in windows of so many steps.

        Args:
            worth: what a unit of its second input is worth, for sites of two.
        """
        del window, worth
        return calibrated


class Relu(Activation):
    """max(x, 0)."""

    rectifies = True

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x)


class Clip(Activation):
    """min(max(x, 0), high): ReLU6 and its relatives (a lower limit other than 0 is not a Clip of the dialect)."""

    rectifies = True
    fields = ("high",)

    def __init__(self, *, high: float) -> None:
        super().__init__()
        self.high = float(high)

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(0.0, self.high)

    @property
    def ceiling(self) -> float:
        """Its upper limit."""
        return self.high


class LeakyRelu(Activation):
    """x where positive, slope * x elsewhere; `slope` broadcasts against one sample (PReLU per channel)."""

    slope: Tensor

    def __init__(self, slope: Tensor) -> None:
        super().__init__()
        self.tensor("slope", slope)

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x > 0, x, x * self.slope)


class Identity(Activation):
    """x: a place where a schedule or a quantiser needs a signed neuron on a sum without an activation."""

    signed = True

    def forward(self, x: Tensor) -> Tensor:
        return x.clone()


class RateNorm(Activation):
    """Rate Norm Layer, value-preserving variant: clip(x, 0, bound); the bound becomes the threshold.

    Ding et al., IJCAI 2021 (arXiv 2105.11654). Shape: bound broadcasts against one sample, for instance (C, 1, 1).
    """

    stages = (Stage.CALIBRATED,)
    fields = ("signed",)
    bound: Tensor

    def __init__(self, bound: Tensor, *, signed: bool = False) -> None:
        super().__init__()
        self.tensor("bound", bound)
        self.signed = signed

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(min=-self.bound if self.signed else self.bound * 0, max=self.bound)
