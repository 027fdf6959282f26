"""Which neuron and schedule serve a budget of time steps best: candidates, and a choice among them.

`candidates` lists every neuron and schedule worth trying within T steps, cheapest neurons first, the ineligible ones
with the reason. `tried` calibrates each eligible one through a callback (which settles the read-out too) and simulates
it on calibration images, one after the other; `choose` keeps the one that agrees most often with the ANN, and stops at
the first neuron that is good enough. No labels are used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from snnconvert.calibrate.observe import observed
from snnconvert.compile.balance import with_identity_sites
from snnconvert.errors import BudgetError, OptionError
from snnconvert.graph.schedule import Schedule, site_depths
from snnconvert.graph.types import Ann, NeuronChoice, Snn
from snnconvert.progress import Progress, silent
from snnconvert.simulate.agreement import rank

WINDOWS = tuple(range(2, 9))
AUTO = ("streaming", "wait", "bistable")
RANKING_IMAGES = 256
# a search over neurons ends with the cheapest that decides like the ANN on so many of the ranking images
ENOUGH = 0.99
BINARY = NeuronChoice()


@dataclass(frozen=True)
class Candidate:
    """A neuron in a schedule to try, or the reason why it cannot be had within the budget.

    Attributes:
        name: as a report states it, for instance "bistable, window 4, 2 windows", or "ternary, wait 1" where there is a
            choice of neurons.
        kind: of schedule.
        schedule: None if ineligible.
        reason: why it is ineligible; empty otherwise.
        hint: what would make it eligible.
    """

    name: str
    kind: str
    schedule: Schedule | None
    reason: str = ""
    hint: str = ""
    neuron: NeuronChoice = BINARY


@dataclass(frozen=True)
class Trial:
    """What became of a candidate; the last three are None for ineligible ones.

    Attributes:
        agreement: share of the ranking images on which SNN and ANN decide alike.
        spikes: spikes per image, all layers.
        snn: the calibrated network.
    """

    candidate: Candidate
    chosen: bool = False
    agreement: float | None = None
    spikes: float | None = None
    snn: Snn | None = None

    def record(self) -> dict[str, Any]:
        """JSON-able row of the report's table of schedules."""
        schedule = self.candidate.schedule if self.snn is None else self.snn.schedule
        row: dict[str, Any] = {"name": self.candidate.name, "eligible": schedule is not None, "chosen": self.chosen}
        if schedule is None:
            return {**row, "reason": self.candidate.reason}
        row |= {"schedule": schedule.to_dict(), **schedule.latency, "interval": schedule.interval}
        return row | {"agreement": None if self.agreement is None else 100 * self.agreement, "spikes": self.spikes}


def candidates(
    ann: Ann,
    timesteps: int,
    *,
    neurons: Sequence[NeuronChoice] = (BINARY,),
    schedules: Sequence[str] = AUTO,
    windows: Iterable[int] = WINDOWS,
    waits: Iterable[int] = (1,),
    phases: str = "power2",
    residual: str = "keep",
    rounding: str = "nearest",
    read_from: int = 0,
) -> list[Candidate]:
    """All neurons and schedules to try within `timesteps` steps in total.

    A bistable schedule is tried with one whole window and with as many as fit; it takes only the steps that these need.
    It brings neurons of its own, so that it is listed once, with the first of several neurons.

    Args:
        ann: the canonical network.
        timesteps: T, from the first input to the answer.
        neurons: which models, the cheapest first.
        schedules: which kinds.
        windows: lengths of a window (bistable).
        waits: steps that a layer waits (wait).
        phases, residual, rounding, read_from: as in `Schedule`.
    """
    depth = max(site_depths(ann.graph).values(), default=0)
    common = {"phases": phases, "residual": residual, "rounding": rounding, "read_from": read_from}
    plain = {"rounding": rounding, "read_from": read_from}
    found: list[Candidate] = []
    for kind in schedules:
        if kind == "bistable":
            for window in windows:
                found += _bistable(timesteps, depth, window, common)
        elif kind == "wait":
            found += [_attempt(f"wait {wait}", kind, timesteps, depth, wait=wait, **plain) for wait in waits]
        else:
            found.append(_attempt(kind, kind, timesteps, depth, **plain))
    if len(neurons) == 1:
        return [replace(one, neuron=neurons[0]) for one in found]
    own = [one for one in found if one.kind == "bistable"]
    return [
        replace(one, neuron=neuron, name=one.name if one in own else f"{neuron.model}, {one.name}")
        for neuron in neurons
        for one in found
        if neuron == neurons[0] or one not in own
    ]


def with_several_answers(found: Sequence[Candidate]) -> list[Candidate]:
    """`found`, without the schedules that answer once only: nothing could be compared to leave early."""
    reason, hint = "it answers once, and --early-exit compares answers", "leave --early-exit out, or raise -T"
    return [
        replace(one, schedule=None, reason=reason, hint=hint)
        if one.schedule is not None and one.schedule.frames < 2
        else one
        for one in found
    ]


def eligible(found: Sequence[Candidate]) -> list[Schedule]:
    """The schedules that fit.

    Raises:
        BudgetError: if none does, with every reason and the budget that would do.
    """
    schedules = [candidate.schedule for candidate in found if candidate.schedule is not None]
    if not schedules:
        reasons = tuple(f"{candidate.name}: {candidate.reason}" for candidate in found)
        raise BudgetError("no schedule fits into the budget of time steps", hint=found[0].hint, causes=reasons)
    return schedules


Make = Callable[[Ann, Schedule, NeuronChoice], Snn]


def tried(
    ann: Ann, found: Sequence[Candidate], make: Make, images: Tensor, progress: Progress = silent
) -> Iterator[Trial]:
    """One trial per candidate, in order, each made when it is asked for.

    Args:
        ann: the canonical network.
        found: what `candidates` returned.
        make: calibrates the given network (with its signed sites, if any) for a schedule and a neuron, and spikifies.
        images: calibration images, (n, *sample); at most RANKING_IMAGES are simulated.
        progress: called after each candidate.
    """
    count, done = len(eligible(found)), 0
    images = images[:RANKING_IMAGES]
    reference = torch.cat([seen.outputs[0].flatten(1) for seen in observed(ann.graph, images, "reference")]).argmax(1)
    for candidate in found:
        trial = Trial(candidate)
        if candidate.schedule is not None:
            snn = make(with_identity_sites(ann, candidate.schedule), candidate.schedule, candidate.neuron)
            agreement, spikes = rank(snn, images, reference)
            trial = replace(trial, agreement=agreement, spikes=spikes, snn=snn)
            done += 1
            progress("schedules", done, count)
        yield trial


def choose(
    ann: Ann, found: Sequence[Candidate], make: Make, images: Tensor, progress: Progress = silent
) -> list[Trial]:
    """Try candidates until a neuron is good enough, and mark the best.

    Args: as of `tried`.

    Returns:
        One trial per candidate, in order; the chosen one agrees most, then takes the fewest steps, then fewest spikes.
        Neurons that come after one which agrees on ENOUGH of the images are not tried.

    Raises:
        OptionError: if no candidate is eligible.
    """
    trials: list[Trial] = []
    best: Trial | None = None
    for trial, after in zip(tried(ann, found, make, images, progress), (*found[1:], None), strict=True):
        trials.append(trial)
        best = max((one for one in trials if one.snn is not None), key=_merit, default=None)
        neuron_ends = after is None or after.neuron != trial.candidate.neuron
        if neuron_ends and best is not None and (best.agreement or 0.0) >= ENOUGH:
            break
    spared = f"not tried: cheaper neurons agree on {100 * ENOUGH:g} % of the calibration images"
    trials += [Trial(replace(one, schedule=None, reason=spared)) for one in found[len(trials) :]]
    return [replace(trial, chosen=trial is best) for trial in trials]


def _merit(trial: Trial) -> tuple[float, float, float]:
    assert trial.candidate.schedule is not None and trial.agreement is not None and trial.spikes is not None
    return trial.agreement, -trial.candidate.schedule.latency["total"], -trial.spikes


def _bistable(timesteps: int, depth: int, window: int, common: dict[str, Any]) -> list[Candidate]:
    name = f"bistable, window {window}"
    widest = _attempt(name, "bistable", timesteps, depth, window=window, **common)
    if widest.schedule is None:
        first = (depth + 1) * window
        short = timesteps < first
        return [replace(widest, reason=f"the first answer takes {first} of {timesteps} steps") if short else widest]
    found = []
    for frames in sorted({1, widest.schedule.frames}):
        steps = widest.schedule.answer_step(frames - 1)
        counted = f"{name}, {frames} {'window' if frames == 1 else 'windows'}"
        found.append(_attempt(counted, "bistable", steps, depth, window=window, **common))
    return found


def _attempt(name: str, kind: str, timesteps: int, depth: int, **options: Any) -> Candidate:
    try:
        return Candidate(name, kind, Schedule(kind, timesteps, depth, **options))
    except OptionError as error:
        return Candidate(name, kind, None, error.message, error.hint)
