"""Readers of array files: .npz, .npy, idx and CIFAR binary. Pickled data are refused, never loaded."""

from __future__ import annotations

import gzip
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snnconvert.budget import Claims
from snnconvert.data.sources import ArraySource, Labels, Source, numbers_of
from snnconvert.errors import DataError
from snnconvert.files import opened

IMAGE_KEYS = ("x", "images", "image", "data", "inputs")
LABEL_KEYS = ("y", "labels", "label", "targets", "target")
CLASS_KEYS = ("classes", "class_names", "label_names")
SPLITS = ("test", "val", "valid", "validation", "train")

_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_CIFAR_RECORDS = {3073: 1, 3074: 2}
# What numpy, zipfile, gzip and the header parser raise on damaged files (found by flipping bytes).
_DAMAGE = (
    SyntaxError,
    TypeError,
    tokenize.TokenError,
    EOFError,
    ValueError,
    KeyError,
    MemoryError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
)
_PART = 1 << 20
_FORMATS = ".npz, .npy, idx (also .gz) or CIFAR binary .bin files, or a folder of images"


@dataclass(frozen=True)
class RawData:
    """Images as they are stored, with what the reader found out about them."""

    source: Source
    labels: Labels | None
    classes: tuple[str, ...] | None
    notes: tuple[str, ...]


def read_arrays(path: Path, split: str | None = None) -> RawData:
    """Open an array file by its content, not only by its name.

    Raises:
        DataError: unknown, damaged or pickled content, or labels that do not fit.
    """
    try:
        with opened(path) as file:
            head = file.read(8)
        if head[:1] == b"\x80" or path.suffix in (".pkl", ".pickle", ".pt", ".pth"):
            raise _pickled(path)
        if head[:2] == b"PK":
            return _read_npz(path, split)
        if head[:6] == b"\x93NUMPY":
            return _labelled(path, np.load(path, mmap_mode="r", allow_pickle=False), None, None, ())
        if path.suffix in (".npz", ".npy"):
            # numpy would take anything else for a pickle, and say so.
            raise ValueError(f"it begins with {head!r}")
        if head[:2] == b"\x1f\x8b" and ".tar" not in path.name:
            return _read_idx(path)
        if head[:2] == b"\0\0" and head[2:3] and head[2] in _IDX_TYPES and path.suffix != ".bin":
            return _read_idx(path)
        if path.suffix == ".bin":
            return _read_cifar(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(
            f"{path} cannot be read: {reason}", hint="give a file that can be read, and is whole"
        ) from error
    except _DAMAGE as error:
        if "allow_pickle" in str(error) or "Python objects" in str(error):
            raise _pickled(path) from error
        raise DataError(
            f"{path} is damaged or is not what its name says: {str(error) or type(error).__name__}",
            hint="fetch or write the file again",
        ) from error
    raise DataError(f"{path} is in no known format", hint=f"give {_FORMATS}")


def raw_data(name: str, samples: NDArray[Any] | Source, labels: NDArray[Any] | None) -> RawData:
    """Samples (N, *sample) and labels that are in memory, checked as those of files are.

    Args:
        name: what messages call them.

    Raises:
        DataError: numbers of another kind, not finite, or labels that do not fit.
    """
    if not isinstance(samples, Source):
        return _labelled(name, samples, labels, None, ())
    found, notes = (None, ()) if labels is None else _read_labels(name, labels, len(samples))
    return RawData(samples, found, None, notes)


# --- npz ------------------------------------------------------------------------------------------


def _read_npz(path: Path, split: str | None) -> RawData:
    claims = Claims(path)
    with zipfile.ZipFile(path) as members:
        sizes = {info.filename.removesuffix(".npy"): info.file_size for info in members.infolist()}
    with np.load(path, allow_pickle=False) as archive:
        keys = list(archive.files)
        images_key, labels_key = choose_keys(path, keys, split)
        notes: tuple[str, ...] = ()
        if split is None and images_key.lower() not in IMAGE_KEYS and len(keys) > 2:
            others = [key for key in keys if key not in (images_key, labels_key)]
            notes = (f"read {images_key} and {labels_key} from {path.name}, left out {', '.join(others)}",)
        wanted = (images_key, labels_key, next((key for key in keys if key.lower() in CLASS_KEYS), None))
        for key in wanted:
            claims.add(0 if key is None else sizes.get(key, 0), f"its array {key}")
        images, labels, names = (None if key is None else _member(archive, key) for key in wanted)
        classes = None if names is None or names.ndim != 1 else tuple(str(name) for name in names)
        assert images is not None
        return _labelled(path, images, labels, classes, notes)


def _member(archive: Mapping[str, Any], key: str) -> NDArray[Any]:
    value = archive[key]
    if not isinstance(value, np.ndarray):
        # numpy hands out the bytes of members that are no .npy file.
        raise ValueError(f"its member {key} is no array")
    return value


def choose_keys(path: Path | str, keys: list[str], split: str | None) -> tuple[str, str | None]:
    """The keys of images and labels."""
    lower = {key.lower(): key for key in keys}
    splits = (split,) if split is not None else ("", *SPLITS)
    for part in splits:
        found = _first(lower, IMAGE_KEYS, part)
        if found is None:
            continue
        labels = _first(lower, LABEL_KEYS, part)
        if labels is None and len(keys) > 1:
            raise DataError(
                f"{path} has images ({found}) but no labels; its keys are {', '.join(keys)}",
                hint="name the labels y, or store the images alone if there are none",
            )
        return found, labels
    if len(keys) == 1 and split is None:
        return keys[0], None
    wanted = f"x_{split} and y_{split}" if split is not None else "x and y"
    raise DataError(
        f"{path} has no images under a known key; its keys are {', '.join(keys) or 'none'}",
        hint=f"write it with numpy.savez_compressed and the keys {wanted}",
    )


def _first(lower: dict[str, str], names: Iterable[str], part: str) -> str | None:
    for name in names:
        for spelling in (f"{name}_{part}", f"{part}_{name}") if part else (name,):
            if spelling in lower:
                return lower[spelling]
    return None


# --- idx and CIFAR --------------------------------------------------------------------------------


def _read_idx(path: Path) -> RawData:
    images = _idx_array(path)
    if images.ndim == 1:
        raise DataError(f"{path} holds labels, not images", hint="give the images file; its labels are found beside it")
    beside = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
    if beside == path or not beside.exists():
        other = beside.with_suffix("") if beside.suffix == ".gz" else beside.with_name(f"{beside.name}.gz")
        beside = other
    if not beside.exists() or "images" not in path.name:
        return _labelled(path, images, None, None, (f"no labels file was found beside {path.name}",))
    return _labelled(path, images, _idx_array(beside), None, (f"labels were read from {beside.name}",))


def _idx_array(path: Path) -> NDArray[Any]:
    with opened(path) as file:
        compressed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        # Unpacked part by part, and counted: the length that the file states for itself is only a part of the truth.
        data = _unpacked(path, gzip.GzipFile(fileobj=file)) if compressed else file.read()
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _IDX_TYPES:
        raise DataError(f"{path} is not an idx file", hint=f"give {_FORMATS}")
    rank = data[3]
    if len(data) < 4 + 4 * rank:
        raise DataError(f"{path} is truncated", hint="fetch the file again")
    shape = struct.unpack(f">{rank}I", data[4 : 4 + 4 * rank])
    dtype = np.dtype(_IDX_TYPES[data[2]])
    wanted, found = int(np.prod(shape, dtype=object)) * dtype.itemsize, len(data) - 4 - 4 * rank
    if wanted != found:
        raise DataError(
            f"{path} is truncated: {found} bytes of values, {wanted} announced", hint="fetch the file again"
        )
    values = np.frombuffer(data, dtype, offset=4 + 4 * rank).reshape(shape)
    return values.astype(dtype.newbyteorder("="), copy=False)


def _unpacked(path: Path, stream: gzip.GzipFile) -> bytes:
    parts, claims = [], Claims(path)
    while part := stream.read(_PART):
        claims.add(len(part), "what it unpacks to")
        parts.append(part)
    return b"".join(parts)


def _read_cifar(path: Path) -> RawData:
    size = path.stat().st_size
    fits = [record for record in _CIFAR_RECORDS if size and size % record == 0]
    if len(fits) != 1:
        raise DataError(
            f"{path} has {size} bytes, which is no whole number of CIFAR-10 (3073) or CIFAR-100 (3074) records",
            hint="give the .bin files of the CIFAR binary version, or an .npz with keys x and y",
        )
    labels = _CIFAR_RECORDS[fits[0]]
    records = np.memmap(path, np.uint8, "r").reshape(-1, fits[0])
    note = "CIFAR-100 binary file, fine labels" if labels == 2 else "CIFAR-10 binary file"
    images = records[:, labels:].reshape(-1, 3, 32, 32)
    return _labelled(path, images, np.array(records[:, labels - 1]), None, (note,))


# --- checks ---------------------------------------------------------------------------------------


def _labelled(
    path: Path | str,
    images: NDArray[Any],
    labels: NDArray[Any] | None,
    classes: tuple[str, ...] | None,
    notes: tuple[str, ...],
) -> RawData:
    if images.ndim < 2:
        raise DataError(
            f"the images in {path} have the shape {images.shape}, which has no axes beside the images",
            hint="store images as N x H x W x C",
        )
    if images.dtype.kind not in "buif":
        raise DataError(f"the images in {path} have the type {images.dtype}", hint="store them as uint8 or float32")
    notes += _check_finite(path, images)
    found = None
    if labels is not None:
        found, label_notes = _read_labels(path, labels, len(images))
        notes += label_notes
    return RawData(ArraySource(images), found, classes, notes)


def _read_labels(path: Path | str, labels: NDArray[Any], count: int) -> tuple[Labels, tuple[str, ...]]:
    """Class numbers as int64, however they are stored; other numbers and arrays of numbers as they are."""
    notes: tuple[str, ...] = ()
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    numeric = labels.dtype.kind in "buif"
    if labels.ndim == 2 and numeric and np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all():
        labels = labels.argmax(axis=1)
        notes = ("one-hot labels were read as class numbers",)
    if labels.ndim < 1 or not numeric:
        raise DataError(
            f"the labels in {path} have the shape {labels.shape} and type {labels.dtype}",
            hint="store one class number per image, numbers for each output, or a mask",
        )
    if len(labels) != count:
        raise DataError(
            f"{path} has {count} images but {len(labels)} labels", hint="store one label per image, in the same order"
        )
    return numbers_of(labels, str(path)), notes


def _check_finite(path: Path | str, images: NDArray[Any]) -> tuple[str, ...]:
    """NaN and infinity are errors; float images far outside 0..1 are worth a note."""
    if images.dtype.kind != "f":
        return ()
    highest = 0.0
    for start in range(0, len(images), 256):
        part = np.asarray(images[start : start + 256])
        finite = np.isfinite(part)
        if not finite.all():
            index = start + int(np.flatnonzero(~finite.reshape(len(part), -1).all(axis=1))[0])
            raise DataError(f"image {index} in {path} holds NaN or infinite values", hint="repair or remove the image")
        highest = max(highest, float(part.max(initial=0.0)))
    if highest > 16.0:
        return (f"the images are floats that reach {highest:g}; they are divided only if a scale is given",)
    return ()


def _pickled(path: Path) -> DataError:
    return DataError(
        f"{path} holds pickled Python objects, which can run code when loaded; they are refused",
        hint="store plain arrays with numpy.savez_compressed (keys x and y); for CIFAR use the binary version (.bin)",
    )
