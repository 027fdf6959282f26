"""Convolutions are right on what torch 2.13 gets wrong."""

from __future__ import annotations

import pytest
import torch

from snnconvert.graph.kinds import Conv


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
