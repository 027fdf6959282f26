"""The real neuron in the loop: its rate on given currents, and the search for the threshold that serves it best."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from snnconvert.graph.schedule import Schedule
from snnconvert.neurons import NEURONS, State


@dataclass(frozen=True)
class Soma:
    """Which neuron a site becomes.

    Attributes:
        model: a row of NEURONS.
        levels: its units per frame.
        schedule: when it integrates and emits.
    """

    model: str
    levels: int
    schedule: Schedule

    def units(self, current: Tensor, threshold: Tensor, initial: Tensor) -> Iterator[Tensor]:
        """Units sent in each frame.

        Args:
            current: (frames, batch, *sample), or (1, batch, *sample) where it is constant in time.
            threshold: membrane units, broadcastable to one sample.
            initial: membrane potential at t = 0, in fractions of the threshold.
        """
        frames, schedule = self.schedule.frames, self.schedule
        model = NEURONS[self.model]
        if schedule.kind == "bistable":
            model = NEURONS["signed" if model.negative else "burst"]
        start = (threshold * initial).to(current.dtype)
        state = model.init(current[0], start)
        wait = schedule.wait if schedule.kind == "wait" else 0
        for step in range(frames + wait):
            if step < frames:
                state = State(state.v + current[step if len(current) > 1 else 0], state.sent)
            if step >= wait:
                sent, state = model.fire(state, threshold, self.levels)
                yield sent
                if schedule.kind == "bistable" and schedule.residual == "clear":
                    state = State(torch.zeros_like(state.v) + start, state.sent)
                elif schedule.kind == "bistable" and schedule.residual == "clamp":
                    state = State(torch.minimum(state.v, threshold), state.sent)

    def rate(self, current: Tensor, threshold: Tensor, initial: Tensor) -> Tensor:
        """The mean value that it sends, (batch, *sample), in units of the ANN's activations."""
        total = torch.zeros_like(current[0])
        for sent in self.units(current, threshold, initial):
            total += sent
        return total * (threshold / self.schedule.frames)


def channel_sums(values: Tensor, axis: int) -> Tensor:
    """(batch, *sample) summed over everything but the channels at `axis` of the sample, float64."""
    return values.movedim(axis + 1, 0).flatten(1).sum(1, dtype=torch.float64)
