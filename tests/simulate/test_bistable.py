"""The theorems of bistable networks, on random graphs whose arithmetic is exact."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_networks import images, quantised, random_snn, waiting_snn
from torch import Tensor

from snnconvert.compile.balance import verify_balanced
from snnconvert.errors import InternalError
from snnconvert.graph.dialect import calls, op_of, sites
from snnconvert.graph.kinds import Neuron, Synchronous
from snnconvert.graph.schedule import Bistable
from snnconvert.graph.schedule.timing import plan, site_depths
from snnconvert.simulate.bistable_engine import BistableEngine
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.simulate.step_engine import StepEngine

seeds = st.integers(0, 2**32 - 1)
phases = st.sampled_from(["power2", "uniform"])


def codes_of(snn, image: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Units of every neuron, (frames, batch, *sample), and the outputs."""
    codes: dict[str, Tensor] = {}
    seen = LayerEngine(snn).run(image, lambda name, frames: codes.__setitem__(name, frames.double()))
    return codes, seen.outputs[0]


@settings(max_examples=300, deadline=None)
@given(seed=seeds, window=st.integers(1, 5), phases=phases, rounding=st.sampled_from(["nearest", "floor"]))
def test_first_window_is_the_quantised_ann(seed: int, window: int, phases: str, rounding: str) -> None:
    snn, ann, calibration = random_snn(seed, window=window, phases=phases, rounding=rounding)
    verify_balanced(snn.graph)
    codes, outputs = codes_of(snn, images(seed))
    expected, logits = quantised(ann, calibration, snn.schedule, images(seed))
    assert codes.keys() == expected.keys()
    for name, code in expected.items():
        assert torch.equal(codes[name][0], code), name
    assert torch.equal(outputs[0], logits)


@settings(max_examples=60, deadline=None)
@given(
    seed=seeds,
    window=st.integers(1, 4),
    phases=phases,
    residual=st.sampled_from(["keep", "clear", "clamp"]),
    frames=st.integers(1, 3),
)
def test_the_layer_engine_equals_the_oracle_in_every_step(
    seed: int, window: int, phases: str, residual: str, frames: int
) -> None:
    snn, _, _ = random_snn(seed, window=window, phases=phases, residual=residual, frames=frames)
    fast, oracle = LayerEngine(snn).run(images(seed)), BistableEngine(snn).run(images(seed))
    assert fast.spikes.keys() == oracle.spikes.keys()
    for name in oracle.spikes:
        assert torch.equal(fast.spikes[name], oracle.spikes[name]), name
        assert torch.equal(fast.units[name], oracle.units[name]), name
    assert torch.equal(fast.outputs[0], oracle.outputs[0])


@settings(max_examples=40, deadline=None)
@given(seed=seeds, phases=phases, frames=st.integers(1, 3))
def test_inactivated_neurons_stay_silent_and_residuals_stay_below_one_unit(seed: int, phases: str, frames: int) -> None:
    """A unit whose input is at most 0 never fires; one that is not saturated keeps less than a unit back."""
    snn, _, _ = random_snn(seed, window=3, phases=phases, frames=frames)
    engine = BistableEngine(snn)
    codes, _ = codes_of(snn, images(seed))
    engine.run(images(seed))
    for node, op in sites(snn.graph):
        assert isinstance(op, Neuron)
        sent = codes[node.name].sum(0)
        received = engine.residual(node.name) + sent * op.threshold - op.initial
        if frames == 1 and op.model == "bistable":
            assert not sent[received <= 0].any()
        inside = codes[node.name].abs().amax(0) < op.levels
        rest = engine.residual(node.name)[inside & ((received >= 0) | (op.model == "signed"))]
        limit = op.threshold.expand_as(sent)[inside & ((received >= 0) | (op.model == "signed"))]
        assert bool((rest < limit).all())
        if frames == 1:
            assert bool((rest >= 0).all())


@settings(max_examples=25, deadline=None)
@given(seed=seeds, window=st.integers(2, 4), phases=phases)
def test_synchronous_neurons_are_lossless(seed: int, window: int, phases: str) -> None:
    """Every spike of the source comes again, one window later, at the same phase."""
    snn, _, _ = random_snn(seed, window=window, phases=phases, frames=2)
    seen = BistableEngine(snn).run(images(seed))
    for node, op in calls(snn.graph):
        source = node.all_input_nodes[0]
        if isinstance(op, Synchronous) and source.name in seen.spikes:
            assert torch.equal(seen.spikes[node.name], seen.spikes[source.name])
            assert site_depths(snn.graph)[node.name] == site_depths(snn.graph)[source.name] + 1


@given(
    sums=st.lists(st.integers(-500, 500), min_size=1, max_size=20),
    threshold=st.integers(1, 9),
    window=st.integers(1, 12),
)
def test_uniform_code_is_the_quantiser_of_bu(sums: list[int], threshold: int, window: int) -> None:
    """clip(round(Q K / theta), 0, K) with round = floor(x + 1/2), whatever theta is; Q on a grid of 1/16."""
    from snnconvert.simulate.window_neurons import send_windows

    schedule = Bistable(2 * window, 1, window=window, phases="uniform")
    theta = torch.tensor(threshold / 4, dtype=torch.float64) * window  # one unit is exactly representable
    unit = theta / window
    neuron = Neuron(unit, unit / 2, model="bistable", levels=window).double()
    q = torch.tensor(sums, dtype=torch.float64).reshape(1, 1, -1) / 16
    expected = torch.floor(q * window / theta + 0.5).clamp(0, window)
    assert torch.equal(send_windows(neuron, q, schedule).double(), expected)


@pytest.mark.parametrize("window", [3, 7, 8, 9])
def test_counts_of_many_codes(window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from snnconvert.simulate import window_neurons

    codes = torch.randint(0, 2**window, (2, 3, 40), generator=torch.Generator().manual_seed(window))
    codes[0, 0, 0] = 2**window - 1
    schedule = Bistable(100, 1, window=window)
    monkeypatch.setattr(window_neurons, "PAIRS_FROM", 10)
    spikes, units = window_neurons.count_window_spikes(codes.float(), schedule, signed=False)
    bits = torch.stack([(codes >> (window - 1 - phase)) & 1 for phase in range(window)], 1).flatten(2).sum(2)
    assert torch.equal(spikes, bits.flatten())
    assert int(units.sum()) == int(codes.sum())


def test_rounding_of_the_quotient_cannot_add_a_spike() -> None:
    """The largest double below 3 q: its quotient rounds up to 3, yet only 2 units fit into it."""
    from snnconvert.simulate.window_neurons import window_units

    q = torch.tensor([0.1, 1 / 3, 0.7, 1e-3, 5 / 7], dtype=torch.float64)
    just_below = torch.nextafter(3 * q, torch.zeros(5, dtype=torch.float64))
    below = just_below[(just_below / q == 3)]
    units = window_units(just_below.clone(), q, 7, negative=False)
    remainders = [float(v) - int(n) * float(t) for v, n, t in zip(just_below, units, q, strict=True)]
    assert below.numel() > 0
    assert all(rest >= 0 for rest in remainders)


def test_the_worked_example_of_a_spurious_spike() -> None:
    """x = (0.5, 0.375), w = (1, -2): the ANN is silent, and so is the bistable neuron, in every step."""
    snn, _, _ = random_snn(3, window=3)
    neuron = next(op for _, op in calls(snn.graph) if isinstance(op, Neuron))
    assert neuron.levels == 7
    from snnconvert.neurons.bistable import fire_phase

    unit, v = torch.tensor(0.125), torch.tensor(0.0625)
    for first, second in zip([0.5, 0.0, 0.0], [0.0, 0.25, 0.125], strict=True):
        v = v + first - 2 * second
    for weight in (4, 2, 1):
        sent, v = fire_phase(v, unit, weight, negative=False)
        assert float(sent) == 0


@settings(max_examples=40, deadline=None)
@given(seed=seeds, model=st.sampled_from(["if", "ternary"]), wait=st.integers(1, 3), frames=st.integers(1, 5))
def test_waiting_networks_with_synchronous_neurons(seed: int, model: str, wait: int, frames: int) -> None:
    """A synchronous neuron holds spikes back by as many steps as a layer waits: both engines agree."""
    snn = waiting_snn(seed, model=model, wait=wait, frames=frames)
    verify_balanced(snn.graph)
    fast, oracle = LayerEngine(snn).run(images(seed)), StepEngine(snn).run(images(seed))
    assert fast.spikes.keys() == oracle.spikes.keys()
    for name in oracle.spikes:
        assert torch.equal(fast.spikes[name], oracle.spikes[name]), name
    assert torch.equal(fast.outputs[0], oracle.outputs[0])


def test_engines_refuse_each_others_schedules() -> None:
    snn, _, _ = random_snn(0, window=2)
    with pytest.raises(InternalError):
        StepEngine(snn)


def test_the_plan_lists_every_site_with_its_windows() -> None:
    snn, _, _ = random_snn(11, window=3, frames=2)
    rows = plan(snn)
    spiking = [node for node, op in calls(snn.graph) if op.role.name in ("NEURON", "DELAY")]
    assert [row["site"] for row in rows[:-1]] == [node.name for node in spiking]
    assert {row["kind"] for row in rows} >= {"neuron", "read-out"}
    for row in rows:
        start = 3 * (row["depth"] - 1)
        assert row["integrates"] == [(start, start + 3), (start + 6, start + 9)]
    assert rows[-1]["depth"] == snn.schedule.depth + 1
    assert rows[-1]["integrates"][-1][1] == snn.schedule.timesteps


def test_synchronous_neurons_count_as_one_depth() -> None:
    for seed in range(40):
        snn, _, _ = random_snn(seed, window=2)
        depths = site_depths(snn.graph)
        for node, op in calls(snn.graph):
            if isinstance(op, Synchronous):
                assert depths[node.name] == depths[node.all_input_nodes[0].name] + 1
                assert op_of(node) is op
                return
    raise AssertionError("no random network had a synchronous neuron")
