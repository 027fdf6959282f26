"""Packed spikes come back as they were, and a current at some positions is the current there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from calibration_networks import conv
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx

from snnconvert.calibrate.least_squares import Taps, patches, patches_of
from snnconvert.calibrate.live_values import Chunk
from snnconvert.calibrate.packed_units import PackedUnits, bits_per_frame
from snnconvert.calibrate.pixels import at_pixels
from snnconvert.calibrate.reconstruct_networks import Networks
from snnconvert.calibrate.reconstruct_neuron import Scratch
from snnconvert.calibrate.reconstruct_rows import rows_of
from snnconvert.calibrate.sent_spikes import Sent, Spikes
from snnconvert.graph.dialect import Builder, arguments, calls, op_of
from snnconvert.graph.edit import copied, kind_of
from snnconvert.graph.kinds import Add, AveragePool, Concat, Conv, MaxPool, Op, Pad, Relu, Role, Slice
from snnconvert.graph.schedule import Streaming
from snnconvert.graph.types import Origin
from snnconvert.simulate.kernels import layout, native_available
from snnconvert.simulate.kernels.native import Native

FRAMES, IMAGES = 5, 2
PIXELS = torch.tensor([0, 7, 11, 38])
needs_kernels = pytest.mark.skipif(not native_available(), reason="the native kernels were not built")


@settings(max_examples=60, deadline=None)
@given(
    high=st.integers(1, 130),
    low=st.sampled_from([0, 1, 2, 130]),
    frames=st.integers(1, 19),
    sample=st.sampled_from([(5, 3, 7), (13,), (4, 6), (8, 4, 4)]),
    seed=st.integers(0, 99),
)
def test_packed_units_come_back(high: int, low: int, frames: int, sample: tuple[int, ...], seed: int) -> None:
    low = -min(low, high)
    whole = torch.int8 if high < 128 else torch.int32
    draw = torch.Generator().manual_seed(seed)
    units = torch.randint(low, high + 1, (frames * 3, *sample), generator=draw).to(whole)
    packed = PackedUnits.of(units, frames, low, high)
    assert torch.equal(packed.unpacked(), units)
    if len(sample) == 3:
        some = torch.tensor([4, 0, 11])
        assert torch.equal(packed.at(some).squeeze(-1), units.flatten(2)[:, :, some])
    if packed.bits < 8:
        assert packed.data.numel() == -(-frames * packed.bits // 8) * 3 * torch.Size(sample).numel()


@pytest.mark.parametrize(("low", "high", "bits"), [(0, 1, 1), (-1, 1, 2), (-1, 2, 2), (0, 15, 4), (-9, 9, 8)])
def test_a_frame_takes_as_few_bits_as_it_needs(low: int, high: int, bits: int) -> None:
    assert bits_per_frame(low, high) == bits


Call = Callable[..., fx.Node]


def _residual(call: Call, draw: torch.Generator, x: fx.Node) -> fx.Node:
    """The sum of a convolution and a current that is stored, because two read it."""
    current = call(conv(draw, 8, 8, size=1), x)
    return call(Add(), call(conv(draw, 8, 8, size=1), call(Relu(), current)), current)


def _side_by_side(call: Call, draw: torch.Generator, x: fx.Node) -> fx.Node:
    return call(conv(draw, 6, 12, size=1), call(Concat(dim=1), x, call(Relu(), call(conv(draw, 4, 8), x))))


def _pooled_side_by_side(call: Call, draw: torch.Generator, x: fx.Node) -> fx.Node:
    other = call(Relu(), call(conv(draw, 4, 8), x))
    return call(conv(draw, 6, 12), call(HALVED, call(Concat(dim=1), x, other)))


def _dilated(call: Call, draw: torch.Generator, x: fx.Node) -> fx.Node:
    weight = torch.randn(4, 8, 1, 3, generator=draw)
    return call(Conv(weight, None, stride=(1, 1), padding=(0, 2), dilation=(1, 2)), x)


def _narrower_beside(call: Call, draw: torch.Generator, x: fx.Node) -> fx.Node:
    """A residual block's shortcut that leaves out rows and columns, and fills up channels."""
    some = call(Slice(dim=3, start=1, stop=14, step=2), call(Slice(dim=2, start=0, stop=14, step=2), x))
    return call(Add(), call(conv(draw, 12, 8, stride=2), x), call(Pad(pads=(0, 0, 0, 0, 2, 2)), some))


def _sum_of_sums(call: Call, draw: torch.Generator, x: fx.Node) -> fx.Node:
    parts = [call(conv(draw, 8, 8), x), call(Add(), x, call(conv(draw, 8, 8), x))]
    return call(Add(), *parts, call(Add(), call(conv(draw, 8, 8), x), x))


def _spread(call: Call, draw: torch.Generator, x: fx.Node) -> fx.Node:
    """A sum within a sum, to which one value a channel is added everywhere."""
    mean = call(AveragePool(kernel=(14, 14), stride=(14, 14), padding=(0, 0)), call(conv(draw, 8, 8, size=1), x))
    return call(Add(), call(conv(draw, 8, 8), x), call(Add(), call(conv(draw, 8, 8), x), mean))


HALVED = MaxPool(kernel=(2, 2), stride=(2, 2), padding=(0, 0), dilation=(1, 1))
WIRINGS: dict[str, Callable[[Call, torch.Generator, fx.Node], fx.Node]] = {
    "pointwise": lambda call, draw, x: call(conv(draw, 6, 8, size=1), x),
    "strided": lambda call, draw, x: call(conv(draw, 6, 8, stride=2), x),
    "depthwise": lambda call, draw, x: call(conv(draw, 8, 8, groups=8), x),
    "dilated and asymmetric": _dilated,
    # more on one side than on the other, and a crop
    "padded": lambda call, draw, x: call(conv(draw, 6, 8, stride=2), call(Pad(pads=(0, 1, 2, -1)), x)),
    "residual": _residual,
    "sum of sums": _sum_of_sums,
    "spread": _spread,
    "narrower beside": _narrower_beside,
    "side by side": _side_by_side,
    # no activation between the two; and there the padding is of what the first one sends, bias and all
    "bottleneck": lambda call, draw, x: call(conv(draw, 6, 4, size=1), call(conv(draw, 4, 8, size=1), x)),
    "padded bottleneck": lambda call, draw, x: call(conv(draw, 4, 4, groups=4), call(conv(draw, 4, 8, size=1), x)),
    "pooled": lambda call, draw, x: call(conv(draw, 6, 8, size=1), call(HALVED, x)),
    "pooled side by side": _pooled_side_by_side,
    "padded with ones": lambda call, draw, x: call(conv(draw, 6, 8), call(Pad(pads=(0, 1, 0, 1), value=1.0), x)),
}
# what is computed everywhere in between; and what sums other numbers than multiples of a step
EVERYWHERE = ("padded with ones", "spread")
INEXACT = (*EVERYWHERE, "bottleneck", "padded bottleneck")


def networks(kind: str, *, native: bool = True) -> tuple[Networks, Chunk, fx.Node]:
    """A network in which random spikes have been stored, and the last convolution in it."""
    draw = torch.Generator().manual_seed(3)
    count = iter(range(100))
    builder = Builder({"input": torch.rand(1, 8, 14, 14, generator=draw)})

    def call(op: Op, *inputs: fx.Node) -> fx.Node:
        return builder.call(op, *inputs, origin=Origin(f"node{next(count)}", "test"))

    x = call(Relu(), call(conv(draw, 8, 8, size=1), builder.inputs["input"]))
    last = WIRINGS[kind](call, draw, x)
    site = call(Relu(), last)
    graph = builder.finish([site])
    made = Networks(graph, copied(graph), Streaming(FRAMES, 2), (FRAMES,))
    made.native = made.native if native else None
    chunk = Chunk(torch.rand(IMAGES, 8, 14, 14, generator=draw), held_out=False)
    made.begin([chunk])
    for node in made.nodes:
        if node.op == "call_module" and node.name != site.name:
            _send(made, chunk, node, draw)
    (target,) = [node for node in made.nodes if node.name == last.name]
    return made, chunk, target


def _send(made: Networks, chunk: Chunk, node: fx.Node, draw: torch.Generator) -> None:
    op = dict(calls(made.graph))[node]
    if op.role == Role.SITE:
        units = torch.randint(0, 2, (FRAMES * IMAGES, *node.meta["shape"]), generator=draw).to(torch.int8)
        amplitude = torch.rand(node.meta["shape"][0], 1, 1, generator=draw)
        chunk.ann[node] = chunk.mean[node] = units[:IMAGES].float()
        chunk.frames[node] = Sent(units, amplitude, (0, 1), density=1.0).kept(FRAMES)
    elif node in made.stored:
        made.store(chunk, node)


@pytest.mark.parametrize("kind", WIRINGS)
@pytest.mark.parametrize("native", [True, False])
def test_a_current_at_some_positions(kind: str, native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    made, chunk, node = networks(kind, native=native)
    whole: list[fx.Node] = []
    compute = made.frames

    def watched(chunk: Chunk, node: fx.Node) -> object:
        whole.extend([node] * (node not in chunk.frames))
        return compute(chunk, node)

    everywhere = made.frames(chunk, node).tensor
    monkeypatch.setattr(made, "frames", watched)
    some = made.frames_at(chunk, node, PIXELS).tensor
    wanted: Tensor = at_pixels(everywhere, PIXELS)
    assert some.shape == wanted.shape
    if kind in INEXACT:
        assert torch.allclose(some, wanted, atol=1e-5)
    else:
        assert torch.equal(some, wanted)
    assert bool(whole) == (kind in EVERYWHERE)


@pytest.mark.parametrize("native", [True, False])
def test_a_maximum_pool_is_kept_as_spikes(native: bool) -> None:
    found, chunk, node = networks("pooled", native=native)
    (pool,) = node.all_input_nodes
    (site,) = pool.all_input_nodes
    sent = chunk.frames[site]
    kept = chunk.frames[pool]
    assert isinstance(kept, Spikes)
    assert isinstance(sent, Spikes)
    received = sent.sent().units.float().view(FRAMES, IMAGES, *site.meta["shape"]).cumsum(0)
    best = HALVED(received.flatten(0, 1)).view(FRAMES, IMAGES, *pool.meta["shape"])
    assert torch.equal(kept.sent().units.view_as(best).cumsum(0).float(), best)
    assert torch.allclose(found.mean(chunk, pool), best[-1] * kept.template.amplitude / FRAMES)
    assert 0 < kept.template.density < 1


@pytest.mark.skipif(not native_available(), reason="no native kernels")
@pytest.mark.parametrize("never_dense", [True, False])
def test_the_kernels_rule_says_who_is_faster(never_dense: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A depthwise layer costs kernels the same however many spikes there are: no rule of calibration's own."""
    made, chunk, node = networks("depthwise")
    called: list[str] = []
    currents = Native.currents

    def watched(*arguments: Any) -> Tensor:
        called.append("currents")
        return currents(*arguments)

    monkeypatch.setattr(Native, "currents", watched)
    if not never_dense:
        monkeypatch.setattr(layout, "dense_from", lambda _: 0.0)
    made.frames(chunk, node)
    assert bool(called) == never_dense


@pytest.mark.parametrize("kind", WIRINGS)
@pytest.mark.parametrize("bits", [pytest.param(True, marks=needs_kernels), False])
def test_means_at_some_positions(kind: str, bits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what is sent as bits no means are kept: they are found where they are read."""
    made, chunk, last = networks(kind, native=bits)
    for node in made.nodes if bits else ():
        stored = chunk.frames.get(node) if node in made.stored else None
        if isinstance(stored, Spikes):
            chunk.mean.pop(node)
            sent = stored.sent()
            assert made.native is not None
            in_bits = made.native.condensed(sent.units) if isinstance(sent.spikes, Tensor) else sent.spikes
            made.keep(chunk, node, sent.moved(in_bits))
            assert node not in chunk.mean
    everywhere = made.mean(chunk, last)
    op = op_of(last)
    convolution = last if isinstance(op, Conv) else next(one for one in last.all_input_nodes if kind_of(one) == "Conv")
    conv_op, (source,) = op_of(convolution, Conv), arguments(convolution)
    wanted_rows = patches(conv_op, made.mean(chunk, source), PIXELS)
    whole: list[fx.Node] = []
    compute = made.mean

    def watched(chunk: Chunk, node: fx.Node) -> Tensor:
        whole.extend([node] * (node not in chunk.frames))
        return compute(chunk, node)

    monkeypatch.setattr(made, "mean", watched)
    assert torch.allclose(made.mean_at(chunk, last, PIXELS), at_pixels(everywhere, PIXELS), atol=1e-5)
    found = rows_of(made, convolution, PIXELS)(chunk)
    rows = patches_of(conv_op, found.values, found.read) if isinstance(found, Taps) else found
    assert isinstance(found, Taps) == (conv_op.groups == len(conv_op.weight) > 1)
    assert rows.shape == wanted_rows.shape
    assert torch.allclose(rows, wanted_rows, atol=1e-5)
    assert bool(whole) == (kind in EVERYWHERE)


def test_what_is_remembered_of_the_original_is_what_later_layers_read() -> None:
    made, chunk, last = networks("pointwise")
    (site,) = last.users
    value = made.wanted(chunk, last, remember=True)
    assert last not in chunk.ann
    assert torch.equal(chunk.ann[site], torch.relu(value))
    made.forget_remembered([chunk])
    assert site in chunk.ann


def test_memory_that_trials_leave_to_each_other() -> None:
    scratch = Scratch()
    first = scratch.room("currents", False, 4, 5)
    first.fill_(1.0)
    other = scratch.room("others", False, 4, 5)
    assert other.data_ptr() != first.data_ptr() != scratch.room("currents", True, 4, 5).data_ptr()
    assert scratch.room("currents", False, 3, 6).data_ptr() == first.data_ptr()
    assert scratch.room("currents", False, 30, 6).shape == (30, 6)
