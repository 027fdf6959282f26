"""Max pooling within a window is exact in both codes, step by step."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from snnconvert.graph.kinds import MaxPool
from snnconvert.simulate.window_pooling import bit_serial_step, first_candidates, members, running_maximum_step

pools = st.builds(
    lambda kernel, stride, padding, dilation, ceil: MaxPool(
        kernel=(kernel, kernel),
        stride=(stride, stride),
        padding=(min(padding, kernel // 2),) * 2,
        dilation=(dilation, dilation),
        ceil_mode=ceil,
    ),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(0, 1),
    st.integers(1, 2),
    st.booleans(),
)


def signed_codes(seed: int, largest: int, signed: bool) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-largest if signed else 0, largest + 1, (2, 2, 6, 5), generator=generator).double()


@settings(max_examples=100, deadline=None)
@given(pool=pools, seed=st.integers(0, 10**6), window=st.integers(1, 8), signed=st.booleans())
def test_bit_serial_maximum(pool: MaxPool, seed: int, window: int, signed: bool) -> None:
    codes = signed_codes(seed, 2**window - 1, signed)
    sent, candidates = torch.zeros_like(pool(codes)), first_candidates(pool, codes)
    for phase in range(window):
        weight = 2 ** (window - 1 - phase)
        digits = (codes.abs() // weight % 2) * weight * codes.sign()
        now, candidates = bit_serial_step(candidates, members(pool, digits, 0.0))
        assert set(now.abs().unique().tolist()) <= {0.0, float(weight)}
        sent = sent + now
    assert torch.equal(sent, pool(codes))


@settings(max_examples=100, deadline=None)
@given(pool=pools, seed=st.integers(0, 10**6), window=st.integers(1, 8), signed=st.booleans())
def test_running_maximum_increment(pool: MaxPool, seed: int, window: int, signed: bool) -> None:
    codes = signed_codes(seed, window, signed)
    sent, received = torch.zeros_like(pool(codes)), torch.zeros_like(codes)
    for phase in range(window):
        now, received = running_maximum_step(received, pool, (codes.abs() > phase) * codes.sign())
        assert set(now.abs().unique().tolist()) <= {0.0, 1.0}
        sent = sent + now
    assert torch.equal(sent, pool(codes))


def test_members_agree_with_pooling_over_one_axis() -> None:
    pool = MaxPool(kernel=(3,), stride=(2,), padding=(1,), dilation=(1,), ceil_mode=True)
    x = torch.randn(2, 3, 8)
    assert torch.equal(members(pool, x, -torch.inf).amax(0), pool(x))
