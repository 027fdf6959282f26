"""Gradients of rates: the spiking network runs without them, and one pass over mean values carries them.

Memory does not grow with the number of steps: the spiking pass goes through a few images at a time, and the pass with
gradients is as large as that of the original network.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from snnconvert.graph.dialect import op_of
from snnconvert.graph.walk import walk
from snnconvert.simulate.over_time import by_frames
from snnconvert.train.student import Site, Student

# images times steps that the spiking pass holds at once
AT_ONCE = 64
# what a layer hands on in the pass over means: (node, its site, mean current, mean values sent) -> values
Carry = Callable[[fx.Node, Site, Tensor, Tensor], Tensor]


@torch.no_grad()
def sent(student: Student, images: Tensor) -> tuple[dict[fx.Node, Tensor], list[Tensor]]:
    """Mean values that every layer sends, (batch, *sample), and the mean of every output."""
    frames = student.schedule.frames
    means: dict[fx.Node, list[Tensor]] = {node: [] for node in student.sites}
    outputs: list[list[Tensor]] = []

    def watch(node: fx.Node, values: Tensor) -> None:
        means[node].append(by_frames(values, frames).float().mean(0))

    for part in images.split(max(1, AT_ONCE // frames)):  # type: ignore[no-untyped-call]
        outputs.append([one.mean(0) for one in student(part, watch=watch)])
    return {node: torch.cat(parts) for node, parts in means.items()}, [
        torch.cat(one) for one in zip(*outputs, strict=True)
    ]


def over_means(student: Student, images: Tensor, means: dict[fx.Node, Tensor], carry: Carry) -> list[Tensor]:
    """The outputs of a pass over mean values, each (batch, *output), float32; a layer without a mean is given its
    current."""

    def rule(node: fx.Node, inputs: list[Tensor]) -> Tensor:
        if node in student.sites:
            return carry(node, student.sites[node], inputs[0], means.get(node, inputs[0]))
        value: Tensor = student.shaped(node, op_of(node)(*inputs))
        return value

    found: dict[fx.Node, Tensor] = {}
    with student.precision():
        for step in walk(student.graph, student.laid_out(images), rule):
            if step.node in student.outputs:
                found[step.node] = step.value
    return [found[node].float() for node in student.outputs]


class _Represented(torch.autograd.Function):
    """The rate that was sent forward; backward the derivative of clip(mean current, 0 or -top, top)."""

    @staticmethod
    def forward(ctx: Any, current: Tensor, top: Tensor, rate: Tensor, clips: bool, signed: bool) -> Tensor:  # noqa: PLR0917
        over = current >= top
        below = current < (-top if signed else 0.0 * top)
        ctx.save_for_backward(over if clips else torch.zeros_like(over), below)
        ctx.signed, ctx.dtype = signed, current.dtype
        return rate.to(current.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        over, below = ctx.saved_tensors
        inside = gradient * ~(over | below)
        top = (gradient * over).sum(0)
        if ctx.signed:
            top = top - (gradient * below).sum(0)
        return inside, top.float(), None, None, None


def represented(node: fx.Node, site: Site, current: Tensor, rate: Tensor) -> Tensor:
    """Differentiation on the spike representation: threshold and current learn by the clipped rate."""
    del node
    return _rate(site, current, rate, clips=True)


def straight_through(node: fx.Node, site: Site, current: Tensor, rate: Tensor) -> Tensor:
    """Tandem learning: the count stands for the rectified activation, of which alone the derivative is taken."""
    del node
    return _rate(site, current, rate, clips=False)


def rectified(node: fx.Node, site: Site, current: Tensor, rate: Tensor) -> Tensor:
    """The original network's activation, whatever was sent."""
    del site, rate
    value: Tensor = op_of(node)(current)
    return value


def _rate(site: Site, current: Tensor, rate: Tensor, *, clips: bool) -> Tensor:
    top = (site.threshold * site.firing.most).expand(current.shape[1:])
    return _Represented.apply(current, top, rate, clips, not site.firing.model.rectifies)  # type: ignore[no-any-return,no-untyped-call]
