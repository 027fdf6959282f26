"""Every way in which the native kernels convolve spikes, and pool them, against torch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from snnconvert.graph.ops import Conv, MaxPool
from snnconvert.simulate.kernels import Native, choose, native_available
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


def random_spikes(count: int, shape: tuple[int, ...], density: float) -> Tensor:
    random = torch.Generator().manual_seed(count)
    spikes = (torch.rand((count, *shape), generator=random) < density).to(torch.int8)
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
    for density in (0.0, 0.2, 0.9):
        spikes = random_spikes(frames * batch, (op.weight.shape[1] * op.groups, 9, 7), density)
        expected = op(spikes.float())
        shape = tuple(expected.shape[1:])
        terms = [Convolution(spikes, packed, True)]
        assert torch.equal(native.currents(terms, frames, batch, shape), expected)
        threshold = torch.linspace(0.5, 2.0, shape[0])[None]
        membrane = Membrane("if", 1, 0, threshold, threshold / 2)
        factor = torch.linspace(-1.0, 1.0, shape[0])[None].contiguous()
        shortcut = ScaledSpikes(random_spikes(frames * batch, shape, 0.5), factor)
        scaled = shortcut.spikes.float() * factor[0, :, None, None]
        for more, current in (([], expected), ([shortcut], expected + scaled)):
            fused = native.neurons([*terms, *more], membrane, frames, batch, shape)
            apart = native.neurons([Current(current, False)], membrane, frames, batch, shape)
            assert all(map(torch.equal, fused, apart))


@pytest.mark.parametrize("instructions", INSTRUCTIONS)
@pytest.mark.parametrize(("frames", "largest"), [(7, 1), (140, 1), (3, 127), (260, 127)])
def test_maximum_of_what_was_received(frames: int, largest: int, instructions: str) -> None:
    """Whatever the type that counts: 8 bits, 16 bits (140 spikes, 3 times 127 units), 32 bits."""
    native = native_with(instructions)
    spikes = random_spikes(frames * 2, (5, 6, 7), 0.9) * largest
    op = MaxPool(kernel=(3, 2), stride=(2, 2), padding=(1, 0), dilation=(1, 1), ceil_mode=False)
    received = spikes.view(frames, 2, 5, 6, 7).cumsum(0)
    best = op(received.flatten(0, 1).float()).view(frames, 2, 5, 3, 3)
    expected = torch.cat([best[:1], best[1:] - best[:-1]]).flatten(0, 1)
    pooled = native.max_pool(spikes, op, frames, (5, 3, 3), unit=largest == 1)
    assert torch.equal(pooled.float(), expected)
