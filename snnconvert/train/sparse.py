"""Backpropagation through time where the surrogate is active, and nowhere else, for networks of linear layers.

With a rectangle as surrogate dL/du_t = dL/dv_t + slope_t (dL/dout_t - dL/dv_t) changes at *active* steps only, those in
which u_t lies within the rectangle. Going back in time from one to the next, with c_k = slope (dL/dout_k - dL/dv_k):

    dL/dW_ji  = sum over active (b, k, j) of c_k C_i[b, k],    C_i[b, k] = what input i sent until step k
    dL/db_j   = sum of c_k (k + 1)
    dL/dout_i = sum_j W_ji gu_j[t],  gu_j[t] = sum of c_k over k >= t,   needed where input i is active itself

so the work follows the number of active steps. Stored are the active places, the inputs as bytes, and no membranes.

Source: Perez-Nieves and Goodman, NeurIPS 2021 (arXiv 2105.08810), for a leak and a detached reset; here for
integrate-and-fire with the gradient through the reset, where cumulated inputs take the place of their traces.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from snnconvert.errors import OptionError
from snnconvert.graph.dialect import arguments, op_of, origin_of
from snnconvert.graph.flow import Flow
from snnconvert.graph.kinds import Role, Weighted
from snnconvert.train import native
from snnconvert.train.student import Site, Student

# rows that are gathered at once
AT_ONCE = 1 << 15


class SparseBackward:
    """Runs a student of linear layers so that gradients are taken at active places only.

    Raises:
        OptionError: the network has other layers, or neurons of another kind.
    """

    def __init__(self, student: Student) -> None:
        self.student = student
        (self.output,) = student.outputs[:1]
        self.share = 0.0
        for node in student.graph.graph.nodes:
            if node.op == "call_module":
                self._check(node)
        if student.device.type != "cpu":
            raise OptionError(
                "--backward sparse runs on the CPU", hint="leave --device out", options=("backward", "device")
            )
        if student.schedule.read_from or student.schedule.waited:
            raise OptionError(
                "--backward sparse is for answers that are read from the first step on",
                hint="convert with --schedule streaming --read-from 0",
                options=("backward",),
            )

    def _check(self, node: fx.Node) -> None:
        moving = self.student.flow[node] != Flow.CONSTANT
        linear, sites = _linear(node), self.student.sites
        neurons = node in sites and sites[node].firing.model.name == "if" and _linear(arguments(node)[0])
        last = linear and node is self.output
        if moving and not (neurons or last or (linear and all(user in sites for user in node.users))):
            raise OptionError(
                f"--backward sparse is for linear layers of if neurons; {origin_of(node)} is none",
                hint="leave --backward out",
                options=("backward",),
            )

    def __call__(self, images: Tensor) -> list[Tensor]:
        """The mean output, (1, batch, *output)."""
        student, values, layers = self.student, dict[fx.Node, Tensor](), list[fx.Node]()
        for node in student.graph.graph.nodes:
            if node.op == "placeholder":
                values[node] = student.laid_out(images)
            elif node in student.sites:
                layers.append(node)
            elif node.op == "call_module" and student.flow[node] == Flow.CONSTANT and not _feeds(node, student):
                values[node] = op_of(node)(*(values[one] for one in arguments(node)))
        linear = [op_of(arguments(node)[0], Weighted) for node in layers] + [op_of(self.output, Weighted)]
        first = values[arguments(arguments(layers[0])[0])[0]]
        sites = [student.sites[node] for node in layers]
        learned = [one for op in linear for one in (op.weight, op.bias)]
        mean, share = _Chain.apply(sites, first.flatten(1), *learned)  # type: ignore[no-untyped-call]
        self.share = float(share)
        return [mean.unsqueeze(0)]


def _linear(node: fx.Node) -> bool:
    return node.op == "call_module" and op_of(node).role == Role.WEIGHTED and op_of(node, Weighted).weight.ndim == 2


def _feeds(node: fx.Node, student: Student) -> bool:
    """Whether `node` is the linear part of a layer of neurons, which is computed with them."""
    return bool(node.users) and all(user in student.sites for user in node.users)


@dataclass(frozen=True)
class _Layer:
    """What is kept of a layer of neurons.

    Attributes:
        active: its active places, flat in (frames, batch, neurons), ascending.
        sent: spikes as bits, (frames, batch, neurons / 8); None where nobody's weights need them.
        theta: thresholds, (neurons,).
    """

    active: Tensor
    sent: Tensor | None
    theta: Tensor
    slope: float
    shape: tuple[int, int, int]

    @property
    def units(self) -> Tensor:
        """What was sent, int8 (frames, batch, neurons)."""
        assert self.sent is not None
        return torch.from_numpy(np.unpackbits(self.sent.numpy(), axis=-1, count=self.shape[2]).view(np.int8))


class _Chain(torch.autograd.Function):
    """Linear layers with neurons, and a linear read-out, whose mean over the frames is the result."""

    @staticmethod
    def forward(ctx: Any, sites: list[Site], images: Tensor, *learned: Tensor | None) -> tuple[Tensor, Tensor]:
        layers, values, places = list[_Layer](), images, 0
        for index, site in enumerate(sites):
            weight, bias = learned[2 * index], learned[2 * index + 1]
            assert weight is not None
            current = torch.nn.functional.linear(values, weight, bias)
            last = index == len(sites) - 1
            values, layer = _send(site, current, constant=index == 0, kept=not last)
            layers.append(layer)
            places += values.numel()
        mean = values.mean(0)
        ctx.learned = [one is not None for one in learned]
        # everything that is kept goes this way, so that it can be counted
        kept = [one for layer in layers for one in (layer.active, layer.sent, layer.theta)]
        ctx.save_for_backward(images, mean, *learned, *kept)
        ctx.layers = [(layer.slope, layer.shape) for layer in layers]
        active = sum(len(layer.active) for layer in layers)
        weight, bias = learned[-2], learned[-1]
        assert weight is not None
        share = torch.tensor(active / max(places, 1))
        ctx.mark_non_differentiable(share)
        return torch.nn.functional.linear(mean, weight, bias), share

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Any) -> tuple[Any, ...]:
        images, mean, *rest = ctx.saved_tensors
        learned, kept = rest[: len(ctx.learned)], rest[len(ctx.learned) :]
        found: list[Tensor | None] = [None] * len(learned)
        layers = [_Layer(*kept[3 * at : 3 * at + 3], *facts) for at, facts in enumerate(ctx.layers)]
        found[-2] = gradient.t() @ mean
        found[-1] = gradient.sum(0) if ctx.learned[-1] else None
        every = (gradient @ learned[-2] / layers[-1].shape[0]).flatten()
        wanted = every[layers[-1].active % every.numel()]
        for index in reversed(range(len(layers))):
            layer, before = layers[index], layers[index - 1] if index else None
            weight = learned[2 * index]
            change, into, earlier = _back(layer, before, weight, wanted)
            _, batch, outputs = layer.shape
            frame, place = layer.active // (batch * outputs), layer.active % (batch * outputs)
            # over all steps: what a current that never changes gains
            total = torch.zeros(batch * outputs, dtype=weight.dtype).index_add_(0, place, change * (frame + 1))
            total = total.view(batch, outputs)
            found[2 * index] = total.t() @ images if into is None else into
            found[2 * index + 1] = total.sum(0) if ctx.learned[2 * index + 1] else None
            wanted = earlier
        return None, None, *found


def _send(site: Site, current: Tensor, *, constant: bool, kept: bool) -> tuple[Tensor, _Layer]:
    """What neurons send on a current (frames, batch, neurons), or (batch, neurons) if it is constant."""
    frames, width = site.firing.frames, site.firing.width
    theta = site.threshold.detach().to(current.dtype).expand(current.shape[-1]).contiguous()
    start = theta * site.initial.detach().to(current.dtype).expand(len(theta))
    v = start.expand(current.shape[-2:]).clone()
    out, inside = torch.empty(frames, *v.shape, dtype=v.dtype), list[Tensor]()
    for step in range(frames):
        v += current if constant else current[step]
        away = torch.addcdiv(torch.full_like(v, -1.0), v, theta).abs_()
        inside.append((away < width).view(-1).nonzero().squeeze(1))
        torch.mul(v >= theta, theta, out=out[step])
        v -= out[step]
    active = torch.cat([places + step * v.numel() for step, places in enumerate(inside)])
    sent = torch.from_numpy(np.packbits((out != 0).numpy(), axis=-1)) if kept else None
    return out, _Layer(active, sent, theta, 1 / (2 * width), (frames, *v.shape))


def _back(layer: _Layer, before: _Layer | None, weight: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
    """c of every active place, the gradient of the weights, and that of what the layer before sent where it is active.

    The latter two are nothing where the layer reads images.
    """
    library = native.load()
    frames, batch, outputs = layer.shape
    if library is None:
        change = _changes(wanted, layer.active, batch * outputs, layer.slope)
        return (change, *_by_torch(layer, before, weight, change))
    inputs = 0 if before is None else before.shape[2]
    change = torch.empty_like(wanted)
    into = torch.zeros(outputs, inputs, dtype=weight.dtype)
    earlier = torch.empty(0 if before is None else len(before.active), dtype=weight.dtype)
    places = layer.active[:0] if before is None else before.active
    library.sparse(
        frames=frames,
        batch=batch,
        inputs=inputs,
        outputs=outputs,
        storage=native.STORAGE[weight.dtype],
        count=len(layer.active),
        before_count=len(places),
        slope=layer.slope,
        active=layer.active,
        before=places,
        gradient=wanted.contiguous(),
        weight=weight.contiguous(),
        sent=0 if before is None else before.units,
        change=change,
        weight_gradient=into,
        before_gradient=earlier,
    )
    return change, None if before is None else into * before.theta, earlier


def _by_torch(layer: _Layer, before: _Layer | None, weight: Tensor, change: Tensor) -> tuple[Tensor | None, Tensor]:
    """What `_back` gives besides, where there is no library."""
    if before is None or before.sent is None:
        return None, change[:0]
    _, batch, outputs = layer.shape
    frame, place = layer.active // (batch * outputs), layer.active % (batch * outputs)
    until = before.units.to(weight.dtype).cumsum(0).flatten(0, 1) * before.theta
    indices = torch.stack([place % outputs, frame * batch + place // outputs])
    matrix = torch.sparse_coo_tensor(indices, change, (outputs, len(until)), check_invariants=False)
    steps = torch.zeros(math.prod(layer.shape), dtype=weight.dtype).index_add_(0, layer.active, change)
    by_step = steps.view(layer.shape).flip(0).cumsum(0).flip(0).flatten(0, 1)
    return torch.sparse.mm(matrix, until), _at(before.active, by_step, weight)


def _changes(gradient: Tensor, active: Tensor, neurons: int, slope: float) -> Tensor:
    """c_k of every active place: going back in time, all neurons at once that have as many places behind them."""
    frame, place = active // neurons, active % neurons
    order = torch.argsort(place * (int(frame.max()) + 1 if len(frame) else 1) - frame)  # by neuron, the last step first
    sorted_place, sorted_gradient = place[order], gradient[order]
    starts = torch.ones_like(sorted_place, dtype=torch.bool)
    starts[1:] = sorted_place[1:] != sorted_place[:-1]
    first = starts.nonzero().squeeze(1)
    sizes = torch.diff(first, append=torch.tensor([len(order)]))
    change = torch.zeros_like(gradient)
    carried = torch.zeros(len(first), dtype=gradient.dtype)
    for rank in range(int(sizes.max()) if len(sizes) else 0):
        more = (sizes > rank).nonzero().squeeze(1)
        at = first[more] + rank
        step = slope * (sorted_gradient[at] - carried[more])
        change[order[at]] = step
        carried[more] += step
    return change


def _at(places: Tensor, by_step: Tensor, weight: Tensor) -> Tensor:
    """by_step @ weight at some places only, which are flat in its shape."""
    columns, inputs = weight.t().contiguous(), weight.shape[1]
    found = [(by_step[part // inputs] * columns[part % inputs]).sum(1) for part in torch.split(places, AT_ONCE)]
    return torch.cat(found)
