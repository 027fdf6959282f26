"""What every neuron model is made of: a state, and pure functions that step it.

A neuron's step is `integrate` (v <- v + current) followed by `fire`. The two are apart because a schedule may let a
neuron do only one of them in a step. Spikes are small integers (unit spikes): the amplitude of a spike is folded into
the weights that read it, so `threshold` is both the membrane value of one spike and what its reset subtracts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


class State(NamedTuple):
    """Membrane potential, and the net number of spikes sent so far (only for models with memory)."""

    v: Tensor
    sent: Tensor | None


Fire = Callable[[State, Tensor, int], tuple[Tensor, State]]


@dataclass(frozen=True)
class NeuronModel:
    """One row of NEURONS.

    Attributes:
        name: the value of `--neuron`.
        fire: (state, threshold, levels) -> (spikes, state), pure.
        memory: whether the state counts the spikes sent.
        negative: whether a spike may be negative.
        levels: the largest number of units in one step, for a given number of bits or spikes.
        source: where the equations come from.
    """

    name: str
    fire: Fire
    memory: bool
    negative: bool
    source: str

    def init(self, current: Tensor, initial: Tensor) -> State:
        """The state at t = 0 for neurons that receive a current shaped like `current`."""
        v = current.new_zeros(current.shape) + initial.to(current.dtype)
        return State(v, current.new_zeros(current.shape) if self.memory else None)


def integrate(state: State, current: Tensor) -> State:
    """v <- v + current."""
    return State(state.v + current, state.sent)
