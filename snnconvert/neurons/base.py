"""What every neuron model is made of: a state, and pure functions that step it.

A neuron's step is `integrate` (v <- v + current) followed by `fire`. The two are apart because a schedule may let a
neuron do only one of them in a step. Spikes are small integers (unit spikes): the amplitude of a spike is folded into
the weights that read it, so `threshold` is both the membrane value of one spike and what its reset subtracts.
The command line lists the models without torch: nothing here or beside it imports torch when it is imported.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class State(NamedTuple):
    """Membrane potential, and the net number of spikes sent so far, or what a model keeps of them (models with memory).

    Attributes:
        v: one value per neuron, shape (batch, *neurons), in units of the original activation.
        sent: of the same shape; None without memory.

    Examples:
        >>> import torch, snnconvert
        >>> state = snnconvert.State(torch.tensor([[0.4, 1.7]]), None)
        >>> (state.v >= 1.0).int().tolist()  # who would fire at a threshold of 1
        [[0, 1]]
    """

    v: Tensor
    sent: Tensor | None


Fire = Callable[["State", "Tensor", int], "tuple[Tensor, State]"]
Surrogate = Callable[["Tensor", "Tensor", int], "Tensor"]
Equations = Callable[["State", "Tensor", 'Callable[["Tensor", "Tensor"], "Tensor"]'], "tuple[Tensor, State]"]


@dataclass(frozen=True)
class NeuronModel:
    """One row of NEURONS: all that the rest of the package knows of a neuron model.

    Attributes:
        name: what checkpoints and `--neuron` call it.
        fire: (state, threshold, levels) -> (spikes, state), pure.
        range: the least and the largest number of units in one step, for `levels`. Sums are exact and spikes are
            packed within it. The largest is `levels` for every number of levels that the neuron may have.
        source: where the equations come from.
        memory: whether the state counts the spikes sent, or remembers them in another way.
        once: whether it sends no more than one unit in a whole run: thresholds are fitted for a single level then.
        reset: what a spike does to the membrane: "subtract" (what it is worth) or "zero".
        rectifies: whether its rate never stays below zero, whatever single spikes do; else it carries either sign.
        offered: whether `--neuron` offers it in place of a rectifier; others are brought by a schedule, or by sums
            that may be negative.
        tried: whether `--neuron auto` tries it.
        levels: the usual number of units in one step.
        adjustable: whether `--levels` may ask for another.
        several: the model that it is with more units in one step, where these are other equations.
        title: what reports call its neurons; empty for its name.
        surrogate: (v, threshold, levels) -> the derivative of the units with respect to v / threshold that gradients
            use instead of that of `fire`, shaped like v; None without one.
        equations: (state, threshold, reached) -> (spikes, state): `fire` with `reached(v, threshold)` in place of the
            comparison of the two, for a model whose membrane does more than subtract what it sends; gradients are taken
            through them as they stand, with a surrogate for `reached`.
        native: its number in `simulate/kernels/source/layer.h`; None lets torch compute it.
        triton: its number in `simulate/kernels/fused_kernel.py`; None likewise.
        provider: the package or module that it was registered by; empty for those of snnconvert itself.

    Examples:
        A neuron that resets to zero instead of subtracting its threshold:

        >>> import torch, snnconvert
        >>> def fire(state, threshold, levels):
        ...     spikes = (state.v >= threshold).to(state.v.dtype)
        ...     return spikes, snnconvert.State(state.v * (1 - spikes), None)
        >>> model = snnconvert.NeuronModel("to-zero", fire, range=lambda levels: (0, 1), source="an example")
        >>> state = model.init(torch.zeros(1, 2), initial=torch.tensor(0.5))
        >>> charged = snnconvert.State(state.v + torch.tensor([[0.1, 0.7]]), None)
        >>> spikes, state = model.fire(charged, torch.tensor(1.0), 1)
        >>> spikes.tolist()
        [[0.0, 1.0]]
    """

    name: str
    fire: Fire
    range: Callable[[int], tuple[int, int]]
    source: str
    memory: bool = False
    once: bool = False
    reset: str = "subtract"
    rectifies: bool = True
    offered: bool = True
    tried: bool = True
    levels: int = 1
    adjustable: bool = False
    several: str = ""
    title: str = ""
    surrogate: Surrogate | None = None
    equations: Equations | None = None
    native: int | None = None
    triton: int | None = None
    provider: str = ""

    @property
    def negative(self) -> bool:
        """Whether a spike may be negative."""
        return self.range(1)[0] < 0

    def planes(self, levels: int) -> int:
        """Planes of bits that hold its spikes; 0 if bits do not."""
        return planes(*self.range(levels))

    def peak(self, levels: int) -> int:
        """The largest number of units of either sign in one step."""
        return max(map(abs, self.range(levels)))

    def payload_bits(self, levels: int) -> int:
        """Bits of a spike besides its address: its number of units, and its sign; 0 for a binary spike."""
        return (self.peak(levels) - 1).bit_length() + self.negative

    def init(self, current: Tensor, initial: Tensor) -> State:
        """The state at t = 0 for neurons that receive a current shaped like `current`."""
        v = current.new_zeros(current.shape) + initial.to(current.dtype)
        return State(v, current.new_zeros(current.shape) if self.memory else None)


def planes(low: int, high: int) -> int:
    """Planes of bits that hold units between `low` and `high`: 1 of 0 and 1, 2 of -1, 0 and 1; 0 if bits do not."""
    return {(0, 1): 1, (-1, 1): 2}.get((low, high), 0)


def integrate(state: State, current: Tensor) -> State:
    """v <- v + current."""
    return State(state.v + current, state.sent)


def fire_by(equations: Equations) -> Fire:
    """The `fire` of a model of binary spikes with equations of its own: whoever is at the threshold or above fires."""

    def fire(state: State, threshold: Tensor, levels: int) -> tuple[Tensor, State]:
        del levels
        return equations(state, threshold, lambda v, limit: (v >= limit).to(v.dtype))

    return fire
