"""Options that several commands share, and the values of those that take a name."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from snnconvert.errors import OptionError

if TYPE_CHECKING:
    from snnconvert.report.gate import Gates


class CalibrationName(StrEnum):
    """Values of --calibration."""

    reconstruct = "reconstruct"
    rnl = "rnl"
    mse = "mse"
    percentile = "percentile"
    robust_norm = "robust-norm"
    local_threshold_balancing = "local-threshold-balancing"
    snn_calibration_light = "snn-calibration-light"


class ScheduleName(StrEnum):
    """Values of --schedule."""

    streaming = "streaming"
    wait = "wait"
    bistable = "bistable"
    auto = "auto"


class PhasesName(StrEnum):
    """Values of --phases."""

    power2 = "power2"
    uniform = "uniform"


class PrecisionName(StrEnum):
    """Values of --precision."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    int8 = "int8"


class NeuronName(StrEnum):
    """Values of --neuron."""

    binary = "if"
    ternary = "ternary"
    ternary_late = "ternary-late"
    burst = "burst"
    graded = "graded"
    auto = "auto"


def _option(kind: Any, default: Any, *names: str, panel: str, **settings: Any) -> tuple[Any, Any]:
    return Annotated[kind, typer.Option(*names, rich_help_panel=panel, **settings)], default


GATES, INSTEAD = "Gates", "Conversion, instead of what the manifest says"
_gate = functools.partial(_option, panel=GATES)
_change = functools.partial(_option, panel=INSTEAD)

GATE_OPTIONS = {
    "max_drop": _gate(float | None, None, help="Points of accuracy below the original network."),
    "min_accuracy": _gate(float | None, None, help="Of the spiking network, percent."),
    "min_ann_accuracy": _gate(
        float | None, None, help="Of the original network, percent: less means wrong preprocessing."
    ),
    "min_agreement": _gate(float | None, None, help="Images with the same answer from both networks, percent."),
    "max_spikes": _gate(float | None, None, help="Per image."),
    "max_energy_ratio": _gate(float | None, None, help="Energy over that of the original network."),
    "fail_if": _gate(list[str] | None, None, help='A condition that must not hold, e.g. "accuracy_drop > 0.5".'),
    "at": _gate(int | None, None, help="Judge at this step (the last)."),
    "uncertain": _gate(
        str | None,
        None,
        metavar="[pass|fail|measured]",
        help="What a result inside the sampling error counts as (pass); measured judges by the bare number.",
    ),
    "strict": _gate(bool, False, "--strict", help="Short for --uncertain fail."),
}

CHANGES = {
    "timesteps": _change(int | None, None, "--timesteps", "-T", help="Total steps, from input to answer."),
    "calibration": _change(CalibrationName | None, None, help="How thresholds are found."),
    "calibration_samples": _change(int | None, None, help="Images to calibrate on."),
    "schedule": _change(ScheduleName | None, None, help="When neurons integrate and emit."),
    "neuron": _change(NeuronName | None, None, help="Neuron model."),
    "limit": _change(int | None, None, help="Evaluate on a class-balanced sample of N images."),
    "seed": _change(int | None, None, help="Choice of images."),
    "batch_size": _change(int | None, None, help="Images read at once; never changes results."),
}


def gathered(
    name: str, options: Mapping[str, tuple[Any, Any]], make: Callable[..., Any]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Let a command take its parameter `name` as `options`, put together by `make` from their values.

    Args:
        name: a parameter of the decorated command.
        options: (annotation, default) of each option, by parameter name.
        make: called with the values by name.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        # The type behind it may be known to type checkers only.
        command.__annotations__.pop(name, None)
        signature, hints = inspect.signature(command), typing.get_type_hints(command, include_extras=True)

        @functools.wraps(command)
        def call(**given: Any) -> None:
            command(**{name: make(**{one: given.pop(one) for one in options})}, **given)

        parameters: list[inspect.Parameter] = []
        for parameter in signature.parameters.values():
            if parameter.name != name:
                parameters.append(parameter.replace(annotation=hints[parameter.name]))
                continue
            parameters += [
                inspect.Parameter(one, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=kind, default=default)
                for one, (kind, default) in options.items()
            ]
        # Typer reads both to find the options.
        call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return call

    return decorate


def make_gates(*, uncertain: str | None = None, strict: bool = False, fail_if: Any = None, **limits: Any) -> Gates:
    """Gates from the values of GATE_OPTIONS.

    Raises:
        OptionError: options that contradict each other, or a value outside its range.
    """
    from snnconvert.report.gate import Gates

    if strict and uncertain not in (None, "fail"):
        raise OptionError(f"--strict and --uncertain {uncertain} contradict each other", hint="give one of the two")
    decided = "fail" if strict else uncertain or "pass"
    return Gates(**limits, fail_if=tuple(fail_if or ()), uncertain=decided)


def gates_of(max_drop: float | None, min_accuracy: float | None, *, at: int | None, strict: bool) -> Gates | None:
    """The gates of a single `convert`; None where nothing is asked."""
    if max_drop is None and min_accuracy is None:
        return None
    for option, value, example in (("--max-drop", max_drop, "1.0"), ("--min-accuracy", min_accuracy, "95")):
        if value is not None and not 0 <= value <= 100:
            hint = f"give percent, for instance {option} {example}"
            raise OptionError(f"{option} {value} is outside 0 to 100", hint=hint)
    return make_gates(max_drop=max_drop, min_accuracy=min_accuracy, at=at, strict=strict)


def make_changes(**given: Any) -> dict[str, Any]:
    """The values of CHANGES that were given, as plain values."""
    plain = {name: value.value if isinstance(value, StrEnum) else value for name, value in given.items()}
    return {name: value for name, value in plain.items() if value is not None}
