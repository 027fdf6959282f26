"""Delayed read-out: the first frames are left out of the sum, in both engines, the curve, the plan and the file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from snnconvert.graph.checkpoint import load_snn, save_snn
from snnconvert.graph.schedule.timing import plan
from snnconvert.graph.types import Snn
from snnconvert.simulate.integer import IntegerEngine
from snnconvert.simulate.kernels import native_available
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.simulate.measure import Batch, measure
from snnconvert.simulate.step_engine import StepEngine
from snnconvert.study.evaluate import Watchers
from tests.simulate.random_networks import images, waiting_snn
from tests.simulate.small_networks import pictures, small_snn

KERNELS = ["torch", pytest.param("native", marks=pytest.mark.skipif(not native_available(), reason="not built"))]


def late(snn: Snn, read_from: int) -> Snn:
    return replace(snn, schedule=replace(snn.schedule, read_from=read_from))


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("pool", ["sum", "max", "mean"])
@pytest.mark.parametrize("neuron", ["if", "ternary"])
def test_engines_agree(pool: str, neuron: str, kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNNCONVERT_KERNELS", kernels)
    snn, _ = small_snn(pool=pool, neuron=neuron, read_from=3)
    seen, oracle = LayerEngine(snn).run(pictures(4)), StepEngine(snn).run(pictures(4))
    assert len(oracle.outputs[0]) == 4
    assert torch.equal(seen.outputs[0], oracle.outputs[0])


@pytest.mark.parametrize("seed", range(6))
def test_engines_agree_on_waiting_networks(seed: int) -> None:
    snn = late(waiting_snn(seed, model="if", wait=2, frames=5), 2)
    seen, oracle = LayerEngine(snn).run(images(seed)), StepEngine(snn).run(images(seed))
    assert torch.equal(seen.outputs[0], oracle.outputs[0])
    assert len(seen.outputs[0]) == 3


def test_what_is_left_out_is_what_came_first_and_nothing_else_changes() -> None:
    whole, _ = small_snn()
    every, some = LayerEngine(whole).run(pictures(5)), LayerEngine(late(whole, 2)).run(pictures(5))
    assert torch.allclose(some.outputs[0], every.outputs[0][2:] - every.outputs[0][1], rtol=0, atol=1e-9)
    for name, counts in every.spikes.items():
        assert torch.equal(some.spikes[name], counts)


def test_the_curve_has_no_answer_before_the_read_out() -> None:
    snn, ann = small_snn(read_from=2, kind="wait", wait=1, timesteps=10)
    batch = pictures(30)
    labels = torch.arange(30).numpy() % 3
    watchers = Watchers(snn, ann)
    curve = measure(snn, [Batch(batch, labels, labels)], total=30, watchers=watchers.all)
    first = snn.schedule.depth + 3
    assert curve.correct[: first - 1] == [None] * (first - 1)
    decided = LayerEngine(snn).run(batch).outputs[0].flatten(2).argmax(2).numpy()
    assert curve.correct[first - 1 :] == [(row == labels).sum() for row in decided]
    assert np.array_equal(curve.predictions, decided[-1])
    plain = Watchers(late(snn, 0), ann)
    measure(late(snn, 0), [Batch(batch, labels, labels)], total=30, watchers=plain.all)
    assert watchers.studies().operations == plain.studies().operations


def test_integers_are_read_from_the_same_step() -> None:
    snn, _ = small_snn(read_from=3)
    exact = LayerEngine(snn).run(pictures(4)).outputs[0]
    seen = IntegerEngine(snn, weight_bits=24, state_bits=40).run(pictures(4)).outputs
    assert torch.allclose(seen, exact, atol=1e-3)


def test_the_plan_and_the_file_say_it(tmp_path: Path) -> None:
    snn, _ = small_snn(read_from=3)
    assert plan(snn)[-1]["integrates"] == [(3, 7)]
    assert plan(snn)[0]["integrates"] == [(0, 7)]
    assert snn.schedule.describe() == "streaming, read from step 4"
    save_snn(snn, tmp_path / "late.snn")
    again = load_snn(tmp_path / "late.snn")
    assert again.schedule == snn.schedule
    assert torch.equal(LayerEngine(again).run(pictures(2)).outputs[0], LayerEngine(snn).run(pictures(2)).outputs[0])
