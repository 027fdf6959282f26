"""What a user can ask of a conversion, and what of it is refused before any work."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from snnconvert.calibrate import METHODS
from snnconvert.calibrate.options import check_options
from snnconvert.compile.precision import PRECISIONS
from snnconvert.convert import encoder
from snnconvert.convert.units import WAYS
from snnconvert.data.preprocessing import Preprocessing
from snnconvert.errors import OptionError
from snnconvert.graph.schedule import MOST_TIMESTEPS, PHASES, RESIDUALS, ROUNDINGS, SCHEDULES, owners
from snnconvert.graph.types import NeuronChoice
from snnconvert.neurons import RECTIFIERS
from snnconvert.study.studies import check_studies

# units per step of the neurons that may send more than one, where the user does not say
LEVELS = {"burst": 5, "graded": 15}
# units of one step fit into 16 bits: more would leave too few of a float32 sum's 24 for the weights
MOST_LEVELS = 2**16 - 1
# what `--neuron auto` tries, by what one of their spikes costs: a bit, a bit and a sign, 3 bits, 4 bits
CHEAPEST_FIRST = ("if", "ternary", "burst", "graded")


@dataclass(frozen=True)
class Request:
    """Everything a user can ask of a conversion; the defaults are those of the command line.

    `options` are the calibration method's own; `levels` is the number of units a neuron may send a step, None for the
    usual one (LEVELS); `read_from` is the number of first steps that the read-out leaves out, None lets the calibration
    choose; `early_exit` is the share of images that has to keep the last step's answer when clear ones stop early;
    `calibrate_for` are earlier steps after which the network is to be right as well; `compare_at` are steps at which it
    is compared with networks that are calibrated for so many steps alone, as it is at those of `calibrate_for`;
    `studies` are further questions, by the names of `study.studies.by_name`.
    """

    model: str
    arch: str | None = None
    input_shape: tuple[int, ...] | None = None
    output_name: str | None = None
    timesteps: int = 32
    data: str | None = None
    calibration_data: str | None = None
    calibration_samples: int = 512
    calibration: str = "reconstruct"
    options: dict[str, Any] = field(default_factory=dict)
    neuron: str = "if"
    levels: int | None = None
    schedule: str = "auto"
    wait: int | None = None
    window: int | None = None
    phases: str = "power2"
    residual: str = "keep"
    rounding: str = "nearest"
    read_from: int | None = None
    early_exit: float | None = None
    calibrate_for: tuple[int, ...] = ()
    compare_at: tuple[int, ...] = ()
    limit: int | None = None
    batch_size: int = 64
    seed: int = 0
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    label_offset: int = 0
    device: str = "cpu"
    precision: str = "float32"
    input_encoder: str = "analog"
    approximate: str = "auto"
    strict_spiking: bool = False
    energy_constants: str | None = None
    studies: tuple[str, ...] = ()

    @property
    def units(self) -> int:
        """Units that a neuron may send a step."""
        return LEVELS.get(self.neuron, 1) if self.levels is None else self.levels

    def gives(self, option: str) -> bool:
        """Whether the user asks for another value of an option than its default."""
        value = getattr(self, option, None)
        return bool(value) and value != getattr(type(self), option)

    @property
    def neurons(self) -> tuple[NeuronChoice, ...]:
        """The neurons to choose from, the cheapest first."""
        if self.neuron != "auto":
            return (NeuronChoice(self.neuron, self.units),)
        return tuple(NeuronChoice(model, LEVELS.get(model, 1)) for model in CHEAPEST_FIRST)

    def with_neuron(self, neuron: NeuronChoice) -> Request:
        """The same request for this neuron alone."""
        return replace(self, neuron=neuron.model, levels=neuron.levels if neuron.model in LEVELS else None)

    @property
    def compared(self) -> tuple[int, ...]:
        """The numbers of steps that a network of its own is made for beside this one, ascending.

        The last step is among them only where this network has to serve others as well: else it is that network.
        """
        return tuple(
            sorted({*self.calibrate_for, *self.compare_at} | ({self.timesteps} if self.calibrate_for else set()))
        )


def check_request(request: Request) -> None:
    """Refuse values outside their range before any work.

    Raises:
        OptionError: naming the option, its value and what is allowed.
    """
    for option, value in (
        ("--timesteps", request.timesteps),
        ("--calibration-samples", request.calibration_samples),
        ("--batch-size", request.batch_size),
        ("--limit", 1 if request.limit is None else request.limit),
        ("--levels", request.units),
        ("--wait", 1 if request.wait is None else request.wait),
        ("--window", 1 if request.window is None else request.window),
    ):
        if value < 1:
            raise OptionError(f"{option} {value} is below 1", hint=f"give {option} a whole number of at least 1")
    for option, value, most in (
        ("--timesteps", request.timesteps, MOST_TIMESTEPS),
        ("--levels", request.units, MOST_LEVELS),
    ):
        if value > most:
            raise OptionError(f"{option} {value} is above {most}", hint=f"give {option} at most {most}")
    for option, given, last, what in (
        ("--calibrate-for", request.calibrate_for, request.timesteps, "timesteps"),
        ("--compare-at", request.compare_at, request.timesteps - 1, "earlier steps"),
    ):
        for steps in given:
            if not 1 <= steps <= last:
                more = request.timesteps + max(steps, 1) - last
                raise OptionError(
                    f"{option} {steps} is outside 1 to {last}, the {what} of this network",
                    hint="leave it out" + (f", or ask for more steps: -T {more}" if steps > last else ""),
                )
            if steps <= (request.read_from or 0):
                raise OptionError(
                    f"{option} {steps} has no answer with --read-from {request.read_from}",
                    hint=f"leave one of the two out, or read earlier: --read-from {steps - 1}",
                )
    if request.early_exit is not None and not 0 < request.early_exit <= 1:
        raise OptionError(
            f"--early-exit {request.early_exit} is outside 0 to 1",
            hint="give the share to keep, e.g. --early-exit 0.99",
        )
    if request.read_from is not None and request.read_from < 0:
        raise OptionError(f"--read-from {request.read_from} is below 0", hint="give 0 to read every step, or auto")
    for option, chosen, allowed in (
        ("--calibration", request.calibration, METHODS),
        ("--neuron", request.neuron, (*RECTIFIERS, "auto")),
        ("--schedule", request.schedule, (*SCHEDULES, "auto")),
        ("--phases", request.phases, PHASES),
        ("--residual", request.residual, RESIDUALS),
        ("--rounding", request.rounding, ROUNDINGS),
        ("--approximate", request.approximate, WAYS),
        ("--precision", request.precision, PRECISIONS),
        ("--input-encoder", request.input_encoder, encoder.WAYS),
    ):
        if chosen not in allowed:
            raise OptionError(f"{option} {chosen!r} is not known", hint=f"choose one of {', '.join(allowed)}")

    _check_combinations(request)


def _check_combinations(request: Request) -> None:
    if request.neuron == "auto" and request.levels is not None:
        raise OptionError(
            f"--levels {request.levels} does not fit --neuron auto, which tries each neuron with its usual levels",
            hint="leave --levels out, or choose --neuron burst or --neuron graded",
        )
    if request.units != 1 and request.neuron not in ("burst", "graded"):
        raise OptionError(
            f"--levels {request.units} does not fit --neuron {request.neuron}, which sends one unit a step",
            hint="add --neuron burst or --neuron graded, or leave --levels out",
        )
    _check_schedule(request)
    check_studies(request.studies, None if request.schedule == "auto" else request.schedule)
    check_options(request.calibration, request.options)


def _check_schedule(request: Request) -> None:
    chosen, anytime = SCHEDULES.get(request.schedule), _kinds(anytime=True)
    if chosen is not None and chosen.own_neuron is not None and request.neuron != "if":
        raise OptionError(
            f"--schedule {request.schedule} brings neurons of its own, not --neuron {request.neuron}",
            hint=f"leave --neuron out, or choose --schedule {' or '.join(_kinds(own_neuron=None))}",
        )
    options = owners()
    if request.read_from and chosen is not None and "read_from" not in chosen.options():
        raise OptionError(
            f"--read-from {request.read_from} does not fit --schedule {request.schedule}, which answers window by "
            "window",
            hint=f"leave --read-from out, or choose --schedule {' or '.join(options['read_from'])}",
        )
    for option, kinds in options.items():
        if not request.gives(option):
            continue
        if chosen is not None and chosen.kind not in kinds:
            raise OptionError(
                f"--{option} means nothing to --schedule {request.schedule}",
                hint=f"leave --{option} out, or add --schedule {' or '.join(kinds)}",
            )
        if request.compared and not set(kinds) & set(anytime):
            earlier = "--calibrate-for" if request.calibrate_for else "--compare-at"
            raise OptionError(
                f"--{option} means nothing with {earlier}, which is for {' and '.join(anytime)} networks",
                hint=f"leave one of the two out: --{option} or {earlier}",
            )
    fits = request.schedule in ("auto", *anytime)
    if request.calibrate_for and (request.calibration != "reconstruct" or not fits):
        raise OptionError(
            f"--calibrate-for is for --calibration reconstruct and --schedule {' or '.join(anytime)}",
            hint="leave --calibrate-for out, or leave out the other two",
        )
    if request.compare_at and not fits:
        raise OptionError(
            f"--compare-at does not fit --schedule {request.schedule}, which waits the same at every T",
            hint=f"leave --compare-at out, or choose --schedule {' or '.join(anytime)}",
        )


def _kinds(**wanted: object) -> list[str]:
    """The schedules with these attributes."""
    return [
        kind for kind, row in SCHEDULES.items() if all(getattr(row, name) == value for name, value in wanted.items())
    ]
