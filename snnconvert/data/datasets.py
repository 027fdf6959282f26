"""Labelled images from files and folders, prepared for a model batch by batch."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snnconvert.data.arrange import Arrangement, arrange
from snnconvert.data.arrays import read_arrays, refuse_labels
from snnconvert.data.event_files import read_recordings
from snnconvert.data.folders import read_folder
from snnconvert.data.moving import joined
from snnconvert.data.named import Wanted, check_values
from snnconvert.data.parts import Together, arrange_parts, stays_analog
from snnconvert.data.preprocessing import Preprocessing
from snnconvert.data.recordings import RecordingSource, Replay, replay_of, step_length
from snnconvert.data.sources import Labels, RawData, Source
from snnconvert.errors import DataError, OptionError, listed
from snnconvert.graph.parts import Part, special
from snnconvert.tasks import TaskChoice, inputs_called
from snnconvert.tasks.scores import VOID

_CHECKED = 4096


@dataclass(frozen=True)
class Dataset:
    """Images, read when asked for, and their labels.

    Attributes:
        name: the path it was read from.
        labels: class numbers (N,) int64 with the label offset added; real numbers (N,) float64; an array for each image
            (N, *shape): masks, or numbers for each output; or None.
        classes: names by label, or None where unknown.
        sample_shape: of one prepared image, batch excluded.
        arrangement: the plan from raw to prepared images, or from recordings to what comes in over time.
        preprocessing: all that was done, with scale, layout, resize and crop filled in.
        notes: what the report must say about how the data were read.

    Examples:
        >>> import numpy as np, snnconvert
        >>> np.savez("set.npz", x=np.zeros((6, 8, 8), np.uint8), y=np.arange(6))
        >>> data = snnconvert.load_dataset("set.npz", preprocessing=snnconvert.Preprocessing(), input_shape=None)
        >>> len(data), data.sample_shape, data.labels.tolist()
        (6, (1, 8, 8), [0, 1, 2, 3, 4, 5])
        >>> [images.shape for images, labels in data.subset([0, 2, 4]).batches(2)]
        [torch.Size([2, 1, 8, 8]), torch.Size([1, 1, 8, 8])]
    """

    name: str
    source: Source
    positions: NDArray[np.int64]
    labels: Labels | None
    classes: tuple[str, ...] | None
    arrangement: Arrangement | Together | Replay
    preprocessing: Preprocessing
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def classes_of_images(self) -> Labels | None:
        """One whole number for each image, where there are such labels: what samples are balanced by."""
        return (
            self.labels if self.labels is not None and self.labels.dtype == np.int64 and self.labels.ndim == 1 else None
        )

    @property
    def noun(self) -> str:
        """What one of them is called: image, recording, or input."""
        return "recording" if isinstance(self.arrangement, Replay) else inputs_called(self.source.shape)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return self.arrangement.sample_shape

    def batches(
        self, batch_size: int, indices: Sequence[int] | NDArray[np.int64] | None = None
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Prepared images (B, *sample_shape) float32 with their labels (B, ...), in the order of `indices`.

        Raises:
            DataError: an image cannot be read, or has another size than the others; the file is named.
        """
        chosen = np.arange(len(self)) if indices is None else np.asarray(indices, np.int64)
        for start in range(0, len(chosen), batch_size):
            part = chosen[start : start + batch_size]
            images = self.arrangement.run(self.source.read(self.positions[part].tolist()))
            yield images, None if self.labels is None else torch.from_numpy(self.labels[part])

    def images(self, indices: Sequence[int] | NDArray[np.int64] | None = None) -> Tensor:
        """All chosen images at once; for calibration sets and tests."""
        parts = [images for images, _ in self.batches(256, indices)]
        return joined(parts) if parts else torch.zeros(0, *self.sample_shape)

    @property
    def replay(self) -> dict[str, Any] | None:
        """Of recordings `events` (how they are cut), `steps` and `milliseconds` (of a step); None for all others."""
        plan = self.arrangement
        if not isinstance(plan, Replay) or not isinstance(self.source, RecordingSource):
            return None
        each = step_length(self.source, plan.slicing, self.positions.tolist())
        return {"events": str(plan.slicing), "steps": plan.steps, "milliseconds": each}

    def in_steps(self, steps: int) -> Dataset:
        """Recordings replayed in so many steps, which then make a whole one."""
        assert isinstance(self.arrangement, Replay)
        return replace(self, arrangement=replace(self.arrangement, steps=steps, whole=steps))

    def subset(self, indices: Sequence[int] | NDArray[np.int64]) -> Dataset:
        """The images at `indices`, in that order."""
        chosen = np.asarray(indices, np.int64)
        labels = None if self.labels is None else self.labels[chosen]
        return replace(self, positions=self.positions[chosen], labels=labels)

    def digests(self, indices: Sequence[int] | NDArray[np.int64] | None = None) -> list[bytes]:
        """sha256 of each raw image, for finding images that two sets share."""
        chosen = np.arange(len(self)) if indices is None else np.asarray(indices, np.int64)
        return [self.source.digest(int(position)) for position in self.positions[chosen]]

    def fingerprint(self, indices: Sequence[int] | NDArray[np.int64] | None = None) -> str:
        """sha256 over the raw images (of files: their bytes), the same for every order of the same images."""
        return hashlib.sha256(b"".join(sorted(self.digests(indices)))).hexdigest()


def load_dataset(
    path: str | Path,
    *,
    preprocessing: Preprocessing,
    input_shape: tuple[int, ...] | None,
    label_offset: int = 0,
    split: str | None = None,
    inputs: tuple[Part, ...] = (),
    labels: str | None = None,
    steps: int | None = None,
    whole: int | None = None,
) -> Dataset:
    """Open images and labels from a file or a folder.

    Files: .npz with x and y (or images and labels, x_test and y_test, or one unlabelled array), .npy, .csv and .tsv
    tables (also .parquet, with pyarrow), idx (train-images-idx3-ubyte, also .gz), CIFAR-10/100 binary (.bin). Folders:
    class folders, images with a labels.csv inside or FOLDER_labels.csv beside, or plain images. With
    `preprocessing.events` these are recordings of an event camera: see `data.event_files`.

    Args:
        input_shape: shape of one sample of the model's input; None keeps the images' own.
        label_offset: added to every label, for instance 1 for a model whose class 0 is "background".
        steps, whole: of recordings, see `data.recordings.replay_of`.
        split: which arrays of an .npz that holds several sets, for instance "train" for x_train and y_train.
        inputs: of the model, where it has several, or one of whole numbers: an .npz holds an array for each.
        labels: the array of labels (.npz), or their column (tables: a name, or a number from 0).

    Raises:
        DataError: nothing readable there, or it does not fit the model's input; with a hint.
        OptionError: mean, std or channels do not fit the images.

    Examples:
        >>> import numpy as np, snnconvert
        >>> np.savez("set.npz", x=np.full((6, 8, 8), 255, np.uint8), y=np.arange(6))
        >>> plan = snnconvert.Preprocessing(mean=(0.5,), std=(0.5,))
        >>> images = snnconvert.load_dataset("set.npz", preprocessing=plan, input_shape=(1, 8, 8)).images()
        >>> images.shape, float(images.max())  # 255 / 255, less 0.5, over 0.5
        (torch.Size([6, 1, 8, 8]), 1.0)
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"the data set {path} does not exist", hint="check the path; it may be a file or a folder")
    if preprocessing.events is not None:
        data, geometry, values = read_recordings(path), preprocessing, preprocessing
    elif path.is_dir():
        refuse_labels(path, labels)
        if special(inputs):
            raise DataError(
                f"{path} is a folder, and the model takes {listed([part.describe() for part in inputs], 6)}",
                hint="store one array for each input under its name, and the labels as y, in an .npz file",
            )
        data, geometry = read_folder(path, preprocessing, input_shape)
        # The source resizes and crops while it decodes.
        values = replace(preprocessing, resize=None, crop=None)
    else:
        data, geometry, values = read_arrays(path, Wanted(inputs, labels, split)), preprocessing, preprocessing
    fitted: dict[str, Any] = {"input_shape": input_shape, "label_offset": label_offset, "inputs": inputs}
    found = dataset_of(data, str(path), preprocessing=values, steps=steps, whole=whole, **fitted)
    return replace(found, preprocessing=replace(found.preprocessing, resize=geometry.resize, crop=geometry.crop))


def dataset_of(
    data: RawData,
    name: str,
    *,
    preprocessing: Preprocessing,
    input_shape: tuple[int, ...] | None,
    label_offset: int = 0,
    inputs: tuple[Part, ...] = (),
    steps: int | None = None,
    whole: int | None = None,
) -> Dataset:
    """Raw data as a data set that is called `name`; the other arguments, and what is raised, as of `load_dataset`."""
    if len(data.source) == 0:
        raise DataError(f"{name} holds no images", hint="give a data set with at least one image")
    recorded = isinstance(data.source, RecordingSource)
    if recorded != (preprocessing.events is not None):
        raise DataError(
            f"{name} holds {'recordings of events' if recorded else 'no recordings of events'}",
            hint="say how they are cut into steps, for instance --events window:1"
            if recorded
            else "leave --events out",
        )
    arrangement: Arrangement | Together | Replay
    if isinstance(data.source, RecordingSource):
        arrangement = replay_of(name, data.source, preprocessing, input_shape, steps=steps, whole=whole)
    else:
        arrangement = _arranged(name, data.source, preprocessing, input_shape, special(inputs))
    notes = data.notes + arrangement.notes
    labels = data.labels
    if labels is not None and label_offset:
        if labels.dtype != np.int64 or labels.ndim != 1:
            raise OptionError(
                f"--label-offset {label_offset} does not fit the labels in {name}, which are no class numbers",
                hint="leave --label-offset out",
                options=("label_offset",),
            )
        labels = labels + label_offset
        notes += (f"{label_offset} was added to every label",)
    return Dataset(
        name=name,
        source=data.source,
        positions=np.arange(len(data.source), dtype=np.int64),
        labels=labels,
        classes=data.classes if not label_offset else None,
        arrangement=arrangement,
        preprocessing=arrangement.preprocessing,
        notes=notes,
    )


def check_labels(dataset: Dataset, classes: int) -> tuple[str, ...]:
    """Make sure that every label is an output of a model with `classes` outputs.

    Returns:
        notes for the report, where the labels are possible but may not be the model's.

    Raises:
        DataError: naming the first label outside 0 .. classes - 1 and its image.
    """
    if dataset.labels is None:
        return ()
    if dataset.classes_of_images is None:
        raise DataError(
            f"the labels in {dataset.name} are no class numbers ({_described(dataset.labels)})",
            hint="store one class number per image, or add --task regression or --task segmentation",
        )
    outside = np.flatnonzero((dataset.labels < 0) | (dataset.labels >= classes))
    if len(outside) == 0:
        known = len(dataset.classes or ())
        if 0 < known < classes:
            assert dataset.classes is not None
            return (
                f"{dataset.name} names {known} classes, the model has {classes} outputs; class {dataset.classes[0]!r} "
                "is taken for output 0, and so on",
            )
        return ()
    first, lowest, highest = int(outside[0]), int(dataset.labels.min()), int(dataset.labels.max())
    hint = "check that data and model belong together"
    if highest - lowest < classes:
        hint = f"shift the labels, for instance with --label-offset {-lowest}, or check that data and model fit"
    raise DataError(
        f"label {int(dataset.labels[first])} of image {first} in {dataset.name} is outside 0..{classes - 1}, the "
        f"outputs of the model (labels run from {lowest} to {highest})",
        hint=hint,
    )


def check_truth(dataset: Dataset, task: TaskChoice, output: tuple[int, ...]) -> tuple[str, ...]:
    """Make sure that labels are what the task needs of a network with this output.

    Returns:
        notes for the report.

    Raises:
        DataError: the labels do not fit, with the option that may help.
    """
    labels = dataset.labels
    if labels is None:
        return ()
    if task.kind == "classification":
        return check_labels(dataset, max(2, math.prod(output)))
    if task.kind == "raw":
        return (f"the labels in {dataset.name} are not used: the task raw compares outputs with the original's alone",)
    shown, shape = _described(labels), "x".join(map(str, output)) or "one number"
    if task.kind == "regression" and math.prod(labels.shape[1:]) != math.prod(output):
        raise DataError(
            f"the labels in {dataset.name} ({shown}) are not the numbers of an output of {shape}",
            hint="store as many numbers for each input as the network has outputs; --task raw compares with the "
            "original's outputs alone and leaves labels out, as fits an auto-encoder beside class numbers",
        )
    if task.kind == "segmentation":
        pixels = output[: task.axis] + output[task.axis + 1 :]
        if math.prod(labels.shape[1:]) != math.prod(pixels) or labels.ndim < 2:
            raise DataError(
                f"the labels in {dataset.name} ({shown}) are no masks for an output of {shape}",
                hint="store one class number for each pixel of the output, N x H x W, or choose another --task",
            )
        highest, classes = int(labels[labels != VOID].max(initial=0)), max(2, output[task.axis])
        if labels.dtype.kind == "f" or highest >= classes:
            raise DataError(
                f"the masks in {dataset.name} hold {highest}, the network has the classes 0 to {classes - 1}",
                hint=f"store class numbers; {VOID} and negative numbers are left out",
            )
    return ()


def _described(labels: Labels) -> str:
    kind = "whole numbers" if labels.dtype.kind in "biu" else "real numbers"
    return f"{kind}, one for each image" if labels.ndim == 1 else f"{kind} {'x'.join(map(str, labels.shape[1:]))}"


def shared_images(first: Dataset, second: Dataset) -> int:
    """How many images of `second` are also in `first`, byte for byte; calibration and evaluation should share none."""
    known = set(first.digests())
    return sum(digest in known for digest in second.digests())


def _arranged(
    name: str, source: Source, plan: Preprocessing, input_shape: tuple[int, ...] | None, parts: tuple[Part, ...]
) -> Arrangement | Together:
    """The plan for images, or for the inputs of a model that has several of them or whole numbers."""
    try:
        if not parts:
            return arrange(source.shape, source.dtype, plan, input_shape)
        if source.dtype.fields is not None:
            return arrange_parts(source.dtype, plan, parts)
        if len(parts) == 1:
            return _arranged_alone(name, source, parts[0])
        raise DataError(
            f"it holds one array, and the model takes {listed([part.describe() for part in parts], 6)}",
            hint="store one array for each input under its name, and the labels as y, in an .npz file",
        )
    except DataError as error:
        raise DataError(f"{name}: {error.message}", hint=error.hint, causes=error.causes) from error


def _arranged_alone(name: str, source: Source, part: Part) -> Arrangement:
    """The plan for whole numbers, the only input of a model."""
    for start in range(0, len(source), _CHECKED):
        check_values(part, source.read(range(start, min(start + _CHECKED, len(source)))), name)
    plan = arrange(source.shape or (1,), source.dtype, Preprocessing(scale=1.0), part.shape or (1,))
    return replace(plan, sample_shape=part.shape, notes=(*plan.notes, stays_analog(part)))
