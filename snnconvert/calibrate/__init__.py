"""Calibration methods: METHODS maps the value of `--calibration` to a function from Task to Calibrated.

The table is light: a method's module, and torch with it, is imported when the method is called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from snnconvert import plugins
from snnconvert.calibrate import options
from snnconvert.errors import OptionError, did_you_mean
from snnconvert.options import Declared, declared
from snnconvert.plugins import named

if TYPE_CHECKING:
    from snnconvert.calibrate.expected import Expected
    from snnconvert.calibrate.task import Task
    from snnconvert.graph.types import Calibrated

__all__ = ["METHODS", "Method", "Task", "check_options", "on_the_command_line", "register_calibration"]

GROUP = "snnconvert.calibration"


@dataclass(frozen=True)
class Method:
    """A calibration method.

    Attributes:
        help: what it does, in one line.
        options: the class that declares its options.
        place: MODULE:FUNCTION, imported when it is called, or the function itself; it takes a `Task`.
        costly: whether it takes long enough for schedules to be compared on fewer images first.
        quick: its options where schedules are compared.
        foreseen: MODULE:FUNCTION that says of a `Task` what it will take, `calibrate.expected.Expected`; "" where that
            is little.
    """

    help: str
    options: type
    place: str | Callable[[Task], Calibrated]
    costly: bool = False
    quick: Mapping[str, Any] = field(default_factory=dict)
    foreseen: str = ""

    def __call__(self, task: Task) -> Calibrated:
        """Calibrate."""
        function = named(self.place) if isinstance(self.place, str) else self.place
        calibration: Calibrated = function(task)
        return calibration

    def expected(self, task: Task) -> Expected | None:
        """What calibrating will take; None where nothing is known, or nothing to speak of."""
        found: Expected | None = named(self.foreseen)(task) if self.foreseen else None
        return found

    @property
    def rows(self) -> dict[str, Declared]:
        """Its options by key."""
        return {row.key: row for row in declared(self.options).values()}


# images on which costly methods compare schedules; 32 to 512 choose within 0.3 points of the best (three networks,
# `python benchmarks/constants_search.py`)
DRAFT_IMAGES = 64
METHODS = {
    "reconstruct": Method(
        "closed loop: weights, biases and thresholds solved layer by layer against the spikes really sent",
        options.Reconstruct,
        "snnconvert.calibrate.reconstruct:calibrate_reconstruct",
        costly=True,
        quick={"rounds": 0},
        foreseen="snnconvert.calibrate.reconstruct:expected_of_reconstruct",
    ),
    "rnl": Method(
        "Rate Norm Layer: one p for all layers, thresholds p times the largest activation",
        options.RateNorm,
        "snnconvert.calibrate.rate_norm:calibrate_rate_norm",
    ),
    "percentile": Method(
        "a percentile of the activations", options.Percentile, "snnconvert.calibrate.percentile:calibrate_percentile"
    ),
    "mse": Method(
        "the least squared quantisation error at T", options.SquaredError, "snnconvert.calibrate.mse:calibrate_mse"
    ),
    "first-spike": Method(
        "windows as long as the largest activation and some room: exact for time to first spike in continuous time",
        options.FirstSpikeWindows,
        "snnconvert.calibrate.first_spike:calibrate_first_spike",
    ),
    "windows": Method(
        "windows of one layer after the other: the largest activations, and steps that products of spikes can share",
        options.Windows,
        "snnconvert.calibrate.windows:calibrate_windows",
    ),
    "robust-norm": Method(
        "a published baseline: a high percentile per layer, membranes that start empty",
        options.RobustNorm,
        "snnconvert.calibrate.robust_norm:calibrate_robust_norm",
    ),
    "local-threshold-balancing": Method(
        "a published baseline: thresholds grow by what exceeds them",
        options.LocalThresholdBalancing,
        "snnconvert.calibrate.local_threshold_balancing:calibrate_local_threshold_balancing",
        costly=True,
    ),
    "snn-calibration-light": Method(
        "a published baseline: squared error per layer, then biases corrected by what the rates lack",
        options.SnnCalibrationLight,
        "snnconvert.calibrate.snn_calibration_light:calibrate_snn_calibration_light",
        costly=True,
    ),
}


_OWN = frozenset(METHODS)
Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class NoOptions:
    """Of a method without options."""


def register_calibration(name: str, *, help: str = "", options: type = NoOptions, costly: bool = False) -> Any:
    """Add a calibration method of one's own, which `--calibration NAME` and `calibration="NAME"` then take.

    A package brings it to the command line by an entry point of the group `snnconvert.calibration`, whose name is the
    method's and whose object is the decorated function, or a plain one.

    Args:
        name: what the method is called. Registering a name again replaces the method.
        help: what it does, in one line.
        options: a frozen dataclass whose fields are declared with `snnconvert.options.option`; those with
            `commands=("convert",)` are options of the command line, too.
        costly: whether schedules are compared on fewer images first.

    Returns:
        A decorator for a function that takes a `Task` and returns what `task.calibrated(...)` makes: a threshold and a
        start of the membrane for every activation.

    Raises:
        OptionError: a name of snnconvert's own methods, options that are not declared, or no function.

    Examples:
        >>> import snnconvert
        >>> from snnconvert.calibrate.observe import ranges
        >>> @snnconvert.register_calibration("largest", help="the largest activation")
        ... def largest(task):
        ...     seen, _ = ranges(task.ann.graph, task.images, task.progress)
        ...     sites = {site: task.site(found.largest, found) for site, found in seen.items()}
        ...     return task.calibrated(task.ann.graph, sites, {"method": "largest", "options": {}, "candidates": []})
        >>> conversion = snnconvert.convert_model("zoo:digits-cnn", calibration="largest", timesteps=8, limit=50)
        >>> conversion.report["calibration"]["method"]
        'largest'
    """
    plugins.check_name(name, "calibration method", _OWN)
    if not (isinstance(options, type) and is_dataclass(options)) or len(declared(options)) < len(fields(options)):
        raise OptionError(
            f"the options of {name!r} are {options!r}, which are no declared options",
            hint="give a frozen dataclass whose fields are snnconvert.options.option(default, help)",
        )

    def register(function: Function) -> Function:
        if not callable(function):
            raise OptionError(f"{name!r} is {type(function).__name__}, no function", hint="give a function of a Task")
        METHODS[name] = Method(help or (function.__doc__ or name).strip().split("\n")[0], options, function, costly)
        return function

    return register


def from_entry_point(name: str, brought: Any, package: str) -> None:
    """Add what a package brings under a name: a function that has registered itself, a plain one, or a `Method`."""
    del package
    if name in METHODS and name not in _OWN and METHODS[name].place is brought:
        return
    if isinstance(brought, Method):
        METHODS[plugins.check_name(name, "calibration method", _OWN)] = brought
        return
    register_calibration(name)(brought)


def __getattr__(name: str) -> Any:
    """`Task` needs torch; whoever asks for it does too."""
    if name == "Task":
        return import_module("snnconvert.calibrate.task").Task
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def check_options(method: str, given: Mapping[str, Any]) -> None:
    """Refuse options that the method does not have, and values that it cannot take.

    Raises:
        OptionError: with the option, what is allowed, and what may have been meant.
    """
    known = METHODS[method].rows
    for name, value in given.items():
        if name in known:
            try:
                known[name].value(value)
            except OptionError as error:
                error.options = ("options", name)
                raise
            continue
        owners = {one: row.rows[name] for one, row in METHODS.items() if name in row.rows}
        shown = next((row.shown for row in owners.values()), f"options.{name}")
        hint = "add " + " or ".join(f"--calibration {one}" for one in owners)
        if not owners:
            hint = did_you_mean(name, tuple(known)) or f"{method} has {', '.join(known)}"
        raise OptionError(f"{shown} means nothing to --calibration {method}", hint=hint, options=("options", name))


def on_the_command_line() -> dict[str, Declared]:
    """The methods' options that the command line spells as options of their own."""
    return {name: row for method in METHODS.values() for name, row in method.rows.items() if row.option.commands}
