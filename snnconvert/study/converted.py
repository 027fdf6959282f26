"""A finished conversion, as studies see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from snnconvert.data.selection import Inputs
from snnconvert.graph.types import Ann, Snn
from snnconvert.progress import Progress
from snnconvert.simulate.measure import FitCurve
from snnconvert.study.evaluate import Evaluation


class Measure(Protocol):
    """Measures another network on the images that the conversion was measured on."""

    def __call__(self, snn: Snn, *, progress: Progress) -> FitCurve:
        """Its curve; agreement is with the ANN's decisions."""


class ConvertFor(Protocol):
    """Converts the network once more."""

    def __call__(self, steps: int, progress: Progress, *, freely: bool = False, budget: float | None = None) -> Snn:
        """For so many steps alone; `freely` with a schedule and neuron of its own choice, as far as none was asked for.

        With a `budget` layers get more units within it.

        Raises:
            OptionError: nothing fits into so many steps.
        """


@dataclass(frozen=True)
class Converted:
    """A conversion that has been measured.

    Attributes:
        ann: the network with functions replaced by units.
        network: what was converted: `ann`, and the spiking encoder in front of it if one was asked for.
        snn: the spiking network.
        images: calibration images (n, *sample) in canonical order.
        inputs: all images.
        evaluation: how `snn` did.
    """

    ann: Ann
    network: Ann
    snn: Snn
    images: Tensor
    inputs: Inputs
    evaluation: Evaluation


@dataclass(frozen=True)
class Means:
    """What a study may do, and with what.

    Attributes:
        measure: see `Measure`.
        convert_for: converts the network once more, for so many steps alone.
        steps: the numbers of steps to compare with networks for them alone, in the same schedule.
        timesteps: those of the network itself, as they were asked for.
        frontier: those to fit networks for, in the schedule and with the neuron that serve them best.
        budgets: shares of units, or of spikes, that networks of their own may add.
        precision: of the weights, as asked for.
        target: the chip that was named, or None.
        progress: called as work goes on.
    """

    measure: Measure
    convert_for: ConvertFor
    steps: tuple[int, ...]
    timesteps: int
    frontier: tuple[int, ...]
    budgets: tuple[float, ...]
    precision: str
    target: str | None
    progress: Progress
