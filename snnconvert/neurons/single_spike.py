"""Integrate and fire, once: a neuron that has sent a spike is silent until the end.

    v <- v + I;  fired = sent or [v >= threshold];  s = fired - sent;  sent <- fired

Nothing is reset. The derivative of `fired` is that of the first v at the threshold: what makes a spike come earlier
takes it from later steps, and whether there is one at all has a derivative too, however far v is beyond the threshold
at the end.
What it says is when it fires: what arrives early has charged the neurons behind it for longer. A spike is one value for
the whole run, so that thresholds are fitted for one level, and it has to be trained. After Datta et al., IJCNN 2021
(arXiv 2107.12374), without their leak.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from snnconvert.neurons.base import NeuronModel, State, fire_by

if TYPE_CHECKING:
    from torch import Tensor


def step(state: State, threshold: Tensor, reached: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, State]:
    """One step; `reached(v, threshold)` says who would fire."""
    assert state.sent is not None
    before = (state.sent > 0).to(state.sent.dtype)
    fired = state.sent * before + reached(state.v, threshold) * (1 - before)  # derivatives go where the spike was
    return fired - state.sent, State(state.v, fired)


SINGLE = NeuronModel(
    "single",
    fire_by(step),
    range=lambda _: (0, 1),
    source="after Datta et al., IJCNN 2021, arXiv 2107.12374",
    memory=True,
    once=True,
    tried=False,  # has to be trained
    title="integrate-and-fire, at most one spike",
    equations=step,
)
