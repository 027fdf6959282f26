"""Convolutions are right on what torch 2.13 gets wrong."""

from __future__ import annotations

import pytest
import torch

from snnconvert.graph.kinds import AveragePool, Conv, MaxPool
from snnconvert.graph.kinds.base import pixel_by_pixel


@pytest.mark.parametrize("stride", [(1, 1), (1, 2), (2, 1)])
def test_one_channel_in_any_memory_order(stride: tuple[int, int]) -> None:
    """One channel may have the strides of channels last, and torch then reads the wrong values."""
    x = (torch.arange(4 * 18) % 7).float().reshape(4, 1, 6, 3)
    weight = (torch.arange(33 * 9) % 5).float().reshape(33, 1, 3, 3)
    op = Conv(weight, None, stride=stride, padding=(0, 0), dilation=(1, 1))
    last = torch.empty(4, 1, 6, 3, memory_format=torch.channels_last).copy_(x)
    assert last.stride() != x.stride()
    wide = torch.zeros(4, 8, 6, 3).contiguous(memory_format=torch.channels_last)
    wide[:, 2:3] = x
    expected = torch.nn.functional.unfold(x, 3, stride=stride)  # products by hand
    expected = (weight.flatten(1) @ expected).view(4, 33, *op(x).shape[2:])
    for given in (x, last, wide[:, 2:3], wide[:, 2:3].contiguous(memory_format=torch.channels_last)):
        assert torch.equal(op(given), expected)


def test_a_kernel_of_one_has_no_dilation() -> None:
    op = Conv(torch.ones(10, 1, 1, 3), None, stride=(3, 2), padding=(0, 1), dilation=(2, 2), groups=5)
    assert op.dilation == (1, 2)
    lines = Conv(torch.zeros(10, 1, 1, 1), None, stride=(3, 2), padding=(0, 1), dilation=(1, 2), groups=5)
    x = torch.ones(6, 5, 2, 1).contiguous(memory_format=torch.channels_last)
    assert torch.equal(lines(x), torch.zeros(6, 10, 1, 2))


def test_maps_lie_pixel_by_pixel_from_the_first_operator_on() -> None:
    x = torch.randn(2, 3, 9, 8)
    conv = Conv(torch.randn(6, 3, 3, 3), None, stride=(1, 1), padding=(1, 1), dilation=(1, 1))
    pools = (
        MaxPool(kernel=(3, 3), stride=(2, 2), padding=(1, 1), dilation=(1, 1)),
        AveragePool(kernel=(2, 2), stride=(2, 2), padding=(0, 0)),
    )
    for op in (conv, *pools):
        made = op(x)
        assert made.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(made, op.double()(x.double()).float(), rtol=1e-5, atol=1e-5)


def test_what_is_no_float_map_stays_as_it_is() -> None:
    for given in (torch.zeros(2, 3, 4, 4).double(), torch.zeros(2, 3, 4), torch.zeros(2, 1, 4, 4)):
        assert pixel_by_pixel(given) is given
    last = torch.zeros(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    assert pixel_by_pixel(last) is last
