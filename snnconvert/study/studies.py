"""Studies: what can be found out about a converted network besides its curve, and how each is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from snnconvert.errors import OptionError
from snnconvert.plugins import named


class Asked(Protocol):
    """What of a request decides which studies are made."""

    @property
    def studies(self) -> tuple[str, ...]:
        """Those asked for by name."""

    @property
    def precision(self) -> str:
        """Of the weights."""

    @property
    def target(self) -> str | None:
        """The chip that the network is for."""

    @property
    def compared(self) -> tuple[int, ...]:
        """Numbers of steps for which networks of their own are made, to compare with this one."""

    @property
    def frontier(self) -> tuple[int, ...]:
        """Numbers of steps for which networks are fitted freely."""

    @property
    def budgets(self) -> tuple[float, ...]:
        """Shares of units, or of spikes, that networks of their own may add."""


@dataclass(frozen=True)
class Study:
    """One study.

    Attributes:
        place: MODULE:FUNCTION; the function takes `study.converted.Converted` and `Means`, and is imported when it
            is asked for.
        help: what is found out.
        option: the option that asks for it; None if it is always made.
        wanted: whether a request asks for it.
        schedule: the kind of schedule that it needs; None for any.
    """

    place: str
    help: str
    option: str | None
    wanted: Callable[[Asked], bool]
    schedule: str | None = None

    def function(self) -> Callable[..., Any]:
        """The function that makes it."""
        found: Callable[..., Any] = named(self.place)
        return found


STUDIES = {
    "shift": Study(
        "snnconvert.study.shift:shift_of",
        "whether evaluation images drive the network further than calibration images did",
        None,
        lambda _: True,
    ),
    "ablation": Study(
        "snnconvert.study.ablation:ablation_of",
        "what bistable and synchronous neurons are worth (bistable networks)",
        "--study",
        lambda request: "ablation" in request.studies,
        schedule="bistable",
    ),
    "jitter": Study(
        "snnconvert.study.jitter:jitter_of",
        "what noise in the times of spikes does to the answers (time to first spike)",
        "--study",
        lambda request: "jitter" in request.studies,
        schedule="ttfs",
    ),
    "precision": Study(
        "snnconvert.study.variants:in_lower_precision",
        "what rounded weights do to the answers",
        "--precision",
        lambda request: request.precision != "float32",
    ),
    "chip": Study(
        "snnconvert.cost.chip:on_the_chip",
        "which limits of a chip the network breaks, and its accuracy in the chip's integers",
        "--target",
        lambda request: request.target is not None,
    ),
    "networks per T": Study(
        "snnconvert.study.variants:networks_per_t",
        "what networks that are calibrated for one number of steps alone do",
        "--calibrate-for",
        lambda request: bool(request.compared),
    ),
    "frontier": Study(
        "snnconvert.study.variants:frontier",
        "what networks reach that are fitted for one number of steps each, with the schedule that serves it best",
        "--frontier",
        lambda request: bool(request.frontier),
    ),
    "capacity": Study(
        "snnconvert.study.variants:capacity",
        "what networks reach some of whose layers send more units a step, within several budgets",
        "--budgets",
        lambda request: bool(request.budgets),
    ),
}


def by_name() -> dict[str, Study]:
    """The studies that `--study` asks for."""
    return {name: study for name, study in STUDIES.items() if study.option == "--study"}


def check_studies(names: Sequence[str], schedule: str | None, *, chosen: bool = False) -> None:
    """Refuse studies that need another schedule.

    Args:
        names: those of `by_name`.
        schedule: the kind of schedule; None if it is still to be chosen.
        chosen: whether it is the one that was chosen, not the one that was asked for.

    Raises:
        OptionError: naming the study and what is allowed.
    """
    known = by_name()
    for name in names:
        needed = known[name].schedule
        if schedule is not None and needed not in (None, schedule):
            met = f"the {schedule} network that --schedule auto chose" if chosen else f"--schedule {schedule}"
            raise OptionError(
                f"--study {name} does not fit {met}: it is for {needed} networks",
                hint=f"leave --study {name} out, or choose --schedule {needed}",
            )
