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
from snnconvert.graph.schedule import SCHEDULES, Schedule
from snnconvert.graph.schedule.timing import site_depths
from snnconvert.graph.types import Ann, NeuronChoice, Snn
from snnconvert.progress import Progress, silent
from snnconvert.simulate.agreement import rank

RANKING_IMAGES = 256
# a search over neurons ends with the cheapest that decides like the ANN on so many of the ranking images: 0.98 to
# 0.995 choose alike, 0.95 loses 2.3 points, trying all gains none (`python benchmarks/constants_search.py`, 3 networks)
ENOUGH = 0.99
BINARY = NeuronChoice()
TRIED = tuple(kind for kind, row in SCHEDULES.items() if row.tried)


@dataclass(frozen=True)
class Candidate:
    """A neuron in a schedule to try, or the reason why it cannot be had within the budget.

    Attributes:
        name: as a report states it, for instance "bistable, window 4, 2 windows", or "ternary, wait 1" where there is a
            choice of neurons.
        kind: the class of the schedule.
        schedule: None if ineligible.
        reason: why it is ineligible; empty otherwise.
        hint: what would make it eligible.
    """

    name: str
    kind: type[Schedule]
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
    curve: dict[str, Any] | None = None

    def by_stand_in(self) -> Trial:
        """The same of a network that only stood in for the one to be made: it is not kept where it was chosen."""
        curve = None if self.curve is None else {**self.curve, "ranked_by": "stand-in"}
        return replace(self, curve=curve, snn=None if self.chosen else self.snn)

    def record(self) -> dict[str, Any]:
        """JSON-able row of the report's table of schedules."""
        schedule = self.candidate.schedule if self.snn is None else self.snn.schedule
        row: dict[str, Any] = {"name": self.candidate.name, "eligible": schedule is not None, "chosen": self.chosen}
        if schedule is None:
            return {**row, "reason": self.candidate.reason}
        row |= {"schedule": schedule.to_dict(), **schedule.latency, "interval": schedule.interval}
        return row | {
            "agreement": None if self.agreement is None else 100 * self.agreement,
            "spikes": self.spikes,
            "curve": self.curve,
        }


def candidates(
    ann: Ann,
    timesteps: int,
    *,
    neurons: Sequence[NeuronChoice] = (BINARY,),
    schedules: Iterable[str] = TRIED,
    **options: Any,
) -> list[Candidate]:
    """All neurons and schedules to try within `timesteps` steps in total.

    A schedule that brings neurons of its own is listed once, with the first of several neurons.

    Args:
        ann: the canonical network.
        timesteps: T, from the first input to the answer.
        neurons: which models, the cheapest first.
        schedules: which kinds.
        options: fields of the schedules, each for those that have it; None is as good as not given.
    """
    depth = max(site_depths(ann.graph).values(), default=0)
    found: list[Candidate] = []
    for row in (SCHEDULES[kind] for kind in schedules):
        own = {name: options[name] for name in row.options() if options.get(name) is not None}
        if options.get("read_from") and "read_from" not in own:
            reason = f"--read-from {options['read_from']} does not fit it: all of its frames are read"
            found.append(Candidate(row.kind, row, None, reason, "leave --read-from out, or choose another --schedule"))
            continue
        for name, made in row.within(timesteps, depth, **own):
            error = made if isinstance(made, OptionError) else None
            schedule = made if isinstance(made, Schedule) else None
            found.append(Candidate(name, row, schedule, error.message if error else "", error.hint if error else ""))
    if len(neurons) == 1:
        return [replace(one, neuron=neurons[0]) for one in found]
    return [
        replace(one, neuron=neuron, name=one.name if one.kind.own_neuron else f"{neuron.model}, {one.name}")
        for neuron in neurons
        for one in found
        if neuron == neurons[0] or one.kind.own_neuron is None
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
            values, spikes = rank(snn, images, reference)
            curve = {
                "metric": "agreement",
                "steps": snn.schedule.answer_steps,
                "values": [100 * value for value in values],
                "ranked_by": "calibration",
                "images": len(images),
            }
            trial = replace(trial, agreement=values[-1], spikes=spikes, snn=snn, curve=curve)
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
