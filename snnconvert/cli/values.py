"""What the words after an option mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from snnconvert.errors import OptionError

if TYPE_CHECKING:
    from snnconvert.data.preprocessing import Preprocessing


def preprocessing_of(file: str | None, **options: str | None) -> Preprocessing:
    """The seven options of preprocessing, or the file that holds them."""
    from snnconvert.data.preprocessing import Preprocessing

    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if file is None:
        return Preprocessing.from_options(**given)
    if given:
        raise OptionError(
            f"--preprocessing and --{next(iter(given))} were both given", hint="put everything in one of the two"
        )
    return Preprocessing.from_toml(file)


def steps_or_auto(option: str, text: str) -> int | None:
    """A number of steps, or None for "auto"."""
    if text == "auto":
        return None
    try:
        return int(text)
    except ValueError:
        raise OptionError(
            f"{option} {text!r} is no number of steps", hint="give a whole number such as 32, or auto"
        ) from None


def steps_of(option: str, text: str | None) -> tuple[int, ...]:
    """Numbers of steps, separated by commas; None is none."""
    try:
        return () if text is None else tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        raise OptionError(
            f"{option} {text!r} is no list of steps", hint="separate numbers by commas, e.g. 8,16"
        ) from None


def shape_of(text: str | None) -> tuple[int, ...] | None:
    """Sizes without the batch, separated by commas or x; None stays None."""
    if text is None:
        return None
    try:
        shape = tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise OptionError(f"--input-shape {text!r} is no shape", hint="write the sizes without the batch, e.g. 3,32,32")
    return shape
