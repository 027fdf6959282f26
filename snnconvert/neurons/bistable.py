"""Bistable neuron: for one window of K steps it only integrates, for the next it only sends.

With q the threshold (the value of one unit) and P_k the units that a spike at phase k carries (2^(K-1-k), or 1):

    integrating   v <- v + I
    sending       s = [v >= P_k q];   v <- v - P_k q s

A whole window's input is in before the first spike leaves, so excitation and inhibition cannot miss each other, and the
spikes of one window are worth n = clip(floor(v / q), 0, levels) units. With v(0) = q / 2 that is rounding to nearest.
The signed form sends s = -1 where v < -(P_k - 1) q as well, which makes n = clip(floor(v / q), -levels, levels).

Reconstruction of Li, Zeng & Zhao, "BSNN" (arXiv 2105.12917; Frontiers in Neuroscience 2022), whose code is not public.
`fire` is the sum over a window; `fire_phase` is one step of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from snnconvert.neurons.base import NeuronModel
from snnconvert.neurons.burst import fire

if TYPE_CHECKING:
    from torch import Tensor


def fire_phase(v: Tensor, threshold: Tensor, weight: int, *, negative: bool) -> tuple[Tensor, Tensor]:
    """One sending step at which a spike carries `weight` units; returns (units sent, membrane)."""
    sent = (v >= weight * threshold).to(v.dtype)
    if negative:
        sent = sent - (v < -(weight - 1) * threshold).to(v.dtype)
    return weight * sent, v - weight * threshold * sent


def phase_weights(window: int, phases: str) -> list[int]:
    """Units that a spike carries at each phase of a window of `window` steps."""
    if phases == "first":  # the earlier, the more; see `neurons.first_spike`
        return list(range(window, 0, -1))
    return [1 if phases == "uniform" else 2 ** (window - 1 - phase) for phase in range(window)]


BISTABLE = NeuronModel(
    "bistable",
    fire,
    range=lambda levels: (0, levels),
    source="after Li, Zeng & Zhao, arXiv 2105.12917",
    offered=False,
)
