"""Analog values far beyond any fixed bound: sums stay exact; what calibration never showed is cut off, and said."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from snnconvert.calibrate import METHODS
from snnconvert.calibrate.task import Task
from snnconvert.compile.network import compile_network
from snnconvert.graph.dialect import Builder, calls
from snnconvert.graph.kinds import Add, Elementwise, Embedding, Linear, MatMul, Multiply, Op, Relu, Snap, Softmax
from snnconvert.graph.schedule import Bistable, Schedule, Streaming, Wait
from snnconvert.graph.schedule.timing import site_depths
from snnconvert.graph.types import Ann, NeuronChoice, Origin, Snn, Source
from snnconvert.simulate.bistable_engine import BistableEngine
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.simulate.over_time import compensated
from snnconvert.simulate.result import Simulation
from snnconvert.simulate.step_engine import StepEngine

FEATURES = 12
TIMES = {
    "streaming": Streaming(9, 2),
    "wait": Wait(9, 2, wait=1),
    "bistable": Bistable(20, 2, window=4),
}


def squares(seed: int, largest: float) -> Ann:
    """Linear, ReLU, squares up to about `largest`, beside their input; then weights, ReLU and a classifier."""
    draw = torch.Generator().manual_seed(seed)
    builder = Builder({"input": torch.rand(2, FEATURES, generator=draw)})
    names = iter(range(100))

    def call(op: Op, *inputs: torch.fx.Node) -> torch.fx.Node:
        return builder.call(op, *inputs, origin=Origin(f"{type(op).__name__.lower()}{next(names)}", "test"))

    def weights(outputs: int, scale: float = 1.0) -> Linear:
        return Linear(torch.randn(outputs, FEATURES, generator=draw) * scale, torch.randn(outputs, generator=draw))

    x = call(Relu(), call(weights(FEATURES, largest**0.5 / 4), builder.inputs["input"]))
    squared = call(Elementwise(function="square"), x)
    x = call(Relu(), call(weights(FEATURES, 1 / 7), call(Add(), squared, x)))
    graph = builder.finish([call(weights(5, 1 / largest), x)])
    return Ann(graph, (FEATURES,), ("output",), Source("squares", "", "", "test"))


def converted(seed: int, largest: float, schedule: Schedule, images: Tensor) -> Snn:
    ann = squares(seed, largest)
    depth = max(site_depths(ann.graph).values())
    task = Task(ann, images, replace(schedule, depth=depth), NeuronChoice())
    return compile_network(METHODS["mse"](task))


def oracle(snn: Snn, images: Tensor) -> Simulation:
    engine = BistableEngine(snn) if snn.schedule.windowed else StepEngine(snn)
    return engine.run(images)


def equal(one: Simulation, other: Simulation) -> bool:
    counts = all(torch.equal(one.spikes[name], other.spikes[name]) for name in one.spikes)
    return counts and all(torch.equal(a, b) for a, b in zip(one.outputs, other.outputs, strict=True))


@pytest.mark.parametrize("kind", sorted(TIMES))
@pytest.mark.parametrize("seed", range(3))
def test_large_analog_values_are_summed_exactly(kind: str, seed: int) -> None:
    images = torch.rand(8, FEATURES, generator=torch.Generator().manual_seed(seed))
    snn = converted(seed, 1e6, TIMES[kind], images)
    assert max(snn.calibrated.reach.values()) > 2**14 if snn.calibrated else False
    engine = LayerEngine(snn)
    assert equal(engine.run(images), oracle(snn, images))
    assert not engine.notes


@pytest.mark.parametrize("kind", sorted(TIMES))
@pytest.mark.parametrize("seed", range(3))
def test_what_no_calibration_image_showed_is_cut_off_and_said(kind: str, seed: int) -> None:
    images = torch.rand(8, FEATURES, generator=torch.Generator().manual_seed(seed))
    ann = squares(seed, 1e4)
    depth = max(site_depths(ann.graph).values())
    calibrated = METHODS["mse"](Task(ann, images, replace(TIMES[kind], depth=depth), NeuronChoice()))
    # as if calibration had seen far smaller values
    small = {name: value / 2**12 for name, value in calibrated.reach.items()}
    snn = compile_network(replace(calibrated, reach=small))
    assert any(op.limit for _, op in calls(snn.graph, Snap))
    engine = LayerEngine(snn)
    seen = engine.run(images)
    assert equal(seen, oracle(snn, images))
    assert any("cut off" in note for note in engine.notes)


@pytest.mark.parametrize("frames", [1, 4])
def test_functions_over_time_are_those_of_the_means_so_far(frames: int) -> None:
    random, shape = torch.Generator().manual_seed(frames), (frames * 2, 3, 5)
    a, b = (torch.rand(shape, generator=random, dtype=torch.float64) for _ in range(2))
    table = torch.randn(7, 4, generator=random)
    ops: list[tuple[Op, list[torch.Tensor]]] = [
        (Softmax(dim=2), [a]),
        (MatMul(), [a, b.transpose(1, 2)]),
        (Embedding(table), [a * 6]),
        (Multiply(), [a.float(), b]),
    ]
    for op, inputs in ops:
        before = 0.0 * op(*(one[:2].double() for one in inputs)).double()
        for step in range(1, frames + 1):
            so_far = (sum(one[2 * k : 2 * k + 2].double() for k in range(step)) / step for one in inputs)
            total = op(*so_far).double() * step
            found = compensated(op, inputs, frames)[2 * step - 2 : 2 * step]
            assert found.dtype == torch.float64
            assert torch.equal(found, total - before), type(op)
            before = total
