"""Weights of a chip: on their steps, exact in every engine, and found by the kernels without being told."""

from __future__ import annotations

import pytest
import torch

from snnconvert.compile.exact import finest_grids
from snnconvert.compile.precision import in_precision
from snnconvert.errors import OptionError
from snnconvert.graph.dialect import calls
from snnconvert.graph.kinds import Conv, ConvTranspose, Linear
from snnconvert.simulate.kernels.layout import pack
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.simulate.step_engine import StepEngine
from tests.simulate.small_networks import pictures, small_snn


def test_int8_weights_are_integers_times_a_step_of_their_output() -> None:
    snn, _ = small_snn(timesteps=8)
    before = {node.name: op for node, op in calls(snn.graph)}
    changed = 0
    for node, op in calls(in_precision(snn, "int8").graph):
        if not isinstance(op, Conv | Linear):
            continue
        old, new = before[node.name].get_buffer("weight").double().flatten(1), op.weight.double().flatten(1)
        changed += int(not torch.equal(old, new))
        assert (old - new).abs().max() <= 0.51 * old.abs().amax() / 127 + 1e-6
        assert all(len(row.unique()) <= 255 for row in new)
        packed = pack(op) if op.weight.dtype == torch.float32 else None
        if packed is not None and packed.groups == 1:
            assert packed.integers is not None
            assert packed.steps is not None
            assert packed.integers.abs().max() <= 127
            rows = packed.integers[:-1].double() * packed.steps[0].double()
            assert torch.equal(rows[:, : op.weight.shape[0]], packed.weight[0, :-1, : op.weight.shape[0]].double())
    assert changed


def test_bfloat16_keeps_eight_bits() -> None:
    snn, _ = small_snn(timesteps=8)
    for _, op in calls(in_precision(snn, "bfloat16").graph):
        if isinstance(op, Conv | Linear | ConvTranspose):
            assert torch.equal(op.weight.to(torch.bfloat16).to(op.weight.dtype), op.weight)


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
@pytest.mark.parametrize("schedule", ["streaming", "bistable"])
def test_engines_agree(precision: str, schedule: str) -> None:
    if schedule == "bistable":
        snn, _ = small_snn(timesteps=16, kind="bistable", window=2)
    else:
        snn, _ = small_snn(timesteps=8)
    rounded, images = in_precision(snn, precision), pictures(2)
    fast, whole = LayerEngine(rounded).run(images), LayerEngine(snn).run(images)
    assert any(not torch.equal(fast.spikes[name], counts) for name, counts in whole.spikes.items())
    if schedule != "bistable":
        oracle = StepEngine(rounded).run(images)
        assert all(torch.equal(fast.spikes[name], counts) for name, counts in oracle.spikes.items())
        assert torch.equal(fast.outputs[0], oracle.outputs[0])


def test_float32_is_the_network_itself_and_others_are_refused() -> None:
    snn, _ = small_snn(timesteps=8)
    assert in_precision(snn, "float32") is snn
    with pytest.raises(OptionError, match="int4"):
        in_precision(snn, "int4")


def test_finest_grids() -> None:
    rows = torch.tensor([[0.75, -3.5, 0.0], [12.0, 8.0, 0.0], [2.0**-80, 0.0, 1.0], [0.0, 0.0, 0.0]]).double()
    assert finest_grids(rows).tolist() == [0.25, 4.0, 2.0**-80, float("inf")]
