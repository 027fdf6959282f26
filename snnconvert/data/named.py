"""Arrays by name, of a file or in memory: which of them are a model's inputs, and which one the labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snnconvert.data.sources import ArraySource, Labels, RawData, check_finite, labelled, read_labels
from snnconvert.errors import DataError, listed
from snnconvert.graph.parts import MOST_WHOLE, Part, packed, places, shape_of_parts, special

IMAGE_KEYS = ("x", "images", "image", "data", "inputs")
LABEL_KEYS = ("y", "labels", "label", "targets", "target")
CLASS_KEYS = ("classes", "class_names", "label_names")
SPLITS = ("test", "val", "valid", "validation", "train")


Shaped = tuple[tuple[int, ...], np.dtype[Any]]


@dataclass(frozen=True)
class Wanted:
    """What is looked for in a file or a mapping.

    Attributes:
        inputs: of the model, as far as it is known.
        labels: name of the array or column of labels; None for the usual names.
        split: which of several sets, for instance "train" for x_train and y_train.
    """

    inputs: tuple[Part, ...] = ()
    labels: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class Arrays:
    """Arrays by name, read when they are asked for.

    Attributes:
        where: the file, or what messages call the argument.
        keys: their names.
        get: one of them.
        shape: shape and type of one of them, where these are known without reading it.
    """

    where: Path | str
    keys: tuple[str, ...]
    get: Callable[[str], NDArray[Any]]
    shape: Callable[[str], Shaped] | None = None

    def raw(self, wanted: Wanted) -> RawData:
        """Inputs and labels of a model.

        Raises:
            DataError: they are not there, or do not fit each other.
        """
        if special(wanted.inputs):
            return self._of_parts(wanted)
        images_key, labels_key = choose_keys(self.where, list(self.keys), wanted)
        notes: tuple[str, ...] = ()
        named = [part.name for part in wanted.inputs]
        if wanted.split is None and images_key.lower() not in IMAGE_KEYS and len(self.keys) > 2:
            others = [key for key in self.keys if key not in (images_key, labels_key)]
            own = "" if images_key not in named else ", the name of the model's input"
            file = self.where.name if isinstance(self.where, Path) else self.where
            notes = (f"read {images_key}{own} and {labels_key} from {file}, left out {', '.join(others)}",)
        names_key = next((key for key in self.keys if key.lower() in CLASS_KEYS and key != images_key), None)
        images, labels, names = (None if key is None else self.get(key) for key in (images_key, labels_key, names_key))
        assert images is not None
        return labelled(self.where, images, labels, _names(names), notes)

    def shapes(self) -> dict[str, Shaped]:
        """Shape of one sample and type of every array of numbers."""
        found = {}
        for key in self.keys:
            if key.lower() not in CLASS_KEYS:
                one = self.get(key) if self.shape is None else None
                shape, dtype = (one.shape, one.dtype) if one is not None else self.shape(key)  # type: ignore[misc]
                if shape and dtype.kind in "buif":
                    found[key] = (shape[1:], dtype)
        return found

    def _of_parts(self, wanted: Wanted) -> RawData:
        parts, names = wanted.inputs, [part.name for part in wanted.inputs]
        labels_key = self._labels_key(wanted, names)
        left = [key for key in self.keys if key != labels_key and key.lower() not in CLASS_KEYS]
        found = {name: name for name in names if name in self.keys}
        if len(parts) == 1 and not found:
            # a single input may bear one of the usual names
            usual = next((key for key in left if key.lower() in IMAGE_KEYS), left[0] if len(left) == 1 else None)
            found = {} if usual is None else {names[0]: usual}
        missing = [part.describe() for part in parts if part.name not in found]
        if missing:
            raise DataError(
                f"{self.where} has no array for the input {missing[0]} of the model; its keys are "
                f"{', '.join(self.keys) or 'none'}",
                hint=f"store one array for each input under its name ({', '.join(names)}), and the labels as "
                f"{wanted.labels or 'y'}",
            )
        arrays = {name: np.asarray(self.get(key)) for name, key in found.items()}
        count = len(arrays[names[0]]) if arrays[names[0]].ndim else 0
        fields = []
        for part in parts:
            array = arrays[part.name] = check_values(part, arrays[part.name], self.where)
            if len(array) != count:
                raise DataError(
                    f"{self.where} has {count} samples of {names[0]}, and {len(array)} of {part.name}",
                    hint="store as many of each input, in the same order",
                )
            fields.append((part.name, array.dtype, array.shape[1:]))
        samples: NDArray[Any] = arrays[names[0]]
        if len(parts) > 1:
            samples = np.empty(count, np.dtype(fields))
            for name, array in arrays.items():
                samples[name] = array
        labels, notes = self._labels(labels_key, count)
        names_key = next((key for key in self.keys if key.lower() in CLASS_KEYS and key not in found.values()), None)
        others = [key for key in left if key not in found.values()]
        if others:
            notes += (f"read {listed(list(found.values()), 6)} from {self.where}, left out {listed(others, 6)}",)
        return RawData(ArraySource(samples), labels, _names(None if names_key is None else self.get(names_key)), notes)

    def _labels(self, key: str | None, count: int) -> tuple[Labels | None, tuple[str, ...]]:
        return (None, ()) if key is None else read_labels(self.where, self.get(key), count)

    def _labels_key(self, wanted: Wanted, names: Sequence[str]) -> str | None:
        if wanted.labels is not None:
            return _asked(self.where, list(self.keys), wanted.labels)
        free = {key.lower(): key for key in self.keys if key not in names}
        return next((free[name] for name in LABEL_KEYS if name in free), None)


def raw_of(given: RawData | Arrays, wanted: Wanted) -> RawData:
    """What a model reads of data in memory.

    Raises:
        DataError: as of `Arrays.raw`.
    """
    return given.raw(wanted) if isinstance(given, Arrays) else given


def check_values(part: Part, values: NDArray[Any], where: Path | str) -> NDArray[Any]:
    """Values (n, ...) of one input, whole where they have to be.

    Raises:
        DataError: no numbers, not finite, not whole, or not among the rows of a table.
    """
    if values.ndim < 1 or values.dtype.kind not in "buif":
        raise DataError(
            f"{part.name} in {where} has the shape {values.shape} and type {values.dtype}",
            hint=f"store numbers of shape (n, {', '.join(map(str, part.shape))})".replace(", )", ",)"),
        )
    check_finite(where, values, part.name)
    if not part.whole:
        return values
    numbers = values.astype(np.float64)
    highest = part.rows - 1 if part.rows else MOST_WHOLE
    wrong = (numbers != np.rint(numbers)) | (numbers > highest) | (numbers < (0 if part.rows else -MOST_WHOLE))
    if wrong.any():
        place = tuple(int(axis) for axis in np.argwhere(wrong)[0])
        allowed = f"0 to {highest}, the rows of its table" if part.rows else f"below {MOST_WHOLE:,} in size"
        raise DataError(
            f"{part.name} of sample {place[0]} in {where} holds {values[place]}; allowed are whole numbers {allowed}",
            hint="check that the data belong to this model, and are encoded as for its training",
        )
    return values.astype(np.int64)


def by_name(parts: Sequence[Part], given: Any) -> dict[str, NDArray[Any]]:
    """An array for each input of a network, of a mapping; or of an array of the only one, or of all, packed.

    Raises:
        DataError: one is missing.
    """
    if not isinstance(given, Mapping) and len(parts) == 1:
        return {parts[0].name: as_array(given, parts[0].name)}
    names = [part.name for part in parts]
    if isinstance(given, (np.ndarray, Tensor)) and tuple(given.shape[1:]) == shape_of_parts(parts):
        whole = as_array(given, "the inputs")
        return {part.name: whole[:, start:stop].reshape(-1, *part.shape) for part, start, stop in places(parts)}
    if not isinstance(given, Mapping) or not set(names) <= set(map(str, given)):
        held = f"has {', '.join(map(str, given))}" if isinstance(given, Mapping) else f"is {type(given).__name__}"
        raise DataError(
            f"the network takes {', '.join(part.describe() for part in parts)}, and what is given {held}",
            hint=f"give a mapping with the keys {', '.join(names)}",
        )
    return {name: as_array(given[name], name) for name in names}


def packed_inputs(parts: Sequence[Part], given: Any) -> Tensor:
    """Prepared inputs by name as a network reads them, (n, *sample).

    Raises:
        DataError: one is missing, or has another shape or other values than it may.
    """
    found = {}
    for part, values in zip(parts, by_name(parts, given).values(), strict=True):
        checked = check_values(part, values, "the inputs")
        if checked.shape[1:] != part.shape:
            raise DataError(
                f"{part.name} has the shape {checked.shape}; the network takes "
                f"({', '.join(map(str, ('n', *part.shape)))})",
                hint="give prepared inputs, batch first; raw images are prepared by snn.prepare(x)",
            )
        found[part.name] = torch.from_numpy(np.ascontiguousarray(checked, np.float32))
    if len({len(values) for values in found.values()}) > 1:
        raise DataError("the inputs are of different numbers of samples", hint="give as many of each")
    return packed(parts, found)


def as_array(value: Any, called: str) -> NDArray[Any]:
    """An array, tensor, or nested list as an array in memory.

    Raises:
        DataError: its parts do not make one array.
    """
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = value.float() if value.dtype in (torch.float16, torch.bfloat16) else value.resolve_neg()
        return np.asarray(value.numpy())
    try:
        return np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        raise DataError(
            f"the samples of {called} do not make one array: {error}", hint="give all samples the same shape"
        ) from error


def choose_keys(where: Path | str, keys: list[str], wanted: Wanted) -> tuple[str, str | None]:
    """The keys of images and labels.

    Raises:
        DataError: there are none that are known.
    """
    split = wanted.split
    lower = {key.lower(): key for key in keys}
    asked = None if wanted.labels is None else _asked(where, keys, wanted.labels)
    lower = {name: key for name, key in lower.items() if key != asked}
    own = next((part.name for part in wanted.inputs if part.name in keys and part.name != asked), None)
    for part in (split,) if split is not None else ("", *SPLITS):
        found = _first(lower, IMAGE_KEYS, part)
        if found is None and own is not None and not part:
            found = own
        if found is None:
            continue
        labels = asked or _first({name: key for name, key in lower.items() if key != found}, LABEL_KEYS, part)
        if labels is None and len(keys) > 1:
            raise DataError(
                f"{where} has images ({found}) but no labels; its keys are {', '.join(keys)}",
                hint="name the labels y, add --label-key, or store the images alone if there are none",
            )
        return found, labels
    if split is None and len(lower) == 1:
        return next(iter(lower.values())), asked
    named = f"x_{split} and y_{split}" if split is not None else "x and y"
    raise DataError(
        f"{where} has no images under a known key; its keys are {', '.join(keys) or 'none'}",
        hint=f"write it with numpy.savez_compressed and the keys {named}, or name the labels with --label-key",
    )


def _asked(where: Path | str, keys: list[str], name: str) -> str:
    if name not in keys:
        raise DataError(
            f"{where} has no array {name!r} of labels; its keys are {', '.join(keys) or 'none'}",
            hint="correct --label-key",
        )
    return name


def _first(lower: dict[str, str], names: Iterable[str], part: str) -> str | None:
    for name in names:
        for spelling in (f"{name}_{part}", f"{part}_{name}") if part else (name,):
            if spelling in lower:
                return lower[spelling]
    return None


def _names(names: NDArray[Any] | None) -> tuple[str, ...] | None:
    return None if names is None or names.ndim != 1 else tuple(str(name) for name in names)
