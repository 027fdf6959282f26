"""Other networks on the images of a conversion: with rounded weights, or calibrated for one number of steps alone."""

from __future__ import annotations

from dataclasses import dataclass

from snnconvert.compile.precision import in_precision
from snnconvert.errors import OptionError
from snnconvert.graph.schedule import Schedule
from snnconvert.graph.types import Snn
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


@dataclass(frozen=True)
class Fitted:
    """A network fitted for `budget` steps: its curve on the same images, or why there is none."""

    budget: int
    same: bool = False
    schedule: Schedule | None = None
    neuron: str | None = None
    curve: FitCurve | None = None
    reason: str | None = None


def frontier(converted: Converted, means: Means) -> tuple[Fitted, ...]:
    """A network fitted for each of `means.frontier`, by T; this one for its own T, if it serves no other."""
    found = []
    for steps in sorted({*means.frontier, means.timesteps}):
        if steps == means.timesteps and not means.steps:
            snn, curve = converted.snn, converted.evaluation.curve
            found.append(Fitted(steps, True, snn.schedule, snn.neuron.model, curve))
        else:
            found.append(_fitted(steps, means))
    return tuple(found)


@dataclass(frozen=True)
class Roomier:
    """A network whose layers share a budget of more units, and its curve on the same images."""

    budget: float
    snn: Snn
    curve: FitCurve


def capacity(_: Converted, means: Means) -> tuple[Roomier, ...]:
    """A network for each of `means.budgets`, ascending, in the schedule and with the neuron of this one."""
    return tuple(_with_budget(one, means) for one in sorted({*means.budgets}))


def _with_budget(budget: float, means: Means) -> Roomier:
    def progress(what: str, done: int, total: int) -> None:
        means.progress(f"budget {budget:.0%}: {what}", done, total)

    snn = means.convert_for(means.timesteps, progress, budget=budget)
    return Roomier(budget, snn, means.measure(snn, progress=progress))


def _fitted(steps: int, means: Means) -> Fitted:
    def progress(what: str, done: int, total: int) -> None:
        means.progress(f"T = {steps}: {what}", done, total)

    try:
        snn = means.convert_for(steps, progress, freely=True)
    except OptionError as error:  # nothing fits into so few steps
        return Fitted(steps, reason=error.message)
    return Fitted(steps, False, snn.schedule, snn.neuron.model, means.measure(snn, progress=progress))


def _network_for(steps: int, means: Means) -> NetworkForT:
    def progress(what: str, done: int, total: int) -> None:
        means.progress(f"T = {steps}: {what}", done, total)

    snn = means.convert_for(steps, progress)
    return NetworkForT(snn.schedule, means.measure(snn, progress=progress))
