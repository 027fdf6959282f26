"""One pass over calibration images."""

from __future__ import annotations

import pytest
import torch

from snnconvert.calibrate import observe
from snnconvert.convert.doors import open_model
from snnconvert.convert.passes import canonicalize


def test_large_networks_are_observed_in_smaller_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = canonicalize(open_model("zoo:digits-cnn")).graph
    images = torch.rand(20, 1, 8, 8)
    whole, first = observe.ranges(graph, images)
    assert observe.batch_of(graph) == observe.BATCH
    values = sum(site.numel() for site in next(observe.observed(graph, images[:1], "")).after.values())
    monkeypatch.setattr(observe, "MOST_VALUES", 7 * 2 * values)
    assert observe.batch_of(graph) == 7
    seen = list(observe.observed(graph, images, ""))
    assert [len(one.outputs[0]) for one in seen] == [7, 7, 6]
    parts, second = observe.ranges(graph, images)
    assert torch.allclose(first, second, atol=1e-5)
    assert all(torch.equal(whole[name].largest, parts[name].largest) for name in whole)
    monkeypatch.setattr(observe, "MOST_VALUES", 1)
    assert observe.batch_of(graph) == 1
