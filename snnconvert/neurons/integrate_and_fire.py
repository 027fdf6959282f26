"""Integrate and fire with soft reset (reset by subtraction), and with reset to zero.

    v <- v + I;  s = [v >= threshold];  v <- v - threshold * s
                                        v <- v (1 - s)             (to zero: what is above the threshold is lost)

Rueckauer et al. 2017; v(0) = threshold / 2 after Bu et al., AAAI 2022 (arXiv 2202.01440). Reset to zero (Diehl et al.
2015) is for chips that have no other: its rate under a constant current is 1 / ceil(threshold / I), never above that of
the soft reset.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from snnconvert.neurons.base import NeuronModel, State

if TYPE_CHECKING:
    from torch import Tensor


def fire(state: State, threshold: Tensor, levels: int) -> tuple[Tensor, State]:
    """One binary spike at most."""
    del levels
    spikes = (state.v >= threshold).to(state.v.dtype)
    return spikes, State(state.v - threshold * spikes, None)


def fire_to_zero(state: State, threshold: Tensor, levels: int) -> tuple[Tensor, State]:
    """One binary spike at most, which empties the membrane."""
    del levels
    spikes = (state.v >= threshold).to(state.v.dtype)
    return spikes, State(state.v * (1 - spikes), None)


IF = NeuronModel(
    "if",
    fire,
    range=lambda _: (0, 1),
    source="Rueckauer et al. 2017; Bu et al. 2022",
    title="integrate-and-fire, binary spikes",
    several="burst",
    native=0,
    triton=0,
)
IF_ZERO = NeuronModel(
    "if-zero",
    fire_to_zero,
    range=lambda _: (0, 1),
    source="Diehl et al. 2015",
    reset="zero",
    tried=False,  # loses what subtraction keeps
    title="binary, reset to zero",
)
