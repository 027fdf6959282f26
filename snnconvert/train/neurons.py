"""Neurons that are trained: the real equations forward, a surrogate through every spike and reset backward.

    forward   u_t = v_{t-1} + x_t;  n_t = fire(u_t);  out_t = theta n_t;  v_t = u_t - theta n_t;  v_0 = theta i
    backward  d_t = dL/dout_t - dL/dv_t
              dL/du_t = dL/dv_t + slope_t d_t        (dL/dx_t is the same, and dL/dv_{t-1})
              dL/dtheta += d_t (n_t - slope_t u_t / theta)

where slope_t stands for dn/d(u / theta): a rectangle or triangle around every value of u / theta at which n jumps.
Neither units nor resets are detached; on ResNet-20 detaching the reset costs more than a point of accuracy.

Source: backpropagation through time with surrogate gradients, Neftci et al. 2019 (arXiv 1901.09948); the path through
the reset after Liang et al. 2021 (arXiv 2107.11746).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from snnconvert.neurons import NEURONS, NeuronModel, State, integrate
from snnconvert.simulate.kernels.layout import is_channels_last
from snnconvert.train import native

# models whose equations the native library has: the number it knows them by
FUSED = {"if": 0, "ternary": 1}


@dataclass(frozen=True)
class Firing:
    """How a layer of neurons fires and is differentiated.

    Attributes:
        model: its row of NEURONS, which has to reset by subtraction.
        levels: units in one step.
        frames: steps that it integrates, and as many in which it sends.
        wait: steps of integration before the first.
        width: half the width of the surrogate around a jump, in thresholds.
        triangle: its shape: a triangle, or a rectangle.
    """

    model: NeuronModel
    levels: int
    frames: int
    wait: int = 0
    width: float = 0.5
    triangle: bool = False

    @property
    def most(self) -> float:
        """The largest mean of the units of a step."""
        return self.model.range(self.levels)[1] / (self.frames if self.model.once else 1)

    def slope(self, u: Tensor, sent: Tensor | None, threshold: Tensor) -> Tensor:
        """The surrogate of dn / d(u / theta), shaped like `u`: the membrane before it fires."""
        if self.model.surrogate is not None:
            return self.model.surrogate(u, threshold, self.levels)
        ratio = u / threshold
        if self.model.name in ("ternary", "ternary-late"):
            assert sent is not None
            low = 0.0 if self.model.name == "ternary" else -1.0
            return self.around(ratio - 1) + self.around(ratio - low) * (sent > 0)
        low_units, high_units = self.model.range(self.levels)
        jumps = range(low_units + 1, high_units + 1)
        if self.width == 0.5 and not self.triangle:  # rectangles side by side
            return ((ratio > jumps[0] - 0.5) & (ratio < jumps[-1] + 0.5)).to(u.dtype)
        return torch.stack([self.around(ratio - jump) for jump in jumps]).sum(0)

    def around(self, distance: Tensor) -> Tensor:
        """The surrogate of one jump, by how far it is away in thresholds."""
        away = distance.abs()
        if self.triangle:
            return (1 - away / self.width).clamp(min=0) / self.width
        return (away < self.width).to(distance.dtype) / (2 * self.width)


def trainable(model: str, levels: int) -> bool:
    """Whether there is a derivative for the neurons of this model."""
    row = NEURONS[model]
    if row.equations is not None:
        return True
    if row.reset != "subtract" or row.range(levels)[1] < 1:
        return False
    return row.surrogate is not None or not row.provider


def fired(firing: Firing, current: Tensor, threshold: Tensor, initial: Tensor, *, constant: bool = False) -> Tensor:
    """What neurons send, as values, differentiable in all three tensors.

    Args:
        current: (frames * batch, *sample); (batch, *sample) where it is `constant`, the same in all frames.
        threshold: broadcastable to one sample, in units of the activation.
        initial: the membrane at t = 0 as a fraction of the threshold, likewise.

    Returns:
        (frames * batch, *sample) in the type of `current`: theta times the units of every step.
    """
    shape = current.shape[1:]
    if firing.model.equations is not None:
        return _through(firing, current, threshold, initial, constant=constant)
    return _Fired.apply(firing, current, threshold.expand(shape), initial.expand(shape), constant)  # type: ignore[no-any-return,no-untyped-call]


class _Reached(torch.autograd.Function):
    """Whether a membrane has reached its threshold, with the surrogate for its derivative."""

    @staticmethod
    def forward(ctx: Any, ratio: Tensor, firing: Firing) -> Tensor:
        ctx.save_for_backward(ratio)
        ctx.firing = firing
        return (ratio >= 1).to(ratio.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (ratio,) = ctx.saved_tensors
        return gradient * ctx.firing.around(ratio - 1), None


def _through(firing: Firing, current: Tensor, threshold: Tensor, initial: Tensor, *, constant: bool) -> Tensor:
    """`fired` by the model's own equations, which autograd differentiates."""
    model, frames = firing.model, firing.frames
    assert model.equations is not None
    exact = torch.promote_types(current.dtype, torch.float32)
    theta, start = threshold.to(exact), initial.to(exact)
    by_frame = current.unsqueeze(0) if constant else current.view(frames, -1, *current.shape[1:])
    state = model.init(by_frame[0].to(exact), theta * start)
    out = []
    for step in range(frames + firing.wait):
        if step < frames:
            state = integrate(state, by_frame[0 if constant else step].to(exact))
        if step >= firing.wait:
            spikes, state = model.equations(state, theta, lambda v, limit: _Reached.apply(v / limit, firing))  # type: ignore[no-untyped-call]
            out.append((spikes * theta).to(current.dtype))
    return torch.cat(out)


def _laid_out(tensor: Tensor, like: Tensor) -> Tensor:
    """One sample's values in the order in which those of `like` (batch first) lie in memory."""
    batched = tensor.unsqueeze(0)
    return batched.contiguous(memory_format=torch.channels_last) if is_channels_last(like) else batched.contiguous()


def _dense(tensor: Tensor, like: Tensor | None = None) -> Tensor:
    """In memory without gaps: in the order of `like`, or in its own, where it has one."""
    last = is_channels_last(tensor) if like is None else is_channels_last(like)
    return tensor.contiguous(memory_format=torch.channels_last) if last else tensor.contiguous()


def _flat(one: Tensor, like: Tensor) -> Tensor:
    """A view of (1, *sample) as it lies in memory, in the order of `like`."""
    return one.permute(0, 2, 3, 1).reshape(-1) if is_channels_last(like) else one.view(-1)


class _Fired(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917 (autograd takes no keywords)
        ctx: Any, firing: Firing, current: Tensor, threshold: Tensor, initial: Tensor, constant: bool
    ) -> Tensor:
        current = _dense(current)
        exact = torch.float64 if current.dtype == torch.float64 else torch.float32
        theta, start = (_laid_out(one.to(exact), current) for one in (threshold, initial))
        ctx.firing, ctx.constant = firing, constant
        ctx.save_for_backward(current, theta, start)
        library = _library(firing, current)
        if library is None:
            return _send(firing, current, theta, start, constant)[0]
        frames = firing.frames
        shape = (frames * len(current), *current.shape[1:]) if constant else current.shape
        order = torch.channels_last if is_channels_last(current) else torch.contiguous_format
        out = torch.empty(shape, dtype=current.dtype, memory_format=order)
        library.forward(out, **_given(firing, current, theta, start, constant))
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, Tensor, Tensor, None]:
        current, theta, start = ctx.saved_tensors
        gradient = _dense(gradient.to(current.dtype), current)
        library = _library(ctx.firing, current)
        if library is None:
            found = _back(ctx.firing, current, theta, start, gradient, constant=ctx.constant)
        else:
            into = torch.empty_like(current), torch.zeros_like(theta), torch.zeros_like(start)
            given = _given(ctx.firing, current, theta, start, ctx.constant)
            given |= {"gradient": gradient, "current_gradient": into[0]}
            library.backward(*(_flat(one, current) for one in into[1:]), **given)
            found = into
        return None, found[0], found[1][0], found[2][0], None


def _library(firing: Firing, current: Tensor) -> native.Native | None:
    served = firing.model.name in FUSED and firing.model.surrogate is None and current.device.type == "cpu"
    return native.load() if served and current.dtype in native.STORAGE else None


def _given(firing: Firing, current: Tensor, theta: Tensor, start: Tensor, constant: bool) -> dict[str, Any]:
    return {
        "frames": firing.frames,
        "wait": firing.wait,
        "batch": len(current) if constant else len(current) // firing.frames,
        "size": theta.numel(),
        "constant": int(constant),
        "storage": native.STORAGE[current.dtype],
        "memory": FUSED[firing.model.name],
        "triangle": int(firing.triangle),
        "width": firing.width,
        "current": current,
        "threshold": theta,
        "initial": start,
    }


def _send(
    firing: Firing, current: Tensor, theta: Tensor, start: Tensor, constant: bool
) -> tuple[Tensor, list[tuple[State, Tensor]]]:
    """What is sent, and for every step of firing the state before it and the units."""
    frames, model = firing.frames, firing.model
    by_frame = current.unsqueeze(0) if constant else current.view(frames, -1, *current.shape[1:])
    state = model.init(by_frame[0].to(theta.dtype), start[0])
    state = State(state.v * theta, state.sent)
    out, seen = [], []
    for step in range(frames + firing.wait):
        if step < frames:
            state = integrate(state, by_frame[0 if constant else step].to(theta.dtype))
        if step >= firing.wait:
            before = state
            units, state = model.fire(state, theta, firing.levels)
            seen.append((before, units))
            out.append((units * theta).to(current.dtype))
    return torch.cat(out), seen


def _back(
    firing: Firing, current: Tensor, theta: Tensor, start: Tensor, gradient: Tensor, *, constant: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of current, threshold and start, the last two (1, *sample)."""
    frames = firing.frames
    _, seen = _send(firing, current, theta, start, constant)
    by_frame = gradient.view(frames, -1, *gradient.shape[1:]).to(theta.dtype)
    carried = torch.zeros_like(by_frame[0])
    theta_gradient = torch.zeros_like(theta)
    currents: list[Tensor] = []
    for step in reversed(range(frames + firing.wait)):
        if step >= firing.wait:
            before, units = seen.pop()
            rise = firing.slope(before.v, before.sent, theta)
            difference = by_frame[step - firing.wait] - carried
            theta_gradient += (difference * (units - rise * before.v / theta)).sum(0, keepdim=True)
            carried = carried + rise * difference
        if step < frames:
            currents.append(carried)
    total = carried.sum(0, keepdim=True)
    into = torch.stack(currents).sum(0) if constant else torch.cat(currents[::-1])
    return into.to(current.dtype), theta_gradient + start * total, theta * total
