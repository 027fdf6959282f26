"""The options of each calibration method: their names, kinds and ranges, checked before any work is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from snnconvert.errors import OptionError, did_you_mean

# written as options of the command, the others as `options = { ... }` of a manifest or of `convert_model`
_ON_THE_COMMAND_LINE = ("percentile", "granularity", "headroom")


@dataclass(frozen=True)
class Number:
    """A number from `low` to `high`; `low` itself is excluded with `above`."""

    low: float
    high: float | None = None
    whole: bool = False
    above: bool = False

    def accepts(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int if self.whole else (int, float)):
            return False
        return (value > self.low if self.above else value >= self.low) and (self.high is None or value <= self.high)

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        begin = f"above {self.low:g}" if self.above else f"from {self.low:g}"
        return f"{kind} {begin}" + ("" if self.high is None else f", at most {self.high:g}")


@dataclass(frozen=True)
class OneOf:
    """One of these values."""

    values: tuple[Any, ...]

    def accepts(self, value: Any) -> bool:
        return any(value is one or (isinstance(value, str) and value == one) for one in self.values)

    def __str__(self) -> str:
        return " or ".join(str(one).lower() for one in self.values)


@dataclass(frozen=True)
class Steps:
    """A list of whole numbers above 0."""

    def accepts(self, value: Any) -> bool:
        return isinstance(value, (list, tuple)) and all(Number(1, whole=True).accepts(one) for one in value)

    def __str__(self) -> str:
        return "a list of whole numbers from 1"


Kind = Number | OneOf | Steps
_SWITCH = OneOf((True, False))
_COUNT = Number(1, whole=True)
_GRANULARITY = OneOf(("channel", "layer"))
_INITIAL = Number(0, 1)
_PERCENTILE: dict[str, Kind] = {
    "percentile": Number(0, 100, above=True),
    "granularity": _GRANULARITY,
    "initial": _INITIAL,
}

OPTIONS: dict[str, dict[str, Kind]] = {
    "rnl": {"granularity": _GRANULARITY, "lambda": Number(0, above=True), "p": Number(0, 1, above=True)},
    "percentile": _PERCENTILE,
    "robust-norm": _PERCENTILE,
    "mse": {"initial": _INITIAL, "headroom": Number(0)},
    "reconstruct": {
        **{"weights": _SWITCH, "thresholds": _SWITCH, "judged": _SWITCH, "read_out": _SWITCH, "read_at": Steps()},
        **{"rounds": Number(0, whole=True), "held_out": Number(0, 0.9), "memory": Number(0, above=True)},
        **{"rate_norm": _SWITCH, "rows": _COUNT, "search_images": _COUNT, "search_positions": _COUNT},
        "headroom": Number(0),
    },
    "local-threshold-balancing": {"passes": _COUNT, "initial": _INITIAL},
    "snn-calibration-light": {"granularity": _GRANULARITY},
}


def check_options(method: str, given: Mapping[str, Any]) -> None:
    """Refuse options that the method does not have, and values that it cannot take.

    Raises:
        OptionError: with the option, what is allowed, and what may have been meant.
    """
    known = OPTIONS[method]
    for name, value in given.items():
        shown = f"--{name}" if name in _ON_THE_COMMAND_LINE else f"options.{name}"
        if name not in known:
            raise OptionError(f"{shown} means nothing to --calibration {method}", hint=_hint(name, method))
        if not known[name].accepts(value):
            raise OptionError(f"{shown} {value!r} is not {known[name]}", hint=f"give {shown} {known[name]}")


def _hint(name: str, method: str) -> str:
    owners = [one for one, options in OPTIONS.items() if name in options]
    if owners:
        return "add " + " or ".join(f"--calibration {one}" for one in owners)
    known = tuple(OPTIONS[method])
    return did_you_mean(name, known) or f"{method} has {', '.join(known)}"
