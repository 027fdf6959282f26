"""Data in memory: arrays, tensors, torch data sets and loaders, as the raw data that files are read into."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import (
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    TensorDataset,
    default_collate,
)

from snnconvert.data.arrays import raw_data
from snnconvert.data.named import IMAGE_KEYS, LABEL_KEYS, Arrays, as_array
from snnconvert.data.recordings import RecordingsInMemory, is_recording
from snnconvert.data.sources import RawData, Source
from snnconvert.errors import DataError, SnnConvertError, listed

# what is read of a data set is kept up to here: an item is asked for more than once, and augmentation would change it
KEPT_BYTES = 2 * 2**30
# a loader whose items cannot be asked for one by one is read once, up to here
MOST_BYTES = 8 * 2**30
_FORMS = "a path, an array or tensor x, a pair (x, y), a torch Dataset, or a DataLoader"


@dataclass(frozen=True)
class Memory:
    """What a request names that is in memory; None where it names a file.

    Attributes:
        module: the model.
        data, calibration_data: as in `Request`.
    """

    module: nn.Module | None = None
    data: RawData | Arrays | None = None
    calibration_data: RawData | Arrays | None = None


def raw_in_memory(given: Any, called: str) -> tuple[RawData | Arrays, str]:
    """What users hand over as data, and what a report calls it.

    Args:
        given: an array or tensor (N, *sample); recordings of events, each a structured array with t, x, y and p; a pair
            (x, y) of these with labels; a mapping of arrays, with keys such as x and y or with one for each input of
            the model; a torch `Dataset`, or anything else with a length and items (sample or (sample, label)); a
            `DataLoader`, or anything else that yields batches.
        called: the argument, for messages.

    Raises:
        DataError: none of these, or samples and labels that do not fit each other.
    """
    name = f"{type(given).__name__} in memory"
    if isinstance(given, (str, bytes, type)) or given is None:
        raise _refused(given, called)
    if isinstance(given, Mapping):
        keys = {str(key): key for key in given}
        return Arrays(called, tuple(keys), lambda key: as_array(given[keys[key]], key)), name
    if isinstance(given, DataLoader) and _is_plain(given):
        return _items(given.dataset, called), f"{type(given.dataset).__name__} of a DataLoader"
    if isinstance(given, tuple) and len(given) == 2 and isinstance(given[0], (list, tuple)) and given[0]:
        recordings, labels = given
        if is_recording(recordings[0]):
            return _recorded(recordings, labels, called), name
    if (pair := _arrays(given)) is not None:
        samples, labels = pair
        found = raw_data(called, as_array(samples, called), None if labels is None else as_array(labels, "the labels"))
        return found, f"{type(samples).__name__} in memory"
    if hasattr(given, "__getitem__") and hasattr(given, "__len__") and not isinstance(given, DataLoader):
        return _items(given, called), name
    if isinstance(given, Iterable):
        return _batches(given, called, single=isinstance(given, IterableDataset)), name
    raise _refused(given, called)


def _arrays(given: Any) -> tuple[Any, Any] | None:
    """Samples and labels (None without) that are arrays as a whole; None for what has to be read one by one."""
    if isinstance(given, TensorDataset) and len(given.tensors) <= 2:
        return given.tensors[0], given.tensors[1] if len(given.tensors) == 2 else None
    if _is_array(given):
        return given, None
    return (given[0], given[1]) if _is_pair(given) else None


def _recorded(items: Any, labels: Any, called: str) -> RawData:
    """Recordings of events with labels (None without): a list, or a data set of them (of tonic, for instance)."""
    sensor = getattr(items, "sensor_size", None)  # of tonic: width, height, polarities
    size = (int(sensor[1]), int(sensor[0])) if isinstance(sensor, (tuple, list)) and len(sensor) == 3 else None
    source = RecordingsInMemory(items, called, size)
    return raw_data(called, source, None if labels is None else as_array(labels, "the labels"))


class _RecordingsError(Exception):
    """The items of a data set are recordings of events."""


def _refused(given: Any, called: str) -> DataError:
    return DataError(f"{called} is {type(given).__name__}, which holds no samples", hint=f"give {_FORMS}")


def _is_array(value: Any) -> bool:
    return isinstance(value, (np.ndarray, Tensor)) or hasattr(value, "__array__")


def _is_pair(given: Any) -> bool:
    """Whether it is x and y, and not two samples."""
    if not isinstance(given, (tuple, list)) or len(given) != 2 or not _is_array(given[0]) or np.ndim(given[0]) < 2:
        return False
    labels = given[1]
    listed_labels = isinstance(labels, (list, tuple, range)) and not _is_array(next(iter(labels), None))
    return listed_labels or (_is_array(labels) and (isinstance(given, tuple) or np.ndim(labels) < np.ndim(given[0])))


# --- data sets with items ---


class Items(Source):
    """The samples of a data set, read when they are asked for."""

    at_hand = False

    def __init__(self, items: Any, called: str) -> None:
        super().__init__()
        self.items, self.called = items, called
        self.kept: dict[int, NDArray[Any]] = {}
        self.room = KEPT_BYTES
        sample, self.first_label = self.split(self.item(0), 0)
        self.shape, self.dtype = sample.shape, sample.dtype
        self.labelled = self.first_label is not None

    def __len__(self) -> int:
        return len(self.items)

    def item(self, index: int) -> Any:
        """What the data set holds at `index`; what goes wrong there is told with the index."""
        try:
            return self.items[index]
        except SnnConvertError:
            raise
        except Exception as error:
            raise DataError(
                f"sample {index} of {self.called} cannot be read: {type(error).__name__}: {error}",
                hint="mend the data set, or leave the sample out (torch.utils.data.Subset)",
            ) from error

    def split(self, item: Any, index: int) -> tuple[NDArray[Any], Any]:
        """Sample and label (None without one) of an item."""
        sample, label = _parts(item, f"sample {index} of {self.called}")
        if is_recording(sample):
            raise _RecordingsError(label)
        array = as_array(sample, self.called)
        if array.dtype.kind not in "buif":
            raise DataError(
                f"sample {index} of {self.called} is {type(sample).__name__}, which is no array of numbers",
                hint="let the data set return tensors or arrays, for instance with transform=ToTensor()",
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise DataError(
                f"sample {index} of {self.called} holds NaN or infinite values", hint="repair or leave out the sample"
            )
        return array, label

    def sample(self, index: int) -> NDArray[Any]:
        """One sample; remembered as long as there is room."""
        return self.kept[index] if index in self.kept else self.keep(index, self.item(index))[0]

    def keep(self, index: int, item: Any) -> tuple[NDArray[Any], Any]:
        """Sample and label of an item that was just read, which is remembered as long as there is room."""
        array, label = self.split(item, index)
        if array.shape != self.shape:
            raise DataError(
                f"sample {index} of {self.called} has the shape {array.shape}, the first {self.shape}",
                hint="give all samples the same shape, for instance with a transform that resizes and crops",
            )
        if self.room >= array.nbytes:
            self.kept[index], self.room = array, self.room - array.nbytes
        return array, label

    def read(self, indices: Sequence[int]) -> NDArray[Any]:
        return np.stack([self.sample(index) for index in indices]).astype(self.dtype, copy=False)

    def stored(self, index: int) -> bytes:
        return np.ascontiguousarray(self.sample(index)).tobytes()

    def labels(self) -> NDArray[Any] | None:
        """Of all samples: those that the data set keeps apart, where they are those of its items, else read one by one.

        Raises:
            DataError: a sample without a label where others have one.
        """
        if not self.labelled:
            return None
        known, last = labels_of(self.items), len(self) - 1
        ends = ((0, self.first_label), (last, self.split(self.item(last), last)[1])) if known is not None else ()
        if known is not None and all(np.array_equal(known[index], as_array(label, "")) for index, label in ends):
            return known
        found = [self.keep(index, self.item(index))[1] for index in range(len(self))]
        if missing := [str(index) for index, label in enumerate(found) if label is None]:
            raise DataError(
                f"samples of {self.called} have no label: {listed(missing, 5)}", hint="label all samples or none"
            )
        return np.stack([as_array(label, "the labels") for label in found])


def labels_of(items: Any) -> NDArray[Any] | None:
    """The labels that a data set of torchvision's kind keeps beside its samples; None where there are none."""
    if isinstance(items, Subset):
        inner = labels_of(items.dataset)
        return None if inner is None else inner[np.asarray(items.indices, np.int64)]
    found = next((value for name in ("targets", "labels") if (value := getattr(items, name, None)) is not None), None)
    if found is None or not (_is_array(found) or isinstance(found, (list, tuple))) or len(found) != len(items):
        return None
    array = as_array(found, "the labels")
    return array if array.ndim == 1 and array.dtype.kind in "iu" else None


def _items(items: Any, called: str) -> RawData:
    if len(items) == 0:
        raise DataError(f"{called} holds no samples", hint="give at least one")
    try:
        source = Items(items, called)
    except _RecordingsError as found:
        known = None if found.args[0] is None else labels_of(items)
        read = known is None and found.args[0] is not None
        return _recorded(items, [items[index][1] for index in range(len(items))] if read else known, called)
    return raw_data(called, source, source.labels())


def _parts(item: Any, called: str) -> tuple[Any, Any]:
    """Samples and labels (None without) of what a data set or loader yields."""
    if isinstance(item, Mapping):
        sample, label = ([item[key] for key in keys if key in item] for keys in (IMAGE_KEYS, LABEL_KEYS))
        if sample:
            return sample[0], label[0] if label else None
    elif isinstance(item, (tuple, list)):
        if len(item) in (1, 2):
            return item[0], item[1] if len(item) == 2 else None
    elif not isinstance(item, str):
        return item, None
    what = f"has the keys {', '.join(map(str, item))}" if isinstance(item, Mapping) else "is no pair (sample, label)"
    raise DataError(f"{called} {what}", hint="let the data set return a tensor, or a pair (sample, label)")


# --- loaders ---


def _is_plain(loader: DataLoader[Any]) -> bool:
    """Whether the loader's data are those of its data set: nothing left out, repeated, or changed batch by batch."""
    whole = isinstance(loader.sampler, SequentialSampler) or (
        isinstance(loader.sampler, RandomSampler)
        and not loader.sampler.replacement
        and loader.sampler.num_samples == len(loader.sampler)
    )
    known = hasattr(loader.dataset, "__getitem__") and hasattr(loader.dataset, "__len__")
    return known and whole and loader.collate_fn is default_collate


def _batches(loader: Iterable[Any], called: str, *, single: bool) -> RawData:
    """What a loader yields, read once; `single` if these are samples instead of batches."""
    samples, labels, size = list[NDArray[Any]](), list[NDArray[Any]](), 0
    for number, (sample, label) in enumerate(_parted(loader, called)):
        array = as_array(sample, called)
        samples.append(array[None] if single else array)
        size += array.nbytes
        if label is not None:
            found = as_array(label, "the labels")
            labels.append(found[None] if single else found)
        if samples[-1].shape[1:] != samples[0].shape[1:]:
            raise DataError(
                f"samples of {called} differ in shape: {samples[0].shape[1:]} and {samples[-1].shape[1:]} (batch "
                f"{number})",
                hint="give all samples the same shape",
            )
        if size > MOST_BYTES:
            raise DataError(
                f"{called} yields more than {MOST_BYTES / 2**30:.0f} GiB, and its samples cannot be asked for singly",
                hint="give the Dataset itself, or a loader of a part of it (torch.utils.data.Subset)",
            )
    if not samples:
        raise DataError(f"{called} holds no samples", hint="give at least one")
    if labels and len(labels) != len(samples):
        raise DataError(f"some samples of {called} have labels and some have none", hint="label all samples or none")
    return raw_data(called, np.concatenate(samples), np.concatenate(labels) if labels else None)


def _parted(loader: Iterable[Any], called: str) -> Iterator[tuple[Any, Any]]:
    try:
        for number, item in enumerate(loader):
            yield _parts(item, f"batch {number} of {called}")
    except (SnnConvertError, GeneratorExit):
        raise
    except Exception as error:
        raise DataError(
            f"{called} cannot be read: {type(error).__name__}: {error}", hint="mend the loader or its data set"
        ) from error
