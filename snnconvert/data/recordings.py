"""Recordings of event cameras: sets of them in files and in memory, and how they become a network's input.

An event has a place (x from the left, y from the top), a time in whole microseconds and a polarity (0 or 1). In
recordings times do not go backwards. A polarity is a channel; a network with one channel sees both in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from snnconvert.data.moving import Events, Moving
from snnconvert.data.preprocessing import Preprocessing
from snnconvert.data.slicing import Slicing
from snnconvert.data.sources import Source
from snnconvert.errors import DataError, OptionError

# one recording, times ascending
EVENT = np.dtype([("t", np.int64), ("x", np.int32), ("y", np.int32), ("p", np.int8)])
Recording = NDArray[Any]
# recordings that are kept once they were read: they are asked for more than once
KEPT_BYTES = 2 * 2**30
_NAMES = {
    "t": ("t", "ts", "time", "timestamp", "timestamps"),
    "x": ("x",),
    "y": ("y",),
    "p": ("p", "polarity", "pol", "on"),
}


class RecordingSource(Source):
    """Recordings, read when they are asked for; `shape` is (height, width), where that is known.

    Args:
        size: (height, width) of the camera; None where nobody says.
    """

    dtype = np.dtype(object)
    at_hand = False

    def __init__(self, count: int, size: tuple[int, int] | None) -> None:
        super().__init__()
        self.count, self.size, self.shape = count, size, (2, *(size or (0, 0)))
        self._kept: dict[int, Recording] = {}
        self._room = KEPT_BYTES

    def __len__(self) -> int:
        return self.count

    def _read(self, index: int) -> Recording:
        """A recording as `recording_of` makes it."""
        raise NotImplementedError

    def called(self, index: int) -> str:
        """What messages call a recording."""
        return f"recording {index}"

    def recording(self, index: int) -> Recording:
        """One recording, (events,) of EVENT."""
        if index not in self._kept:
            found = self._read(index)
            if found.nbytes > self._room:
                return found
            self._kept[index], self._room = found, self._room - found.nbytes
        return self._kept[index]

    def read(self, indices: Sequence[int]) -> NDArray[Any]:
        """Recordings, (n,) of objects."""
        found = np.empty(len(indices), object)
        for position, index in enumerate(indices):
            found[position] = self.recording(index)
        return found

    def stored(self, index: int) -> bytes:
        return self.recording(index).tobytes()


class RecordingsInMemory(RecordingSource):
    """Recordings of a sequence: structured arrays, or what `item` makes of its items."""

    def __init__(self, items: Any, called: str, size: tuple[int, int] | None) -> None:
        super().__init__(len(items), size)
        self.items, self.name = items, called

    def called(self, index: int) -> str:
        return f"recording {index} of {self.name}"

    def _read(self, index: int) -> Recording:
        item = self.items[index]
        return recording_of(item[0] if isinstance(item, tuple) else item, self.called(index))


def is_recording(value: Any) -> bool:
    """Whether `value` is an array of events with the fields x, y, t and p (a structured array)."""
    names = getattr(getattr(value, "dtype", None), "names", None)
    return names is not None and all(any(one in names for one in spellings) for spellings in _NAMES.values())


def are_whole(numbers: NDArray[Any]) -> bool:
    """Whether all are whole numbers, however they are stored."""
    return numbers.dtype.kind in "biu" or (numbers.dtype.kind == "f" and bool((numbers == np.floor(numbers)).all()))


def recording_of(value: Any, where: str) -> Recording:
    """Events of another form as a checked recording.

    Args:
        value: a structured array, or a mapping of arrays, with t, x, y and p in one of their spellings.
        where: for messages.

    Raises:
        DataError: a field is missing, is no whole number, or cannot be what it says.
    """
    names = value.dtype.names or () if isinstance(value, np.ndarray) else tuple(value)
    lower = {name.lower(): name for name in names}
    found: dict[str, NDArray[Any]] = {}
    for field, spellings in _NAMES.items():
        name = next((lower[one] for one in spellings if one in lower), None)
        if name is None:
            raise DataError(
                f"{where} has no {field}; it has {', '.join(map(str, names)) or 'no fields'}",
                hint="store the arrays x, y, t (microseconds) and p (polarity) of all events",
            )
        array = np.asarray(value[name])
        if array.ndim != 1 or not are_whole(array):
            raise DataError(
                f"{field} in {where} is {array.dtype} of shape {array.shape}",
                hint="store one whole number for each event; times in microseconds",
            )
        found[field] = array
    if len({len(array) for array in found.values()}) > 1:
        sizes = ", ".join(f"{len(array)} {field}" for field, array in found.items())
        raise DataError(f"{where} has {sizes}", hint="store as many of each as there are events")
    return _checked(found, where)


def _checked(found: dict[str, NDArray[Any]], where: str) -> Recording:
    times, count = found["t"], len(found["t"])
    if not count:
        raise DataError(f"{where} holds no events", hint="leave it out of the set")
    if (times.astype(np.float64) > 2.0**62).any() or (times.astype(np.float64) < -(2.0**62)).any():
        raise DataError(f"{where} has times beyond any clock", hint="store microseconds")
    events = np.empty(count, EVENT)
    events["t"] = times
    backwards = np.flatnonzero(np.diff(events["t"]) < 0)
    if len(backwards):
        first = int(backwards[0])
        raise DataError(
            f"in {where} time goes backwards: event {first + 1} comes at {events['t'][first + 1]} us, the one before "
            f"at {events['t'][first]} us",
            hint="sort the events by their time, or repair the file",
        )
    for field in ("x", "y"):
        values = found[field]
        if values.min() < 0 or values.max() >= 2**15:
            raise DataError(
                f"{where} has events at {field} = {values.min()} to {values.max()}", hint="places are from 0 up"
            )
        events[field] = values
    seen = set(np.unique(found["p"]).tolist())
    if not (seen <= {0, 1} or seen <= {-1, 1}):
        raise DataError(
            f"{where} has the polarities {', '.join(map(str, sorted(seen)[:5]))}",
            hint="polarities are 0 and 1, or -1 and 1",
        )
    events["p"] = found["p"] > 0
    return events


@dataclass(frozen=True)
class Replay:
    """A plan from recordings to a network's input over time; what `Arrangement` is for images.

    Attributes:
        preprocessing: with `scale` and `layout` filled in; only events, scale and std mean anything.
        sample_shape: (channels, height, width).
        steps: of the run.
        whole: steps of a whole recording, as the network was trained on.
        notes: what the report must say.
    """

    preprocessing: Preprocessing
    sample_shape: tuple[int, ...]
    steps: int
    whole: int
    notes: tuple[str, ...] = ()

    @property
    def slicing(self) -> Slicing:
        """How recordings are cut."""
        return Slicing.read(str(self.preprocessing.events))

    def run(self, recordings: NDArray[Any]) -> Moving:
        """Recordings (n,) as what the network sees of each as a whole, (n, *sample_shape), and in each step."""
        channels, height, width = self.sample_shape
        step, place, counts = list[NDArray[np.int32]](), list[NDArray[np.int32]](), [0]
        for index, events in enumerate(recordings):
            if int(events["x"].max()) >= width or int(events["y"].max()) >= height:
                raise DataError(
                    f"a recording (number {index} of those read together) has an event at x = {events['x'].max()}, "
                    f"y = {events['y'].max()}, outside the {width} x {height} places of the network's input",
                    hint="use a network for this camera, or cut the recordings to its size",
                )
            steps = self.slicing.steps(events["t"])
            kept = events[: int(np.searchsorted(steps, self.steps))]
            channel = kept["p"] if channels == 2 else np.zeros(len(kept), np.int8)
            step.append(steps[: len(kept)].astype(np.int32))
            place.append((channel.astype(np.int32) * height + kept["y"]) * width + kept["x"])
            counts.append(len(kept))
        arrays = (np.concatenate(parts or [np.zeros(0, np.int32)]) for parts in (step, place))
        events = Events(self.steps, self.sample_shape, np.cumsum(counts, dtype=np.int64), *arrays)
        share = torch.from_numpy(self.amplitude / self.steps)
        return Moving.of((torch.from_numpy(events.sums()).double() * share).float(), events)

    @property
    def amplitude(self) -> NDArray[np.float64]:
        """What an event in one step is worth to the network, (channels, 1, 1): the mean over the steps is the input."""
        return worth_of_events(self.preprocessing, self.whole, self.sample_shape[0])


def worth_of_events(plan: Preprocessing, whole: int, channels: int) -> NDArray[np.float64]:
    """What an event in one of `whole` steps is worth to a network, (channels, 1, 1)."""
    std = np.broadcast_to(np.array(plan.std, np.float64), (channels,)).reshape(-1, 1, 1)
    return whole / ((plan.scale or 1.0) * std)


def replay_of(
    name: str,
    source: RecordingSource,
    plan: Preprocessing,
    input_shape: tuple[int, ...] | None,
    *,
    steps: int | None,
    whole: int | None,
) -> Replay:
    """Plan how recordings become an input of shape `input_shape`.

    Args:
        steps: of the run; without it, those of the longest recording.
        whole: steps of a whole recording, as the network was trained on; without it, those of the run.

    Raises:
        DataError: they do not fit, with the option that would help.
        OptionError: preprocessing that events cannot have.
    """
    _check_plan(plan)
    shape = input_shape or (None if source.size is None else (2, *source.size))
    if shape is None:
        raise DataError(
            f"nothing says how large the camera of {name} is, nor what the model takes",
            hint="give the model's input, for instance --input-shape 2,34,34",
        )
    if len(shape) != 3 or shape[0] not in (1, 2):
        raise DataError(
            f"the model's input {'x'.join(map(str, shape))} has no channels for the polarities of events",
            hint="events are for models of 2 x height x width (a channel for each polarity), or 1 x height x width",
        )
    if source.size is not None and source.size != shape[1:]:
        raise DataError(
            f"{name} comes from a camera of {source.size[1]} x {source.size[0]} places, the network takes "
            f"{shape[2]} x {shape[1]}",
            hint="use a network for this camera, or cut the recordings to its size",
        )
    if len(plan.std) not in (1, shape[0]):
        raise OptionError(
            f"std has {len(plan.std)} values, the input {shape[0]} channels", hint="give one value, or one per channel"
        )
    slicing = Slicing.read(str(plan.events))
    steps = steps or longest(source, slicing, range(len(source)))
    notes = ("both polarities are counted in one channel",) if shape[0] == 1 else ()
    return Replay(plan.resolved(np.dtype(np.float32), "NCHW"), shape, steps, whole or steps, notes)


def longest(source: RecordingSource, slicing: Slicing, indices: Iterable[int]) -> int:
    """Steps of the longest of some recordings."""
    if slicing.kind == "frames":
        return int(slicing.value)
    return max(slicing.needed(source.recording(index)["t"]) for index in indices)


def step_length(source: RecordingSource, slicing: Slicing, indices: Iterable[int]) -> float:
    """Milliseconds of a step, mean over some recordings where it is not always the same."""
    if slicing.kind == "window":
        return slicing.value
    times = [source.recording(index)["t"] for index in indices]
    duration = float(np.mean([(int(one[-1]) - int(one[0])) / 1000 for one in times]))
    return slicing.milliseconds(duration, float(np.mean([slicing.needed(one) for one in times])))


def _check_plan(plan: Preprocessing) -> None:
    """Refuse what cannot be done to events one by one."""
    given = {"mean": any(plan.mean), "channels": plan.channels != "RGB", "layout": plan.layout == "NHWC"}
    given |= {"resize": plan.resize is not None, "crop": plan.crop is not None}
    for name in [name for name, asked in given.items() if asked]:
        why = "a place without events is worth 0" if name == "mean" else "events are counted where they come"
        raise OptionError(
            f"--{name} means nothing to events: {why}",
            hint=f"leave --{name} out; --scale and --std say what an event is worth",
            options=(name, "events"),
        )
