"""What remembers, in torch, for all frames of a layer: neurons, maxima, and functions that stay analog.

This is what every kernel has to equal. F frames of a batch are (F * batch, *sample), frame-major.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from snnconvert.graph.kinds import Neuron, Op
from snnconvert.neurons import State


def by_frames(tensor: Tensor, frames: int) -> Tensor:
    """(frames * batch, *sample) as (frames, batch, *sample)."""
    return tensor.reshape(frames, -1, *tensor.shape[1:])


def send(op: Neuron, current: Tensor, frames: int, wait: int, hold: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """What neurons send in each frame, float32 (frames * batch, *sample).

    Args:
        op: the neurons.
        current: (frames, batch, *sample), or (1, batch, *sample) where it is the same in all frames.
        frames: frames that are integrated, and as many that are sent.
        wait: steps of integration before the first frame is sent.
        hold: what becomes of a membrane that has taken in a frame; None if it can hold anything.
    """
    model, constant = op.row, len(current) == 1
    current = current.to(op.threshold.dtype)
    state = model.init(current[0], op.initial)
    out = torch.empty((frames, *current.shape[1:]), dtype=torch.float32, device=current.device)
    for step in range(frames + wait):
        if step < frames:
            v = state.v + current[0 if constant else step]
            state = State(v if hold is None else hold(v), state.sent)
        if step >= wait:
            sent, state = model.fire(state, op.threshold, op.levels)
            out[step - wait] = sent
    return out.flatten(0, 1)


def increments(totals: Tensor, frames: int) -> Tensor:
    """By how much each frame's total exceeds the one before, all (frames * batch, *sample)."""
    by_frame = by_frames(totals, frames)
    found = torch.empty_like(by_frame)
    found[0] = by_frame[0]
    torch.sub(by_frame[1:], by_frame[:-1], out=found[1:])
    return found.flatten(0, 1)


def running_maximum(op: Op, spikes: Tensor, frames: int) -> Tensor:
    """Increments: what is sent so far equals the maximum of what was received so far, at all times."""
    counted = spikes.dtype if spikes.is_floating_point() else torch.float32
    received = by_frames(spikes, frames).cumsum(0, dtype=counted).flatten(0, 1)
    return increments(op(received), frames).to(spikes.dtype)


def compensated(op: Op, inputs: list[Tensor], frames: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Exact in the mean at every t: O[t] = t f(S_t / t) - (t - 1) f(S_{t-1} / (t - 1)), in `dtype`."""
    means = []
    for tensor in inputs:
        sums = _running_sums(by_frames(tensor, frames), dtype)
        means.append(sums.div_(_steps(sums, dtype)).flatten(0, 1))
    result = by_frames(op(*means), frames)
    return increments((result * _steps(result, dtype)).flatten(0, 1), frames)


def _running_sums(by_frame: Tensor, dtype: torch.dtype) -> Tensor:
    """`by_frame.cumsum(0, dtype=dtype)`, but frame by frame, which is faster; float32 it adds up more precisely."""
    if dtype != torch.float64:
        return by_frame.cumsum(0, dtype=dtype)
    sums = torch.empty_like(by_frame, dtype=dtype)
    sums[0] = by_frame[0]
    for before, more, after in zip(sums[:-1], by_frame[1:], sums[1:], strict=True):
        torch.add(before, more, out=after)
    return sums


def _steps(by_frame: Tensor, dtype: torch.dtype) -> Tensor:
    """The number of each frame, from 1 on, to multiply values (frames, batch, *sample)."""
    steps = torch.arange(1, len(by_frame) + 1, dtype=dtype, device=by_frame.device)
    return steps.reshape(-1, *([1] * (by_frame.ndim - 1)))


def cast(op: Op, tensors: list[Tensor]) -> list[Tensor]:
    """Inputs in the precision of the operator's own tensors; parts that it adds up first as they are."""
    own = next((buffer for buffer in op.buffers()), None)
    return tensors if own is None or op.in_parts else [tensor.to(own.dtype) for tensor in tensors]
