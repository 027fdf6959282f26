"""Several inputs, and inputs of whole numbers: how each of them is prepared, and put beside the others."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snnconvert.data.arrange import Arrangement, arrange
from snnconvert.data.arrays import shapes_of
from snnconvert.data.named import Arrays, Shaped
from snnconvert.data.preprocessing import Preprocessing
from snnconvert.data.sources import RawData
from snnconvert.errors import DataError, OptionError, listed
from snnconvert.graph.parts import Part, packed, shape_of_parts


def offered_by(data: Path | str | RawData | Arrays, preprocessing: Preprocessing) -> dict[str, Part]:
    """What data hold by name, as the inputs of a model that takes them; x for one array."""
    if isinstance(data, RawData):
        held: dict[str, Shaped] = {"x": (data.source.shape, data.source.dtype)}
    else:
        held = data.shapes() if isinstance(data, Arrays) else shapes_of(Path(data))
    found = {}
    for name, (shape, dtype) in held.items():
        picture = len(shape) in (2, 3) and dtype == np.uint8
        arranged = shape
        if picture:
            with suppress(DataError, OptionError):
                arranged = arrange(shape, dtype, preprocessing, None).sample_shape
        found[name] = Part(name, arranged, dtype.kind in "iu" and not picture)
    return found


@dataclass(frozen=True)
class Together:
    """A plan for each input of a model; what it makes of all of them is one sample.

    Attributes:
        parts: the inputs.
        plans: of each input; whole numbers, and what is no image, are taken as they stand.
        preprocessing: of those that are images.
        sample_shape: shape of one prepared sample.
        notes: what the report must say about the plan.
    """

    parts: tuple[Part, ...]
    plans: tuple[Arrangement, ...]
    preprocessing: Preprocessing
    sample_shape: tuple[int, ...]
    notes: tuple[str, ...]

    def run(self, samples: NDArray[Any]) -> Tensor:
        """Prepare a batch: an array (N,) with one field for each input; returns float32 (N, *sample_shape)."""
        values = {}
        for part, plan in zip(self.parts, self.plans, strict=True):
            field = np.ascontiguousarray(samples[part.name])
            whole = torch.from_numpy(field.astype(np.float32).reshape(len(field), *part.shape)) if part.whole else None
            values[part.name] = plan.run(field) if whole is None else whole
        return packed(self.parts, values)


def stays_analog(part: Part) -> str:
    """What has to be said of whole numbers."""
    table = f": they index a table of {part.rows:,} rows" if part.rows else ""
    return f"the input {part.name} is of whole numbers, which stay analog{table}"


def arrange_parts(dtype: np.dtype[Any], preprocessing: Preprocessing, parts: Sequence[Part]) -> Together:
    """Plan how the fields of `dtype` become the inputs of a model.

    Raises:
        DataError: they do not fit, with the option that would help.
        OptionError: a preprocessing that none of them can have, or that would differ between them.
    """
    images = [part for part in parts if not part.whole and len(part.shape) == 3]
    asked = replace(preprocessing, layout=None)
    if not images and asked != Preprocessing(scale=1.0) and asked != Preprocessing():
        raise OptionError(
            f"no input of the model is an image ({listed([part.describe() for part in parts], 6)}), so mean, std and "
            "scale and the like mean nothing here",
            hint="leave them out, and store the numbers that the model takes",
        )
    plans, notes = [], []
    as_they_are = Preprocessing(scale=1.0)
    for part in parts:
        field: Any = dtype.fields[part.name] if dtype.fields else None
        base, shape = field[0].subdtype or (field[0], ())
        plan_of = preprocessing if part in images else as_they_are
        try:
            # a vector of one number may be stored as one number
            plan = arrange(shape or (1,), base, plan_of, part.shape or (1,))
        except DataError as error:
            raise DataError(f"{part.name}: {error.message}", hint=error.hint, causes=error.causes) from error
        plans.append(plan)
        notes += [f"{part.name}: {note}" for note in plan.notes]
    made = {plan.preprocessing for part, plan in zip(parts, plans, strict=True) if part in images}
    if len(made) > 1:
        raise OptionError(
            "the images of the model's inputs are of different types, so that they would be scaled differently",
            hint="add --scale, one for all of them, or store all of one type",
        )
    own = next(iter(made), as_they_are)
    notes += [stays_analog(part) for part in parts if part.whole]
    return Together(tuple(parts), tuple(plans), own, shape_of_parts(parts), tuple(notes))
