"""Complementary leaky integrate-and-fire neuron: a second potential remembers spikes, and deepens the reset.

    v <- (1 - 1/tau) v + I;   m <- m sigmoid(v / tau);   s = [v >= threshold];   m <- m + s
    v <- v - threshold s (1 + sigmoid(m))                tau = 2, v inside sigmoid in thresholds

The leak makes a membrane forget, so that a gradient through it fades with time; the one through m does not. It is for
training: a leak loses what a rectifier's neuron has to keep, and a network that is only converted to it answers badly.
Source: Huang et al., ICML 2024 (arXiv 2402.04663).

Here the leak is taken at the end of a step instead of the beginning of the next, which is the same for all but the
start, and the sigmoid is 1/2 + tanh(x / 2) / 2 by Lambert's continued fraction (within 3e-5): additions, products and a
quotient, which are rounded alike on every machine and in every export.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from snnconvert.neurons.base import NeuronModel, State, fire_by

if TYPE_CHECKING:
    from torch import Tensor

TAU = 2.0
# beyond it the continued fraction leaves 1
LARGEST = 4.97


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x)), by arithmetic alone."""
    y = (x * 0.5).clamp(-LARGEST, LARGEST)
    squared = y * y
    over = y * (135135.0 + squared * (17325.0 + squared * (378.0 + squared)))
    under = 135135.0 + squared * (62370.0 + squared * (3150.0 + squared * 28.0))
    return 0.5 + 0.5 * (over / under)


def step(state: State, threshold: Tensor, reached: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, State]:
    """One step; `reached(v, threshold)` says who fires."""
    v, m = state.v, state.sent
    assert m is not None
    spikes = reached(v, threshold)
    m = m * sigmoid(v / threshold * (1 / TAU)) + spikes
    v = v - threshold * (spikes * (1 + sigmoid(m)))
    return spikes, State(v * (1 - 1 / TAU), m)


CLIF = NeuronModel(
    "clif",
    fire_by(step),
    range=lambda _: (0, 1),
    source="Huang et al., ICML 2024, arXiv 2402.04663",
    memory=True,
    tried=False,  # has to be trained
    title="complementary leaky integrate-and-fire, binary spikes",
    equations=step,
)
