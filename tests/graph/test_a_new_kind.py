"""A kind of node is added by a class and a row of KINDS: everything else learns of it from what the class says.

Two kinds are made here, one that moves spikes and one with weights, and go through verification, compilation, both
engines, the counts of operations and a checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from snnconvert.calibrate import METHODS
from snnconvert.calibrate.task import Task
from snnconvert.compile.network import compile_network
from snnconvert.graph.checkpoint import load_snn, save_snn
from snnconvert.graph.dialect import Builder, neurons_of, verify
from snnconvert.graph.flow import Flow, flows
from snnconvert.graph.kinds import KINDS, Linear, Op, Relu, Reshape, Stage, Weighted, Wiring
from snnconvert.graph.schedule import Bistable, Schedule, Streaming, Wait
from snnconvert.graph.types import Ann, NeuronChoice, Origin, Snn, Source
from snnconvert.simulate.bistable_engine import BistableEngine
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.simulate.step_engine import StepEngine
from snnconvert.study.operations import OperationCounter

CHANNELS, SIZE = 4, 6
SCHEDULES = (
    Streaming(7, 2),
    Wait(7, 2, wait=1),
    Bistable(20, 2, window=4),
)


class Flip(Wiring):
    """The last axis backwards."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flip(-1)


class Mix(Weighted):
    """Channels mixed at every place of (C, length): weight (C_out, C_in), bias (C_out) or None."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.tensor("weight", weight)
        self.tensor("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        mixed = torch.einsum("oc,bcl->bol", self.weight, x)
        return mixed if self.bias is None else mixed + self.bias[:, None]


@pytest.fixture(autouse=True)
def new_rows() -> Iterator[None]:
    for kind in (Flip, Mix):
        KINDS[kind.__name__] = kind
    yield
    for kind in (Flip, Mix):
        del KINDS[kind.__name__]


def network() -> Ann:
    draw = torch.Generator().manual_seed(3)
    builder = Builder({"input": torch.rand(2, CHANNELS, SIZE, generator=draw)})

    def call(op: Op, x: torch.fx.Node, name: str) -> torch.fx.Node:
        return builder.call(op, x, origin=Origin(name, "test"))

    def mix() -> Mix:
        return Mix(torch.randn(CHANNELS, CHANNELS, generator=draw), torch.rand(CHANNELS, generator=draw) / 4)

    x = call(Relu(), call(mix(), builder.inputs["input"], "first"), "relu_1")
    x = call(Relu(), call(mix(), call(Flip(), x, "flip"), "second"), "relu_2")
    x = call(Reshape(shape=(CHANNELS * SIZE,)), x, "flat")
    x = call(Linear(torch.randn(3, CHANNELS * SIZE, generator=draw) / 4), x, "scores")
    return Ann(builder.finish([x]), (CHANNELS, SIZE), ("output",), Source("new", "", "", "test"))


def images() -> Tensor:
    return torch.rand(6, CHANNELS, SIZE, generator=torch.Generator().manual_seed(4))


def converted(schedule: Schedule, method: str) -> Snn:
    return compile_network(METHODS[method](Task(network(), images(), schedule, NeuronChoice())))


@pytest.mark.parametrize("method", ["mse", "reconstruct"])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda one: one.kind)
def test_both_engines_agree(schedule: Schedule, method: str) -> None:
    verify(network().graph, Stage.ANN)
    snn = converted(schedule, method)
    oracle = BistableEngine(snn) if schedule.windowed else StepEngine(snn)
    seen, expected = LayerEngine(snn).run(images()), oracle.run(images())
    assert torch.equal(seen.outputs[0], expected.outputs[0])
    assert all(torch.equal(seen.spikes[name], expected.spikes[name]) for name in expected.spikes)
    assert sum(int(counts.sum()) for counts in seen.spikes.values()) > 0


def test_spikes_pass_and_synapses_are_counted() -> None:
    snn = converted(SCHEDULES[0], "mse")
    flow = {node.name: found for node, found in flows(snn.graph).items()}
    assert flow["flip"] == Flow.SPIKES
    assert flow["second"] == Flow.CURRENT
    counter = OperationCounter(snn, images=6)
    counter.end(LayerEngine(snn).run(images(), counter.begin(images())))
    rows = {row.name: row for row in counter.layers()}
    first, second = (node.name for node in neurons_of(snn.graph))
    assert rows[second].synapses == rows[second].padded == CHANNELS * CHANNELS * SIZE
    assert rows[second].accumulates == rows[first].spikes * CHANNELS
    assert rows[second].multiplies == 0


def test_it_is_kept_in_a_file(tmp_path: Path) -> None:
    snn = converted(SCHEDULES[0], "mse")
    save_snn(snn, tmp_path / "new.snn")
    read = load_snn(tmp_path / "new.snn")
    seen, again = LayerEngine(snn).run(images()), LayerEngine(read).run(images())
    assert torch.equal(seen.outputs[0], again.outputs[0])
