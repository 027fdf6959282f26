"""Native kernels for neurons that are tried with several thresholds on the same currents (see source/trials.h)."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import Structure, c_int64, c_void_p
from dataclasses import dataclass

import torch
from torch import Tensor

from snnconvert.errors import InternalError
from snnconvert.neurons import NeuronModel
from snnconvert.simulate.kernels.bits import physical
from snnconvert.simulate.kernels.layout import out_tensor
from snnconvert.simulate.kernels.native import Native


class _Trials(Structure):
    _fields_ = (
        *((name, c_int64) for name in ("frames", "batch", "pixels", "channels")),
        ("current", c_void_p),
        ("constant", c_int64),
        ("next", c_void_p),
        ("candidates", c_int64),
        *((name, c_void_p) for name in ("threshold", "initial", "shift", "share")),
        *((name, c_int64) for name in ("model", "levels", "wait", "reads")),
        *((name, c_void_p) for name in ("read_at", "target", "errors", "lacking", "rates")),
        ("threads", c_int64),
    )


@dataclass(frozen=True)
class Candidates:
    """Parameters of neurons to try, float32 (candidates, channels).

    Attributes:
        threshold: what a spike is worth.
        initial: the membrane at t = 0.
        shift: added to the current; None adds nothing.
        share: (candidates), which share of the way to another current they are moved; None where there is none.
    """

    threshold: Tensor
    initial: Tensor
    shift: Tensor | None = None
    share: Tensor | None = None


@dataclass(frozen=True)
class Tried:
    """What candidates did: float64 (candidates, channels) each, and rates.

    Attributes:
        errors: sums of the squared differences between targets and rates.
        lacking: sums of these differences.
        rates: of the last candidate, shaped like the targets; None unless asked for.
    """

    errors: Tensor
    lacking: Tensor
    rates: Tensor | None


@dataclass(frozen=True)
class Course:
    """How neurons run: model, its levels, steps of wait, frames, and after which of these their rate is looked at."""

    model: NeuronModel
    levels: int
    wait: int
    frames: int
    read_at: Sequence[int]


def tried(
    native: Native,
    course: Course,
    candidates: Candidates,
    current: Tensor,
    target: Tensor,
    *,
    other: Tensor | None = None,
    rates: bool = False,
) -> Tried:
    """Run every candidate on the same currents.

    Args:
        native: the library.
        course: how the neurons run.
        candidates: what is tried.
        current: float32 (frames or 1, batch, *sample), channels last in memory where samples have pixels.
        target: float32 (reads * batch, *sample), likewise.
        other: another current, shaped alike.
        rates: whether the rates of the last candidate are wanted.
    """
    batch, sample = current.shape[1], tuple(current.shape[2:])
    height, width, channels = physical(sample)
    count = len(candidates.threshold)
    kept: list[Tensor] = []

    def memory(tensor: Tensor) -> int:
        if tensor.dtype != torch.float32:
            raise InternalError(f"kernels expected float32, not {tensor.dtype}")
        flat = tensor.flatten(0, tensor.ndim - len(sample) - 1)
        kept.append(flat.contiguous(memory_format=torch.channels_last) if flat.ndim == 4 else flat.contiguous())
        return kept[-1].data_ptr()

    found = torch.zeros((2, count, channels), dtype=torch.float64)
    out = out_tensor(len(target), sample, torch.float32) if rates else None
    read_at = torch.tensor(list(course.read_at), dtype=torch.int64)
    own = [candidates.threshold, candidates.initial, candidates.shift, candidates.share]
    parameters = [None if one is None else one.float().contiguous() for one in own]
    made = _Trials(frames=course.frames, batch=batch, pixels=height * width, channels=channels, candidates=count)
    made.current, made.constant, made.target = memory(current), len(current) == 1, memory(target)
    made.next = None if other is None else memory(other)
    places = [None if one is None else one.data_ptr() for one in parameters]
    made.threshold, made.initial, made.shift, made.share = places
    made.model, made.levels, made.wait = course.model.native, course.levels, course.wait
    made.reads, made.read_at = len(read_at), read_at.data_ptr()
    made.errors, made.lacking = found[0].data_ptr(), found[1].data_ptr()
    made.rates = None if out is None else out.data_ptr()
    made.threads = torch.get_num_threads()
    native.call("snnconvert_trials", made)
    return Tried(found[0], found[1], out)
