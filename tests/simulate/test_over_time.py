"""Inputs that vary over time: both engines and the one that goes on piece by piece do the same, spike by spike."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from snnconvert.calibrate import METHODS, Task
from snnconvert.compile.balance import with_identity_sites
from snnconvert.compile.network import compile_network
from snnconvert.convert.encoder import with_events
from snnconvert.data.moving import Currents, Events, Moving, Part, joined, over_time_of
from snnconvert.errors import DataError, OptionError
from snnconvert.graph.dialect import Builder, calls, op_of
from snnconvert.graph.kinds import Elementwise, Linear, MaxPool, Op, Relu, Reshape
from snnconvert.graph.kinds import Events as EventsKind
from snnconvert.graph.schedule import Schedule, Streaming, Wait
from snnconvert.graph.schedule.timing import site_depths
from snnconvert.graph.types import Ann, NeuronChoice, Origin, Snn, Source
from snnconvert.simulate.chunks import is_long, steps_at_once
from snnconvert.simulate.kernels import native_available
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.simulate.measure import watched_run
from snnconvert.simulate.result import Simulation, one_after_the_other
from snnconvert.simulate.step_engine import StepEngine
from snnconvert.simulate.stream_engine import Carried, StreamEngine
from snnconvert.study.operations import OperationCounter, operations
from tests.engines import assert_engines_agree, assert_equal
from tests.simulate.random_networks import CHANNELS, SIZE, calibrated, random_ann, random_snn
from tests.simulate.small_networks import SHAPE, small_ann

FRAMES, BATCH = 9, 2


def network(seed: int, *, events: bool, wait: int = 0, model: str = "if", levels: int = 3) -> Snn:
    """A random network for FRAMES frames that reads events, or real numbers."""
    ann = random_ann(seed)
    if events:
        amplitude = torch.full((1, 1, 1), 0.5)
        ann = with_events(ann, EventsKind(amplitude, slicing=f"frames:{FRAMES}", steps=FRAMES, levels=levels))
    made: Schedule = Wait(10**6, 1, wait=wait) if wait else Streaming(FRAMES, 1)
    ann = with_identity_sites(ann, made)
    depth = max(site_depths(ann.graph).values())
    made = Wait(FRAMES + depth * wait, depth, wait=wait) if wait else Streaming(FRAMES, depth)
    return compile_network(calibrated(ann, made, seed), neuron=NeuronChoice(model))


def arriving(seed: int, *, events: bool, most: int = 3) -> Moving:
    """What comes in in FRAMES steps: few events, or real numbers."""
    rng, shape = np.random.default_rng(seed), (FRAMES, BATCH, CHANNELS, SIZE, SIZE)
    if events:
        values = torch.tensor(rng.integers(0, most + 1, shape) * (rng.random(shape) < 0.3), dtype=torch.int8)
        return Moving.of(values.sum(0) * 0.5, Currents(values))
    values = torch.tensor(rng.integers(-64, 65, shape), dtype=torch.float32) / 32
    return Moving.of(values.mean(0), Currents(values))


def in_pieces(snn: Snn, inputs: Moving, cuts: list[int], *, last: int | None) -> Simulation:
    """The run in pieces that end at the steps of `cuts`."""
    engine, state, parts = StreamEngine(snn), Carried(), []
    edges = sorted({0, *cuts, snn.schedule.timesteps})
    for start, stop in pairwise(edges):
        part, state = engine.run(inputs.over_time.frames(start, stop), state, last)
        parts.append(part)
    return one_after_the_other(parts)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    events=st.booleans(),
    wait=st.sampled_from([0, 0, 1, 2]),
    model=st.sampled_from(["if", "ternary", "burst"]),
    cuts=st.lists(st.integers(1, FRAMES), max_size=3),
)
def test_engines_agree_on_inputs_that_vary_over_time(
    seed: int, events: bool, wait: int, model: str, cuts: list[int]
) -> None:
    snn, inputs = network(seed, events=events, wait=wait, model=model), arriving(seed, events=events)
    try:
        oracle = StepEngine(snn).run(inputs)
    except OptionError as error:  # it adds the input to a layer that answers later
        assert wait
        assert not events
        assert "adds the input" in error.message
        return
    with pytest.MonkeyPatch.context() as patch:
        for kernels in ("torch", "native") if native_available() else ("torch",):
            patch.setenv("SNNCONVERT_KERNELS", kernels)
            assert_equal(LayerEngine(snn).run(inputs), oracle)
    assert_equal(in_pieces(snn, inputs, cuts, last=FRAMES), oracle)


def pooled_and_analog(*, events: bool) -> Snn:
    """A maximum pool and a function on what comes in, before any neuron; another function between neurons."""
    draw = torch.Generator().manual_seed(3)
    builder = Builder({"input": torch.rand(2, 2, 4, 4, generator=draw)})
    names = iter(range(100))

    def call(op: Op, *inputs: torch.fx.Node) -> torch.fx.Node:
        return builder.call(op, *inputs, origin=Origin(f"{type(op).__name__.lower()}{next(names)}", "test"))

    x = call(MaxPool(kernel=(2, 2), stride=(2, 2), padding=(0, 0), dilation=(1, 1)), builder.inputs["input"])
    x = call(Linear(torch.randn(8, 8, generator=draw), torch.randn(8, generator=draw)), call(Reshape(shape=(8,)), x))
    x = call(Relu(), call(Linear(torch.randn(8, 8, generator=draw), None), call(Elementwise(function="square"), x)))
    x = call(Elementwise(function="square"), x)
    x = call(Relu(), call(Linear(torch.randn(6, 8, generator=draw), torch.randn(6, generator=draw)), x))
    graph = builder.finish([call(Linear(torch.randn(3, 6, generator=draw), None), x)])
    ann = Ann(graph, (2, 4, 4), ("logits",), Source("test", "", "", "test"))
    if events:
        ann = with_events(ann, EventsKind(torch.ones(1, 1, 1), slicing="frames:9", steps=FRAMES, levels=3))
    task = Task(ann, torch.rand(8, 2, 4, 4, generator=draw), Streaming(FRAMES, 2), NeuronChoice("ternary"))
    return compile_network(METHODS["mse"](task))


@pytest.mark.parametrize("events", [False, True])
def test_pools_and_functions_in_front_of_all_neurons_see_what_came_in_so_far(
    events: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    snn = pooled_and_analog(events=events)
    whole = arriving(5, events=events)
    inputs = Moving.of(whole.as_subclass(torch.Tensor)[:, :2], Currents(whole.over_time.frames(0, FRAMES)[:, :, :2]))
    oracle = assert_engines_agree(snn, inputs, monkeypatch)
    assert_equal(in_pieces(snn, inputs, [2, 3, 7], last=FRAMES), oracle)


def test_an_input_that_does_not_change_may_come_in_step_by_step() -> None:
    snn = network(4, events=False)
    x = torch.randn(BATCH, CHANNELS, SIZE, SIZE, generator=torch.Generator().manual_seed(0)).double()
    constant = LayerEngine(snn).run(x)
    moving = LayerEngine(snn).run(Moving.of(x, Currents(x.expand(FRAMES, *x.shape))))
    assert_equal(moving, constant)


def test_a_reset_begins_anew() -> None:
    snn, inputs = network(7, events=True, model="ternary"), arriving(7, events=True)
    (node,) = [node for node, _ in calls(snn.graph, EventsKind)]
    shorter = replace(snn, schedule=replace(snn.schedule, timesteps=3))
    alone = [
        LayerEngine(shorter).run(Moving.of(inputs.as_subclass(torch.Tensor), Part(inputs.over_time, start, 3)))
        for start in (0, 3, 6)
    ]
    op_of(node, EventsKind).reset = 3
    trains: dict[str, torch.Tensor] = {}
    seen = LayerEngine(snn).run(inputs, trains.__setitem__)
    for index, part in enumerate(alone):
        mine = seen.outputs[0][3 * index + 2] / (3 * index + 3)
        torch.testing.assert_close(mine, part.outputs[0][2] / 3, rtol=1e-12, atol=0)
        for name, counts in part.spikes.items():
            assert torch.equal(seen.spikes[name][3 * index : 3 * index + 3], counts)
    assert all(len(train) == FRAMES for train in trains.values())
    assert trains


def test_long_runs_are_made_piece_by_piece_and_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    snn, inputs = network(11, events=True), arriving(11, events=True)
    whole = LayerEngine(snn).run(inputs)
    monkeypatch.setattr("snnconvert.simulate.chunks.LONG_BYTES", 2000)
    monkeypatch.setattr("snnconvert.simulate.chunks.TARGET_BYTES", 4000)
    assert is_long(snn, BATCH)
    assert 1 <= steps_at_once(snn, BATCH) < FRAMES
    assert_equal(LayerEngine(snn).run(inputs), whole)


def test_more_events_than_a_place_takes_in_are_cut_off_and_said() -> None:
    snn, inputs = network(2, events=True, levels=2), arriving(2, events=True, most=5)
    cut = Moving.of(inputs.as_subclass(torch.Tensor), Currents(inputs.over_time.frames(0, FRAMES).clamp(max=2)))
    engine, alike = LayerEngine(snn), LayerEngine(snn)
    assert_equal(engine.run(inputs), alike.run(cut))
    assert_equal(engine.run(inputs), StepEngine(snn).run(inputs))
    assert "more events came in" in " ".join(engine.notes)
    assert not alike.notes


def test_what_cannot_be_replayed_is_refused() -> None:
    snn, events = network(1, events=True), arriving(1, events=True)
    with pytest.raises(DataError, match="reads events over time"):
        LayerEngine(snn).run(events.as_subclass(torch.Tensor))
    with pytest.raises(DataError, match="4 steps, the network takes 9"):
        LayerEngine(snn).run(Moving.of(torch.zeros(BATCH), Part(events.over_time, 0, 4)))
    windowed, _, _ = random_snn(1, window=2)
    with pytest.raises(OptionError, match="same in all steps"):
        LayerEngine(windowed).run(Moving.of(torch.zeros(BATCH), Part(arriving(1, events=False).over_time, 0, 1)))


def test_parts_of_moving_inputs_know_how_they_come_in() -> None:
    rng = np.random.default_rng(0)
    dense = torch.tensor(rng.integers(0, 3, (5, 4, 2, 3, 3)), dtype=torch.int8)
    step, image, place = (dense.flatten(2).nonzero().repeat_interleave(dense[dense != 0].long(), 0)).T.numpy()
    order = np.lexsort((step, image))
    starts = np.concatenate([[0], np.bincount(image, minlength=4).cumsum()])
    events = Events(5, (2, 3, 3), starts, step[order].astype(np.int32), place[order].astype(np.int32))
    assert torch.equal(events.frames(0, 5), dense)
    assert torch.equal(events.frames(2, 7)[:3], dense[2:])
    assert not events.frames(5, 7).any()
    assert np.array_equal(events.sums(), dense.sum(0).numpy())
    assert events.peak() == 2
    moving = Moving.of(torch.from_numpy(events.sums()), events)
    for index in (slice(1, 3), torch.tensor([3, 0]), [2], np.array([False, True, True, False])):
        part = moving[index]
        found = over_time_of(part)
        assert found is not None
        positions = torch.arange(4)[index]
        assert torch.equal(found.frames(0, 5), dense[:, positions])
        assert torch.equal(part.as_subclass(torch.Tensor), moving.as_subclass(torch.Tensor)[index])
    back = joined([moving[:1], moving[1:]])
    assert torch.equal(over_time_of(back).frames(0, 5), dense)  # type: ignore[union-attr]
    assert over_time_of(moving * 2) is None
    assert over_time_of(joined([moving[:1], torch.zeros(1, 2, 3, 3)])) is None


def test_the_first_layer_adds_for_each_event_and_multiplies_nothing() -> None:
    ann, inputs = small_ann(pool="none"), arriving_pictures()
    ann = with_events(ann, EventsKind(torch.ones(1, 1, 1), slicing="frames:9", steps=FRAMES, levels=1))
    task = Task(ann, inputs.as_subclass(torch.Tensor), Streaming(FRAMES, 4), NeuronChoice())
    snn = compile_network(METHODS["mse"](task))
    counter = OperationCounter(snn, len(inputs))
    watched_run(LayerEngine(snn), inputs, [counter])
    found = operations(counter)
    assert found is not None
    first = found.layers[0]
    ones = torch.ones(4, 2, 3, 3)
    reached = torch.nn.functional.conv_transpose2d(torch.ones(1, 4, 6, 6), ones, padding=1)  # synapses of each place
    events = inputs.over_time.frames(0, FRAMES).double().sum((0, 1))
    added = float((events * reached[0]).sum()) / len(inputs)
    assert first.accumulates == first.weight_reads == pytest.approx(added)
    assert sum(layer.multiplies for layer in found.layers) == 0
    by_step = (inputs.over_time.frames(0, FRAMES).double() * reached).sum((1, 2, 3, 4)) / len(inputs)
    assert first.over_time["accumulates"] == pytest.approx(by_step.tolist())


def arriving_pictures() -> Moving:
    values = torch.tensor(np.random.default_rng(2).random((FRAMES, 3, *SHAPE)) < 0.2, dtype=torch.int8)
    return Moving.of(values.sum(0, dtype=torch.float32), Currents(values))
