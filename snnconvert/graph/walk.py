"""The one walk over a graph: values in data-flow order, each held until its last reader has run.

What a value is, is the caller's business: tensors, frames over time, units, means, trains of steps. A *rule* makes a
node's value from those of its inputs. `walk` pushes values from the input to the outputs; `Plan` says who needs whom
and when a value is done with, for engines that compute some nodes only when a reader asks; `Pull` computes from the
outputs backwards what is asked for, and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, fx

from snnconvert.graph.dialect import arguments, op_of

BATCH = 64
# in one value of a batch (64 MB)
MOST_VALUES = 2**24

V = TypeVar("V")
Rule = Callable[[fx.Node, list[V]], V]


class Step(NamedTuple, Generic[V]):
    """A node with its value and those that it was made of."""

    node: fx.Node
    inputs: list[V]
    value: V


class Plan:
    """Who needs whose value, and when a value is done with.

    Args:
        nodes: in data-flow order.
        lazy: of them, those that are computed only when a reader asks for their value. What they read is needed by
            their readers.
        kept: whose values stay.
    """

    def __init__(
        self, nodes: Iterable[fx.Node], *, lazy: Collection[fx.Node] = (), kept: Collection[fx.Node] = ()
    ) -> None:
        self.nodes, self.lazy = list(nodes), frozenset(lazy)
        eager = [node for node in self.nodes if node not in self.lazy]
        last = {source: node for node in eager for source in self.needs(node)}
        self.gone: dict[fx.Node, list[fx.Node]] = {}
        for source, node in last.items():
            if source not in kept:
                self.gone.setdefault(node, []).append(source)

    def needs(self, node: fx.Node) -> list[fx.Node]:
        """The nodes whose values computing `node` may ask for."""
        sources = node.all_input_nodes
        return [need for one in sources for need in (one, *(self.needs(one) if one in self.lazy else ()))]

    def forget(self, node: fx.Node, values: dict[fx.Node, V]) -> None:
        """Drop from `values` what nobody needs once `node` has run."""
        for source in self.gone.get(node, ()):
            values.pop(source, None)


def batch_of(graph: fx.GraphModule) -> int:
    """Samples that go through a network of real values at once: 64, fewer where a value of one is large."""
    largest: int = max((math.prod(node.meta["shape"]) for node in graph.graph.nodes if node.op != "output"), default=1)
    return max(1, min(BATCH, MOST_VALUES // max(largest, 1)))


def walk(
    graph: fx.GraphModule, start: V, rule: Rule[V] | None = None, *, wanted: Collection[fx.Node] | None = None
) -> Iterator[Step[V]]:
    """Every node in data-flow order with its value.

    Args:
        start: the value of every placeholder.
        rule: (node, values of its inputs) -> its value; without one the operator itself is called.
        wanted: only these nodes, and what they are made of, are computed.
    """
    made = applied if rule is None else rule
    needed = None if wanted is None else upstream(wanted)
    nodes = [node for node in graph.graph.nodes if needed is None or node in needed]
    plan, values = Plan(nodes), dict[fx.Node, V]()
    for node in nodes:
        if node.op == "output":
            continue
        inputs = [values[source] for source in arguments(node)]
        values[node] = start if node.op == "placeholder" else made(node, inputs)  # type: ignore[arg-type,assignment]
        yield Step(node, inputs, values[node])
        plan.forget(node, values)


def applied(node: fx.Node, inputs: list[Tensor]) -> Tensor:
    """The rule for real values: what the operator computes."""
    value: Tensor = op_of(node)(*inputs)
    return value


def in_own_precision(node: fx.Node, inputs: list[Tensor]) -> Tensor:
    """As `applied`, in the precision of the operator's own tensors."""
    own = next(op_of(node).buffers(), None)
    return applied(node, inputs if own is None else [value.to(own.dtype) for value in inputs])


class Pull(Generic[V]):
    """Values that are computed when they are asked for, and then kept.

    Args:
        rule: as in `walk`.
        known: the value of a node that is there already, or comes about otherwise; None where the rule is to be used.
    """

    def __init__(self, rule: Rule[V], known: Callable[[fx.Node], V | None]) -> None:
        self.rule, self.known = rule, known
        self.values: dict[fx.Node, V] = {}

    def __call__(self, node: fx.Node) -> V:
        """The value of `node`."""
        if node not in self.values:
            found = self.known(node)
            self.values[node] = self.rule(node, [self(one) for one in arguments(node)]) if found is None else found
        return self.values[node]


def upstream(nodes: Iterable[fx.Node], *, until: Collection[fx.Node] = ()) -> dict[fx.Node, None]:
    """`nodes` and all that they are made of, back to those in `until`, which are included."""
    todo, found = list(nodes), dict[fx.Node, None]()
    while todo:
        node = todo.pop()
        if node not in found:
            found[node] = None
            todo += () if node in until else node.all_input_nodes
    return found


def values_of(graph: fx.GraphModule, inputs: Tensor) -> Iterator[tuple[fx.Node, Tensor]]:
    """Every value of `graph` on one input (batch first), each node in the precision of its own tensors."""
    for node, _, value in walk(graph, inputs, in_own_precision):
        yield node, value


def propagate_shapes(graph: fx.GraphModule, input_shape: tuple[int, ...]) -> None:
    """Run the graph once on zeros (batch 2) and store each sample's shape in `node.meta["shape"]`."""
    for node, value in values_of(graph, torch.zeros(2, *input_shape)):
        node.meta["shape"] = tuple(value.shape[1:])
