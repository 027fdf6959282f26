"""How raw images become the numbers a model was trained on.

    value = (x / scale - mean) / std        per channel, in the model's own channel order

The order of the steps: resize, centre crop, swap to BGR, scale, mean, std, layout. Values are computed in float64 and
rounded to float32 once, so they depend neither on the batch size nor on the machine.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snnconvert.errors import OptionError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

LAYOUTS = ("NCHW", "NHWC")
CHANNELS = ("RGB", "BGR")

Size = int | tuple[int, int]


@dataclass(frozen=True)
class Preprocessing:
    """The numbers and the order that a model expects.

    Attributes:
        mean: one value, or one per channel in the model's channel order; subtracted after the division by `scale`.
        std: as `mean`; divides last.
        scale: divides the raw values; None divides uint8 data by 255 and leaves all others as they are.
        layout: the model's, "NCHW" or "NHWC"; None reads it off the model's input shape.
        channels: the model's, "RGB" or "BGR". Images are read as RGB.
        resize: length of the shorter side, or (height, width); bilinear with antialiasing.
        crop: centre crop to this height and width.

    Raises:
        OptionError: for a value outside the allowed ones, naming it.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    scale: float | None = None
    layout: str | None = None
    channels: str = "RGB"
    resize: Size | None = None
    crop: Size | None = None

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
        for name in ("resize", "crop"):
            size = getattr(self, name)
            if size is not None and not all(side >= 1 for side in (size if isinstance(size, tuple) else (size,))):
                raise _refused(name, size, "a size in pixels such as 224, or 224x320 (height x width)")

    @classmethod
    def from_options(
        cls,
        *,
        mean: str | None = None,
        std: str | None = None,
        scale: str | float | None = None,
        layout: str | None = None,
        channels: str | None = None,
        resize: str | int | None = None,
        crop: str | int | None = None,
    ) -> Preprocessing:
        """From command-line strings such as mean="0.485,0.456,0.406", resize="256" or "256x320"; None is the default.

        Raises:
            OptionError: naming the option, its value and the allowed ones.
        """
        given = {
            "mean": mean,
            "std": std,
            "scale": scale,
            "layout": layout,
            "channels": channels,
            "resize": resize,
            "crop": crop,
        }
        return cls.from_dict({name: value for name, value in given.items() if value is not None})

    @classmethod
    def from_toml(cls, path: str | Path) -> Preprocessing:
        """From a TOML file with the attributes as keys, at the top or in a [preprocessing] table.

        Raises:
            OptionError: the file is missing, is no TOML, or holds an unknown key or value.
        """
        path = Path(path)
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise OptionError(
                f"the preprocessing file {path} cannot be read: {error.strerror}", hint="check the path"
            ) from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
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
        """The inverse of `to_dict`; numbers may also be strings, as in `from_options`.

        Raises:
            OptionError: an unknown key, or a value outside the allowed ones.
        """
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise OptionError(
                f"unknown preprocessing key {unknown[0]!r}; allowed: {', '.join(known)}",
                hint="correct or remove the key",
            )
        read: dict[str, Any] = {}
        for name, value in values.items():
            if value is None:
                continue
            if name in ("mean", "std"):
                read[name] = _numbers(name, value)
            elif name == "scale":
                read[name] = _numbers(name, value)[0]
            elif name in ("resize", "crop"):
                read[name] = _size(name, value)
            else:
                read[name] = str(value).upper()
        return cls(**read)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; tuples become lists."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def resolved(self, dtype: np.dtype[Any], layout: str) -> Preprocessing:
        """The same with the defaults that depend on the data (`scale`, `layout`) filled in."""
        scale = self.scale if self.scale is not None else (255.0 if dtype == "uint8" else 1.0)
        return replace(self, scale=scale, layout=layout)

    def apply(self, images: NDArray[Any], input_shape: tuple[int, ...] | None = None) -> Tensor:
        """Raw images as the model's input.

        Args:
            images: (N, H, W, C), (N, C, H, W), (N, H, W) or (N, features), of any integer or float type.
            input_shape: shape of one sample of the model's input; without it the layout is guessed from `images`.

        Returns:
            float32 of shape (N, *sample), in the model's layout.

        Raises:
            DataError: the images do not fit `input_shape`.
            OptionError: mean, std or channels do not fit the number of channels.
        """
        from snnconvert.data.arrange import arrange

        return arrange(images.shape[1:], images.dtype, self, input_shape).run(images)


def _refused(name: str, value: object, allowed: str) -> OptionError:
    shown = ",".join(str(part) for part in value) if isinstance(value, tuple) else value
    return OptionError(f"{name} is {shown!r}; allowed: {allowed}", hint=f"correct --{name}")


def _numbers(name: str, value: object) -> tuple[float, ...]:
    parts: Sequence[object]
    if isinstance(value, str):
        parts = value.replace(",", " ").split()
    else:
        parts = value if isinstance(value, (list, tuple)) else [value]
    try:
        numbers = tuple(float(str(part)) for part in parts)
    except ValueError:
        numbers = ()
    if not numbers or (name == "scale" and len(numbers) != 1):
        example = "255" if name == "scale" else "0.485,0.456,0.406"
        raise _refused(name, str(value), f"numbers such as {example}")
    return numbers


def _size(name: str, value: object) -> Size:
    parts: Sequence[object]
    if isinstance(value, str):
        parts = value.lower().replace("x", " ").replace(",", " ").split()
    else:
        parts = value if isinstance(value, (list, tuple)) else [value]
    try:
        sides = [int(str(part)) for part in parts]
    except ValueError:
        sides = []
    if len(sides) not in (1, 2):
        raise _refused(name, str(value), "a size in pixels such as 224, or 224x320 (height x width)")
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])
