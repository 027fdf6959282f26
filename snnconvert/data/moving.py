"""Inputs that vary over time: what comes in step by step, beside what the original network sees of it as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snnconvert.errors import InternalError

# in an int8
MOST_UNITS = 127


class OverTime(Protocol):
    """Some inputs, step by step."""

    @property
    def steps(self) -> int:
        """How many steps there are."""

    def __len__(self) -> int:
        """How many inputs there are."""

    def frames(self, start: int, stop: int) -> Tensor:
        """What comes in in the steps from `start` to `stop`, (stop - start, n, *sample); nothing after the last.

        Whole numbers of a signed integer type where it is spikes, else real numbers.
        """

    def at(self, indices: NDArray[np.int64]) -> OverTime:
        """Some of the inputs, in this order."""

    def followed_by(self, others: Sequence[Any]) -> OverTime:
        """These inputs, then those of `others`, which are of the same kind."""


class Moving(Tensor):
    """What the original network sees of inputs that vary over time, (n, *sample), and how they come in.

    A tensor like any other for whoever looks at the whole: what is computed from it is a plain tensor. Parts of it
    (`x[a:b]`, `x[indices]`) know how they come in; `joined` puts parts together.
    """

    over_time: OverTime

    # results of operators are plain tensors
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def of(cls, whole: Tensor, over_time: OverTime) -> Moving:
        """`whole`, (n, *sample), which comes in as `over_time` says."""
        if len(whole) != len(over_time):
            raise InternalError(f"{len(whole)} inputs, of which {len(over_time)} vary over time")
        made = whole.detach().as_subclass(cls)
        made.over_time = over_time
        return made

    def __getitem__(self, index: Any) -> Tensor:
        whole = super().__getitem__(index)
        if isinstance(index, (slice, Tensor, list, np.ndarray)):
            chosen = np.arange(len(self))[index.numpy() if isinstance(index, Tensor) else index]
            if chosen.ndim == 1:
                return Moving.of(whole, self.over_time.at(chosen))
        return whole


def over_time_of(inputs: Tensor) -> OverTime | None:
    """How `inputs` come in, where they vary over time; None where they are the same in all steps."""
    return inputs.over_time if isinstance(inputs, Moving) else None


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Inputs one after the other, which still vary over time where all of them do."""
    whole = torch.cat([part.as_subclass(Tensor) for part in parts])
    first, *others = [over_time_of(part) for part in parts]
    if first is None or any(other is None for other in others):
        return whole
    return Moving.of(whole, first.followed_by(others) if others else first)


def _then_nothing(part: Tensor, steps: int) -> Tensor:
    """So many steps, of which `part` holds the first."""
    missing = steps - len(part)
    return torch.cat([part, part.new_zeros(missing, *part.shape[1:])]) if missing else part


@dataclass(frozen=True)
class Currents:
    """Values of each step, (steps, n, *sample): real numbers, or whole ones of a signed integer type (spikes)."""

    values: Tensor

    @property
    def steps(self) -> int:
        """How many steps there are."""
        return len(self.values)

    def __len__(self) -> int:
        return self.values.shape[1]

    def frames(self, start: int, stop: int) -> Tensor:
        """As `OverTime` says."""
        return _then_nothing(self.values[start:stop], stop - start)

    def at(self, indices: NDArray[np.int64]) -> Currents:
        """As `OverTime` says."""
        return Currents(self.values[:, torch.from_numpy(indices)])

    def followed_by(self, others: Sequence[Any]) -> Currents:
        """As `OverTime` says."""
        return Currents(torch.cat([self.values, *(other.values for other in others)], 1))


@dataclass(frozen=True)
class Part:
    """Some consecutive steps, `steps` of them from `start` on, of inputs that go on longer."""

    whole: OverTime
    start: int
    steps: int

    def __len__(self) -> int:
        return len(self.whole)

    def frames(self, start: int, stop: int) -> Tensor:
        """As `OverTime` says."""
        return _then_nothing(self.whole.frames(self.start + start, self.start + min(stop, self.steps)), stop - start)

    def at(self, indices: NDArray[np.int64]) -> Part:
        """As `OverTime` says."""
        return Part(self.whole.at(indices), self.start, self.steps)

    def followed_by(self, others: Sequence[Any]) -> Part:
        """As `OverTime` says."""
        return Part(self.whole.followed_by([other.whole for other in others]), self.start, self.steps)


@dataclass(frozen=True)
class Events:
    """Events of some recordings, kept as events.

    Attributes:
        steps: how many there are.
        sample: shape of what comes in in a step.
        starts: where each recording begins in the other two, and the end of the last, (n + 1,).
        step: of every event, ascending within a recording, int32.
        place: of every event within a sample, int32.
    """

    steps: int
    sample: tuple[int, ...]
    starts: NDArray[np.int64]
    step: NDArray[np.int32]
    place: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def frames(self, start: int, stop: int) -> Tensor:
        """Events counted by step and place; int8 unless there are more than 127 of them at one."""
        size, found = int(np.prod(self.sample)), list[NDArray[np.int64]]()
        for index, (first, end) in enumerate(zip(self.starts[:-1], self.starts[1:], strict=True)):
            low, high = first + np.searchsorted(self.step[first:end], (start, stop))
            within = (self.step[low:high].astype(np.int64) - start) * len(self) + index
            found.append(within * size + self.place[low:high])
        places, counts = np.unique(np.concatenate([np.zeros(0, np.int64), *found]), return_counts=True)
        whole = torch.int8 if counts.max(initial=0) <= MOST_UNITS else torch.int32
        dense = torch.zeros((stop - start) * len(self) * size, dtype=whole)
        dense[torch.from_numpy(places)] = torch.from_numpy(counts).to(whole)
        return dense.view(stop - start, len(self), *self.sample)

    def sums(self) -> NDArray[np.float32]:
        """All events of each recording counted by place, (n, *sample)."""
        size = int(np.prod(self.sample))
        index = np.repeat(np.arange(len(self)), np.diff(self.starts))
        counts = np.bincount(index * size + self.place, minlength=len(self) * size)
        return counts.reshape(len(self), *self.sample).astype(np.float32)

    def peak(self) -> int:
        """The most events at one place in one step."""
        index = np.repeat(np.arange(len(self), dtype=np.int64), np.diff(self.starts))
        where = (index * self.steps + self.step) * int(np.prod(self.sample)) + self.place
        return int(np.unique(where, return_counts=True)[1].max(initial=0))

    def at(self, indices: NDArray[np.int64]) -> Events:
        """As `OverTime` says."""
        spans = [slice(self.starts[index], self.starts[index + 1]) for index in indices]
        starts = np.cumsum([0, *(span.stop - span.start for span in spans)], dtype=np.int64)
        step, place = (
            np.concatenate([values[:0], *(values[span] for span in spans)]) for values in (self.step, self.place)
        )
        return Events(self.steps, self.sample, starts, step, place)

    def followed_by(self, others: Sequence[Any]) -> Events:
        """As `OverTime` says."""
        parts: list[Events] = [self, *others]
        sizes = np.concatenate([np.diff(part.starts) for part in parts])
        step, place = (np.concatenate([getattr(part, name) for part in parts]) for name in ("step", "place"))
        return Events(self.steps, self.sample, np.cumsum([0, *sizes], dtype=np.int64), step, place)
