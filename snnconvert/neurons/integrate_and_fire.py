"""Integrate and fire with soft reset (reset by subtraction).

    v <- v + I;  s = [v >= threshold];  v <- v - threshold * s

Rueckauer et al. 2017; v(0) = threshold / 2 after Bu et al., AAAI 2022 (arXiv 2202.01440).
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


IF = NeuronModel(
    "if",
    fire,
    range=lambda _: (0, 1),
    source="Rueckauer et al. 2017; Bu et al. 2022",
    title="integrate-and-fire, binary spikes",
    native=0,
    triton=0,
)
