"""The readers on real data, where the data pack is at hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from snnconvert.data.datasets import Dataset, check_labels, load_dataset
from snnconvert.data.preprocessing import Preprocessing
from snnconvert.data.sampling import balanced_sample

ROOT = Path(__file__).parents[2]
PACK = Path(os.environ.get("SNNCONVERT_DATA", ROOT / "../shared/data")).resolve()


def load(name: str, shape: tuple[int, ...], plan: Preprocessing | None = None) -> Dataset:
    if not (PACK / name).exists():
        pytest.skip(f"{name} is not in the data pack (folder from SNNCONVERT_DATA)")
    return load_dataset(PACK / name, preprocessing=plan or Preprocessing(), input_shape=shape)


@pytest.mark.parametrize(
    ("name", "shape", "count", "classes"),
    [
        ("cifar10_test.npz", (3, 32, 32), 10000, 10),
        ("cifar10_test.npz", (32, 32, 3), 10000, 10),
        ("cifar100_test.npz", (3, 32, 32), 5000, 100),
        ("mnist_test.npz", (1, 28, 28), 10000, 10),
        ("mnist_test.npz", (1, 784, 1), 10000, 10),
        ("fashion_mnist_test.npz", (784,), 10000, 10),
    ],
)
def test_arrays(name: str, shape: tuple[int, ...], count: int, classes: int) -> None:
    dataset = load(name, shape)
    check_labels(dataset, classes)
    assert len(dataset) == count
    images, labels = next(dataset.batches(16, balanced_sample(dataset.labels, count, 16, 0)))
    assert images.shape == (16, *shape)
    assert 0 <= images.min() < images.max() <= 1
    assert labels is not None


def test_imagenet_folders_with_tables() -> None:
    dataset = load("imagenet_val1300", (3, 224, 224), Preprocessing(crop=224))
    assert len(dataset) == 1300
    check_labels(dataset, 1000)
    assert dataset.labels is not None
    assert dataset.labels[:2].tolist() == [472, 260]
    assert next(dataset.batches(4))[0].shape == (4, 3, 224, 224)
    calibration = load("imagenet_calibration500", (3, 128, 128))
    assert len(calibration) == 500
    assert next(calibration.batches(4))[0].shape == (4, 3, 128, 128)
    assert any("resized to 128" in note for note in calibration.notes)
