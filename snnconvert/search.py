"""Which schedule serves a budget of time steps best: candidates, and a choice among them on calibration images.

`candidates` lists every schedule worth trying within T steps, the ineligible ones with the reason. `choose` calibrates
each eligible one through a callback, simulates it on calibration images, and keeps the one that agrees most often with
the ANN. No labels are used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from snnconvert.calibrate.observe import observed
from snnconvert.errors import BudgetError, OptionError
from snnconvert.graph.balance import with_identity_sites
from snnconvert.graph.schedule import Schedule, site_depths
from snnconvert.graph.types import Ann, Snn
from snnconvert.progress import Progress, silent
from snnconvert.simulate.agreement import rank

WINDOWS = tuple(range(2, 9))
AUTO = ("streaming", "wait", "bistable")
RANKING_IMAGES = 256


@dataclass(frozen=True)
class Candidate:
    """A schedule to try, or the reason why it cannot be had within the budget.

    Attributes:
        name: as a report states it, for instance "bistable, window 4, 2 windows".
        schedule: None if ineligible.
        reason: why it is ineligible; empty otherwise.
        hint: what would make it eligible.
    """

    name: str
    schedule: Schedule | None
    reason: str = ""
    hint: str = ""


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
    schedules: Sequence[str] = AUTO,
    windows: Iterable[int] = WINDOWS,
    waits: Iterable[int] = (1,),
    phases: str = "power2",
    residual: str = "keep",
    rounding: str = "nearest",
    read_from: int = 0,
) -> list[Candidate]:
    """All schedules to try within `timesteps` steps in total.

    A bistable schedule is tried with one whole window and with as many as fit; it takes only the steps that these need.

    Args:
        ann: the canonical network.
        timesteps: T, from the first input to the answer.
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
    return found


def with_several_answers(found: Sequence[Candidate]) -> list[Candidate]:
    """`found`, without the schedules that answer once only: nothing could be compared to leave early."""
    once = {
        "reason": "it answers once, and --early-exit compares answers",
        "hint": "leave --early-exit out, or raise -T",
    }
    return [
        replace(one, schedule=None, **once) if one.schedule is not None and one.schedule.frames < 2 else one
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


def choose(
    ann: Ann,
    found: Sequence[Candidate],
    make: Callable[[Ann, Schedule], Snn],
    images: Tensor,
    progress: Progress = silent,
) -> list[Trial]:
    """Try every eligible candidate and mark the best.

    Args:
        ann: the canonical network.
        found: what `candidates` returned.
        make: calibrates the given network (with its signed sites, if any) for a schedule and spikifies it.
        images: calibration images; at most RANKING_IMAGES are simulated.
        progress: called after each candidate.

    Returns:
        One trial per candidate, in order; the chosen one agrees most, then takes the fewest steps, then fewest spikes.

    Raises:
        OptionError: if no candidate is eligible.
    """
    count = len(eligible(found))
    images = images[:RANKING_IMAGES]
    reference = torch.cat([seen.outputs[0].flatten(1) for seen in observed(ann.graph, images, "reference")]).argmax(1)
    trials: list[Trial] = []
    for candidate in found:
        trial = Trial(candidate)
        if candidate.schedule is not None:
            snn = make(with_identity_sites(ann, candidate.schedule), candidate.schedule)
            agreement, spikes = rank(snn, images, reference)
            trial = replace(trial, agreement=agreement, spikes=spikes, snn=snn)
            progress("schedules", sum(one.snn is not None for one in trials) + 1, count)
        trials.append(trial)
    best = max((trial for trial in trials if trial.snn is not None), key=_merit)
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
        return Candidate(name, Schedule(kind, timesteps, depth, **options))
    except OptionError as error:
        return Candidate(name, None, error.message, error.hint)
