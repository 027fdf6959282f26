"""Ternary neuron with memory: it may take back a spike that it sent too early.

    v <- v + I
    s = +1 if v >= threshold;  -1 if v < 0 and the net count of spikes sent is positive;  else 0
    v <- v - threshold * s;    count <- count + s

After the signed neuron with memory of Wang et al., IJCAI 2022; here the negative threshold is 0 instead of -threshold,
so the decoded rate stays within one spike of the rectified input whatever the order of arrival. `ternary_late` is the
published negative threshold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from snnconvert.neurons.base import NeuronModel, State

if TYPE_CHECKING:
    from torch import Tensor


def _step(state: State, threshold: Tensor, negative: Tensor) -> tuple[Tensor, State]:
    assert state.sent is not None
    dtype = state.v.dtype
    spikes = (state.v >= threshold).to(dtype) - (negative & (state.sent > 0)).to(dtype)
    return spikes, State(state.v - threshold * spikes, state.sent + spikes)


def fire(state: State, threshold: Tensor, levels: int) -> tuple[Tensor, State]:
    """One spike of either sign at most; the net count never falls below zero."""
    del levels
    return _step(state, threshold, state.v < 0)


def fire_late(state: State, threshold: Tensor, levels: int) -> tuple[Tensor, State]:
    """As `fire`, with the published negative threshold v <= -threshold."""
    del levels
    return _step(state, threshold, state.v <= -threshold)


TERNARY = NeuronModel(
    "ternary",
    fire,
    range=lambda _: (-1, 1),
    source="after Wang et al., IJCAI 2022",
    memory=True,
    several="graded",
    native=1,
    triton=1,
)
TERNARY_LATE = NeuronModel(
    "ternary-late",
    fire_late,
    range=lambda _: (-1, 1),
    source="Wang et al., IJCAI 2022",
    memory=True,
    tried=False,  # a spike costs what one of `ternary` costs, and is taken back later
    native=2,
    triton=2,
)
