"""However a network is wired, calibration evaluates operators about equally often: its cost is linear in depth."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from calibration_networks import SHAPE, conv, images, task
from torch import fx, nn

from snnconvert.calibrate.reconstruct import calibrate_reconstruct
from snnconvert.graph.dialect import Builder
from snnconvert.graph.kinds import Add, AveragePool, Concat, Linear, Op, Relu, Reshape, Select, Slice
from snnconvert.graph.types import Ann, Origin, Source

Call = Callable[..., fx.Node]
CHANNELS = 8
DEPTHS = (3, 6, 9)


def _shuffled(call: Call, draw: torch.Generator, x: fx.Node) -> fx.Node:
    """A unit of ShuffleNet: one half passes, the other is computed, and channels are shuffled."""
    half = CHANNELS // 2
    passed, taken = (call(Slice(dim=1, start=start, stop=start + half), x) for start in (0, half))
    joined = call(Concat(dim=1), passed, call(Relu(), call(conv(draw, half, half), taken)))
    return call(Select(dim=1, indices=tuple(range(0, CHANNELS, 2)) + tuple(range(1, CHANNELS, 2))), joined)


def _concatenated(call: Call, draw: torch.Generator, x: fx.Node) -> fx.Node:
    """A layer of a DenseNet whose new channels are spikes."""
    return call(Concat(dim=1), x, call(Relu(), call(conv(draw, 2, x.meta["shape"][0]), x)))


def _dense(call: Call, draw: torch.Generator, x: fx.Node) -> fx.Node:
    """The same where they are currents, rectified by whoever reads them."""
    inner = call(Relu(), call(conv(draw, 4, x.meta["shape"][0], size=1), call(Relu(), x)))
    return call(Concat(dim=1), x, call(conv(draw, 2, 4), inner))


def _added(call: Call, draw: torch.Generator, x: fx.Node) -> fx.Node:
    """A residual block before whose activation all sums are read again."""
    return call(Add(), x, call(conv(draw, CHANNELS, CHANNELS), call(Relu(), x)))


WIRINGS = {"shuffled": _shuffled, "concatenated": _concatenated, "dense": _dense, "added": _added}


def chain(kind: str, depth: int) -> Ann:
    """So many units, one after the other."""
    draw = torch.Generator().manual_seed(1)
    builder, count = Builder({"input": torch.rand(2, *SHAPE, generator=draw)}), iter(range(1000))

    def call(op: Op, *inputs: fx.Node) -> fx.Node:
        return builder.call(op, *inputs, origin=Origin(f"node{next(count)}", "test"))

    x = call(Relu(), call(conv(draw, CHANNELS, SHAPE[0]), builder.inputs["input"]))
    for _ in range(depth):
        x = WIRINGS[kind](call, draw, x)
    x = call(AveragePool(kernel=SHAPE[1:], stride=SHAPE[1:], padding=(0, 0)), call(Relu(), x))
    x = call(Reshape(shape=(x.meta["shape"][0],)), x)
    weight = torch.randn(5, x.meta["shape"][0], generator=draw)
    graph = builder.finish([call(Linear(weight, torch.zeros(5)), x)])
    return Ann(graph, SHAPE, ("logits",), Source(kind, "", "", "test"))


@pytest.mark.parametrize("kind", WIRINGS)
def test_evaluations_grow_with_the_number_of_layers(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNNCONVERT_KERNELS", "torch")  # kernels compute operators in passing
    calls = []
    for depth in DEPTHS:
        one = task(chain(kind, depth), images(10), timesteps=3, options={"rounds": 1, "held_out": 0.0})
        seen = 0

        def count(*_: object) -> None:
            nonlocal seen
            seen += 1

        hook = nn.modules.module.register_module_forward_hook(count)
        try:
            calibrate_reconstruct(one)
        finally:
            hook.remove()
        calls.append(seen)
    first, second = calls[1] - calls[0], calls[2] - calls[1]
    assert 0 < second <= 1.05 * first
