from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from random_networks import calibrated, images, random_ann
from small_networks import pictures, small_snn

from snnconvert.compile.integers import SCALES, exact_grids
from snnconvert.compile.network import compile_network
from snnconvert.errors import OptionError
from snnconvert.graph.dialect import calls
from snnconvert.graph.kinds import Conv, Neuron, Scale
from snnconvert.graph.schedule import Bistable, Streaming, Wait
from snnconvert.graph.schedule.timing import site_depths
from snnconvert.graph.types import Snn
from snnconvert.simulate.integer import IntegerEngine, integer_curve
from snnconvert.simulate.layer_engine import LayerEngine


def dyadic_snn(seed: int, kind: str = "streaming") -> Snn:
    """A random network whose weights, thresholds and inputs are multiples of small powers of two."""
    ann = random_ann(seed)
    depth = max(site_depths(ann.graph).values())
    plans = {
        "streaming": Streaming(8, depth),
        "wait": Wait(8 + depth, depth),
        "bistable": Bistable(4 * (depth + 4), depth, window=4),
        "uniform": Bistable(3 * (depth + 5), depth, window=3, phases="uniform", residual="clear"),
    }
    return compile_network(calibrated(ann, plans[kind], seed))


@pytest.mark.parametrize("scale_per", SCALES)
@pytest.mark.parametrize("kind", ["streaming", "wait", "bistable", "uniform"])
@pytest.mark.parametrize("seed", range(12))
def test_ample_bits_change_no_spike(seed: int, kind: str, scale_per: str) -> None:
    snn, batch = dyadic_snn(seed, kind), images(seed, 3)
    expected = LayerEngine(snn).run(batch)
    found = IntegerEngine(snn, weight_bits=44, state_bits=53, scale_per=scale_per).run(batch)
    assert found.spikes == {name: int(count.sum()) for name, count in expected.spikes.items() if name in found.spikes}
    assert sum(found.spikes.values()) > 0
    assert torch.allclose(found.outputs, expected.outputs[0].flatten(2), atol=1e-9)
    assert found.saturated == 0


@pytest.mark.parametrize("pool", ["sum", "max", "mean", "none"])
def test_fewer_bits_come_closer_one_by_one(pool: str) -> None:
    snn, _ = small_snn(pool=pool, timesteps=12)
    batch = pictures(8)
    exact = LayerEngine(snn).run(batch).outputs[0][-1]
    errors = []
    for bits in (2, 4, 8, 14):
        found = IntegerEngine(snn, weight_bits=bits, state_bits=24).run(batch).outputs[-1]
        errors.append(float((found - exact).square().mean().sqrt()))
    assert errors[0] > errors[1] > errors[2] > errors[3]
    assert errors[3] < 0.05 * errors[0]


def test_a_channel_may_have_any_scale() -> None:
    snn, _ = small_snn(timesteps=12)
    before = {per: IntegerEngine(snn, weight_bits=5, state_bits=24, scale_per=per).run(pictures(4)) for per in SCALES}
    second = [op for _, op in calls(snn.graph) if isinstance(op, Conv)][1]
    neuron = [op for _, op in calls(snn.graph) if isinstance(op, Neuron)][1]
    with torch.no_grad():
        for tensor in (second.weight, second.bias, neuron.threshold, neuron.initial):
            assert tensor is not None
            tensor[3] *= 2.0**-6
    after = {per: IntegerEngine(snn, weight_bits=5, state_bits=24, scale_per=per).run(pictures(4)) for per in SCALES}
    assert after["channel"].spikes == before["channel"].spikes
    assert after["layer"].spikes != before["layer"].spikes


def test_a_shortcut_leaves_the_kernels_their_bits() -> None:
    snn, _ = small_snn()
    kernel = [op for _, op in calls(snn.graph) if isinstance(op, Conv)][2]
    kernel.weight.mul_(2.0**-6)
    engine = IntegerEngine(snn, weight_bits=4, state_bits=24)
    beside = next(engine.ops[node] for node, op in calls(snn.graph) if op is kernel)
    assert isinstance(beside, Conv)
    assert (beside.weight.abs().amax((1, 2, 3)) == 7).all()
    largest = max(float(op.factor.abs().max()) for op in engine.ops.values() if isinstance(op, Scale))
    assert engine.integers.shortcut_synapses == math.ceil(largest / 7) > 1


def test_narrow_membranes_saturate() -> None:
    snn, _ = small_snn(timesteps=12)
    wide = IntegerEngine(snn, weight_bits=8, state_bits=20).run(pictures(4))
    narrow = IntegerEngine(snn, weight_bits=8, state_bits=3).run(pictures(4))
    assert wide.saturated == 0
    assert narrow.saturated > 0


def test_weights_and_thresholds_are_integers_within_their_bits() -> None:
    snn, _ = small_snn(pool="max")
    engine = IntegerEngine(snn, weight_bits=6, state_bits=12)
    checked = 0
    for node, op in engine.ops.items():
        if node in engine.units and engine.domains[node.all_input_nodes[0]] == "spikes" and hasattr(op, "weight"):
            weight = op.weight.double()  # type: ignore[union-attr, operator]
            assert torch.equal(weight, weight.round())
            assert weight.abs().max() <= 31
            checked += 1
        if type(op).__name__ == "Neuron":
            threshold = op.get_buffer("threshold")
            assert torch.equal(threshold, threshold.round())
            assert threshold.min() >= 1
            assert threshold.max() <= 2**11
    assert checked == 4


def test_curve_counts_right_answers() -> None:
    snn, _ = small_snn(timesteps=6)
    batch = pictures(5)
    labels = LayerEngine(snn).run(batch).outputs[0][-1].argmax(1).numpy().astype(np.int64)
    curve = integer_curve(snn, [(batch, labels)], weight_bits=16, state_bits=30, size=2)
    assert curve.samples == 5
    assert curve.correct[-1] == 5
    assert len(curve.correct) == 6


def test_grids_and_refusals() -> None:
    rows = torch.tensor([[0.75, -3.5], [12.0, 8.0], [2.0**-80, 1.0], [0.0, 0.0]]).double()
    assert exact_grids(rows).tolist() == [0.25, 4.0, 0.0, 2.0**40]
    snn, _ = small_snn()
    with pytest.raises(OptionError, match="outside 2 to 53"):
        IntegerEngine(snn, weight_bits=1, state_bits=16)
    with pytest.raises(OptionError, match="'neuron' is not known"):
        IntegerEngine(snn, weight_bits=8, state_bits=16, scale_per="neuron")
