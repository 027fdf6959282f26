"""Phase coding with the cures switched on and off."""

from __future__ import annotations

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from phase_oracle import PhaseEngine
from random_networks import images, random_snn

from snnconvert.compile.network import compile_network
from snnconvert.errors import InternalError
from snnconvert.graph.dialect import Builder, calls
from snnconvert.graph.kinds import Conv, Linear, Relu, Reshape, Synchronous
from snnconvert.graph.schedule import Bistable
from snnconvert.graph.types import Ann, Calibrated, NeuronChoice, Origin, SiteCalibration, Snn, Source
from snnconvert.simulate.bistable_engine import BistableEngine
from snnconvert.study.phase_coding import PhaseCoding


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), window=st.integers(2, 4), frames=st.integers(1, 2))
def test_with_both_cures_it_is_the_bistable_network(seed: int, window: int, frames: int) -> None:
    snn, _, _ = random_snn(seed, window=window, frames=frames)
    try:
        engine = PhaseCoding(snn, bistable=True, synchronous=True)
    except InternalError:
        assume(False)
    seen, oracle = engine.run(images(seed)), BistableEngine(snn).run(images(seed))
    assert torch.equal(seen.outputs[0], oracle.outputs[0])
    for name, counts in oracle.units.items():
        assert int(counts.sum()) == int(seen.units[name].sum()), name


def test_switching_a_cure_off_changes_what_arrives() -> None:
    for seed in range(60):
        snn, _, _ = random_snn(seed, window=3, frames=1)
        if not any(isinstance(op, Synchronous) for _, op in calls(snn.graph)):
            continue
        try:
            without = PhaseCoding(snn, bistable=True, synchronous=False).run(images(seed))
        except InternalError:
            continue
        exact = BistableEngine(snn).run(images(seed))
        if not torch.equal(without.outputs[0][0], exact.outputs[0][0]):
            return
    raise AssertionError("synchronous neurons made no difference anywhere")


def worked_example() -> Snn:
    """Inputs 0.5 and 0.375 through a neuron each, then w = (1, -2): the ANN's second layer is silent."""
    builder = Builder({"input": torch.zeros(2, 2, 1, 1)})
    (x,) = builder.inputs.values()
    eye = torch.eye(2).reshape(2, 2, 1, 1)

    def conv(weight: torch.Tensor) -> Conv:
        return Conv(weight, None, stride=(1, 1), padding=(0, 0), dilation=(1, 1))

    for name, weight in (("first", eye), ("second", torch.tensor([1.0, -2.0]).reshape(1, 2, 1, 1))):
        x = builder.call(conv(weight), x, origin=Origin(f"conv_{name}", "test"))
        x = builder.call(Relu(), x, origin=Origin(name, "test"))
    x = builder.call(Reshape(shape=(1,)), x, origin=Origin("flat", "test"))
    x = builder.call(Linear(torch.ones(1, 1)), x, origin=Origin("out", "test"))
    ann = Ann(builder.finish([x]), (2, 1, 1), ("out",), Source("example", "", "", "test"))
    unit = torch.full((1, 1, 1), 0.125)
    found = {name: SiteCalibration(unit, 0 * unit) for name in ("first", "second")}
    schedule = Bistable(15, 2, window=3, rounding="floor")
    return compile_network(Calibrated(ann, found, schedule, NeuronChoice(), input_bound=1.0))


def test_plain_phase_coding_fires_where_the_ann_is_silent_and_the_bistable_neuron_does_not() -> None:
    snn = worked_example()
    codes = torch.cartesian_prod(torch.arange(8.0), torch.arange(8.0)) / 8
    silent = codes[codes[:, 0] - 2 * codes[:, 1] <= 0].reshape(-1, 2, 1, 1)
    cured = BistableEngine(snn).run(silent)
    assert int(cured.units["second"].sum()) == 0
    assert int(cured.units["first"].sum()) == int(8 * silent.sum()) * 2  # in each of two windows
    plain = PhaseCoding(snn, bistable=False, synchronous=True).run(silent)
    assert int(plain.units["second"].sum()) > 0


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    window=st.integers(1, 4),
    frames=st.integers(1, 2),
    bistable=st.booleans(),
    synchronous=st.booleans(),
    gated=st.booleans(),
    kernel=st.booleans(),
)
def test_layer_by_layer_equals_step_by_step(
    seed: int, window: int, frames: int, *, bistable: bool, synchronous: bool, gated: bool, kernel: bool
) -> None:
    snn, _, _ = random_snn(seed, window=window, frames=frames)
    cures = {"bistable": bistable, "synchronous": synchronous, "gated": gated}
    try:
        slow = PhaseEngine(snn, **cures).run(images(seed, 3))
    except InternalError:
        assume(False)
    fast = PhaseCoding(snn, **cures)
    fast.chunk = 2
    fast.native = fast.native if kernel else None
    seen = fast.run(images(seed, 3))
    assert seen.spikes.keys() == slow.spikes.keys()
    for name in slow.spikes:
        assert torch.equal(seen.spikes[name], slow.spikes[name]), name
        assert torch.equal(seen.units[name], slow.units[name]), name
    assert torch.equal(seen.outputs[0], slow.outputs[0])
