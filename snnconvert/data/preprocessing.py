"""How raw images become the numbers a model was trained on.

    value = (x / scale - mean) / std        per channel, in the model's own channel order

The order of the steps: resize, centre crop, swap to BGR, scale, mean, std, layout. Values are computed in float64 and
rounded to float32 once, so they depend neither on the batch size nor on the machine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from snnconvert.data.slicing import Slicing
from snnconvert.errors import OptionError
from snnconvert.files import read_toml
from snnconvert.graph.schedule import SCHEDULES
from snnconvert.options import option, read_table

if TYPE_CHECKING:
    import numpy as np

LAYOUTS = ("NCHW", "NHWC")
CHANNELS = ("RGB", "BGR")
_OF_EVENTS = ("events", "reset_every")

Size = int | tuple[int, int]
_of_convert = partial(option, commands=("convert", "zoo init"), panel="Data")
_of_both = partial(option, commands=("convert", "check", "zoo init"), panel="Data")


def _refused(name: str, value: object, allowed: str) -> OptionError:
    shown = ",".join(str(part) for part in value) if isinstance(value, tuple) else value
    return OptionError(f"{name} is {shown!r}; allowed: {allowed}", hint=f"correct --{name}", options=(name,))


def _parts(value: object, separators: str) -> list[str]:
    """The numbers of a text or a list, or the number itself, as texts."""
    if isinstance(value, str):
        return value.lower().translate(dict.fromkeys(map(ord, separators), " ")).split()
    return [str(part) for part in (value if isinstance(value, (list, tuple)) else [value])]


def _numbers(name: str, value: object) -> tuple[float, ...]:
    try:
        numbers = tuple(map(float, _parts(value, ",")))
    except ValueError:
        numbers = ()
    if not numbers or (name == "scale" and len(numbers) != 1):
        example = "255" if name == "scale" else "0.485,0.456,0.406"
        raise _refused(name, str(value), f"numbers such as {example}")
    return numbers


# what image formats can hold
MOST_PIXELS = 2**16 - 1
SIZES = f"a size in pixels such as 224, or 224x320 (height x width), up to {MOST_PIXELS}"


def _size(name: str, value: object) -> Size:
    try:
        sides = list(map(int, _parts(value, ",x")))
    except ValueError:
        sides = []
    if len(sides) not in (1, 2):
        raise _refused(name, str(value), SIZES)
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def _upper(value: object) -> str:
    return str(value).upper()


@dataclass(frozen=True)
class Preprocessing:
    """The numbers and the order that a model expects.

    Raises:
        OptionError: for a value outside the allowed ones, naming it.

    Examples:
        >>> import snnconvert
        >>> plan = snnconvert.Preprocessing(mean=(0.5,), std=(0.5,), scale=255, layout="NCHW")
        >>> snnconvert.Preprocessing.from_dict(plan.to_dict()) == plan
        True
        >>> snnconvert.Preprocessing(std=(0.0,))
        Traceback (most recent call last):
        snnconvert.errors.OptionError: std is '0.0'; allowed: numbers above 0
    """

    mean: tuple[float, ...] = _of_convert(
        (0.0,),
        "One value, or one per channel in the model's order, e.g. 0.485,0.456,0.406; subtracted.",
        usual="0",
        first=("convert",),
        metavar="X,X,...",
        read=partial(_numbers, "mean"),
    )
    std: tuple[float, ...] = _of_convert(
        (1.0,),
        "As mean, e.g. 0.229,0.224,0.225; divides last.",
        usual="1",
        first=("convert",),
        metavar="X,X,...",
        read=partial(_numbers, "std"),
    )
    scale: float | None = _of_convert(
        None,
        "Divides the raw values, before mean and std.",
        usual="255 for 8-bit images, else 1",
        read=lambda value: _numbers("scale", value)[0],
    )
    layout: str | None = _of_both(
        None, "Of the model.", usual="from the model's input shape", choices=LAYOUTS, read=_upper
    )
    channels: str = _of_convert("RGB", "Of the model; images are read as RGB.", choices=CHANNELS, read=_upper)
    resize: int | tuple[int, int] | None = _of_both(
        None, "Short side, or HxW; bilinear with antialiasing.", metavar="N|HxW", read=partial(_size, "resize")
    )
    crop: int | tuple[int, int] | None = _of_both(
        None, "Centre crop, one side or HxW.", metavar="N|HxW", read=partial(_size, "crop")
    )

    events: str | None = _of_convert(
        None,
        "The data are recordings of an event camera, replayed in time: window:MS (milliseconds a step), count:N "
        "(events a step) or frames:N (steps of equal length); the model was trained on sums of whole recordings.",
        usual="",
        example="--events window:1",
        read=lambda value: str(Slicing.read(str(value))),
    )

    reset_every: float | None = _of_convert(
        None,
        "Milliseconds of a recording after which the network's state is given up, so that each answer is about what "
        "came since (with --events).",
        above=0,
        usual="never",
        example="--reset-every 100",
    )

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            values = getattr(self, name)
            if not values or not all(math.isfinite(value) for value in values):
                raise _refused(name, values, "one finite number, or one per channel")
        if any(value <= 0 for value in self.std):
            raise _refused("std", self.std, "numbers above 0")
        if self.scale is not None and not (math.isfinite(self.scale) and self.scale > 0):
            raise _refused("scale", self.scale, "a number above 0, usually 255 or 1")
        if self.layout is not None and self.layout not in LAYOUTS:
            raise _refused("layout", self.layout, " or ".join(LAYOUTS))
        if self.channels not in CHANNELS:
            raise _refused("channels", self.channels, " or ".join(CHANNELS))
        if self.events is not None:
            object.__setattr__(self, "events", str(Slicing.read(self.events)))
        elif self.reset_every is not None:
            raise OptionError(
                f"--reset-every {self.reset_every:g} is for recordings of events",
                hint="add --events, for instance --events window:1, or leave --reset-every out",
                options=("reset_every", "events"),
            )
        for name in ("resize", "crop"):
            size = getattr(self, name)
            if size is not None and not all(
                1 <= side <= MOST_PIXELS for side in (size if isinstance(size, tuple) else (size,))
            ):
                raise _refused(name, size, SIZES)

    @classmethod
    def from_toml(cls, path: str | Path) -> Preprocessing:
        """From a TOML file with the attributes as keys, at the top or in a [preprocessing] table.

        Raises:
            OptionError: the file is missing, is no TOML, or holds an unknown key or value.
        """
        path = Path(path)
        try:
            content = read_toml(path)
        except OSError as error:
            raise OptionError(
                f"the preprocessing file {path} cannot be read: {error.strerror}", hint="check the path"
            ) from error
        except ValueError as error:
            raise OptionError(
                f"the preprocessing file {path} is not valid TOML: {error}",
                hint='write lines such as mean = [0.485, 0.456, 0.406] and layout = "NCHW"',
            ) from error
        table = content.get("preprocessing", content)
        if not isinstance(table, dict):
            raise OptionError(
                f"[preprocessing] in {path} is not a table", hint="write [preprocessing] on a line of its own"
            )
        return cls.from_dict(table)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """The inverse of `to_dict`; numbers may also be texts such as "0.485,0.456,0.406" or "256x320".

        Raises:
            OptionError: an unknown key, or a value outside the allowed ones.
        """
        return cls(**read_table(cls, values, "preprocessing key"))

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; tuples become lists, and what is said of recordings is left out where nothing is."""
        found = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return {name: value for name, value in found.items() if value is not None or name not in _OF_EVENTS}

    def resolved(self, dtype: np.dtype[Any], layout: str) -> Preprocessing:
        """The same with the defaults that depend on the data (`scale`, `layout`) filled in."""
        scale = self.scale if self.scale is not None else (255.0 if dtype == "uint8" else 1.0)
        return replace(self, scale=scale, layout=layout)


def from_command_line(given: dict[str, Any]) -> Preprocessing:
    """From the options that were typed, or from the file that holds them.

    Raises:
        OptionError: both were given, or one of them cannot be read.
    """
    file = given.pop("preprocessing", None)
    if file is None:
        return Preprocessing.from_dict(given)
    if given:
        raise OptionError(
            f"--preprocessing and --{next(iter(given))} were both given", hint="put everything in one of the two"
        )
    return Preprocessing.from_toml(file)


class Asked(Protocol):
    """The part of a request that recordings have to fit (see `request.Request`)."""

    @property
    def preprocessing(self) -> Preprocessing: ...
    @property
    def schedule(self) -> str: ...
    @property
    def input_encoder(self) -> str: ...
    @property
    def frontier(self) -> tuple[int, ...]: ...
    @property
    def calibrate_for(self) -> tuple[int, ...]: ...


def check_replay(asked: Asked) -> None:
    """Refuse what recordings of events cannot be combined with.

    Raises:
        OptionError: naming the option.
    """
    plan, schedule = asked.preprocessing, SCHEDULES.get(asked.schedule)
    if plan.events is None:
        return
    both = "leave one of the two out: recordings are replayed in as many steps as they have"
    refused = {
        "schedule": (
            schedule is not None and (schedule.windowed or schedule.once),
            "choose streaming or wait: only these take in something else in every step",
        ),
        "input_encoder": (asked.input_encoder == "spiking", "leave it out: events are spikes already"),
        "reset_every": (plan.reset_every is not None and asked.schedule == "wait", "choose --schedule streaming"),
        "frontier": (bool(asked.frontier), both),
        "calibrate_for": (bool(asked.calibrate_for), both),
    }
    for name, (given, hint) in refused.items():
        if given:
            shown = f"--schedule {asked.schedule}" if name == "schedule" else f"--{name.replace('_', '-')}"
            others = f"--schedule {asked.schedule}" if name == "reset_every" else f"--events {plan.events}"
            raise OptionError(f"{shown} does not fit {others}", hint=hint, options=(name, "events"))
