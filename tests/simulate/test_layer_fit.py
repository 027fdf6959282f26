"""Figures per layer: neurons with a sign have no inactivated side, and their bound is made of magnitudes."""

from __future__ import annotations

import torch

from snnconvert.graph.dialect import Builder
from snnconvert.graph.kinds import Neuron
from snnconvert.graph.schedule import Streaming
from snnconvert.graph.types import Origin, Snn, Source
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.simulate.measure import LayerFit


def fitted(model: str, values: list[float]) -> dict[str, float]:
    builder = Builder({"input": torch.zeros(1, len(values))})
    neuron = Neuron(torch.tensor(1.0), torch.tensor(0.5), model=model, levels=1)
    output = builder.call(neuron, builder.inputs["input"], origin=Origin("n", "test"))
    graph = builder.finish([output])
    snn = Snn(graph, Streaming(8, 1), (len(values),), ("output",), Source("made", "", "", "test"), {}, {})
    fit = LayerFit(snn)
    images = torch.tensor([values])
    seen = LayerEngine(snn).run(images, fit.begin(images))
    (record,) = fit.records(seen.spikes, seen.units, 1)
    return {name: record[name] for name in ("omega", "sin_share", "dead_share")}


def test_signed_neurons() -> None:
    found = fitted("signed", [-0.75, 0.25, 0.0])
    assert found["omega"] == (0.75 + 0.25) / (0.75**2 + 0.25**2)
    assert found["sin_share"] == 0.0
    assert found["dead_share"] == 1 / 3


def test_neurons_without_a_sign() -> None:
    found = fitted("if", [-0.75, 0.25, 0.5])
    assert found["omega"] == (0.25 + 0.5) / (0.25**2 + 0.5**2)
    assert found["sin_share"] == 0.0
    assert found["dead_share"] == 1 / 3
