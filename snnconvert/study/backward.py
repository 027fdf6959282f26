"""How much of the backward pass through time is not zero: one training step of a converted network, counted.

    forward   u_t = u_{t-1} - theta s_{t-1} + x_t ;  s_t = [u_t >= theta]
    backward  gs_t = [|u_t - theta| < a theta] (dL/ds_t - theta gu_{t+1}) ;  gu_t = gs_t / theta + gu_{t+1}

(`snnconvert.neurons`; the rectangular window, and the path through the reset, after Liang et al., arXiv 2107.11746.)
dL/dx_t = gu_t is zero where no later step of the neuron lies in its window. Input sparsity of a dual-sparsity engine
is the share of gu that is zero; output sparsity the share of places outside the window, whose dL/ds nobody needs.
The loss is the cross entropy of the outputs' mean over time against the network's own decision, so no labels are used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from snnconvert.errors import OptionError
from snnconvert.graph.dialect import calls, neurons_of, op_of, origin_of, output_nodes
from snnconvert.graph.flow import Flow, flows
from snnconvert.graph.kinds import Neuron, Role
from snnconvert.graph.types import Snn
from snnconvert.graph.walk import walk
from snnconvert.neurons import State, integrate
from snnconvert.simulate.over_time import running_maximum

WINDOW = 0.5
IMAGES = 8


@dataclass(frozen=True)
class Activity:
    """Shares of one layer of neurons, over all steps, neurons and images.

    Attributes:
        gradient: of dL/dx_t that is not zero.
        window: of membrane potentials inside the surrogate's window.
    """

    gradient: float
    window: float


def backward_activity(snn: Snn, images: Tensor, *, half_width: float = WINDOW) -> dict[str, Activity]:
    """The shares of every layer of neurons by name, and of "read-out", whose gradient is dense.

    Args:
        snn: a streaming network.
        images: (batch, *sample).
        half_width: a, in thresholds.

    Raises:
        OptionError: a schedule or an operator that BPTT is not defined for here.
    """
    flow, gradients, windows = flows(snn.graph), dict[str, Tensor](), dict[str, float]()
    _check(snn, flow)
    steps, batch = snn.schedule.timesteps, len(images)

    def rule(node: fx.Node, inputs: list[Tensor]) -> Tensor:
        op = op_of(node)
        own = next(op.buffers(), None)
        given = inputs if own is None else [value.to(own.dtype) for value in inputs]
        if flow[node] != Flow.CONSTANT and op.reads:
            given = [_over_time(value, steps, batch) for value in given]
        if op.role != Role.NEURON:
            pools = op.role == Role.MAXPOOL and flow[node] == Flow.SPIKES
            value: Tensor = running_maximum(op, given[0], steps) if pools else op(*given)
            return value
        current = given[0].reshape(steps, batch, *given[0].shape[1:])
        current = current if current.requires_grad else current.detach().requires_grad_()
        current.register_hook(_keeping(gradients, node.name))  # type: ignore[no-untyped-call]
        spikes, windows[node.name] = _fired(op_of(node, Neuron), current, half_width)
        return spikes.flatten(0, 1)

    with torch.inference_mode(False), torch.enable_grad():
        (out,) = output_nodes(snn.graph)[:1]
        value = next(step.value for step in walk(snn.graph, images.clone(), rule, wanted=[out]) if step.node is out)
        logits = _over_time(value, steps, batch).reshape(steps, batch, -1).mean(0)
        several = logits.shape[1] > 1
        loss = torch.nn.functional.cross_entropy(logits, logits.argmax(1)) if several else logits.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
    found = {name: Activity(float((gradients[name] != 0).double().mean()), windows[name]) for name in windows}
    return found | {"read-out": Activity(1.0, 1.0)}


def _check(snn: Snn, flow: Mapping[fx.Node, Flow]) -> None:
    cure = "convert with --schedule streaming and --neuron if"
    if snn.schedule.kind != "streaming":
        raise OptionError(
            f"BPTT is counted for streaming networks; this one's schedule is {snn.schedule.describe()}", hint=cure
        )
    for node, neuron in neurons_of(snn.graph).items():
        if neuron.row.range(neuron.levels) != (0, 1):
            raise OptionError(
                f"BPTT is counted for binary spikes; {origin_of(node)} is a {neuron.model} neuron", hint=cure
            )
    for node, op in calls(snn.graph):
        if op.role == Role.ANALOG and flow[node] != Flow.CONSTANT:
            raise OptionError(
                f"BPTT is not counted through {origin_of(node)} ({op.plain_name}), which works on real values",
                hint="use a network of convolutions, linear layers, pools and joins",
            )


def _over_time(value: Tensor, steps: int, batch: int) -> Tensor:
    """A value that is the same in all steps, repeated for each; others as they are, (steps * batch, *sample)."""
    return value if len(value) == steps * batch else value.repeat(steps, *[1] * (value.dim() - 1))


def _keeping(kept: dict[str, Tensor], name: str) -> Callable[[Tensor], None]:
    def keep(gradient: Tensor) -> None:
        kept[name] = gradient

    return keep


class _Window(torch.autograd.Function):
    """Spikes forward; backward the gradient inside the window, in thresholds."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, spikes: Tensor, inside: Tensor, threshold: Tensor) -> Tensor:  # noqa: ARG004
        ctx.save_for_backward(inside, threshold)
        return spikes

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        inside, threshold = ctx.saved_tensors
        return gradient * inside / threshold, None, None, None


def _fired(op: Neuron, current: Tensor, half_width: float) -> tuple[Tensor, float]:
    """Spikes of every step, (steps, batch, *sample), and the share of potentials inside the window."""
    model, inside, sent = op.row, list[Tensor](), list[Tensor]()
    state = model.init(current[0], op.initial)
    for step in current:
        state = integrate(state, step)
        with torch.no_grad():
            spikes, _ = model.fire(state, op.threshold, op.levels)
            inside.append((state.v - op.threshold).abs() < half_width * op.threshold)
        sent.append(_Window.apply(state.v, spikes, inside[-1], op.threshold))  # type: ignore[no-untyped-call]
        state = State(state.v - op.threshold * sent[-1], None)
    return torch.stack(sent), float(torch.stack(inside).double().mean())
