"""Neurons that send several units in one step.

Burst (Li & Zeng, IJCAI 2022):  n = clip(floor(v / threshold), 0, levels);  v <- v - n * threshold
Graded:                         the same with levels = 2^bits - 1, and n may fall to minus the net count sent so far,
                                so that a value sent too early is corrected (spikes with a payload, as on Loihi 2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from snnconvert.neurons.base import NeuronModel, State

if TYPE_CHECKING:
    from torch import Tensor


def units(v: Tensor, threshold: Tensor) -> Tensor:
    """floor(v / threshold) as an exact integer: the rounding of the division is mended where n * threshold > v."""
    n = (v / threshold).floor()
    n = n - (n * threshold > v).to(v.dtype)
    return n + ((n + 1) * threshold <= v).to(v.dtype)


def fire(state: State, threshold: Tensor, levels: int) -> tuple[Tensor, State]:
    """Between 0 and `levels` units."""
    n = units(state.v, threshold).clamp(0, levels)
    return n, State(state.v - threshold * n, None)


def fire_graded(state: State, threshold: Tensor, levels: int) -> tuple[Tensor, State]:
    """Between minus the units sent so far (at most `levels` of them) and `levels` units."""
    assert state.sent is not None
    n = units(state.v, threshold).maximum(-state.sent).clamp(-levels, levels)
    return n, State(state.v - threshold * n, state.sent + n)


BURST = NeuronModel(
    "burst",
    fire,
    range=lambda levels: (0, levels),
    source="Li & Zeng, IJCAI 2022",
    levels=5,
    adjustable=True,
    native=3,
    triton=3,
)
GRADED = NeuronModel(
    "graded",
    fire_graded,
    range=lambda levels: (-levels, levels),
    source="spikes with payload, with correction",
    memory=True,
    levels=15,
    adjustable=True,
    native=4,
    triton=4,
)
