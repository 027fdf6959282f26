"""What native kernels read besides convolutions: scaled and shifted currents, parts to add up, bits of any length."""

from __future__ import annotations

import pytest
import torch
from test_native_convolutions import native_with

from snnconvert.graph.kinds import Affine, Conv, Linear
from snnconvert.neurons import NEURONS
from snnconvert.simulate.kernels import native_available
from snnconvert.simulate.kernels.bits import bytes_for
from snnconvert.simulate.kernels.layout import per_element
from snnconvert.simulate.kernels.native import INSTRUCTIONS, Current, Membrane, Shifted
from snnconvert.simulate.kernels.native_parts import sums_of_parts

pytestmark = [
    pytest.mark.skipif(not native_available(), reason="the native kernels were not built"),
    pytest.mark.parametrize("instructions", INSTRUCTIONS),
]
FLOATS = (torch.float32, torch.float64)
FRAMES, BATCH = 3, 2


@pytest.mark.parametrize("shape", [(7,), (32,), (5, 19), (16, 4, 3), (21, 3, 5)])
@pytest.mark.parametrize("by_pixel", [False, True])
@pytest.mark.parametrize(("model", "levels"), [("if", 1), ("ternary", 1), ("graded", 7)])
def test_shifted_currents_are_those_of_torch(
    instructions: str, shape: tuple[int, ...], by_pixel: bool, model: str, levels: int
) -> None:
    native, random = native_with(instructions), torch.Generator().manual_seed(sum(shape))
    channel = (shape[0], 1, 1) if len(shape) == 3 else shape[-1:]
    row = torch.full((1, shape[0] if len(shape) == 3 else shape[-1]), 0.75)
    membrane = Membrane(NEURONS[model], levels, 0, row, row / 2)
    for own in FLOATS:
        size = shape if by_pixel else channel
        scale, shift = (torch.randn(size, generator=random, dtype=own) for _ in range(2))
        laid_out = [per_element(one, shape, own) for one in (scale, shift)]
        for given in FLOATS:
            values = torch.randn((FRAMES * BATCH, *shape), generator=random, dtype=given)
            current = Affine(scale, shift)(values.to(own)).float()
            found, counts = native.neurons([Shifted(values, *laid_out)], membrane, FRAMES, BATCH, shape)
            sent, counted = native.neurons([Current(current, False)], membrane, FRAMES, BATCH, shape)
            assert torch.equal(native.expanded(found), native.expanded(sent)), (own, given)
            assert torch.equal(counts, counted)
            assert int(counts.sum()) > 0
            both = native.currents([Current(current, False), Shifted(values, *laid_out)], FRAMES, BATCH, shape)
            assert torch.equal(both, current + current)


@pytest.mark.parametrize("width", [3, 16, 40])
@pytest.mark.parametrize("parts", [2, 5])
def test_sums_of_parts_are_those_of_the_operator(instructions: str, width: int, parts: int) -> None:
    native, random = native_with(instructions), torch.Generator().manual_seed(width)
    weight = torch.randn(4, width, generator=random)
    scales = torch.randint(-63, 64, (parts, width), generator=random) / 64  # on a grid, as those of a spiking network
    scales[0] = 1.0
    linear = Linear(torch.cat([weight * row for row in scales], 1), scales=scales)
    every = torch.cat([weight.view(4, width, 1, 1) * row.view(-1, 1, 1) for row in scales], 1)
    conv = Conv(every, stride=(1, 1), padding=(0, 0), dilation=(1, 1), scales=scales)
    for op, shape in ((linear, (width * parts,)), (linear, (6, width * parts)), (conv, (width * parts, 3, 4))):
        units = torch.randint(-9, 10, (5, *shape), generator=random).to(torch.int8)
        axis = 1 if op is conv else units.ndim - 1
        assert op.in_parts
        assert torch.equal(sums_of_parts(native, units, op.part()[0]), op.summed(units.float(), axis))


@pytest.mark.parametrize("planes", [1, 2])
def test_bits_of_any_length_are_units_and_back(instructions: str, planes: int) -> None:
    native, random = native_with(instructions), torch.Generator().manual_seed(planes)
    for channels in (*range(1, 70), 96, 127, 129, 200):
        units = torch.randint(1 - planes, 2, (3, channels, 2, 1), generator=random).to(torch.int8)
        bits = native.condensed(units, planes)
        assert torch.equal(native.expanded(bits), units), channels
        flags = torch.stack([units == 1, units == -1][:planes], 1).squeeze(-1).permute(0, 3, 1, 2)  # bit by bit
        whole = torch.zeros((*flags.shape[:3], 8 * bytes_for(channels)), dtype=torch.int64)
        whole[..., :channels] = flags.to(torch.int64)
        packed = (whole.unflatten(-1, (-1, 8)) << torch.arange(8)).sum(-1).to(torch.uint8)
        assert bits.memory[: packed.numel()].equal(packed.flatten()), channels
