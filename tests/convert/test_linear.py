"""Operators that follow each other without an activation: read as sums, or sent on as spikes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import snnconvert
from snnconvert.convert.check import CURRENT, check
from snnconvert.convert.doors import import_fitting
from snnconvert.graph.dialect import arguments, calls
from snnconvert.graph.flow import Flow, flows
from snnconvert.graph.kinds import Role
from snnconvert.recompile import conversion
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.simulate.step_engine import StepEngine


class Bottleneck(nn.Module):
    """Linear bottleneck with a shortcut over it."""

    def __init__(self) -> None:
        super().__init__()
        wide, deep = nn.Conv2d(6, 12, 1), nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.inner = nn.Sequential(wide, nn.ReLU6(), deep, nn.ReLU6(), nn.Conv2d(12, 6, 1))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = x + self.inner(x)
        return found


def network() -> nn.Module:
    torch.manual_seed(3)
    depthwise, pointwise = nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.Conv2d(6, 6, 1)
    first = (nn.Conv2d(2, 6, 3, padding=1), nn.ReLU6())
    head = (depthwise, pointwise, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))
    return nn.Sequential(*first, Bottleneck(), Bottleneck(), *head).eval()


IMAGES = torch.rand(60, 2, 6, 6, generator=torch.Generator().manual_seed(0))


def converted(**options: object) -> snnconvert.Conversion:
    usual = {"timesteps": 12, "schedule": "streaming", "neuron": "ternary", "calibration_samples": 30}
    return snnconvert.convert_model(network(), data=IMAGES, **{**usual, **options})


@pytest.fixture(scope="module")
def spiking() -> snnconvert.Conversion:
    return converted(strict_spiking=True)


def weighted_reading(snn: snnconvert.SpikingNetwork, what: Flow) -> list[str]:
    found = flows(snn.graph)
    weighted = [node for node, op in calls(snn.graph) if op.role == Role.WEIGHTED]
    return [node.name for node in weighted if found[arguments(node)[0]] == what]


def test_every_operator_adds_but_the_first(spiking: snnconvert.Conversion) -> None:
    assert weighted_reading(spiking.snn, Flow.CURRENT) == []
    assert len(weighted_reading(spiking.snn, Flow.CONSTANT)) == 1
    analog = converted(linear="analog")
    assert len(weighted_reading(analog.snn, Flow.CURRENT)) >= 3
    of = "snn_multiplications"
    once = 6 * 6 * 6 * 9 * 2  # the input is the same in every step: the first layer multiplies once
    assert spiking.report["energy"]["operations"][of] <= once < analog.report["energy"]["operations"][of]
    assert any("signed spikes" in note for note in spiking.report["model"]["notes"])


def test_engine_and_oracle_are_one(spiking: snnconvert.Conversion) -> None:
    fast, oracle = (engine(spiking.snn).run(IMAGES[:4]) for engine in (LayerEngine, StepEngine))
    assert torch.equal(fast.outputs[0], oracle.outputs[0])
    assert all(torch.equal(fast.spikes[name], oracle.spikes[name]) for name in oracle.spikes)


def test_check_counts_what_the_conversion_does() -> None:
    opened = import_fitting(network(), ((2, 6, 6),), {}, name="bottleneck")
    assert check(opened, linear="analog").operations[CURRENT] > 0
    assert check(opened).operations[CURRENT] == check(opened, linear="analog").operations[CURRENT]
    assert check(opened, signed=True).operations[CURRENT] == check(opened, linear="spiking").operations[CURRENT] == 0


def test_the_choice_is_kept(spiking: snnconvert.Conversion) -> None:
    calibrated = spiking.snn.calibrated
    assert calibrated is not None
    assert "--linear spiking" in conversion(calibrated, calibrated.schedule)
    assert calibrated.original is not None
    assert len(list(calls(calibrated.original.graph))) < len(list(calls(calibrated.network.graph)))


@pytest.mark.parametrize(("neuron", "left"), [("if", True), ("burst", True), ("graded", False), ("ternary", False)])
def test_sums_are_sent_by_signed_spikes_only_unless_asked_for(neuron: str, left: bool) -> None:
    made = converted(neuron=neuron, calibration="mse")
    assert bool(weighted_reading(made.snn, Flow.CURRENT)) == left


def test_sums_are_left_where_other_operators_stay_analog() -> None:
    torch.manual_seed(3)
    smooth = nn.Sequential(*network(), nn.LayerNorm(4), nn.Linear(4, 4)).eval()
    for way, sums in (("auto", True), ("analog", True), ("spiking", False)):
        made = snnconvert.convert_model(
            smooth, data=IMAGES, timesteps=8, schedule="streaming", neuron="ternary", calibration="mse", linear=way
        )
        assert bool(weighted_reading(made.snn, Flow.CURRENT)) == sums


def test_nothing_is_added_where_nothing_reads_sums() -> None:
    usual = {"timesteps": 4, "schedule": "streaming", "calibration": "mse", "limit": 20}
    plain, asked = (
        snnconvert.convert_model("zoo:digits-cnn", linear=one, **usual).snn for one in ("analog", "spiking")
    )
    assert [node.name for node in plain.graph.graph.nodes] == [node.name for node in asked.graph.graph.nodes]
