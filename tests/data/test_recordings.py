"""Recordings of event cameras: files of every form, what is refused of them, and how they are cut into steps."""

from __future__ import annotations

import struct
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from event_recordings import MILLISECONDS, SIZE, recording, recordings

from snnconvert.data.datasets import load_dataset
from snnconvert.data.moving import over_time_of
from snnconvert.data.preprocessing import Preprocessing
from snnconvert.data.slicing import Slicing
from snnconvert.errors import DataError, OptionError

PLAN = {"events": "window:1", "scale": 4.0}
NETWORK = {**PLAN, "input_shape": (2, 8, 8)}


def bytes_of(events: np.ndarray) -> bytes:
    """In N-MNIST's form."""
    word = (events["p"].astype(np.int64) << 23) | events["t"]
    columns = [events["x"], events["y"], word >> 16, word >> 8 & 255, word & 255]
    return np.stack([column.astype(np.uint8) for column in columns], 1).tobytes()


def aedat4_of(events: np.ndarray, kind: str = "EVTS") -> bytes:
    """In AEDAT 4, in two packets without compression."""
    flatbuffers = pytest.importorskip("flatbuffers")
    attributes = f'<attr key="typeIdentifier" type="string">{kind}</attr>'
    sizes = "".join(f'<attr key="size{axis}" type="int">{SIZE}</attr>' for axis in "XY")
    place = 'path="/mainloop/Recorder/outInfo/'
    info = f'<node name="0" {place}0/">{attributes}<node name="info" {place}0/info/">{sizes}</node></node>'
    head = flatbuffers.Builder(0)
    text = head.CreateString(f'<dv version="2.0"><node name="outInfo" {place}">{info}</node></dv>')
    head.StartObject(3)
    head.PrependInt64Slot(1, -1, 0)
    head.PrependUOffsetTRelativeSlot(2, text, 0)
    head.FinishSizePrefixed(head.EndObject(), b"IOHE")
    written = b"#!AER-DAT4.0\r\n" + bytes(head.Output())
    for part in np.array_split(events, 2):
        raw = np.zeros(len(part), [("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("p", "?"), ("padding", "V3")])
        for name in "txyp":
            raw[name] = part[name]
        packet = flatbuffers.Builder(0)
        packet.StartVector(raw.itemsize, len(raw), 8)
        packet.head -= raw.nbytes
        packet.Bytes[packet.head : packet.head + raw.nbytes] = raw.tobytes()
        vector = packet.EndVector()
        packet.StartObject(1)
        packet.PrependUOffsetTRelativeSlot(0, vector, 0)
        packet.FinishSizePrefixed(packet.EndObject(), kind.encode())
        data = bytes(packet.Output())
        written += struct.pack("<ii", 0, len(data)) + data
    return written


def test_every_file_form_holds_the_same_recording(tmp_path: Path) -> None:
    events, plan = recording(1, 3), Preprocessing(**PLAN)  # type: ignore[arg-type]
    (tmp_path / "a.bin").write_bytes(bytes_of(events))
    np.savez(tmp_path / "a.npz", **{name: events[name] for name in "txyp"})
    np.save(tmp_path / "a.npy", events)
    np.savez(
        tmp_path / "b.npz", ts=events["t"].astype(float), X=events["x"], y=events["y"], polarity=events["p"] * 2 - 1
    )
    (tmp_path / "a.aedat4").write_bytes(aedat4_of(events))
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name in "txyp":
            file[f"events/{name}"] = events[name]
    with h5py.File(tmp_path / "b.hdf5", "w") as file:
        file["events"] = events
    names = ["a.bin", "a.npz", "a.npy", "b.npz", "a.h5", "b.hdf5"]
    if find_spec("aedat"):
        names.append("a.aedat4")
    found = [load_dataset(tmp_path / name, preprocessing=plan, input_shape=(2, SIZE, SIZE)).images() for name in names]
    dense = np.zeros((MILLISECONDS, 2, SIZE, SIZE), np.int64)
    np.add.at(dense, ((events["t"] - events["t"][0]) // 1000, events["p"], events["y"], events["x"]), 1)
    for one in found:
        incoming = over_time_of(one)
        assert incoming is not None
        assert np.array_equal(incoming.frames(0, incoming.steps)[:, 0].numpy(), dense[: incoming.steps])
        assert np.allclose(one[0].numpy(), dense.sum(0) / 4)


@pytest.mark.parametrize(("package", "suffix"), [("h5py", ".h5"), ("aedat", ".aedat4")])
def test_a_missing_reader_is_said_with_the_extra_that_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, suffix: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"\0" * 64)
    with pytest.raises(DataError, match=f"{package} is not there to read it") as error:
        load_dataset(path, preprocessing=Preprocessing(**PLAN), input_shape=(2, SIZE, SIZE)).images()
    assert error.value.hint == "pip install 'snnconvert[events]'"


def test_damaged_aedat4_is_refused_by_name(tmp_path: Path) -> None:
    pytest.importorskip("aedat")
    whole, path = aedat4_of(recording(1, 3)), tmp_path / "a.aedat4"
    for raw in (b"", whole[:9], whole[:200], whole[:-7], whole[::-1], aedat4_of(recording(1, 3), "FRME")):
        path.write_bytes(raw)
        with pytest.raises(DataError, match=str(path)):
            load_dataset(path, preprocessing=Preprocessing(**PLAN), input_shape=(2, SIZE, SIZE)).images()


def test_the_clock_of_the_camera_may_go_round(tmp_path: Path) -> None:
    events = recording(0, 1)
    raw = bytearray(bytes_of(events))
    raw[500:500] = bytes([0, 240, 0, 0, 0])
    (tmp_path / "a.bin").write_bytes(raw)
    found = load_dataset(tmp_path / "a.bin", preprocessing=Preprocessing(**PLAN), input_shape=(2, 8, 8)).source.read(
        [0]
    )
    assert np.array_equal(found[0]["t"][:100], events["t"][:100])
    assert np.array_equal(found[0]["t"][100:], events["t"][100:] + 8192)


def test_sets_are_folders_lists_and_arrays(tmp_path: Path) -> None:
    given, labels = recordings(6)
    plain, classes = tmp_path / "plain", tmp_path / "classes"
    plain.mkdir()
    for index, (events, label) in enumerate(zip(given, labels, strict=True)):
        (plain / f"{index + 1}.bs2").write_bytes(bytes_of(events))
        (classes / str(label)).mkdir(parents=True, exist_ok=True)
        (classes / str(label) / f"{index + 1:05}.bin").write_bytes(bytes_of(events))
    rows = [f"{index}\t{label}\n" for index, label in enumerate(labels, 1)]
    (plain / "train.txt").write_text("#sample #class\n" + "".join(rows))
    starts = np.cumsum([0, *map(len, given)])
    whole = np.concatenate(given)
    np.savez(
        tmp_path / "set.npz", **{name: whole[name] for name in "txyp"}, starts=starts, labels=labels, height=8, width=8
    )
    options: Any = {"preprocessing": Preprocessing(**PLAN), "input_shape": (2, SIZE, SIZE)}
    sets = [load_dataset(path, **options) for path in (plain, plain / "train.txt", tmp_path / "set.npz", classes)]
    assert [one.labels.tolist() for one in sets[:3]] == [labels.tolist()] * 3  # type: ignore[union-attr]
    assert sorted(sets[3].labels.tolist()) == sorted(labels.tolist())  # type: ignore[union-attr]
    assert len({one.fingerprint() for one in sets}) == 1
    assert sets[0].noun == "recording"
    (plain / "other.txt").write_text("1 0\n")
    with pytest.raises(DataError, match=r"several lists: other\.txt, train\.txt"):
        load_dataset(plain, **options)
    (plain / "bad.txt").write_text("1 0\n77 1\n")
    with pytest.raises(DataError, match="not beside it: 77"):
        load_dataset(plain / "bad.txt", **options)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no events"),
        (b"\1\2\3", "no whole number of events"),
        (bytes([1, 1, 0, 0, 9, 1, 1, 0, 0, 8]), "time goes backwards: event 1 comes at 8 us, the one before at 9 us"),
        (bytes([9, 1, 0, 0, 9]), "outside the 8 x 8 places"),
    ],
)
def test_damaged_recordings_are_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "a.bin").write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        load_dataset(tmp_path / "a.bin", preprocessing=Preprocessing(**PLAN), input_shape=(2, 8, 8)).images()
    assert caught.value.hint


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"x": [1.5], "y": [1], "t": [1], "p": [1]}, "x in"),
        ({"x": [1], "y": [1], "t": [1]}, "has no p; it has"),
        ({"x": [1], "y": [1], "t": [1], "p": [7]}, "polarities 7"),
        ({"x": [1, 2], "y": [1], "t": [1], "p": [1]}, "do not fit each other"),
        ({"x": [1], "y": [1], "t": [1], "p": [1], "starts": [0, 5]}, "starts in"),
        ({"x": [-1], "y": [1], "t": [1], "p": [1]}, "events at x = -1"),
    ],
)
def test_arrays_that_are_no_recordings_are_refused(tmp_path: Path, fields: dict[str, Any], said: str) -> None:
    np.savez(tmp_path / "a.npz", **fields)
    with pytest.raises(DataError, match=said):
        load_dataset(tmp_path / "a.npz", preprocessing=Preprocessing(**PLAN), input_shape=(2, 8, 8)).images()


@pytest.mark.parametrize("text", ["window", "window:0", "frames:1.5", "count:x", "window:1:2", "frames:99999999"])
def test_ways_to_cut_that_are_none(text: str) -> None:
    with pytest.raises(OptionError, match="no way to cut recordings"):
        Slicing.read(text)


def test_slices_of_every_kind_hold_every_event_once() -> None:
    times = recording(0, 4)["t"].astype(np.int64)
    for text, steps in (
        ("window:7", 6),
        ("window:0.5", None),
        ("count:50", None),
        ("frames:5", 5),
        ("frames:200", 200),
    ):
        slicing = Slicing.read(text)
        assert str(slicing) == text
        needed, cut = slicing.needed(times), slicing.steps(times)
        assert steps in (None, needed)
        assert len(cut) == len(times)
        assert cut[0] == 0
        assert (np.diff(cut) >= 0).all()
        assert cut[-1] < needed
        if slicing.kind == "count":
            assert np.bincount(cut)[:-1].tolist() == [50] * (needed - 1)
