"""Readers of recordings of events: N-MNIST's five bytes an event, .npz, .npy, HDF5 and AEDAT 4; folders and lists.

A set is a folder with a folder for each class, a list of names and classes beside its files (`train1K.txt` of N-MNIST,
or a .csv), or one .npz with the events of all recordings one after the other and where each begins.
"""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snnconvert.budget import check_claim
from snnconvert.data.recordings import EVENT, Recording, RecordingSource, recording_of
from snnconvert.data.sources import RawData, numbers_of
from snnconvert.errors import DataError, listed
from snnconvert.files import opened, read_text

_SHOWN = 5
_INSTALL = "pip install 'snnconvert[events]'"
_RECORD = 5  # bytes
# the ATIS camera writes this for y where its clock has gone round 2^13 us
_OVERFLOW = 240, 1 << 13
_LISTS = (".txt", ".csv")
_DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    RuntimeError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
)


class RecordingFiles(RecordingSource):
    """A file for each recording."""

    def __init__(self, paths: list[Path]) -> None:
        super().__init__(len(paths), None)
        self.paths = paths

    def called(self, index: int) -> str:
        return str(self.paths[index])

    def _read(self, index: int) -> Recording:
        return read_recording(self.paths[index])


class RecordingArray(RecordingSource):
    """Recordings one after the other in arrays, and where each begins."""

    def __init__(self, path: Path, fields: dict[str, NDArray[Any]], starts: NDArray[np.int64], size: Any) -> None:
        super().__init__(len(starts) - 1, size)
        self.path, self.fields, self.starts = path, fields, starts

    def called(self, index: int) -> str:
        return f"recording {index} of {self.path}"

    def _read(self, index: int) -> Recording:
        span = slice(self.starts[index], self.starts[index + 1])
        return recording_of({name: values[span] for name, values in self.fields.items()}, self.called(index))


def read_recordings(path: Path) -> RawData:
    """Open a set of recordings: a folder, a list of files and classes, or one file.

    Raises:
        DataError: nothing readable there; naming the file.
    """
    if path.is_dir():
        return _folder(path)
    if path.suffix.lower() in _LISTS:
        return _from_list(path)
    if path.suffix.lower() == ".npz":
        return _set_of_arrays(path)
    if path.suffix.lower() in READERS:
        return RawData(RecordingFiles([path]), None, None, ())
    raise DataError(f"{path} is in no known format of recordings", hint=_FORMS)


def read_recording(path: Path) -> Recording:
    """The one recording in a file.

    Raises:
        DataError: it cannot be read, is damaged, or is no recording.
    """
    try:
        return READERS[path.suffix.lower()](path)
    except _DAMAGE as error:
        if isinstance(error, DataError):
            raise
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DataError(
            f"the recording {path} cannot be read: {reason}", hint="fetch or write the file again"
        ) from error


# --- one recording ---


def _five_bytes(path: Path) -> Recording:
    """x, y, then the polarity as the highest bit of 24, of which the others are the time in microseconds."""
    with opened(path) as file:
        raw = np.frombuffer(file.read(), np.uint8)
    if raw.size % _RECORD:
        raise DataError(
            f"{path} has {raw.size} bytes, which is no whole number of events of {_RECORD} bytes",
            hint="it is truncated, or no recording: fetch the file again",
        )
    check_claim(raw.size / _RECORD * 4 * EVENT.itemsize, "its events", path)
    x, y, high, middle, low = raw.reshape(-1, _RECORD).T.astype(np.int64)
    row, period = _OVERFLOW
    times = ((high & 127) << 16 | middle << 8 | low) + period * np.cumsum(y == row)
    real = y != row
    return recording_of({"x": x[real], "y": y[real], "t": times[real], "p": (high >> 7)[real]}, str(path))


def _npy(path: Path) -> Recording:
    return recording_of(np.load(path, mmap_mode="r", allow_pickle=False), str(path))


def _npz(path: Path) -> Recording:
    source = _set_of_arrays(path).source
    assert isinstance(source, RecordingArray)
    if len(source) != 1:
        raise DataError(f"{path} holds {len(source)} recordings", hint="name it as the data set: --data FILE.npz")
    return source.recording(0)


def _hdf5(path: Path) -> Recording:
    """Arrays at the top, or in the group "events"."""
    try:
        import h5py
    except ImportError as error:
        raise DataError(f"{path} is HDF5, and h5py is not there to read it", hint=_INSTALL) from error
    with opened(path) as stream, h5py.File(stream, "r") as file:
        group = file.get("events", file)
        if isinstance(group, h5py.Dataset):
            check_claim(4.0 * group.size * group.dtype.itemsize, "its events", path)
            return recording_of(group[:], str(path))
        arrays = {name: one for name, one in group.items() if isinstance(one, h5py.Dataset) and one.ndim == 1}
        check_claim(4.0 * sum(one.size * one.dtype.itemsize for one in arrays.values()), "its events", path)
        return recording_of({name: one[:] for name, one in arrays.items()}, str(path))


def _aedat4(path: Path) -> Recording:
    """The first stream of events in the file."""
    try:
        import aedat
    except ImportError as error:
        raise DataError(f"{path} is AEDAT 4, and aedat is not there to read it", hint=_INSTALL) from error
    opened(path).close()  # aedat would wait for a pipe
    decoder = aedat.Decoder(str(path))
    streams = [stream for stream, one in decoder.id_to_stream().items() if one["type"] == "events"]
    if not streams:
        raise DataError(f"{path} has no stream of events", hint="record the events of the camera too")
    packets, size = [], 0
    for packet in decoder:
        if packet["stream_id"] == min(streams):
            packets.append(packet["events"])
            size += packets[-1].nbytes
            check_claim(4.0 * size, "its events", path)
    if not packets:
        raise DataError(f"{path} holds no events", hint="leave it out of the set")
    return recording_of(np.concatenate(packets), str(path))


READERS: dict[str, Callable[[Path], Recording]] = {
    ".bin": _five_bytes,
    ".bs2": _five_bytes,
    ".npy": _npy,
    ".npz": _npz,
    ".h5": _hdf5,
    ".hdf5": _hdf5,
    ".aedat4": _aedat4,
}
_FORMS = (
    f"give a folder of {', '.join(READERS)} files (one of each class, or a list beside them), the list itself, or an "
    ".npz with x, y, t and p"
)


# --- sets ---


def _set_of_arrays(path: Path) -> RawData:
    """An .npz: x, y, t and p; of several recordings with `starts` (n + 1 positions), of labelled ones with `labels`."""
    try:
        with zipfile.ZipFile(path) as members:
            check_claim(2.0 * sum(info.file_size for info in members.infolist()), "its arrays", path)
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: np.asarray(archive[key]) for key in archive.files}
    except _DAMAGE as error:
        raise DataError(f"{path} is damaged, or no .npz file: {error}", hint="fetch or write the file again") from error
    lower = {key.lower(): value for key, value in arrays.items()}
    fields = {
        key: value for key, value in lower.items() if key not in ("starts", "labels", "classes", "height", "width")
    }
    count = max((len(value) for value in fields.values() if value.ndim == 1), default=0)
    starts = np.asarray(lower.get("starts", [0, count]))
    if starts.ndim != 1 or starts.dtype.kind not in "iu" or len(starts) < 2 or starts[0] or starts[-1] != count:
        raise DataError(
            f"starts in {path} does not say where its {count} events begin",
            hint="store n + 1 positions: 0, where each further recording begins, and the number of events",
        )
    if (np.diff(starts.astype(np.int64)) < 0).any() or any(len(value) != count for value in fields.values()):
        raise DataError(
            f"the arrays of {path} do not fit each other", hint="store as many x, y, t and p, and ascending starts"
        )
    size = (int(lower["height"]), int(lower["width"])) if {"height", "width"} <= lower.keys() else None
    labels = lower.get("labels")
    if labels is not None and len(labels) != len(starts) - 1:
        raise DataError(
            f"{path} has {len(starts) - 1} recordings and {len(labels)} labels", hint="store one label per recording"
        )
    names = lower.get("classes")
    return RawData(
        RecordingArray(path, fields, starts.astype(np.int64), size),
        None if labels is None else numbers_of(labels, str(path)),
        None if names is None else tuple(map(str, names)),
        (),
    )


def _folder(folder: Path) -> RawData:
    """A folder of class folders, one with a list, or recordings alone."""
    files = _recordings(folder)
    below = sorted(one for one in folder.iterdir() if one.is_dir() and not one.name.startswith("."))
    classes = [one for one in below if _recordings(one)]
    lists = sorted(one for one in folder.iterdir() if one.suffix.lower() in _LISTS and one.is_file())
    if files and len(lists) == 1:
        return _from_list(lists[0])
    if files and lists:
        names = listed([one.name for one in lists], _SHOWN)
        raise DataError(f"{folder} has several lists: {names}", hint=f"name the one that you mean: {lists[0]}")
    if files:
        return RawData(RecordingFiles(files), None, None, ("the recordings have no labels",))
    if not classes:
        raise DataError(f"there are no recordings in {folder}", hint=_FORMS)
    numbered = all(re.fullmatch(r"\d{1,9}", one.name) for one in classes)
    classes = sorted(classes, key=lambda one: int(one.name)) if numbered else classes
    paths = [
        (path, int(one.name) if numbered else index) for index, one in enumerate(classes) for path in _recordings(one)
    ]
    named = None if numbered else tuple(one.name for one in classes)
    return RawData(RecordingFiles([path for path, _ in paths]), np.array([label for _, label in paths]), named, ())


def _recordings(folder: Path) -> list[Path]:
    found = [one for one in folder.iterdir() if one.suffix.lower() in READERS and not one.name.startswith(".")]
    return sorted((one for one in found if one.is_file()), key=lambda one: (len(one.name), one.name))


def _from_list(path: Path) -> RawData:
    """A list of recordings and their classes: two columns, the names with or without their ending."""
    rows = [re.split(r"[\s,;]+", line.strip()) for line in read_text(path).splitlines()]
    rows = [row for row in rows if row[0] and not row[0].startswith("#")]
    if rows and len(rows[0]) > 1 and not re.fullmatch(r"[-+]?\d{1,9}", rows[0][1]):
        rows = rows[1:]  # names of columns
    beside = {name: one for one in _recordings(path.parent) for name in (one.stem, one.name)}
    missing = [row[0] for row in rows if row[0] not in beside]
    bad = [row for row in rows if len(row) < 2 or not re.fullmatch(r"[-+]?\d{1,9}", row[1])]
    if not rows or missing or bad:
        what = f"names recordings that are not beside it: {listed(missing, _SHOWN)}" if missing else "lists nothing"
        if bad and not missing:
            what = f"has a line without a class: {' '.join(bad[0])[:60]!r}"
        raise DataError(
            f"{path} {what}", hint="write a line for each recording: the name of a file beside the list, and its class"
        )
    source = RecordingFiles([beside[row[0]] for row in rows])
    return RawData(source, np.array([int(row[1]) for row in rows]), None, ())
