"""Max pooling of spikes within a window, step by step and exact: what has been sent is the maximum at every phase.

Phase weights: bit-serial maximum. All members of a pooling window are candidates; at each phase the largest digit
among the candidates is sent, and candidates that sent less drop out.
Uniform weights: running-maximum increment. The largest number of spikes received so far, less what was sent already
(lateral inhibition pooling, Li & Zeng, IJCAI 2022).
"""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

from snnconvert.graph.kinds import MaxPool


def members(op: MaxPool, x: Tensor, fill: float) -> Tensor:
    """The members of every pooling window, shape (members, batch, channels, *pooled); padding reads as `fill`."""
    rank = len(op.kernel)
    sizes = op(x).shape[-rank:]
    pads: list[int] = []
    for axis in reversed(range(rank)):
        reach = (sizes[axis] - 1) * op.stride[axis] + op.dilation[axis] * (op.kernel[axis] - 1) + 1
        pads += [op.padding[axis], max(0, reach - x.shape[x.ndim - rank + axis] - op.padding[axis])]
    padded = F.pad(x, pads, value=fill)
    found = []
    for offset in product(*(range(size) for size in op.kernel)):
        member = padded
        for axis in range(rank):
            start = offset[axis] * op.dilation[axis]
            index = torch.arange(sizes[axis], device=x.device) * op.stride[axis] + start
            member = member.index_select(member.ndim - rank + axis, index)
        found.append(member)
    return torch.stack(found)


def first_candidates(op: MaxPool, x: Tensor) -> Tensor:
    """The candidates at the start of a window: every member that is not padding."""
    return members(op, torch.ones_like(x), 0.0) > 0


def bit_serial_step(candidates: Tensor, digits: Tensor) -> tuple[Tensor, Tensor]:
    """One phase: the largest digit among `candidates` (members first), and the candidates that remain."""
    sent = digits.masked_fill(~candidates, -torch.inf).amax(0)
    return sent, candidates & (digits == sent)


def running_maximum_step(received: Tensor, op: MaxPool, spikes: Tensor) -> tuple[Tensor, Tensor]:
    """One step: by how much the largest count grows, and the counts `received` (zeros at the start of a window)."""
    now: Tensor = op(received + spikes)
    return now - op(received), received + spikes
