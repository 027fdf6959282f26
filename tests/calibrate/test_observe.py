"""One pass over calibration images."""

from __future__ import annotations

import math

import pytest
import torch

from snnconvert.calibrate import observe
from snnconvert.convert.doors import open_model
from snnconvert.convert.passes import canonicalize
from snnconvert.graph import walk


def test_large_networks_are_observed_in_smaller_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = canonicalize(open_model("zoo:digits-cnn")).graph
    images = torch.rand(20, 1, 8, 8)
    whole, first = observe.ranges(graph, images)
    assert walk.batch_of(graph) == walk.BATCH
    largest = max(math.prod(node.meta["shape"]) for node in graph.graph.nodes if node.op == "call_module")
    monkeypatch.setattr(walk, "MOST_VALUES", 7 * largest)
    assert walk.batch_of(graph) == 7
    seen: dict[str, list[int]] = {}
    outputs = list(
        observe.observed(graph, images, "", see=lambda name, values: seen.setdefault(name, []).append(len(values)))
    )
    assert [len(first) for first, *_ in outputs] == [7, 7, 6]
    assert seen.keys() == whole.keys()
    assert all(sizes == [7, 7, 6] for sizes in seen.values())
    parts, second = observe.ranges(graph, images)
    assert torch.allclose(first, second, atol=1e-5)
    assert all(torch.equal(whole[name].largest, parts[name].largest) for name in whole)
    monkeypatch.setattr(walk, "MOST_VALUES", 1)
    assert walk.batch_of(graph) == 1
