"""Early exit: the limit is found on calibration images, and images leave with the first answer that is clear."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from snnconvert.errors import OptionError
from snnconvert.graph.checkpoint import load_snn, save_snn
from snnconvert.simulate.early_exit import leaving, margins, smallest_limit, with_early_exit
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.simulate.measure import Batch, measure
from snnconvert.tasks import TaskChoice
from tests.simulate.small_networks import pictures, small_snn


def test_an_image_leaves_with_its_first_clear_answer_and_at_the_latest_with_the_last() -> None:
    sums = torch.tensor([[[3.0, 1, 0], [1, 1, 0]], [[4, 3, 2], [2, 6, 0]], [[9, 3, 6], [2, 7, 7]]], dtype=torch.float64)
    assert torch.allclose(margins(sums), torch.tensor([[2.0, 0], [0.5, 2], [1, 0]], dtype=torch.float64))
    assert leaving(margins(sums), 1.5).tolist() == [0, 1]
    assert leaving(margins(sums), 3.0).tolist() == [2, 2]
    assert leaving(margins(sums), 0.0).tolist() == [0, 0]


@pytest.mark.parametrize("share", [0.6, 0.9, 1.0])
def test_the_limit_keeps_the_share_and_a_smaller_one_does_not(share: float) -> None:
    draw = torch.Generator().manual_seed(0)
    sums = torch.randn(12, 400, 5, generator=draw, dtype=torch.float64).cumsum(0)
    margin, decided = margins(sums), sums.argmax(2)

    def kept_by(index: NDArray[np.int64]) -> float:
        return float((decided[index, np.arange(400)] == decided[-1]).double().mean())

    def agreement(at: float) -> float:
        return kept_by(leaving(margin, at).numpy())

    limit, kept = smallest_limit(margin, kept_by, share)

    assert kept == pytest.approx(agreement(limit))
    assert kept >= share
    assert share == 1.0 or agreement(0.9 * limit) < share


def test_the_checkpoint_keeps_the_limit_and_every_run_counts(tmp_path: Path) -> None:
    snn, _ = small_snn(timesteps=12, read_from=1)
    chosen = with_early_exit(snn, pictures(60), 0.9)
    save_snn(chosen, tmp_path / "early.snn")
    again = load_snn(tmp_path / "early.snn")
    assert again.early_exit is not None
    batch = pictures(40, seed=5)
    sums = LayerEngine(snn).run(batch).outputs[0]
    labels = sums[-1].argmax(1).numpy()
    curves = [
        measure(again, [Batch(part, labels[at : at + size], labels[at : at + size])
                        for at, part in zip(range(0, 40, size), batch.split(size), strict=True)], total=40)
        for size in (40, 8)
    ]  # fmt: skip
    found = curves[0].early_exit
    assert found is not None
    assert found == curves[1].early_exit
    assert found["steps"] == list(range(2, 13))
    left = leaving(margins(sums), again.early_exit.margin)
    assert found["images"] == torch.bincount(left, minlength=11).tolist()
    assert found["mean_steps"] == pytest.approx(float(left.double().mean()) + 2)
    assert 2 <= found["mean_steps"] < found["worst_steps"] <= 12
    assert found["accuracy"] == found["agreement"]
    assert measure(snn, [Batch(batch, labels, labels)], total=40).early_exit is None


def test_what_has_one_answer_is_refused() -> None:
    snn, _ = small_snn(timesteps=4)
    late = replace(snn, schedule=replace(snn.schedule, read_from=3))
    with pytest.raises(OptionError, match="one answer"):
        with_early_exit(late, pictures(8), 0.9)


@pytest.mark.parametrize("kind", ["regression", "segmentation"])
def test_what_is_no_classifier_leaves_when_its_output_comes_to_rest(kind: str, tmp_path: Path) -> None:
    snn, _ = small_snn(timesteps=40)
    snn = replace(snn, task=TaskChoice(kind))
    chosen = with_early_exit(snn, pictures(60), 0.9)
    save_snn(chosen, tmp_path / "early.snn")
    assert load_snn(tmp_path / "early.snn").early_exit == chosen.early_exit
    early = chosen.early_exit
    assert early is not None and len(early.scales) == 1
    # by hand, from the outputs alone
    batch = pictures(40, seed=5)
    sums = LayerEngine(snn).run(batch).outputs[0].double().numpy()
    mean = sums / np.arange(1, 41).reshape(-1, *[1] * (sums.ndim - 1))
    moved = np.sqrt(np.square(np.diff(mean, axis=0)).reshape(39, 40, -1).mean(2)) / early.scales[0]
    index = np.where((moved <= early.margin).any(0), 1 + np.argmax(moved <= early.margin, 0), 39)
    curve = measure(chosen, [Batch(part, None, None) for part in batch.split(8)], total=40).early_exit
    assert curve is not None
    assert curve["images"] == np.bincount(index, minlength=40).tolist()
    assert 2 <= curve["mean_steps"] < 40
    last, left = mean[-1], mean[index, np.arange(40)]
    if kind == "regression":
        wanted = 100 * np.sqrt(np.square(left - last).sum() / np.square(last).sum())
        assert early.agreement >= 90
    else:
        wanted = 100 * (left.argmax(1) == last.argmax(1)).mean()
    assert curve["value"] == pytest.approx(wanted)
    assert curve["agreement"] is None
