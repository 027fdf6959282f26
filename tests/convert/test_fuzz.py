"""Whole random networks: the import against ONNX Runtime, the rewrites, both engines, and the bistable theorem."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from random_graphs import RandomGraph
from torch import Tensor, fx, nn

from snnconvert.calibrate import METHODS, Task
from snnconvert.calibrate.observe import in_canonical_order
from snnconvert.compile.balance import with_identity_sites
from snnconvert.compile.network import compile_network
from snnconvert.convert.onnx_import import import_onnx
from snnconvert.convert.onnx_reference import compare_with_onnxruntime
from snnconvert.convert.passes import canonicalize
from snnconvert.convert.pytorch import import_module
from snnconvert.graph.dialect import arguments, op_of, output_nodes
from snnconvert.graph.kinds import Neuron
from snnconvert.graph.schedule import SCHEDULES, Streaming
from snnconvert.graph.schedule.timing import site_depths
from snnconvert.graph.types import Ann, NeuronChoice, Snn
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.simulate.step_engine import StepEngine

EXAMPLES = int(os.environ.get("SNNCONVERT_FUZZ", "200"))
WINDOW = 4


def images(ann: Ann, count: int, seed: int) -> Tensor:
    return torch.rand(count, *ann.input_shape, generator=torch.Generator().manual_seed(seed))


def task(ann: Ann, kind: str, neuron: str = "if") -> Task:
    depth = max(site_depths(ann.graph).values())
    timesteps = (depth + 1) * WINDOW if kind == "bistable" else 3
    schedule = SCHEDULES[kind](timesteps, depth, **({"window": WINDOW} if kind == "bistable" else {}))
    ready = with_identity_sites(ann, schedule)
    return Task(ready, in_canonical_order(images(ann, 6, 1)), schedule, NeuronChoice(neuron))


def spiking(ann: Ann, kind: str, neuron: str = "if") -> Snn:
    wanted = task(ann, kind, neuron)
    return compile_network(METHODS["percentile"](wanted))


def quantised(snn: Snn, batch: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """The quantised network without any notion of time: the code of every neuron, and the first output."""
    values: dict[fx.Node, Tensor] = {}
    codes: dict[str, Tensor] = {}
    for node in snn.graph.graph.nodes:
        if node.op == "placeholder":
            values[node] = batch.double()
        elif node.op == "call_module":
            op = op_of(node)
            inputs = [values[source].double() for source in arguments(node)]
            if isinstance(op, Neuron):
                low = -op.levels if op.model == "signed" else 0
                codes[node.name] = torch.floor((inputs[0] + op.initial) / op.threshold).clamp(low, op.levels)
                values[node] = codes[node.name]
            else:
                values[node] = op.rebuilt().double()(*inputs)
    return codes, values[output_nodes(snn.graph)[0]]


@settings(max_examples=EXAMPLES, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
@example(seed=282)  # a Pad by 0 before a max pooling of values below 0
def test_random_networks(seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = RandomGraph(seed).save(_folder(tmp_path_factory) / "net.onnx")
    opened = import_onnx(path)
    batch = images(opened, 2, 5)
    assert compare_with_onnxruntime(opened, path, batch).ran
    ann = canonicalize(opened)
    before, after = opened.graph(batch)[0], ann.graph(batch)[0]
    assert float((before - after).abs().max()) <= 1e-4 * max(float(before.abs().max()), 1e-6)

    snn = spiking(ann, "streaming", ("if", "ternary", "burst")[seed % 3])
    fast, oracle = LayerEngine(snn).run(batch), StepEngine(snn).run(batch)
    assert fast.spikes.keys() == oracle.spikes.keys()
    for site in oracle.spikes:
        assert torch.equal(fast.units[site], oracle.units[site]), site
    assert torch.equal(fast.outputs[0], oracle.outputs[0])

    windowed = spiking(ann, "bistable")
    sent: dict[str, Tensor] = {}
    seen = LayerEngine(windowed).run(batch, lambda name, frames: sent.__setitem__(name, frames[0].double()))
    expected, logits = quantised(windowed, batch)
    assert sent.keys() == expected.keys()
    for site, code in expected.items():
        assert torch.equal(sent[site], code), site
    assert torch.equal(seen.outputs[0][0], logits)


def _folder(factory: pytest.TempPathFactory) -> Path:
    return factory.mktemp("fuzz")


def test_long_chains_without_neurons_keep_their_precision() -> None:
    """Worst-case sums grow by a factor with every layer; the values themselves do not."""

    class Chain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.last = nn.Conv2d(2, 64, 1), nn.Linear(64, 3)
            self.chain = nn.Sequential(*(nn.Conv2d(64, 64, 1, bias=False) for _ in range(14)))
            for layer in self.chain:
                nn.init.orthogonal_(layer.weight)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.chain(torch.relu(self.first(x))).relu().mean((2, 3)))

    ann = canonicalize(import_module(Chain().eval(), (2, 4, 4), name="chain"))
    wanted = Task(
        ann,
        in_canonical_order(images(ann, 8, 1)),
        Streaming(256, 2),
        NeuronChoice("ternary"),
        {"percentile": 100.0},
    )
    batch = images(ann, 4, 1)
    mean = LayerEngine(compile_network(METHODS["percentile"](wanted))).run(batch).outputs[0][-1] / 256
    exact = ann.graph(batch)[0]
    assert float((mean - exact).norm() / exact.norm()) < 0.02
