"""What is summed into the same neurons, what it is made of, and how large it can become in one frame."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx

from snnconvert.compile.exact import INPUT_BITS, largest_sums
from snnconvert.compile.integers import channel_axis, channel_rows
from snnconvert.graph.dialect import arguments, neurons_of, op_of, output_nodes, role_of
from snnconvert.graph.flow import Flow
from snnconvert.graph.kinds import Neuron, Role, Snap, Weighted
from snnconvert.graph.walk import walk

Edge = tuple[fx.Node, fx.Node]


@dataclass
class Sum:
    """A sum, or several that share a summand.

    Attributes:
        ends: the neurons that it drives, or outputs that it is.
        inside: joins and wiring between the summands and the ends.
        counted: the summands made of spikes: weights, scales and shifts that read whole numbers of units.
        real: the edges (source, reader) over which real values come in.
    """

    ends: set[fx.Node] = field(default_factory=set)
    inside: set[fx.Node] = field(default_factory=set)
    counted: set[fx.Node] = field(default_factory=set)
    real: set[Edge] = field(default_factory=set)

    @property
    def neurons(self) -> dict[fx.Node, Neuron]:
        """The neurons that it drives."""
        return {node: op_of(node, Neuron) for node in self.ends if role_of(node) == Role.NEURON}

    @property
    def axis(self) -> int | None:
        """The axis of a sample along which its channels stay apart; None where they do not."""
        return channel_axis(self.ends | self.inside | self.counted)

    def merge(self, other: Sum) -> None:
        """Take in what another sum holds."""
        self.ends |= other.ends
        self.inside |= other.inside
        self.counted |= other.counted
        self.real |= other.real


def sums_of(graph: fx.GraphModule) -> list[Sum]:
    """The sums of a graph at stage SNN whose flows are known, in data-flow order of their first ends."""
    found: list[Sum] = []
    for end in [*neurons_of(graph), *output_nodes(graph)]:
        one = Sum({end})
        todo: list[Edge] = [(end, end)] if role_of(end) != Role.NEURON else [(arguments(end)[0], end)]
        while todo:
            node, reader = todo.pop()
            if counts(node):
                one.counted.add(node)
            elif joins(node):
                one.inside.add(node)
                todo += [(source, node) for source in arguments(node)]
            elif node is not end:
                one.real.add((node, reader))
        shared = [other for other in found if (other.inside | other.counted) & (one.inside | one.counted)]
        for other in shared:
            one.merge(other)
            found.remove(other)
        if one.counted or one.inside or one.neurons:
            found.append(one)
    return found


def counts(node: fx.Node) -> bool:
    """Whether a node makes a current of whole numbers of units."""
    kept = role_of(node) in (Role.WEIGHTED, Role.AFFINE)
    return kept and bool(arguments(node)[0].meta["flow"] == Flow.SPIKES)


def joins(node: fx.Node) -> bool:
    """Whether a node only adds or moves currents."""
    return node.op == "call_module" and node.meta["flow"] == Flow.CURRENT and role_of(node) in (Role.JOIN, Role.WIRING)


def largest_values(graph: fx.GraphModule, input_bound: float) -> dict[fx.Node, float]:
    """The largest absolute value of every node in one frame, units for spikes; infinite where nothing bounds it."""
    return {node: value for node, _, value in walk(graph, input_bound, lambda node, most: op_of(node).largest(*most))}


def span(node: fx.Node, snap: Snap) -> float:
    """The largest value that comes out of a rounding: infinite, unless it has a limit or was made for 26 bits.

    Those were that a weighted sum or a pool reads, or that read the input.
    """
    if snap.limit is not None:
        return snap.limit
    readers = (Role.WEIGHTED, Role.POOL)
    made_for = arguments(node)[0].op == "placeholder" or all(role_of(user) in readers for user in node.users)
    return snap.grid * 2.0**INPUT_BITS if made_for else math.inf


def largest_by_channel(sum_: Sum, values: dict[fx.Node, float]) -> Tensor:
    """The largest absolute value that one frame adds to the sum, (channels), or (1) where they do not stay apart."""
    axis = sum_.axis

    def of(node: fx.Node) -> Tensor:
        if node in sum_.inside:
            parts = [of(source) for source in arguments(node)]
            return sum(parts[1:], parts[0]) if role_of(node) == Role.JOIN else torch.stack(parts).amax(0)
        if role_of(node) == Role.WEIGHTED:
            rows = largest_sums(op_of(node, Weighted), values[arguments(node)[0]], signed=True)
            return rows if axis is not None else rows.amax(0, keepdim=True)
        if node in sum_.counted:  # the first of its tensors multiplies, the second is added
            shape = tuple(node.meta["shape"])
            parts = [channel_rows(tensor, shape, axis).abs().amax(1) for tensor in op_of(node).buffers()]
            return parts[0] * values[arguments(node)[0]] + sum(parts[1:], torch.zeros(1).double())
        return torch.tensor([values[node]]).double()

    sources = [arguments(end)[0] if role_of(end) == Role.NEURON else end for end in sum_.ends]
    found = of(sources[0])
    for source in sources[1:]:
        found = torch.maximum(found, of(source))
    return found
