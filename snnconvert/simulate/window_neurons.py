"""Bistable neurons a whole window at a time: only the sum over a window reaches the next layer.

Equal to the step-by-step oracle (`bistable_engine`) in every spike; single spikes are only counted, never made.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from snnconvert.graph.kinds import Neuron
from snnconvert.graph.schedule import Windowed
from snnconvert.neurons.bistable import phase_weights
from snnconvert.simulate.kernels.layout import out_tensor

PIECE = 2**16
PAIRS_FROM = 2**19


def send_whole(op: Neuron, inputs: Sequence[Tensor], schedule: Windowed) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """What neurons send in their one window, of which they have everything before it.

    Args:
        op: neurons that are not `plain`.
        inputs: of its first input the sum, of others what came in, (batch, *sample) each.
        schedule: one of a single window.

    Returns:
        The units, float32, and spikes and units sent in each step, summed over the batch (int64).
    """
    membrane, *others = (one.double() for one in inputs)
    found = op.in_window(membrane)
    if found is None:
        threshold, initial = op.scaled(*others)
        units = window_units(membrane + initial, threshold, op.levels, negative=op.row.negative).float()
        return units, count_window_spikes(units.unsqueeze(0), schedule, signed=True)
    units, fires = found
    spikes = torch.zeros(schedule.window, dtype=torch.int64)
    spikes[: len(fires)] = fires
    carried = torch.tensor([2 ** max(op.slots - 1 - slot, 0) for slot in range(schedule.window)])
    return units.float(), (spikes, spikes * carried)


def send_windows(op: Neuron, current: Tensor, schedule: Windowed) -> Tensor:
    """The units that each neuron sends in each of its windows, float32, shape (frames, batch, *sample).

    Args:
        op: threshold and membrane at t = 0, float64.
        current: sum of a window's input, shape (frames or 1, batch, *sample); 1 where every window gets the same.
        schedule: number of windows, and what becomes of the membrane after each.
    """
    frames, batch = schedule.frames, current.shape[1]
    sent = out_tensor(frames * batch, tuple(current.shape[2:]), torch.float32).to(current.device)
    out = sent.view(frames, *current.shape[1:])
    size = max(1, PIECE // max(1, current[0, 0].numel()))
    for start in range(0, batch, size):  # pieces that stay in cache
        piece = slice(start, start + size)
        first = current[0, piece]
        membrane = first + op.initial if first.dtype == torch.float64 else first.double().add_(op.initial)
        for frame in range(frames):
            if frame:
                membrane += current[frame if len(current) > 1 else 0, piece]
            units = window_units(membrane, op.threshold, op.levels, negative=op.row.negative)
            out[frame, piece] = units
            if frame + 1 < frames:
                membrane = _after_window(membrane.addcmul_(units, op.threshold, value=-1), op, schedule.residual)
    return out


def window_units(membrane: Tensor, threshold: Tensor, levels: int, *, negative: bool) -> Tensor:
    """clip(floor(membrane / threshold), 0 or -levels, levels), exact."""
    units = (membrane / threshold).floor_()
    rest = torch.addcmul(membrane, units, threshold, value=-1)
    if rest.numel() and float(rest.amin()) < 0:  # a quotient just below an integer was rounded up to it
        units -= (rest < 0).to(units.dtype)
    return units.clamp_(-levels if negative else 0, levels)


def _after_window(membrane: Tensor, op: Neuron, residual: str) -> Tensor:
    if residual == "clear":
        return torch.zeros_like(membrane) + op.initial
    return torch.minimum(membrane, op.threshold) if residual == "clamp" else membrane


def count_window_spikes(by_frame: Tensor, schedule: Windowed, *, signed: bool) -> tuple[Tensor, Tensor]:
    """Spikes and units sent in each step of a site's emission, summed over the batch (int64)."""
    codes = []
    for frame in by_frame:
        small = (frame.abs() if signed else frame).to(torch.uint8 if schedule.levels < 256 else torch.int32)
        in_memory = small.permute(0, 2, 3, 1) if small.ndim == 4 else small  # channels last: no copy
        codes.append(_histogram(in_memory.flatten(), schedule.levels).cpu())
    fires, weights = _code_book(schedule.window, schedule.phases)
    total = torch.stack([(fires * window).sum(1) for window in codes])
    return total.flatten(), (total * weights).flatten()


def _histogram(codes: Tensor, levels: int) -> Tensor:
    """How often each code occurs; many uint8 codes are counted two at a time."""
    if codes.dtype != torch.uint8 or codes.numel() < PAIRS_FROM or codes.numel() % 2:
        return torch.bincount(codes, minlength=levels + 1)
    pairs = codes.view(torch.int16)
    pairs = pairs.to(torch.int32).bitwise_and_(0xFFFF) if levels > 127 else pairs
    table = torch.bincount(pairs, minlength=2**16).reshape(256, 256)
    return (table.sum(0) + table.sum(1))[: levels + 1]


@cache
def _code_book(window: int, phases: str) -> tuple[Tensor, Tensor]:
    """Which phases fire for each code, shape (window, codes), and what a spike carries at each phase."""
    weights = torch.tensor(phase_weights(window, phases))
    phase = torch.arange(window).unsqueeze(1)
    if phases == "uniform":
        return torch.arange(window + 1) > phase, weights
    if phases == "first":
        return torch.arange(window + 1) == weights.unsqueeze(1), weights
    return (torch.arange(2**window) // weights.unsqueeze(1)) % 2 > 0, weights
