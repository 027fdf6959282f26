"""Time: which site integrates and emits in which step.

T (timesteps) is the total number of steps from the first input to the answer. The depth of a site is the largest
number of spiking sites on a path from the input to it, itself included; the largest depth is D. A *frame* is what one
site hands to the next as one value: a step's spikes, or the sum of those of a window.

Each schedule is a class: its own fields, its own timing rules, and what it asks of engines, calibration and search. A
new one is a file and a row of SCHEDULES. Nothing here needs torch; what needs a graph as well is in `timing`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from snnconvert.errors import OptionError
from snnconvert.graph.schedule.base import MOST_TIMESTEPS, ROUNDINGS, Schedule
from snnconvert.graph.schedule.bistable import RESIDUALS, Bistable
from snnconvert.graph.schedule.first_spike import MOST_BITS, FirstSpike
from snnconvert.graph.schedule.serial import Serial
from snnconvert.graph.schedule.streaming import Streaming
from snnconvert.graph.schedule.wait import Wait
from snnconvert.graph.schedule.windows import PHASES

__all__ = [
    "MOST_BITS",
    "MOST_TIMESTEPS",
    "PHASES",
    "RESIDUALS",
    "ROUNDINGS",
    "SCHEDULES",
    "Bistable",
    "FirstSpike",
    "Schedule",
    "Serial",
    "Streaming",
    "Wait",
    "Windowed",
    "owners",
    "schedule_from",
]

SCHEDULES: dict[str, type[Schedule]] = {row.kind: row for row in (Streaming, Wait, Bistable, FirstSpike, Serial)}
# schedules whose neurons send in windows of steps, by weights of their phases
Windowed = Bistable | FirstSpike | Serial


def owners() -> dict[str, tuple[str, ...]]:
    """The options that not every schedule has, each with the schedules that have it."""
    found: dict[str, tuple[str, ...]] = {}
    for kind, row in SCHEDULES.items():
        for option in row.options():
            found[option] = (*found.get(option, ()), kind)
    return {option: kinds for option, kinds in found.items() if len(kinds) < len(SCHEDULES)}


def schedule_from(given: Mapping[str, Any]) -> Schedule:
    """The schedule of a checkpoint or a report, `given` as `Schedule.to_dict` wrote it.

    Older files name the fields of every schedule; those of others have to be at rest there.

    Raises:
        OptionError: for an unknown kind, a field that means nothing to it, or a value outside its range.
        TypeError: if timesteps or depth is missing, or a value is of another type.
    """
    kind = given.get("kind")
    if kind not in SCHEDULES:
        raise OptionError(f"unknown schedule {kind!r}", hint=f"choose one of {', '.join(SCHEDULES)}")
    row, others = SCHEDULES[kind], owners()
    own = {name: value for name, value in given.items() if name in ("timesteps", "depth", *row.options())}
    for name in sorted(given.keys() - own.keys() - {"kind"}):
        at_rest = [SCHEDULES[other].default(name) for other in others.get(name, ())]
        if not at_rest or (given[name] and given[name] not in at_rest):
            raise OptionError(
                f"{name} = {given[name]!r} means nothing to schedule {kind}",
                hint=f"its fields are {', '.join(row.options())}",
            )
    return row(**own)
