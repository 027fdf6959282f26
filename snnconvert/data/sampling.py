"""Choose images: class-balanced, reproducible, and independent of every other random choice.

The choice comes from a fixed integer hash of (seed, position), not from a random generator's stream, so that no library
version and no other draw can change it. A larger sample contains the smaller ones of the same seed.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from snnconvert.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from snnconvert.data.datasets import Dataset

Indices = NDArray[np.int64]


def balanced_sample(labels: NDArray[Any] | None, count: int, limit: int | None, seed: int) -> Indices:
    """Sorted positions of at most `limit` of `count` images, as evenly over the classes as they allow.

    Args:
        labels: (count,), or None where there are none: then all images count as one class.
        limit: how many images to choose; None or anything from `count` up chooses all.
        seed: same data and seed, same choice.
    """
    if limit is None or limit >= count:
        return np.arange(count, dtype=np.int64)
    keys = _keys(count, seed)
    groups = np.zeros(count, np.int64) if labels is None else np.asarray(labels)
    order = np.lexsort((keys, groups))
    _, starts, sizes = np.unique(groups[order], return_index=True, return_counts=True)
    rank = np.empty(count, np.int64)
    rank[order] = np.arange(count) - np.repeat(starts, sizes)
    # First every class's first image, then every class's second, and so on; ties in an order of chance.
    chosen = np.lexsort((keys, rank))[: max(limit, 0)]
    return np.sort(chosen).astype(np.int64)


def split_calibration(dataset: Dataset, samples: int, seed: int) -> tuple[Indices, Indices]:
    """Two disjoint sets of positions: `samples` balanced ones to calibrate on, and all others to evaluate on.

    Raises:
        DataError: the set has no image left to evaluate on.
    """
    count = len(dataset)
    if samples >= count:
        raise DataError(
            f"{samples} images to calibrate on leave none of {count} to evaluate on",
            hint=f"ask for fewer calibration images (for instance {count // 4}), or give a calibration set of its own"
            if count > 1
            else "give more images, or a calibration set of its own",
        )
    calibration = balanced_sample(dataset.classes_of_images, count, samples, seed)
    return calibration, np.setdiff1d(np.arange(count, dtype=np.int64), calibration, assume_unique=True)


def canonical_order(images: NDArray[Any] | Tensor) -> Indices:
    """The permutation that sorts images (N, ...) by the sha256 of their bytes, so that file order does not matter."""
    array = np.ascontiguousarray(np.asarray(images))
    digests = [hashlib.sha256(image.tobytes()).digest() for image in array]
    return np.array(sorted(range(len(digests)), key=digests.__getitem__), dtype=np.int64)


def _keys(count: int, seed: int) -> NDArray[np.uint64]:
    """SplitMix64 (Steele, Lea and Flood, 2014) of position and seed."""
    golden = 0x9E3779B97F4A7C15
    with np.errstate(over="ignore"):
        # Two rounds keep seeds apart that differ by little.
        start = _mix(np.array([(seed * golden + golden) % 2**64], np.uint64))
        return _mix(start + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(golden))


def _mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
