"""Signed neuron without memory: a linear unit, clip(x, -threshold * levels, threshold * levels).

    n = clip(floor(v / threshold), -levels, levels);  v <- v - n * threshold      (v(0) = threshold / 2: nearest)

Used where a sum that may be negative has to be carried by spikes, and for activations with a negative branch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from snnconvert.neurons.base import NeuronModel, State
from snnconvert.neurons.burst import units

if TYPE_CHECKING:
    from torch import Tensor


def fire(state: State, threshold: Tensor, levels: int) -> tuple[Tensor, State]:
    """Between -levels and +levels units."""
    n = units(state.v, threshold).clamp(-levels, levels)
    return n, State(state.v - threshold * n, None)


SIGNED = NeuronModel(
    "signed",
    fire,
    range=lambda levels: (-levels, levels),
    source="Guo et al., AAAI 2024, with soft reset",
    rectifies=False,
    offered=False,
    native=5,
    triton=5,
)
