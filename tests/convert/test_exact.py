"""Weights rounded so that sums are exact in every order, and so that the rounding does not count."""

from typing import Any

import pytest
import torch

from snnconvert.compile.exact import COARSEST, COARSEST_WINDOWED, on_grid
from snnconvert.graph.kinds import Conv, ConvTranspose, Linear


def wide(inputs: int) -> Linear:
    generator = torch.Generator().manual_seed(0)
    scales = torch.logspace(-3, 3, 8).unsqueeze(1)  # output channels of very different size
    return Linear(torch.randn(8, inputs, generator=generator) * scales, torch.randn(8, generator=generator))


def error(op: Linear, rounded: torch.nn.Module, spikes: torch.Tensor) -> float:
    exact, found = op.double()(spikes.double()), rounded(spikes.to(next(rounded.buffers()).dtype)).double()
    return float(((found - exact).norm(dim=0) / exact.norm(dim=0)).max())


@pytest.mark.parametrize("peak", [1, 15, 63, 1000])
@pytest.mark.parametrize("windowed", [False, True])
def test_rounding_stays_below_what_counts(peak: int, windowed: bool) -> None:
    op = wide(4096)
    spikes = torch.randint(-peak, peak + 1, (64, 4096), generator=torch.Generator().manual_seed(1))
    rounded, bound = on_grid(op, peak, signed=True, windowed=windowed)
    assert error(op, rounded, spikes) < 4 * (COARSEST_WINDOWED if windowed else COARSEST)
    assert float(rounded(spikes.to(rounded.weight.dtype)).abs().max()) <= bound * (1 + 1e-6)
    assert rounded.weight.dtype == (torch.float32 if peak <= (15 if windowed else 1) else torch.float64)


@pytest.mark.parametrize("peak", [1, 3])
def test_float32_sums_are_exact_in_every_order(peak: int) -> None:
    rounded, _ = on_grid(Linear(wide(512).weight, None), peak, signed=True, windowed=True)
    assert rounded.weight.dtype == torch.float32
    generator = torch.Generator().manual_seed(2)
    spikes = torch.randint(-peak, peak + 1, (32, 512), generator=generator).float()
    reference = rounded.double()(spikes.double())
    rounded.float()
    for _ in range(4):
        order = torch.randperm(512, generator=generator)
        products = spikes[:, order].unsqueeze(1) * rounded.weight[:, order]
        assert torch.equal(products.cumsum(2)[..., -1].double(), reference)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("kind", [Conv, ConvTranspose])
def test_channels_of_every_kind_of_convolution_have_their_own_grid(
    kind: type[Conv] | type[ConvTranspose], groups: int
) -> None:
    generator = torch.Generator().manual_seed(3)
    shape = (6, 4 // groups, 3, 3) if kind is Conv else (4, 6 // groups, 3, 3)
    scales = torch.logspace(-3, 3, 6)
    weight = torch.randn(*shape, generator=generator)
    if kind is Conv:
        weight *= scales.reshape(6, 1, 1, 1)
    else:
        own = scales.reshape(groups, 1, -1).expand(-1, 4 // groups, -1).reshape(4, 6 // groups)
        weight *= own[..., None, None]
    places: dict[str, Any] = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": groups}
    op = kind(weight, None, **(places if kind is Conv else {**places, "output_padding": (0, 0)}))
    spikes = torch.randint(0, 2, (4, 4, 7, 7), generator=generator)
    rounded, _ = on_grid(op, 1, signed=False, windowed=False)
    exact, found = op.double()(spikes.double()), rounded(spikes.float()).double()
    per_channel = (found - exact).abs().amax((0, 2, 3)) / exact.abs().amax((0, 2, 3))
    assert float(per_channel.max()) < 2.0**-20
