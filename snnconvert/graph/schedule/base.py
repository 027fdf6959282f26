"""What every schedule is asked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from typing import Any, ClassVar, Self

from snnconvert.errors import OptionError

# far beyond what any network needs; whoever asks for more has mistyped, or has a damaged file
MOST_TIMESTEPS = 2**16
ROUNDINGS = ("nearest", "floor")


@dataclass(frozen=True)
class Schedule(ABC):
    """When each site integrates and emits.

    A schedule has to say by how much each layer lags the one before (`delay`); all other times follow, unless its
    class says otherwise.

    Attributes:
        kind: the name of the class in SCHEDULES.
        label: a schedule in a few words, with the names of fields in braces, for instance "wait {wait}".
        windowed: whether a frame is the sum of the spikes of several steps. Frames are then computed in float64, and a
            max pool takes the largest sum of each.
        once: whether a neuron spikes at most once in a frame, at a time that says how much it is worth.
        from_timesteps: fields that follow from T where T is asked for.
        limited: whether the usual T limits it where nobody asks for a T; else T follows from its other fields.
        tried: whether `--schedule auto` tries it.
        own_neuron: the row of NEURONS that it brings along, if it does not serve the neurons of others.
        whole: whether each neuron has all that it reads before it sends, so that products of spikes, largest values
            and thresholds that are sums of spikes themselves have a form.
        anytime: whether a run of t steps is the beginning of one of T steps, so that one network answers for both.
        remedies: what helps against a cause of error (see `report.sections.attribution`) in this schedule, where
            that is not what helps in others.
        timesteps: T, the total number of steps.
        depth: D, the largest depth of a site.
        rounding: nearest (membranes start at half a threshold) or floor (at 0).
    """

    kind: ClassVar[str]
    label: ClassVar[str]
    windowed: ClassVar[bool] = False
    once: ClassVar[bool] = False
    from_timesteps: ClassVar[tuple[str, ...]] = ()
    limited: ClassVar[bool] = True
    tried: ClassVar[bool] = True
    own_neuron: ClassVar[str | None] = None
    whole: ClassVar[bool] = False
    anytime: ClassVar[bool] = False
    remedies: ClassVar[Mapping[str, str]] = {}

    timesteps: int
    depth: int
    rounding: str = field(default="nearest", kw_only=True)

    def __post_init__(self) -> None:
        self._check()
        if self.timesteps < 1:
            raise OptionError(f"--timesteps {self.timesteps} is below 1", hint="ask for at least 1 step, e.g. -T 32")
        if self.frames < 1:
            raise OptionError(
                f"{self.timesteps} steps are too few for schedule {self.name} on a network {self.depth} deep",
                hint=self._budget_hint(),
            )
        if not 0 <= self.read_from < self.frames:
            raise OptionError(
                f"--read-from {self.read_from} is outside 0 to {self.frames - 1}: some of the {self.frames} steps that "
                "reach the read-out have to be read",
                hint="leave out about a quarter of the steps at most, or give --read-from auto",
            )

    # --- what a class has to say ---

    @property
    @abstractmethod
    def delay(self) -> int:
        """Steps between the first that a site sends in and the first of those one deeper."""

    # --- what it may say otherwise ---

    def start(self, depth: int) -> int:
        """The first step (0-based) in which a site at `depth` sends; at depth 0 is the input."""
        return depth * self.delay

    @property
    def spacing(self) -> int:
        """Steps from one frame of a site to its next."""
        return 1

    @property
    def frames(self) -> int:
        """How many frames each site emits; below 1 where there are too few steps."""
        return 1 + (self.timesteps - self.start(self.depth) - self.steps_per_frame) // self.spacing

    @property
    def steps_per_frame(self) -> int:
        """Steps in which the spikes of one frame are sent."""
        return 1

    @property
    def levels(self) -> int:
        """Units that a binary neuron can send in one frame."""
        return 1

    @property
    def positional(self) -> bool:
        """Whether the spikes of a frame are the set bits of what it is worth (in a windowed schedule)."""
        return False

    @property
    def read_from(self) -> int:
        """Frames that the read-out leaves out at the start; there is no answer before."""
        return 0

    @property
    def own_method(self) -> str | None:
        """The calibration method that it takes where none is asked for; None for the usual one."""
        return None

    @property
    def continuous(self) -> bool:
        """Whether a frame is worth a real number, a share of the largest, instead of a whole number of units."""
        return False

    @property
    def keeps_membrane(self) -> bool:
        """Whether a membrane holds what came in less what was sent, to the end."""
        return True

    def resolution(self, levels: int) -> int:
        """Number of values above zero that a rate can take over the whole run, for thresholds to be fitted to.

        Args:
            levels: units that a neuron can send in one frame.
        """
        return levels * self.frames

    def updates(self, depth: int) -> list[int]:
        """How often a neuron at `depth` updates its membrane, by step."""
        first, last = self.integration_step(depth, 0), self.emission_step(depth, self.frames - 1)
        return [int(first <= step <= last) for step in range(self.timesteps)]

    @classmethod
    def within(cls, timesteps: int, depth: int, **options: Any) -> list[tuple[str, Schedule | OptionError]]:
        """The schedules of this class to try on a network of this depth within `timesteps` steps in total.

        Args:
            timesteps, depth: as in the class.
            options: the fields that are given; the class tries what it likes of the others.

        Returns:
            For each its name, and the schedule or why it cannot be had.
        """
        return [cls._attempt(timesteps, depth, **options)]

    def _check(self) -> None:
        """Refuse values outside their range."""
        self._check_names(rounding=ROUNDINGS)

    def _budget_hint(self) -> str:
        """What helps where there are too few steps."""
        return "use more steps, or --schedule streaming"

    # --- what follows ---

    @classmethod
    def title(cls, given: Mapping[str, Any]) -> str:
        """A schedule of this class in a few words; `given` holds its fields, for instance those of a report."""
        return cls.label.format_map({option: cls.default(option) for option in cls.options()} | dict(given))

    @property
    def name(self) -> str:
        """The schedule in a few words, for instance "wait 2"."""
        return self.title(asdict(self))

    def describe(self) -> str:
        """The schedule in a few words, with the first step that is read."""
        return f"{self.name}, read from step {self.answer_step(self.read_from)}" if self.read_from else self.name

    @property
    def staggered(self) -> bool:
        """Whether depth costs time, so that branches of different depth have to be brought in step."""
        return self.delay > 0

    @property
    def waited(self) -> int:
        """Frames that a site integrates before it may emit its first: all that arrive until then, if they are steps."""
        return 0 if self.windowed else self.delay

    def emission_step(self, depth: int, frame: int, phase: int = 0) -> int:
        """The step (0-based) in which a site at `depth` sends phase `phase` of `frame`."""
        return self.start(depth) + frame * self.spacing + phase

    @property
    def interval(self) -> int:
        """Steps between the answers to consecutive inputs when inputs follow each other as closely as they can.

        A neuron is busy with an input for as long as it takes in and sends its frames.
        """
        return self.spacing * self.frames

    @property
    def answer_steps(self) -> list[int]:
        """The steps (1-based) after which the answers stand, one per frame that is read."""
        return [self.answer_step(frame) for frame in range(self.read_from, self.frames)]

    def answer_step(self, frame: int) -> int:
        """The step (1-based) after which `frame` (0-based) has reached the read-out."""
        return self.emission_step(self.depth, frame, self.steps_per_frame - 1) + 1

    def integration_step(self, depth: int, frame: int) -> int:
        """The first step (0-based) in which a site at `depth` takes in `frame`."""
        return self.emission_step(depth - 1, frame)

    def intervals(self, depth: int) -> list[tuple[int, int]]:
        """The steps [from, to) in which a site at `depth` emits, one pair for each stretch without a pause."""
        found: list[tuple[int, int]] = []
        for frame in range(self.frames):
            start = self.emission_step(depth, frame)
            first = found.pop()[0] if found and found[-1][1] == start else start
            found.append((first, start + self.steps_per_frame))
        return found

    @property
    def initial(self) -> float:
        """Membrane potential at t = 0 as a fraction of the threshold: 1/2 rounds to nearest, 0 rounds down."""
        return 0.0 if self.rounding == "floor" else 0.5

    @property
    def latency(self) -> dict[str, int]:
        """window (steps that a site sends without a pause), first_output and total, as every report states them."""
        first, last = self.intervals(self.depth)[0]
        return {
            "window": last - first,
            "first_output": self.answer_steps[0],
            "total": self.answer_steps[-1],
        }

    def reading_from(self, frames: int) -> Self:
        """The same schedule, whose read-out leaves out the first `frames` frames."""
        return self if frames == self.read_from else replace(self, **{"read_from": frames})  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form; see `schedule_from`."""
        return {"kind": self.kind, **asdict(self)}

    @classmethod
    def options(cls) -> tuple[str, ...]:
        """Names of the fields that a user can choose."""
        return tuple(one.name for one in fields(cls) if one.name not in ("timesteps", "depth"))

    @classmethod
    def default(cls, option: str) -> Any:
        """What an option is where it is not given; None where it has to be."""
        (found,) = [one.default for one in fields(cls) if one.name == option]
        return None if found is MISSING else found

    @classmethod
    def _attempt(cls, timesteps: int, depth: int, **options: Any) -> tuple[str, Schedule | OptionError]:
        try:
            return cls.title(options), cls(timesteps, depth, **options)
        except OptionError as error:
            return cls.title(options), error

    def _check_names(self, **allowed: tuple[str, ...]) -> None:
        for name, names in allowed.items():
            value = getattr(self, name)
            if value not in names:
                raise OptionError(f"unknown {name} {value!r}", hint=f"choose one of {', '.join(names)}")


@dataclass(frozen=True)
class LateReading(Schedule):
    """A schedule whose read-out may leave out first frames, in which deep layers have not settled.

    Attributes:
        read_from: how many; the answers are means of the others.
    """

    read_from: int = field(default=0, kw_only=True)
