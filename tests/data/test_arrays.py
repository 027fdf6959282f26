"""Array files: .npz, .npy, idx and CIFAR binary, sound and broken."""

from __future__ import annotations

import gzip
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from snnconvert.data.datasets import Dataset, check_labels, load_dataset, shared_images
from snnconvert.data.preprocessing import Preprocessing
from snnconvert.errors import ClaimError, DataError

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (12, 8, 6, 3), dtype=np.uint8)
LABELS = np.arange(12) % 4
RAW = Preprocessing(scale=1.0)


def load(path: Path, shape: tuple[int, ...] | None = None, **options: object) -> Dataset:
    return load_dataset(path, preprocessing=RAW, input_shape=shape, **options)  # type: ignore[arg-type]


def pixels(dataset: Dataset) -> np.ndarray:
    return dataset.images().numpy().transpose(0, 2, 3, 1)


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("x", "y"),
        ("images", "labels"),
        ("x_test", "y_test"),
        ("test_images", "test_labels"),
        ("X", "Y"),
        ("data", "targets"),
    ],
)
def test_npz_keys(tmp_path: Path, images: str, labels: str) -> None:
    path = tmp_path / "set.npz"
    np.savez_compressed(path, **{images: IMAGES, labels: LABELS, "classes": np.array(["a", "b", "c", "d"])})
    dataset = load(path, (3, 8, 6))
    assert len(dataset) == 12
    assert dataset.labels is not None
    assert dataset.labels.tolist() == LABELS.tolist()
    assert dataset.classes == ("a", "b", "c", "d")
    np.testing.assert_array_equal(pixels(dataset), IMAGES)


def test_npz_with_two_splits(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    np.savez(path, x_train=IMAGES[:9], y_train=LABELS[:9], x_test=IMAGES[9:], y_test=LABELS[9:])
    assert len(load(path)) == 3
    assert any("left out x_train, y_train" in note for note in load(path).notes)
    assert len(load(path, split="train")) == 9
    with pytest.raises(DataError, match="no images under a known key") as caught:
        load(path, split="val")
    assert "x_val and y_val" in caught.value.hint


def test_unlabelled_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", pictures=IMAGES)
    np.save(tmp_path / "one.npy", IMAGES)
    for name in ("one.npz", "one.npy"):
        dataset = load(tmp_path / name)
        assert dataset.labels is None
        assert next(dataset.batches(5))[1] is None
        np.testing.assert_array_equal(pixels(dataset), IMAGES)


def test_labels_of_other_shapes(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    for labels in (LABELS[:, None], LABELS.astype(np.float32), np.eye(4)[LABELS]):
        np.savez(path, x=IMAGES, y=labels)
        found = load(path).labels
        assert found is not None
        assert found.dtype == np.int64
        assert found.tolist() == LABELS.tolist()


def test_notes_tell_what_was_done(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    np.savez(path, x=IMAGES[..., 0], y=LABELS)
    dataset = load_dataset(path, preprocessing=Preprocessing(), input_shape=(48,), label_offset=1)
    assert dataset.labels is not None
    assert dataset.labels.tolist() == (LABELS + 1).tolist()
    text = "; ".join(dataset.notes)
    for part in ("divided by 255", "1x8x6 (C H W) were reshaped to the model's input 48", "1 was added to every label"):
        assert part in text
    assert dataset.preprocessing.scale == 255.0
    assert dataset.preprocessing.layout == "NCHW"


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        ({"x": IMAGES, "target_names": LABELS}, r"has images \(x\) but no labels; its keys are x, target_names", "y"),
        ({"a": IMAGES, "b": LABELS}, "no images under a known key; its keys are a, b", "keys x and y"),
        ({"x": IMAGES, "y": LABELS[:5]}, "12 images but 5 labels", "one label per image"),
        ({"x": IMAGES, "y": np.full(12, np.nan)}, "label of image 0 .* is NaN", "repair"),
        ({"x": IMAGES, "y": np.full((12, 3), np.inf)}, "label of image 0 .* infinite", "repair"),
        ({"x": IMAGES, "y": np.array(["cat"] * 12)}, "type <U3", "one class number"),
        ({"x": IMAGES.astype(str), "y": LABELS}, "type <U3", "uint8 or float32"),
        ({"x": IMAGES.astype(complex), "y": LABELS}, "type complex128", "uint8 or float32"),
        ({"x": np.zeros(12), "y": LABELS}, "has no axes beside the images", "N x H x W x C"),
        ({"x": IMAGES[:0], "y": LABELS[:0]}, "holds no images", "at least one"),
        ({"x": np.array([{}] * 12, object), "y": LABELS}, "pickled Python objects", "savez"),
    ],
)
def test_broken_npz(tmp_path: Path, content: dict[str, np.ndarray], message: str, hint: str) -> None:
    path = tmp_path / "set.npz"
    np.savez(path, **content)
    with pytest.raises(DataError, match=message) as caught:
        load(path)
    assert hint in caught.value.hint
    assert "set.npz" in caught.value.message


def test_nan_is_found_with_its_index(tmp_path: Path) -> None:
    images = RANDOM.random((600, 4, 4)).astype(np.float32)
    images[517, 1, 2] = np.inf
    np.savez(tmp_path / "set.npz", x=images, y=np.zeros(600))
    with pytest.raises(DataError, match=r"image 517 in .* NaN or infinite"):
        load(tmp_path / "set.npz")


def test_large_floats_are_noted(tmp_path: Path) -> None:
    np.save(tmp_path / "set.npy", IMAGES.astype(np.float32))
    assert any("floats that reach 255" in note for note in load(tmp_path / "set.npy").notes)


@pytest.mark.parametrize("name", ["set.npz", "set.npy"])
def test_damaged_files(tmp_path: Path, name: str) -> None:
    good = tmp_path / name
    if name == "set.npz":
        np.savez_compressed(good, x=IMAGES, y=LABELS)
    else:
        np.save(good, IMAGES)
    data = good.read_bytes()
    for length in (0, 1, 5, 40, len(data) // 2, len(data) - 1):
        good.write_bytes(data[:length])
        with pytest.raises(DataError, match=name):
            load(good)
    for text in (b"<!DOCTYPE html><html></html>", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"):
        good.write_bytes(text)
        with pytest.raises(DataError, match="damaged or is not what its name says"):
            load(good)


@pytest.mark.parametrize("kind", ["npz", "stored", "npy", "idx"])
def test_flipped_bytes_never_escape_as_other_errors(tmp_path: Path, kind: str) -> None:
    path = tmp_path / {"npz": "a.npz", "stored": "a.npz", "npy": "a.npy", "idx": "a-images-idx3-ubyte"}[kind]
    if kind == "idx":
        path.write_bytes(idx(IMAGES[..., 0]))
    elif kind == "npy":
        np.save(path, IMAGES)
    else:
        (np.savez_compressed if kind == "npz" else np.savez)(path, x=IMAGES, y=LABELS)
    data = np.frombuffer(path.read_bytes(), np.uint8)
    generator = np.random.default_rng(7)
    refused = 0
    for _ in range(150):
        changed = data.copy()
        # Mostly in the headers at both ends, where it matters.
        place = generator.integers(0, min(200, len(data))) * generator.choice([1, -1])
        changed[place] ^= generator.integers(1, 256)
        path.write_bytes(changed.tobytes())
        try:
            load(path).images()
        except (DataError, ClaimError):
            refused += 1
    assert refused > 0


class Trap:
    """Would leave a file behind if it were ever unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.marker),)


def test_pickles_are_refused_and_never_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    trap = np.array([Trap(marker)], object)
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps({"data": Trap(marker)}))
    (tmp_path / "batch.pkl").write_bytes(pickle.dumps(Trap(marker)))
    np.savez(tmp_path / "set.npz", x=trap)
    np.save(tmp_path / "set.npy", trap, allow_pickle=True)
    for name in ("data_batch_1", "batch.pkl", "set.npz", "set.npy"):
        with pytest.raises(DataError, match="pickled") as caught:
            load(tmp_path / name)
        assert "binary version" in caught.value.hint
    assert not marker.exists()


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


@pytest.mark.parametrize("compress", [False, True])
def test_idx(tmp_path: Path, compress: bool) -> None:
    images, labels = tmp_path / "t10k-images-idx3-ubyte", tmp_path / "t10k-labels-idx1-ubyte"
    for path, array in ((images, IMAGES[..., 0]), (labels, LABELS)):
        target = path.with_name(path.name + ".gz") if compress else path
        target.write_bytes(gzip.compress(idx(array)) if compress else idx(array))
    path = images.with_name(images.name + ".gz") if compress else images
    dataset = load(path, (1, 8, 6))
    assert dataset.labels is not None
    assert dataset.labels.tolist() == LABELS.tolist()
    np.testing.assert_array_equal(pixels(dataset)[..., 0], IMAGES[..., 0])


def test_broken_idx(tmp_path: Path) -> None:
    path = tmp_path / "t10k-images-idx3-ubyte"
    path.write_bytes(idx(IMAGES[..., 0])[:-1])
    with pytest.raises(DataError, match="truncated: 575 bytes of values, 576 announced"):
        load(path)
    path.write_bytes(idx(LABELS))
    with pytest.raises(DataError, match="holds labels, not images"):
        load(path)
    path.write_bytes(gzip.compress(idx(IMAGES[..., 0]))[:-20])
    with pytest.raises(DataError, match="damaged"):
        load(path)
    path.write_bytes(b"\0\0\x08\x03\0\0")
    with pytest.raises(DataError, match="truncated"):
        load(path)


@pytest.mark.parametrize("label_bytes", [1, 2])
def test_cifar_binary(tmp_path: Path, label_bytes: int) -> None:
    images = RANDOM.integers(0, 256, (5, 3, 32, 32), dtype=np.uint8)
    labels = RANDOM.integers(0, 10, (5, label_bytes), dtype=np.uint8)
    path = tmp_path / "test_batch.bin"
    path.write_bytes(np.concatenate([labels, images.reshape(5, -1)], axis=1).tobytes())
    dataset = load(path, (3, 32, 32))
    assert dataset.labels is not None
    assert dataset.labels.tolist() == labels[:, -1].tolist()
    np.testing.assert_array_equal(dataset.images().numpy(), images.astype(np.float32))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="no whole number of CIFAR-10"):
        load(path)


def test_missing_and_unknown_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        load(tmp_path / "absent.npz")
    (tmp_path / "notes.txt").write_text("hello there")
    with pytest.raises(DataError, match="in no known format") as caught:
        load(tmp_path / "notes.txt")
    assert ".npz" in caught.value.hint


def test_check_labels(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    np.savez(path, x=IMAGES, y=LABELS + 1)
    check_labels(load(path), 5)
    with pytest.raises(DataError, match=r"label 4 of image 3 .* outside 0\.\.3.*run from 1 to 4") as caught:
        check_labels(load(path), 4)
    assert "--label-offset -1" in caught.value.hint
    check_labels(load(path, label_offset=-1), 4)
    with pytest.raises(DataError, match=r"label -1"):
        check_labels(load(path, label_offset=-2), 4)


def test_fewer_named_classes_than_outputs_are_noted(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    np.savez(path, x=IMAGES, y=LABELS, classes=np.array(["ant", "bee", "cow", "dog"]))
    assert check_labels(load(path), 4) == ()
    (note,) = check_labels(load(path), 1000)
    assert "names 4 classes, the model has 1000 outputs; class 'ant' is taken for output 0" in note


def test_shared_images(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=IMAGES[:7], y=LABELS[:7])
    np.savez(tmp_path / "b.npz", x=IMAGES[5:], y=LABELS[5:])
    first, second = load(tmp_path / "a.npz"), load(tmp_path / "b.npz")
    assert shared_images(first, second) == 2
    assert shared_images(first, second.subset([2, 3])) == 0


def test_batches_subsets_and_fingerprints(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    np.savez(path, x=IMAGES, y=LABELS)
    dataset = load(path, (3, 8, 6))
    sizes = [len(images) for images, _ in dataset.batches(5)]
    assert sizes == [5, 5, 2]
    part = dataset.subset([7, 2, 9])
    images, labels = next(part.batches(8, [2, 0]))
    assert labels is not None
    assert labels.tolist() == [LABELS[9], LABELS[7]]
    np.testing.assert_array_equal(images.numpy().transpose(0, 2, 3, 1), IMAGES[[9, 7]])
    assert dataset.fingerprint([9, 7]) == part.fingerprint([0, 2]) == dataset.fingerprint([7, 9])
    assert dataset.fingerprint([9, 7]) != dataset.fingerprint([9, 8])
    assert len(dataset.fingerprint()) == 64
    assert dataset.images([]).shape == (0, 3, 8, 6)


def test_frames_over_time_are_refused_with_advice(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", x=np.zeros((3, 5, 2, 8, 6), np.uint8))
    with pytest.raises(DataError, match="5x2x8x6 do not fit the model's input 2x8x6") as caught:
        load(tmp_path / "set.npz", (2, 8, 6))
    assert "sum or average over it: x.sum(1)" in caught.value.hint
