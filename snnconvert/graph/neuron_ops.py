"""Kinds that conversion itself introduces: the Rate Norm Layer, the neuron, and integer-exact helpers."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from snnconvert.graph.ops import Op, Role


class RateNorm(Op):
    """Rate Norm Layer, value-preserving variant: clip(x, 0, bound); the bound becomes the threshold.

    Ding et al., IJCAI 2021 (arXiv 2105.11654). Shape: bound broadcasts against one sample, for instance (C, 1, 1).
    """

    role = Role.SITE
    fields = ("signed",)
    bound: Tensor

    def __init__(self, bound: Tensor, *, signed: bool = False) -> None:
        super().__init__()
        self.tensor("bound", bound)
        self.signed = signed

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(min=-self.bound if self.signed else self.bound * 0, max=self.bound)


class Neuron(Op):
    """A spiking neuron with unit spikes; which equations it obeys is `model`, a row of NEURONS.

    Called outside an engine it is its own limit for T -> infinity: the rate, clip(x / threshold, low, high).
    Tensors broadcast against one sample: `threshold` (membrane units), `initial` (membrane potential at t = 0).
    `ceiling` is where the activation that it stands for saturates of itself, membrane units; None where it does not.
    It changes no spike: it tells what a neuron cuts off from what its activation never lets through.
    """

    role = Role.NEURON
    fields = ("model", "levels", "ceiling")
    threshold: Tensor
    initial: Tensor

    def __init__(
        self, threshold: Tensor, initial: Tensor, *, model: str, levels: int = 1, ceiling: float | None = None
    ) -> None:
        super().__init__()
        self.tensor("threshold", threshold)
        self.tensor("initial", initial)
        self.model, self.levels = model, levels
        self.ceiling = None if ceiling is None else float(ceiling)

    def arguments(self) -> dict[str, object]:
        """Without a ceiling that does not exist: such networks keep the checkpoints that they had before it did."""
        return {name: value for name, value in super().arguments().items() if name != "ceiling" or value is not None}

    def forward(self, x: Tensor) -> Tensor:
        low = -float(self.levels) if self.model.startswith("signed") else 0.0
        return (x / self.threshold).clamp(low, float(self.levels))


class SumPool(Op):
    """Sum over windows (an average pool whose factor was folded into the next weights), exact on integers."""

    role = Role.POOL
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


class Scale(Op):
    """Elementwise x * factor: turns unit spikes into a current where no weights can carry their amplitude."""

    role = Role.AFFINE
    factor: Tensor

    def __init__(self, factor: Tensor) -> None:
        super().__init__()
        self.tensor("factor", factor)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class Snap(Op):
    """Round to multiples of `grid` in float64, so that the weighted sum that follows is exact in any order."""

    role = Role.AFFINE
    fields = ("grid",)

    def __init__(self, *, grid: float) -> None:
        super().__init__()
        self.grid = float(grid)

    def forward(self, x: Tensor) -> Tensor:
        return (x.double() / self.grid).round() * self.grid


class Synchronous(Op):
    """Synchronous neuron: holds spikes back by one frame and re-emits them unchanged (Li, Zeng & Zhao, 2021)."""

    role = Role.DELAY

    def forward(self, x: Tensor) -> Tensor:
        return x.clone()
