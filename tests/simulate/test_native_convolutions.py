"""Every way in which the native kernels convolve spikes, and pool them, against torch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from snnconvert.graph.kinds import Conv, MaxPool, SumPool
from snnconvert.neurons import NEURONS
from snnconvert.simulate.kernels import Native, choose, native_available
from snnconvert.simulate.kernels.bits import Bits
from snnconvert.simulate.kernels.layout import pack
from snnconvert.simulate.kernels.native import INSTRUCTIONS, Convolution, Current, Membrane, ScaledSpikes

pytestmark = pytest.mark.skipif(not native_available(), reason="the native kernels were not built")

# inputs, outputs, kernel, stride, padding, groups
LAYERS = [
    (16, 16, (3, 3), (1, 1), (1, 1), 1),
    (32, 32, (3, 3), (1, 1), (1, 1), 1),
    (64, 64, (3, 3), (1, 1), (0, 2), 1),
    (24, 64, (3, 3), (1, 1), (1, 0), 1),
    (33, 144, (1, 3), (1, 1), (0, 1), 1),
    (20, 90, (5, 3), (2, 1), (2, 3), 1),
    (32, 48, (3, 3), (2, 2), (1, 1), 1),
    (16, 64, (3, 3), (1, 2), (0, 0), 1),
    (40, 90, (2, 3), (2, 2), (1, 2), 1),
    (24, 200, (1, 3), (3, 2), (0, 3), 1),
    *((70, outputs, (1, 1), (1, 1), (0, 0), 1) for outputs in (5, 16, 32, 48, 64, 128, 144, 300)),
    (16, 40, (1, 1), (2, 3), (1, 2), 1),
    (4, 10, (5, 3), (1, 2), (2, 1), 1),
    (12, 36, (3, 3), (1, 1), (1, 1), 1),
    (8, 17, (3, 1), (1, 50), (1, 8), 1),  # outputs that see no input
    (19, 16, (2, 2), (1, 1), (0, 0), 1),
    *((channels, channels, (3, 3), (1, 1), (1, 1), channels) for channels in (16, 64, 80, 150)),
    (128, 128, (5, 3), (2, 1), (2, 0), 128),
]


def native_with(instructions: str) -> Native:
    native = choose()
    assert native is not None
    limited = native.limited_to(instructions)
    if limited.instructions != instructions:
        pytest.skip(f"this processor has no {instructions}")
    return limited


def random_conv(layer: tuple[int, int, tuple[int, int], tuple[int, int], tuple[int, int], int], finest: int) -> Conv:
    inputs, outputs, kernel, stride, padding, groups = layer
    random = torch.Generator().manual_seed(outputs)
    shape = (outputs, inputs // groups, *kernel)
    weight = (torch.randn(shape, generator=random).clamp(-1.9, 1.9) * finest).round() / finest
    bias = (torch.randn(outputs, generator=random) * finest).round() / finest
    return Conv(weight, bias, stride=stride, padding=padding, dilation=(1, 1), groups=groups)


def random_spikes(count: int, shape: tuple[int, ...], density: float, planes: int = 1) -> Tensor:
    random = torch.Generator().manual_seed(count)
    spikes = (torch.rand((count, *shape), generator=random) < density).to(torch.int8)
    if planes == 2:
        spikes *= torch.randint(0, 2, spikes.shape, generator=random, dtype=torch.int8) * 2 - 1
    return spikes.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("instructions", INSTRUCTIONS)
@pytest.mark.parametrize("finest", [32, 4096], ids=["integers", "floats"])
@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_currents_and_neurons(
    layer: tuple[int, int, tuple[int, int], tuple[int, int], tuple[int, int], int], finest: int, instructions: str
) -> None:
    native, op, frames, batch = native_with(instructions), random_conv(layer, finest), 3, 2
    packed = pack(op)
    assert packed is not None
    assert (packed.integers is not None) == (finest == 32 and op.groups == 1)
    for planes in (1, 2):
        packed, model = pack(op, planes), {1: "if", 2: "ternary"}[planes]
        assert packed is not None
        for density in (0.0, 0.2, 0.9):
            spikes = random_spikes(frames * batch, (op.weight.shape[1] * op.groups, 9, 7), density, planes)
            expected = op(spikes.float())
            shape = tuple(expected.shape[1:])
            bits, other = native.condensed(spikes, planes), random_spikes(frames * batch, shape, 0.5, planes)
            assert torch.equal(native.expanded(bits), spikes)
            threshold = torch.linspace(0.5, 2.0, shape[0])[None]
            membrane = Membrane(NEURONS[model], 1, 0, threshold, threshold / 2)
            factor = torch.linspace(-1.0, 1.0, shape[0])[None].contiguous()
            scaled = other.float() * factor[0, :, None, None]
            ways = [Convolution(bits, packed), Convolution(bits, packed, tables=True)]
            if planes == 1 or op.groups > 1:
                ways.append(Convolution(spikes, packed))
            for term in ways:
                assert torch.equal(native.currents([term], frames, batch, shape), expected)
                for join in (
                    [],
                    [ScaledSpikes(other, factor)],
                    [ScaledSpikes(native.condensed(other, planes), factor)],
                ):
                    fused = native.neurons([term, *join], membrane, frames, batch, shape)
                    current = Current(expected + scaled if join else expected, False)
                    apart = native.neurons([current], membrane, frames, batch, shape)
                    assert torch.equal(fused[1], apart[1])
                    sent = native.expanded(fused[0])
                    assert torch.equal(sent, native.expanded(apart[0]))
                    assert int(sent.abs().sum()) == int(fused[1][0].sum())


@pytest.mark.parametrize("instructions", INSTRUCTIONS)
@pytest.mark.parametrize(
    ("frames", "largest", "planes"), [(7, 1, 1), (140, 1, 1), (140, 1, 2), (3, 127, 0), (260, 127, 0)]
)
def test_maximum_of_what_was_received(frames: int, largest: int, planes: int, instructions: str) -> None:
    """Whatever the type that counts: 8 bits, 16 bits (140 spikes, 3 times 127 units), 32 bits."""
    native = native_with(instructions)
    spikes = random_spikes(frames * 2, (5, 6, 7), 0.9, planes) * largest
    op = MaxPool(kernel=(3, 2), stride=(2, 2), padding=(1, 0), dilation=(1, 1), ceil_mode=False)
    received = spikes.view(frames, 2, 5, 6, 7).cumsum(0)
    best = op(received.flatten(0, 1).float()).view(frames, 2, 5, 3, 3)
    expected = torch.cat([best[:1], best[1:] - best[:-1]]).flatten(0, 1)
    for given in [spikes, native.condensed(spikes, planes)] if planes else [spikes]:
        pooled = native.max_pool(given, op, frames, (5, 3, 3))
        assert isinstance(pooled, Bits) == isinstance(given, Bits)
        assert torch.equal(native.expanded(pooled).float(), expected)


@pytest.mark.parametrize("instructions", INSTRUCTIONS)
@pytest.mark.parametrize(("kernel", "stride", "padding"), [((3, 2), (2, 1), (1, 0)), ((12, 13), (12, 13), (0, 0))])
@pytest.mark.parametrize("channels", [5, 64, 130])
def test_sums_of_windows(
    channels: int, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int], instructions: str
) -> None:
    """Also of more pixels than an int8 can count."""
    native = native_with(instructions)
    op = SumPool(kernel=kernel, stride=stride, padding=padding)
    for planes in (1, 2):
        spikes = random_spikes(6, (channels, 12, 13), 0.9, planes)
        expected = op(spikes.float())
        sums = native.sum_pool(native.condensed(spikes, planes), op, 3, tuple(expected.shape[1:]))
        assert sums.is_floating_point() == (kernel == (12, 13))
        assert torch.equal(sums.float(), expected)
