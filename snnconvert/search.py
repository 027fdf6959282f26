"""Which neuron and schedule serve a budget of time steps best: candidates, and a choice among them.

`candidates` lists every neuron and schedule worth trying within T steps, cheapest neurons first, the ineligible ones
with the reason. `tried` calibrates each eligible one through a callback (which settles the read-out too) and simulates
it on calibration images, one after the other; `choose` keeps the one whose answer holds from the earliest step, and
stops at the first neuron that is good enough. No labels are used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from snnconvert.calibrate import METHODS, Task
from snnconvert.calibrate.observe import answers
from snnconvert.compile.balance import with_identity_sites
from snnconvert.compile.network import compile_network
from snnconvert.cost.chip import Target, violations
from snnconvert.errors import BudgetError, OptionError
from snnconvert.graph.schedule import SCHEDULES, Schedule
from snnconvert.graph.schedule.timing import site_depths
from snnconvert.graph.types import Ann, NeuronChoice, Snn
from snnconvert.progress import Progress, silent
from snnconvert.simulate.agreement import rank
from snnconvert.tasks import Metric
from snnconvert.tasks.scores import Scores

RANKING_IMAGES = 256
# A network is judged by more images than it is ranked on, and what is lost by chance among few is lost for sure among
# more: so an answer has to hold within the error of so many times as many. On unseen training images of 11 networks the
# choice never held in 21 % of draws with 1, 16 % with 2 and 7 % with 4, and else held 2.1, 1.9 and 2.4 steps after the
# first that did (`python benchmarks/auto_choice.py --rules`).
JUDGED_BY = 4.0
ROUGH_IMAGES = 2
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
    """What became of a candidate; scores, spikes and snn are None for those that were not tried.

    Attributes:
        scores: against the ANN's answers to the ranking images.
        spikes: spikes per image, all layers.
        snn: the calibrated network.
        steps: those after which it answers.
        holds_from: the step from which it is as good as the best candidate at its end; None if it never is.
        stand_in: whether the network only stood in for the one to be made.
    """

    candidate: Candidate
    chosen: bool = False
    scores: Scores | None = None
    spikes: float | None = None
    snn: Snn | None = None
    steps: tuple[int, ...] = ()
    holds_from: int | None = None
    stand_in: bool = False

    def by_stand_in(self) -> Trial:
        """The same of a network that only stood in for the one to be made: it is not kept where it was chosen."""
        return replace(self, stand_in=True, snn=None if self.chosen else self.snn)

    @property
    def value(self) -> float | None:
        """The metric of the task at the end."""
        return None if self.scores is None else self.scores.headline.values[-1]

    @property
    def curve(self) -> dict[str, Any] | None:
        """The metric of the task on the ranking images, as the report has it."""
        if self.scores is None:
            return None
        return {
            "metric": self.scores.task.headline.name,
            "steps": list(self.steps),
            "values": self.scores.headline.values,
            "ranked_by": "stand-in" if self.stand_in else "calibration",
            "images": self.scores.inputs,
        }

    def record(self) -> dict[str, Any]:
        """JSON-able row of the report's table of schedules."""
        schedule = self.candidate.schedule if self.snn is None else self.snn.schedule
        row: dict[str, Any] = {"name": self.candidate.name, "eligible": schedule is not None, "chosen": self.chosen}
        if schedule is None:
            return {**row, "reason": self.candidate.reason}
        row |= {"schedule": schedule.to_dict(), **schedule.latency, "interval": schedule.interval}
        row |= {"value": self.value, "spikes": self.spikes, "curve": self.curve, "holds_from": self.holds_from}
        return row | ({"agreement": self.value} if self.scores is None or self.scores.task.row.counted else {})


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


def roughly(ann: Ann, images: Tensor, one: Candidate) -> Snn:
    """A network of a candidate's form: its thresholds are quickly found on a few of the images (n, *sample)."""
    assert one.schedule is not None
    shaped, method = with_identity_sites(ann, one.schedule), METHODS[one.schedule.own_method or "percentile"]
    return compile_network(method(Task(shaped, images[:ROUGH_IMAGES], one.schedule, one.neuron)))


def for_target(found: Sequence[Candidate], target: Target, make: Callable[[Candidate], Snn]) -> list[Candidate]:
    """`found`, without the neurons and schedules that break more limits of a chip than others do.

    What all of them break, for instance the number of layers, no choice can mend: it is left to the report.

    Args:
        make: a network of the candidate's form; its thresholds do not matter.
    """
    broken = {
        index: {(row["layer"], row["limit"]): row["text"] for row in violations(make(one), target)}
        for index, one in enumerate(found)
        if one.schedule is not None
    }
    fewest = min(map(len, broken.values()), default=0)
    kept = [rows for rows in broken.values() if len(rows) == fewest]
    refused = {}
    for index, rows in broken.items():
        if len(rows) > fewest:
            (where, _), text = next((key, text) for key, text in rows.items() if key not in kept[0])
            refused[index] = f"{target.name} cannot run it: {text} ({where})"
    hint = "leave --target out, or choose among those that it can run"
    return [
        replace(one, schedule=None, reason=refused[index], hint=hint) if index in refused else one
        for index, one in enumerate(found)
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
        images: calibration images, (n, *sample); the last RANKING_IMAGES are simulated.
        progress: called after each candidate.
    """
    count, done = len(eligible(found)), 0
    images = images[-RANKING_IMAGES:]  # stand-ins are calibrated on the first: these have not seen them
    reference = answers(ann, images)
    for candidate in found:
        trial = Trial(candidate)
        if candidate.schedule is not None:
            snn = make(with_identity_sites(ann, candidate.schedule), candidate.schedule, candidate.neuron)
            scores, spikes = rank(snn, images, reference)
            trial = replace(trial, scores=scores, spikes=spikes, snn=snn, steps=tuple(snn.schedule.answer_steps))
            done += 1
            progress("schedules", done, count)
        yield trial


def choose(
    ann: Ann, found: Sequence[Candidate], make: Make, images: Tensor, progress: Progress = silent
) -> list[Trial]:
    """Try candidates until a neuron is good enough, and mark the best.

    Args: as of `tried`.

    Returns:
        One trial per candidate, in order, one of them chosen (see `best_of`). Neurons that come after one which is good
        enough at the task are not tried.

    Raises:
        OptionError: if no candidate is eligible.
    """
    metric, trials = ann.task.headline, list[Trial]()
    for trial, after in zip(tried(ann, found, make, images, progress), (*found[1:], None), strict=True):
        trials.append(trial)
        neuron_ends = after is None or after.neuron != trial.candidate.neuron
        values = [one.value for one in trials if one.value is not None]
        if neuron_ends and any(metric.reaches(value, metric.enough) for value in values):
            break
    spared = f"not tried: cheaper neurons have {metric.title} {metric.enough:g} {metric.unit}".rstrip()
    trials += [
        Trial(replace(one, schedule=None, reason=f"{spared} on the calibration images")) for one in found[len(trials) :]
    ]
    return best_of(trials, metric, JUDGED_BY)


def best_of(trials: Sequence[Trial], metric: Metric, times: float = 1.0) -> list[Trial]:
    """The trials, each with the step from which its answer holds, and one of them chosen.

    An answer holds from the step from which it stays as good as the last one of the best candidate, within the sampling
    error of `times` as many images as it was ranked on. Chosen is the candidate that holds earliest; of equals one that
    goes on answering, then the one with the fewest spikes, then the best.
    """
    known = [trial for trial in trials if trial.value is not None]
    if not known:  # networks whose outputs are all 0, say: nothing can be compared but the cost
        chosen = min((trial for trial in trials if trial.scores is not None), key=lambda one: one.spikes or 0.0)
        return [replace(trial, chosen=trial is chosen) for trial in trials]
    best = max(known, key=lambda one: (metric.gain(one.value or 0.0, 0.0), -one.steps[-1], -(one.spikes or 0.0)))
    assert best.scores is not None
    judged = [_judged(trial, best.scores, times) for trial in trials]

    def merit(index: int) -> tuple[float, ...]:
        one = judged[index]
        holds = math.inf if one.holds_from is None else float(one.holds_from)
        return holds, float(len(one.steps) == 1), one.spikes or 0.0, -metric.gain(one.value or 0.0, 0.0)

    first = min((index for index, one in enumerate(judged) if one.value is not None), key=merit)
    return [replace(trial, chosen=index == first) for index, trial in enumerate(judged)]


def _judged(trial: Trial, best: Scores, times: float) -> Trial:
    """With the step from which it holds."""
    if trial.scores is None or trial.value is None:
        return trial
    good = trial.scores.as_good_as(best, times).tolist()
    last = next((index for index in reversed(range(len(good))) if not good[index]), -1)
    return replace(trial, holds_from=None if last == len(good) - 1 else trial.steps[last + 1])
