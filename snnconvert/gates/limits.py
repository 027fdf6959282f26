"""What can be asked of a report: limits on its figures, and conditions over them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

from snnconvert.errors import OptionError
from snnconvert.gates.expression import Condition, parse_condition
from snnconvert.options import check, option, read_table
from snnconvert.tasks import METRICS

NAMES: dict[str, str] = {
    "accuracy": "of the spiking network, percent",
    "ann_accuracy": "of the original network on the same images, percent",
    "drop": "accuracy of the original minus that of the spiking network, points",
    "accuracy_drop": "accuracy of the baseline report minus that of this one; without a baseline the same as drop",
    "agreement": "images on which both networks give the same answer, percent",
    "error": "relative error of the outputs against the original network, percent (regression, raw outputs)",
    "r2": "R2 of the outputs against the original network (regression)",
    "pixel_agreement": "pixels that both networks give the same class, percent (segmentation)",
    "mean_iou": "mean IoU with the original network, percent (segmentation)",
    "mask_iou": "mean IoU with the masks, percent (segmentation)",
    "mae": "mean absolute error against labels, in their unit (regression)",
    "rmse": "root mean square error against labels, in their unit (regression)",
    "spikes": "per image, all layers, from the first step to the judged one",
    "spikes_per_image": "the same as spikes, as report.json calls it",
    "spikes_ratio": "spikes divided by those of the baseline report",
    "energy_ratio": "energy of the spiking network over that of the original, largest of the rows that decide",
    "firing_rate": "largest mean firing rate of a layer",
    "dead_share": "largest share of neurons in a layer that never spike",
    "saturated_share": "largest share of neurons in a layer that spike at every step",
    "timesteps": "the judged step",
    "first_output": "the step of the first answer",
    "samples": "evaluated images",
    "warnings": "number of warnings in the report",
    "seconds": "spent on the conversion",
}

# the figures of NAMES that are arrays of the report's curve, and how they are called there
JUDGED = {"error" if name == "relative_error" else name: name for name in METRICS}
# the figure that a limit is for, and how it is missed
LIMITS = {
    "max_drop": ("drop", ">"),
    "min_accuracy": ("accuracy", "<"),
    "min_ann_accuracy": ("ann_accuracy", "<"),
    "min_agreement": ("agreement", "<"),
    "max_error": ("error", ">"),
    "min_r2": ("r2", "<"),
    "max_spikes": ("spikes", ">"),
    "max_energy_ratio": ("energy_ratio", ">"),
}
_JUDGING = ("zoo run", "gate")
_gate = partial(option, commands=_JUDGING, panel="Gates")
_of_all = partial(option, commands=("convert", *_JUDGING), panel="Gates")


@dataclass(frozen=True)
class Gates:
    """Limits; None asks for nothing.

    Raises:
        OptionError: a limit outside its range, or a condition that cannot be read.
    """

    max_drop: float | None = _of_all(
        None,
        "Points of accuracy below the original network (exit 3).",
        first=("convert",),
        least=-100,
        most=100,
        example="--max-drop 1.0",
    )
    min_accuracy: float | None = _of_all(
        None, "Of the spiking network, percent (exit 3).", least=0, most=100, example="--min-accuracy 95"
    )
    min_ann_accuracy: float | None = _gate(
        None, "Of the original network, percent: less means wrong preprocessing.", least=0, most=100
    )
    min_agreement: float | None = _gate(
        None, "Images with the same answer from both networks, percent.", least=0, most=100
    )
    max_error: float | None = _of_all(
        None,
        "Relative error of the outputs against the original network, percent (regression, raw outputs; exit 3).",
        least=0,
        example="--max-error 5",
    )
    min_r2: float | None = _of_all(
        None, "R2 of the outputs against the original network (regression; exit 3).", most=1, example="--min-r2 0.99"
    )
    max_spikes: float | None = _gate(None, "Per image.", least=0)
    max_energy_ratio: float | None = _gate(None, "Energy over that of the original network.", least=0)
    fail_if: tuple[str, ...] = _gate(
        (), 'A condition that must not hold, e.g. "accuracy_drop > 0.5"; repeatable.', metavar="TEXT"
    )
    at: int | None = _gate(None, "Judge at this step.", least=1, usual="the last")
    uncertain: str = _gate(
        "pass",
        "What a result inside the sampling error counts as; measured judges by the bare number.",
        choices=("pass", "fail", "measured"),
    )

    def __post_init__(self) -> None:
        check(self)
        self.conditions()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Gates:
        """From keys such as max_drop; `fail_if` may be one text or a list."""
        if isinstance(values, Mapping) and isinstance(values.get("fail_if"), str):
            values = {**values, "fail_if": (values["fail_if"],)}
        return cls(**read_table(cls, values, "gate"))

    def over(self, other: Gates) -> Gates:
        """`other`, with everything that is set here put in its place."""
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(other, **{name: value for name, value in own.items() if value != getattr(Gates(), name)})

    def conditions(self) -> list[tuple[str, Condition]]:
        """(name of the gate, condition under which it fails)."""
        texts = [
            (f"{name} {number(limit)}", f"{quantity} {sign} {limit!r}")
            for name, (quantity, sign) in LIMITS.items()
            if (limit := getattr(self, name)) is not None
        ]
        texts += [(f"fail_if {text}", text) for text in self.fail_if]
        return [(name, parse_condition(text, NAMES)) for name, text in texts]


@dataclass(frozen=True)
class Judging(Gates):
    """Gates, and a short form of one."""

    strict: bool = option(
        False,
        "A gate that the sample cannot decide fails; short for --uncertain fail.",
        commands=("convert", "zoo run", "gate"),
        panel="Gates",
    )


def gates_of(given: Mapping[str, Any]) -> Gates:
    """The gates that were typed as options of `Judging`.

    Raises:
        OptionError: options that contradict each other, or a value outside its range.
    """
    known = {name: value for name, value in given.items() if name != "strict"}
    if "strict" in given and known.setdefault("uncertain", "fail") != "fail":
        raise OptionError(
            f"--strict and --uncertain {known['uncertain']} contradict each other", hint="give one of the two"
        )
    return Gates(**known)


def number(value: float) -> str:
    """A figure in few digits."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
