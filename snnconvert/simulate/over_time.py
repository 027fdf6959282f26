"""What remembers, in torch, for all frames of a layer: neurons, maxima, and functions that stay analog.

This is what every kernel has to equal. F frames of a batch are (F * batch, *sample), frame-major.
"""

from __future__ import annotations

import torch
from torch import Tensor

from snnconvert.graph.neuron_ops import Neuron
from snnconvert.graph.ops import MaxPool, Op
from snnconvert.neurons import NEURONS, State


def by_frames(tensor: Tensor, frames: int) -> Tensor:
    """(frames * batch, *sample) as (frames, batch, *sample), without a copy."""
    return tensor.view(frames, -1, *tensor.shape[1:])


def walk(op: Neuron, current: Tensor, frames: int, wait: int) -> Tensor:
    """What neurons send in each frame, float32 (frames * batch, *sample).

    Args:
        op: the neurons.
        current: (frames, batch, *sample), or (1, batch, *sample) where it is the same in all frames.
        frames: frames that are integrated, and as many that are sent.
        wait: steps of integration before the first frame is sent.
    """
    model, constant = NEURONS[op.model], len(current) == 1
    current = current.to(op.threshold.dtype)
    state = model.init(current[0], op.initial)
    out = torch.empty((frames, *current.shape[1:]), dtype=torch.float32, device=current.device)
    for step in range(frames + wait):
        if step < frames:
            state = State(state.v + current[0 if constant else step], state.sent)
        if step >= wait:
            sent, state = model.fire(state, op.threshold, op.levels)
            out[step - wait] = sent
    return out.flatten(0, 1)


def running_maximum(op: MaxPool, spikes: Tensor, frames: int) -> Tensor:
    """Increments: what is sent so far equals the maximum of what was received so far, at all times."""
    received = by_frames(spikes, frames).cumsum(0).flatten(0, 1)
    best = by_frames(op(received), frames)
    return torch.cat([best[:1], best[1:] - best[:-1]]).flatten(0, 1)


def compensated(op: Op, inputs: list[Tensor], frames: int) -> Tensor:
    """Exact in the mean at every t: O[t] = t f(S_t / t) - (t - 1) f(S_{t-1} / (t - 1)), in float64."""
    steps = torch.arange(1, frames + 1, dtype=torch.float64, device=inputs[0].device)
    means = []
    for tensor in inputs:
        sums = by_frames(tensor.double(), frames).cumsum(0)
        means.append((sums / steps.reshape(-1, *([1] * (sums.ndim - 1)))).flatten(0, 1))
    result = by_frames(op(*means), frames)
    total = result * steps.reshape(-1, *([1] * (result.ndim - 1)))
    return torch.cat([total[:1], total[1:] - total[:-1]]).flatten(0, 1)
