"""Several inputs, and inputs of whole numbers: how they lie in the one tensor that a network of the dialect reads.

A network with several inputs reads one vector, their values one after the other; the first nodes of its graph cut them
out again (`inputs.py`). Whole numbers stand in it as real ones, which float32 holds exactly up to 2^24.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


# up to here float32 holds every whole number
MOST_WHOLE = 2**24


@dataclass(frozen=True)
class Part:
    """One input of the original network.

    Attributes:
        name: as the original calls it.
        shape: of one sample.
        whole: whether its values are whole numbers.
        rows: of the smallest table that they index, so that they lie in 0 .. rows - 1; 0 where they index none.
    """

    name: str
    shape: tuple[int, ...]
    whole: bool = False
    rows: int = 0

    @property
    def size(self) -> int:
        """Values of one sample."""
        return math.prod(self.shape)

    def describe(self) -> str:
        """Name, shape, and what its numbers are."""
        kind = f", whole numbers 0 to {self.rows - 1}" if self.rows else ", whole numbers" if self.whole else ""
        return f"{self.name} ({'x'.join(map(str, self.shape)) or '1'}{kind})"

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**asdict(self), "shape": list(self.shape)}


def parts_from(rows: Sequence[Mapping[str, Any]]) -> tuple[Part, ...]:
    """The inverse of `Part.to_dict`."""
    return tuple(Part(**{**row, "shape": tuple(row["shape"])}) for row in rows)


def shape_of_parts(parts: Sequence[Part]) -> tuple[int, ...]:
    """Shape of one sample that holds all of them: that of a single one, else a vector."""
    return parts[0].shape if len(parts) == 1 else (sum(part.size for part in parts),)


def as_parts(given: tuple[int, ...] | Sequence[Part], name: str = "input") -> tuple[Part, ...]:
    """Inputs, or the shape of the only one, as inputs."""
    parts = tuple(one for one in given if isinstance(one, Part))
    return parts or (Part(name, tuple(side for side in given if isinstance(side, int))),)


def special(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """`parts` where there are several or whole numbers; nothing for one input of real numbers."""
    return parts if len(parts) > 1 or any(part.whole for part in parts) else ()


def places(parts: Sequence[Part]) -> list[tuple[Part, int, int]]:
    """Each with its first place in the vector, and the one behind its last."""
    ends = [sum(part.size for part in parts[: index + 1]) for index in range(len(parts))]
    return [(part, end - part.size, end) for part, end in zip(parts, ends, strict=True)]


def packed(parts: Sequence[Part], values: Mapping[str, Tensor]) -> Tensor:
    """Inputs by name, each (n, *shape), as one float32 tensor (n, *`shape_of_parts`)."""
    import torch

    flat = [values[part.name].float().reshape(len(values[part.name]), part.size) for part in parts]
    return torch.cat(flat, 1).reshape(-1, *shape_of_parts(parts))


def unpacked(parts: Sequence[Part], samples: Tensor) -> dict[str, Tensor]:
    """The inputs as the original takes them, each (n, *shape): whole ones as int64."""
    flat = samples.reshape(len(samples), -1)
    found = {part.name: flat[:, start:stop].reshape(-1, *part.shape) for part, start, stop in places(parts)}
    return {part.name: found[part.name].round().long() if part.whole else found[part.name] for part in parts}


def fitting(parts: Sequence[Part], samples: Tensor) -> Tensor:
    """Random samples (n, *sample) of 0 to 1, with whole numbers spread over their table (0 and 1 without one)."""
    if not any(part.whole for part in parts):
        return samples
    flat = samples.reshape(len(samples), -1).clone()
    for part, start, stop in places(parts):
        if part.whole:
            most = part.rows or 2
            flat[:, start:stop] = (flat[:, start:stop].abs() * most).floor().remainder(most)
    return flat.reshape(samples.shape)
