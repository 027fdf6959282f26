"""Spikes of several units as planes of bits: what is condensed, and that a convolution reads it as if it were units."""

from __future__ import annotations

import pytest
import torch

from snnconvert.graph.kinds import Conv
from snnconvert.simulate.kernels import choose
from snnconvert.simulate.kernels.layout import pack
from snnconvert.simulate.kernels.native import INSTRUCTIONS, Convolution, Native


def kernels() -> list[Native]:
    native = choose()
    if native is None:
        return []
    best = INSTRUCTIONS.index(native.instructions)
    return [native.limited_to(one) for one in INSTRUCTIONS[: best + 1]]


@pytest.mark.skipif(not kernels(), reason="the native kernels were not built")
@pytest.mark.parametrize("native", kernels(), ids=lambda native: native.instructions)
@pytest.mark.parametrize("tables", [False, True])
@pytest.mark.parametrize("case", [(5, 0, 3, 3), (8, -3, 3, 1), (20, -7, 7, 3), (70, -15, 15, 3), (16, 0, 2, 5)])
def test_planes_stand_for_units(native: Native, tables: bool, case: tuple[int, int, int, int]) -> None:
    channels, least, most, kernel = case
    generator = torch.Generator().manual_seed(channels)
    units = torch.randint(least, most + 1, (6, channels, 7, 9), generator=generator).to(torch.int8)
    units[torch.rand(units.shape, generator=generator) < 0.6] = 0
    units = units.contiguous(memory_format=torch.channels_last)
    weight = torch.randint(-60, 61, (24, channels, kernel, kernel), generator=generator) / 64
    bias = torch.randint(-9, 10, (24,), generator=generator) / 8
    both = kernel // 2, kernel // 2
    op = Conv(weight, bias, stride=(1, 1), padding=both, dilation=(1, 1))
    magnitudes, below = max(-least, most).bit_length(), least < 0
    planes = magnitudes * (2 if below else 1)
    bits = native.condensed(units, planes, magnitudes)
    assert bits.planes == planes
    set_bits = sum(int((units.abs() >> place & 1).sum()) for place in range(magnitudes))
    assert bits.density() == pytest.approx(set_bits / units.numel(), rel=0.2)
    packed = pack(op, planes, magnitudes)
    assert packed is not None
    found = native.currents([Convolution(bits, packed, tables)], 3, 2, (24, 7, 9))
    assert torch.equal(found, op(units.float()))
