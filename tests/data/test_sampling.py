"""Balanced, disjoint, reproducible choices of images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from snnconvert.data.sampling import balanced_sample, canonical_order, split_calibration
from snnconvert.errors import DataError

LABELS = np.random.default_rng(1).integers(0, 10, 1000)


class Labelled:
    """As much of a data set as splitting needs."""

    def __init__(self, labels: np.ndarray) -> None:
        self.labels = self.classes_of_images = labels

    def __len__(self) -> int:
        return len(self.labels)


@pytest.mark.parametrize("limit", [1, 7, 10, 100, 333])
def test_classes_differ_by_one_at_most(limit: int) -> None:
    counts = np.bincount(LABELS[balanced_sample(LABELS, 1000, limit, 3)], minlength=10)
    assert counts.sum() == limit
    assert counts.max() - counts.min() <= 1


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.integers(0, 70), st.integers(-(2**40), 2**70))
def test_any_labels(labels: list[int], limit: int, seed: int) -> None:
    array = np.array(labels)
    chosen = balanced_sample(array, len(array), limit, seed)
    assert len(chosen) == min(limit, len(array)) == len(set(chosen.tolist()))
    assert (np.diff(chosen) > 0).all()
    taken, present = np.bincount(array[chosen], minlength=6), np.bincount(array, minlength=6)
    # a class falls behind the fullest one by more than one image only where it has no more
    assert all(taken[c] >= taken.max() - 1 or taken[c] == present[c] for c in range(6))


def test_same_seed_same_choice_other_seed_another() -> None:
    np.random.seed(5)
    first = balanced_sample(LABELS, 1000, 50, 0)
    np.random.seed(6)
    torch.manual_seed(6)
    assert np.array_equal(first, balanced_sample(LABELS, 1000, 50, 0))
    choices = {tuple(balanced_sample(LABELS, 1000, 50, seed)) for seed in range(20)}
    assert len(choices) == 20


def test_the_choice_never_changes_between_versions() -> None:
    assert balanced_sample(None, 100, 5, 0).tolist() == [38, 39, 47, 51, 67]


def test_larger_samples_contain_smaller_ones() -> None:
    small, large = (set(balanced_sample(LABELS, 1000, limit, 9).tolist()) for limit in (40, 120))
    assert small < large


def test_positions_are_spread_evenly() -> None:
    hits = np.zeros(100)
    for seed in range(400):
        hits[balanced_sample(None, 100, 10, seed)] += 1
    # 400 draws of 10 in 100: 40 expected, deviation 6
    assert hits.min() > 40 - 5 * 6
    assert hits.max() < 40 + 5 * 6


def test_no_limit_takes_all() -> None:
    assert balanced_sample(LABELS, 1000, None, 0).tolist() == list(range(1000))
    assert balanced_sample(LABELS, 1000, 5000, 0).tolist() == list(range(1000))


def test_split_is_disjoint_and_complete() -> None:
    calibration, evaluation = split_calibration(Labelled(LABELS), 128, 0)  # type: ignore[arg-type]
    assert len(calibration) == 128
    assert sorted([*calibration, *evaluation]) == list(range(1000))
    with pytest.raises(DataError, match="1000 images to calibrate on leave none of 1000") as caught:
        split_calibration(Labelled(LABELS), 1000, 0)  # type: ignore[arg-type]
    assert "250" in caught.value.hint


def test_canonical_order_undoes_any_shuffle() -> None:
    images = torch.rand(20, 3, 4, 4)
    shuffled = images[torch.randperm(20)]
    assert torch.equal(images[canonical_order(images)], shuffled[canonical_order(shuffled)])
    assert np.array_equal(canonical_order(images), canonical_order(images.numpy()))
