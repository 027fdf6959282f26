"""Readers of array files: .npz, .npy, idx and CIFAR binary. Pickled data are refused, never loaded."""

from __future__ import annotations

import gzip
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as formats
from numpy.typing import NDArray

from snnconvert.budget import Claims
from snnconvert.data.named import Arrays, Shaped, Wanted
from snnconvert.data.sources import RawData, Source, labelled, read_labels
from snnconvert.data.tables import SUFFIXES, read_table
from snnconvert.errors import DataError
from snnconvert.files import opened

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
_FORMATS = ".npz, .npy, .csv, .parquet, idx (also .gz) or CIFAR binary .bin files, or a folder of images"


def read_arrays(path: Path, wanted: Wanted) -> RawData:
    """Open an array file or a table, by its content, not only by its name.

    Raises:
        DataError: unknown, damaged or pickled content, or labels that do not fit.
    """
    if path.suffix.lower() in SUFFIXES:
        return read_table(path, wanted.labels).raw(wanted)
    with _told(path):
        found = _opened(path)
        if isinstance(found, Arrays):
            return found.raw(wanted)
        refuse_labels(path, wanted.labels)
        return found


def refuse_labels(path: Path, labels: str | None) -> None:
    """Data that name their labels themselves.

    Raises:
        DataError: others are asked for.
    """
    if labels is not None:
        raise DataError(
            f"{path} has no arrays or columns by name, so its labels cannot be {labels!r}",
            hint="leave --label-column and --label-key out",
        )


def shapes_of(path: Path) -> dict[str, Shaped]:
    """Shape of one sample and type of each array of an .npz file; nothing for other files."""
    if not path.is_file() or path.suffix.lower() in SUFFIXES:
        return {}
    with _told(path):
        found = _opened(path)
        return found.shapes() if isinstance(found, Arrays) else {}


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """What goes wrong with a file, in words."""
    try:
        yield
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


def _opened(path: Path) -> RawData | Arrays:
    with opened(path) as file:
        head = file.read(8)
    if head[:1] == b"\x80" or path.suffix in (".pkl", ".pickle", ".pt", ".pth"):
        raise _pickled(path)
    if head[:2] == b"PK":
        return _npz(path)
    if head[:6] == b"\x93NUMPY":
        return labelled(path, np.load(path, mmap_mode="r", allow_pickle=False), None, None, ())
    if path.suffix in (".npz", ".npy"):
        # numpy would take anything else for a pickle, and say so.
        raise ValueError(f"it begins with {head!r}")
    if head[:2] == b"\x1f\x8b" and ".tar" not in path.name:
        return _read_idx(path)
    if head[:2] == b"\0\0" and head[2:3] and head[2] in _IDX_TYPES and path.suffix != ".bin":
        return _read_idx(path)
    if path.suffix == ".bin":
        return _read_cifar(path)
    raise DataError(f"{path} is in no known format", hint=f"give {_FORMATS}")


def raw_data(name: str, samples: NDArray[Any] | Source, labels: NDArray[Any] | None) -> RawData:
    """Samples (N, *sample) and labels that are in memory, checked as those of files are.

    Args:
        name: what messages call them.

    Raises:
        DataError: numbers of another kind, not finite, or labels that do not fit.
    """
    if not isinstance(samples, Source):
        return labelled(name, samples, labels, None, ())
    found, notes = (None, ()) if labels is None else read_labels(name, labels, len(samples))
    return RawData(samples, found, None, notes)


# --- npz ------------------------------------------------------------------------------------------


def _npz(path: Path) -> Arrays:
    """The arrays of an .npz file, each held against what the file may ask for when it is read."""
    claims = Claims(path)
    with zipfile.ZipFile(path) as members:
        sizes = {info.filename.removesuffix(".npy"): info.file_size for info in members.infolist()}
    read: dict[str, NDArray[Any]] = {}

    def get(key: str) -> NDArray[Any]:
        if key not in read:
            claims.add(sizes.get(key, 0), f"its array {key}")
            with np.load(path, allow_pickle=False) as archive:
                read[key] = _member(archive, key)
        return read[key]

    def shape(key: str) -> Shaped:
        with zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as member:
            read_header = {(1, 0): formats.read_array_header_1_0, (2, 0): formats.read_array_header_2_0}
            sides, _, dtype = read_header[formats.read_magic(member)](member)
            return sides, dtype

    return Arrays(path, tuple(sizes), get, shape)


def _member(archive: Mapping[str, Any], key: str) -> NDArray[Any]:
    value = archive[key]
    if not isinstance(value, np.ndarray):
        # numpy hands out the bytes of members that are no .npy file.
        raise ValueError(f"its member {key} is no array")
    return value


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
        return labelled(path, images, None, None, (f"no labels file was found beside {path.name}",))
    return labelled(path, images, _idx_array(beside), None, (f"labels were read from {beside.name}",))


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
    return labelled(path, images, np.array(records[:, labels - 1]), None, (note,))


def _pickled(path: Path) -> DataError:
    return DataError(
        f"{path} holds pickled Python objects, which can run code when loaded; they are refused",
        hint="store plain arrays with numpy.savez_compressed (keys x and y); for CIFAR use the binary version (.bin)",
    )
