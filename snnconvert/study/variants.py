"""Other networks on the images of a conversion: with rounded weights, or calibrated for one number of steps alone."""

from __future__ import annotations

from dataclasses import dataclass

from snnconvert.compile.precision import in_precision
from snnconvert.graph.schedule import Schedule
from snnconvert.simulate.measure import FitCurve
from snnconvert.study.converted import Converted, Means


@dataclass(frozen=True)
class NetworkForT:
    """A network calibrated for one number of steps only: its schedule, and its curve on the same images."""

    schedule: Schedule
    curve: FitCurve


@dataclass(frozen=True)
class Rounded:
    """The curve of the same network with weights rounded to `precision`."""

    precision: str
    curve: FitCurve


def in_lower_precision(converted: Converted, means: Means) -> Rounded:
    """What rounded weights do."""
    rounded = in_precision(converted.snn, means.precision)
    return Rounded(means.precision, means.measure(rounded, progress=means.progress))


def networks_per_t(_: Converted, means: Means) -> tuple[NetworkForT, ...]:
    """A network for each of `means.steps`, ascending."""
    return tuple(_network_for(steps, means) for steps in means.steps)


def _network_for(steps: int, means: Means) -> NetworkForT:
    def progress(what: str, done: int, total: int) -> None:
        means.progress(f"T = {steps}: {what}", done, total)

    snn = means.convert_for(steps, progress)
    return NetworkForT(snn.schedule, means.measure(snn, progress=progress))
