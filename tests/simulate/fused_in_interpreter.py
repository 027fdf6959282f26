"""The kernel for neurons on CUDA devices, in Triton's interpreter: started by test_fused.py in a process of its own.

The interpreter has to be chosen before Triton is loaded.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from snnconvert.graph.kinds import Neuron
from snnconvert.graph.types import Snn
from snnconvert.neurons import NEURONS
from snnconvert.simulate.exact_products import applied
from snnconvert.simulate.kernels.fused import FusedNeurons, check, launch
from snnconvert.simulate.kernels.layout import per_element
from snnconvert.simulate.kernels.native import Current, Membrane
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.simulate.over_time import send
from snnconvert.simulate.step_engine import StepEngine
from tests.engines import levels_of
from tests.simulate.random_networks import images, waiting_snn
from tests.simulate.small_networks import pictures, small_snn

MODELS = [name for name, row in NEURONS.items() if row.triton is not None]
SHAPES = [(1,), (10,), (1025,), (5, 3), (3, 5, 7), (37, 6, 5), (1, 1, 1), (2, 3, 2, 3)]


def random_layer(rng: np.random.Generator, model: str) -> tuple[Neuron, Tensor, tuple[int, ...], int, int, bool]:
    """Neurons, their current, the shape of a sample, frames, steps of wait, and whether the current is constant."""
    shape = SHAPES[rng.integers(len(SHAPES))]
    frames, wait, batch = int(rng.integers(1, 10)), int(rng.choice([0, 0, 1, 2, 5, 12])), int(rng.integers(1, 4))
    constant = bool(rng.random() < 0.3)
    levels = int(rng.choice(levels_of(NEURONS[model])))
    per_channel = (shape[0], *[1] * (len(shape) - 1)) if len(shape) != 2 else (1, shape[1])
    some = [per_channel, shape, (1,) * len(shape)]

    def parameter(scale: float) -> Tensor:
        values = rng.random(some[rng.integers(len(some))]) * scale + 0.1
        return torch.tensor(values, dtype=torch.float32)

    threshold = parameter(1.0)
    initial = threshold / 2 if rng.random() < 0.5 else parameter(0.5)
    count = batch if constant else frames * batch
    mean, spread = rng.choice([-0.2, 0.3, 0.8]), rng.choice([0.3, 1.0, 3.0])
    current = torch.tensor(rng.normal(mean, spread, (count, *shape)), dtype=torch.float32) * threshold
    current = current * levels**0.8
    if rng.random() < 0.4:  # membranes that are exactly 0, the threshold, or minus the threshold
        threshold = (threshold * 8).round() / 8
        initial = threshold * float(rng.choice([0.0, 0.5]))
        current = torch.tensor(rng.integers(-4, 5, (count, *shape)), dtype=torch.float32) / 2 * threshold
    if len(shape) == 3 and rng.random() < 0.7:
        current = current.contiguous(memory_format=torch.channels_last)
    return Neuron(threshold, initial, model=model, levels=levels), current, shape, frames, wait, constant


@pytest.mark.parametrize("model", MODELS)
def test_layers(model: str) -> None:
    rng, spikes = np.random.default_rng(MODELS.index(model)), 0
    for _ in range(25):
        op, current, shape, frames, wait, constant = random_layer(rng, model)
        batch = len(current) if constant else len(current) // frames
        expected = send(op, current.unflatten(0, (-1, batch)), frames, wait)
        membrane = Membrane(op.row, op.levels, wait, per_element(op.threshold, shape), per_element(op.initial, shape))
        found, counts = launch(Current(current, constant), membrane, frames, batch, shape)
        assert torch.equal(found, expected), (shape, frames, wait, constant)
        sent = expected.reshape(frames, -1).abs()
        assert counts.dtype == torch.int64
        assert counts.tolist() == [(sent != 0).sum(1).tolist(), sent.double().sum(1).tolist()]
        spikes += int(counts[0].sum())
    assert spikes > 1000


@pytest.mark.parametrize("model", MODELS)
def test_extreme_membranes(model: str) -> None:
    """Subnormal numbers, quotients beyond 2^24, thresholds of few and of all bits, and what is not finite."""
    tiny = torch.tensor([1e-45, -1e-45, 3e-39, -3e-39, 0.0, -0.0])
    large = torch.tensor([2.0**24 + 2, 1e9, -1e9, 3e38, -3e38, float("inf"), float("-inf")])
    special = torch.tensor([0.1, 0.3, 0.7, 1.0, 1 / 3, 1e-38, 127.0])
    random = torch.Generator().manual_seed(0)
    usual = torch.rand(2000, generator=random) + 0.1
    near = usual * torch.randint(-70, 71, (2000,), generator=random)
    current = torch.cat([torch.cat([tiny, large]).repeat_interleave(len(special)), near])
    current = torch.cat([current, *(current.nextafter(torch.tensor(to)) for to in (9e9, -9e9))]).repeat(3, 1)
    every = torch.cat([special.repeat(len(tiny) + len(large)), usual]).repeat(3)
    levels = levels_of(NEURONS[model])[-1]
    op = Neuron(every, every * 0, model=model, levels=levels)
    membrane = Membrane(op.row, levels, 0, every[None], every[None] * 0)
    found, _ = launch(Current(current, False), membrane, 3, 1, (len(every),))
    assert torch.equal(found.nan_to_num(777.0), send(op, current[:, None], 3, 0).nan_to_num(777.0))


@pytest.mark.parametrize("model", MODELS)
def test_the_check_before_the_first_use(model: str) -> None:
    for levels in levels_of(NEURONS[model]):
        check(NEURONS[model], levels, torch.device("cpu"))


def as_on_a_device(snn: Snn) -> LayerEngine:
    engine = LayerEngine(snn)
    engine.fused, engine.apply = FusedNeurons(), applied
    return engine


@pytest.mark.parametrize("seed", range(6))
def test_networks_equal_the_oracle(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNNCONVERT_KERNELS", "torch")
    model = ["if", "ternary", "ternary-late"][seed % 3]
    snn, x = waiting_snn(seed, model=model, wait=seed % 3, frames=5), images(seed)
    if seed == 5:
        (snn, _), x = small_snn(seed, pool="max", neuron="graded", levels=15), pictures(3)
    engine = as_on_a_device(snn)
    seen, oracle = engine.run(x), StepEngine(snn).run(x)
    assert engine.notes == ()
    assert all(map(torch.equal, seen.outputs, oracle.outputs))
    for name, counts in oracle.spikes.items():
        assert torch.equal(seen.spikes[name], counts)
        assert torch.equal(seen.units[name], oracle.units[name])
