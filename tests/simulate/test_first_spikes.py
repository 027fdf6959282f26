"""First spikes against a count by hand."""

from __future__ import annotations

import pytest
import torch
from small_networks import pictures, small_snn

from snnconvert.graph.schedule import Streaming, Wait
from snnconvert.simulate.first_spikes import FirstSpikes
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.simulate.measure import LayerFit


def test_by_hand() -> None:
    found = FirstSpikes(4)
    assert found.record(Streaming(4, 1), 1) is None
    assert found.dead_share is None
    # neuron 0 fires at once, 1 in the third step, 2 only in the second image, 3 never
    one = torch.tensor([[1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]).unsqueeze(1)
    two = torch.tensor([[0, 0, 0, 0], [-1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]).unsqueeze(1)
    found.add(torch.cat([one, two], 1).to(torch.int8))
    assert found.counts.tolist() == [1, 1, 2, 1]
    assert found.dead_share == 0.25
    assert found.record(Streaming(4, 1), 1) == {"p10": 1, "p50": 3, "p90": 4, "silent_share": 1 - 5 / 8}
    # a site at depth 2 of a network that waits 3 steps per layer starts at step 7
    waited = found.record(Wait(10, 2, wait=3), 2)
    assert waited is not None
    assert waited["p10"] == 7


def test_silence_has_no_first_spike() -> None:
    found = FirstSpikes(2)
    found.add(torch.zeros(2, 3, 4))
    record = found.record(Streaming(2, 1), 1)
    assert record == {"p10": None, "p50": None, "p90": None, "silent_share": 1.0}
    assert found.dead_share == 1.0


@pytest.mark.parametrize("kind", ["streaming", "wait", "bistable"])
def test_batches_do_not_matter(kind: str) -> None:
    extra = {"streaming": {}, "wait": {"wait": 1}, "bistable": {"window": 3}}[kind]
    snn, _ = small_snn(kind=kind, timesteps=24, **extra)
    images, records = pictures(6), []
    for size in (6, 2):
        fit, engine = LayerFit(snn), LayerEngine(snn)
        for start in range(0, 6, size):
            seen = engine.run(images[start : start + size], fit.begin(images[start : start + size]))
        records.append([row["first_spike"] for row in fit.records(seen.spikes, seen.units, 6)])
    assert records[0] == records[1]
    assert all(row["p10"] <= row["p50"] <= row["p90"] <= 24 for row in records[0])
