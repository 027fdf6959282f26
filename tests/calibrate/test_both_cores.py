"""Chunks of images side by side: the same network on any number of threads, and nothing lost where one fails."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from calibration_networks import images, network, task
from torch import Tensor

from snnconvert.calibrate import live_values
from snnconvert.calibrate.live_values import Chunk, each, split_images
from snnconvert.calibrate.reconstruct import calibrate_reconstruct
from snnconvert.threads import threads


@pytest.fixture(autouse=True)
def every_chunk_is_worth_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_values, "WORTH_A_THREAD", 0.0)


@pytest.fixture(params=[1, 2, 5])
def some_threads(request: pytest.FixtureRequest) -> Iterator[int]:
    count: int = request.param
    with threads(count):
        yield count


def calibrated(kind: str, neuron: str) -> list[Tensor]:
    """Weights, thresholds and membrane starts; what lives goes to files in part."""
    found = calibrate_reconstruct(task(network(kind), images(40), neuron=neuron, options={"memory": 0.0005}))
    sites = [part for site in found.sites.values() for part in (site.threshold, site.initial)]
    return [*found.network.graph.state_dict().values(), *sites]


@pytest.mark.parametrize(("kind", "neuron"), [("residual", "if"), ("concat", "ternary"), ("depthwise", "ternary")])
def test_a_network_does_not_depend_on_threads(kind: str, neuron: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_values, "CHUNK_BYTES", 3 * 4 * 8 * 64 * 6)  # three images in a chunk
    monkeypatch.setattr(live_values, "SMALLEST_FILE", 64)
    found = []
    for count in (1, 2, 5):
        with threads(count):
            found.append(calibrated(kind, neuron))
    for other in found[1:]:
        assert all(torch.equal(one, two) for one, two in zip(found[0], other, strict=True))


def test_results_come_in_order_and_each_worker_has_one_thread(some_threads: int) -> None:
    chunks = split_images(images(24), 2, 0.2)
    with torch.inference_mode():
        found = list(each(chunks, lambda one: (one.images, torch.get_num_threads(), torch.is_inference_mode_enabled())))
    assert all(chunk.images is one for chunk, (one, _, _) in zip(chunks, found, strict=True))
    assert {count for _, count, _ in found} == {1}
    assert all(inference for _, _, inference in found)
    assert torch.get_num_threads() == some_threads


def test_an_error_ends_everything_and_threads_are_as_before(some_threads: int) -> None:
    chunks, begun = split_images(images(40), 1, 0.2), []

    def fails(chunk: Chunk) -> int:
        begun.append(chunk)
        if chunk is chunks[3]:
            raise ValueError("the fourth")
        return len(begun)

    with pytest.raises(ValueError, match="the fourth"):
        list(each(chunks, fails))
    assert len(begun) <= 4 + some_threads + 1
    assert torch.get_num_threads() == some_threads


def test_few_results_wait_for_whoever_adds_them_up(some_threads: int) -> None:
    chunks, begun = split_images(images(40), 1, 0.2), []
    for taken, _ in enumerate(each(chunks, begun.append), start=1):
        assert len(begun) <= taken + some_threads
