"""What spikes: the neuron, and the synchronous neuron that holds spikes back."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from snnconvert.errors import OptionError
from snnconvert.graph.kinds.base import Op, Role, Shape, Stage
from snnconvert.neurons import NEURONS, NeuronModel


class Neuron(Op):
    """A spiking neuron with unit spikes; which equations it obeys is `model`, a row of NEURONS.

    Called outside an engine it is its own limit for T -> infinity: the rate, clip(x / threshold, *limits).
    Tensors broadcast against one sample: `threshold` (membrane units), `initial` (membrane potential at t = 0).
    `ceiling` is where the activation that it stands for saturates of itself, membrane units; None where it does not.
    It changes no spike: it tells what a neuron cuts off from what its activation never lets through.

    Raises:
        OptionError: if there is no such model.
    """

    role = Role.NEURON
    stages = (Stage.SNN,)
    elementwise = True
    fields = ("model", "levels", "ceiling")
    # whether what it sends follows from one input and from thresholds that stay: what kernels and exporters know
    plain: ClassVar[bool] = True
    slots: int = 0  # powers of two that its windows hold, whatever those of others do; 0 if they do as all others
    threshold: Tensor
    initial: Tensor

    def __init__(
        self, threshold: Tensor, initial: Tensor, *, model: str, levels: int = 1, ceiling: float | None = None
    ) -> None:
        super().__init__()
        if model not in NEURONS:
            raise OptionError(f"neuron {model!r} is not known", hint=f"choose one of {', '.join(NEURONS)}")
        self.tensor("threshold", threshold)
        self.tensor("initial", initial)
        self.model, self.levels = model, levels
        self.ceiling = None if ceiling is None else float(ceiling)

    @property
    def saturates(self) -> bool:
        """Whether whatever lies beyond the threshold lies beyond the activation's own ceiling as well.

        Thresholds are rounded to float32, and the ceiling with them.
        """
        if self.ceiling is None:
            return False
        return bool((self.threshold >= torch.tensor(self.ceiling, dtype=torch.float32).to(self.threshold)).all())

    def arguments(self) -> dict[str, object]:
        """Without a ceiling that does not exist: such networks keep the checkpoints that they had before it did."""
        return {name: value for name, value in super().arguments().items() if name != "ceiling" or value is not None}

    @property
    def row(self) -> NeuronModel:
        """Its row of NEURONS."""
        return NEURONS[self.model]

    @property
    def sends_negative(self) -> bool:
        """As its equations say."""
        return self.row.negative

    @property
    def limits(self) -> tuple[float, float]:
        """The least and the largest rate, units in a frame."""
        low, high = self.row.range(self.levels)
        return 0.0 if self.row.rectifies else float(low), float(high)

    def largest(self, *inputs: float) -> float:
        """As its equations say, whatever comes in."""
        del inputs
        return float(self.row.peak(self.levels))

    def forward(self, x: Tensor) -> Tensor:
        return (x / self.threshold).clamp(*self.limits)

    def scaled(self, *others: Tensor) -> tuple[Tensor, Tensor]:
        """Threshold and membrane start in a window, for what came in before it besides the membrane's own input."""
        del others
        return self.threshold, self.initial

    def in_window(self, membrane: Tensor) -> tuple[Tensor, Tensor] | None:
        """The units that a window sends for a membrane, and the spikes of each slot; None where `scaled` says it."""
        del membrane
        return None

    def driven(self, *inputs: Tensor) -> Tensor:
        """The membrane with which a plain neuron of its threshold would send the same."""
        return inputs[0]

    @property
    def compared(self) -> int:
        """Comparisons and additions of a neuron in a run besides its updates."""
        return 0


class Synchronous(Op):
    """Synchronous neuron: holds spikes back by one frame and re-emits them unchanged (Li, Zeng & Zhao, 2021)."""

    role = Role.DELAY
    stages = (Stage.SNN,)

    def forward(self, x: Tensor) -> Tensor:
        return x.clone()

    def result_shape(self, *inputs: Shape) -> Shape | None:
        """What it holds back."""
        return inputs[0]

    @property
    def keeps_spikes(self) -> bool:
        """Unchanged."""
        return True
