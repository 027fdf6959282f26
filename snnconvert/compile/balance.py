"""Synchronous neurons: every join of a network that is staggered in time reads values of equal depth.

In a staggered schedule (wait, bistable) a value of depth k arrives k emission periods after the input, so a shortcut
overtakes the branch it is added to. `balance` puts chains of synchronous neurons (Li, Zeng & Zhao, arXiv 2105.12917;
exact placement is ours) on the shorter branches: directly on spikes, before a shortcut's convolution, padding or
scale, so that a chain carries non-negative spikes and can be shared between edges.

Where the shorter branch is a sum that other layers read too (pre-activation residual networks, linear bottlenecks),
delaying the spikes it was made of would repeat every convolution on the way. There `with_identity_sites` puts one
signed neuron on the sum itself, before calibration, so that it gets a threshold of its own and belongs to the quantised
reference network; further delays are synchronous neurons on its spikes.

Values that do not depend on any spike (the input, unless it is events, and what is computed from it alone) flow in
every step and are exempt.
"""

from __future__ import annotations

from dataclasses import replace

from torch import fx

from snnconvert.errors import InternalError
from snnconvert.graph.dialect import arguments, op_of, origin_of, verify
from snnconvert.graph.edit import copied, finish, insert_after, kind_of, redirect
from snnconvert.graph.kinds import Identity, Role, Stage, Synchronous
from snnconvert.graph.schedule import Schedule
from snnconvert.graph.schedule.timing import SPIKING, site_depths
from snnconvert.graph.types import Ann

CHEAP = (Role.WIRING, Role.POOL, Role.AFFINE)
SUBSAMPLING = ("Slice",)
MOVING = (*SPIKING, Role.EVENTS)


def with_identity_sites(ann: Ann, schedule: Schedule) -> Ann:
    """`ann` with a signed site on every sum that `schedule` has to hold back; `ann` itself if there is none.

    Call it before calibration. The depth of the network does not change.
    """
    if not schedule.staggered:
        return ann
    graph = copied(ann.graph)
    added: dict[fx.Node, fx.Node] = {}
    for join in list(graph.graph.nodes):
        for source in _late_inputs(graph, join):
            for node, user in _identity_places(source, join):
                if node in added:
                    redirect(user, node, added[node])
                else:
                    added[node] = insert_after(graph, node, Identity(), suffix="identity", users=[user])
    if not added:
        return ann
    return replace(ann, graph=verify(finish(graph), Stage.ANN))


def balance(graph: fx.GraphModule, schedule: Schedule) -> fx.GraphModule:
    """A copy of `graph` in which synchronous neurons give all inputs of every join the same depth.

    Where depth costs no time nothing is held back and `graph` is returned as it is.
    """
    if not schedule.staggered:
        return graph
    balanced = _Balancer(copied(graph)).run()
    verify_balanced(balanced)
    return balanced


def verify_balanced(graph: fx.GraphModule) -> None:
    """Refuse a graph in which a join reads values of different depth.

    Raises:
        InternalError: naming every such join and the depths of its inputs.
    """
    depths = site_depths(graph)
    faults = []
    for node in graph.graph.nodes:
        if _late_inputs(graph, node):
            read = ", ".join(f"{source.name} at depth {depths[source.name]}" for source in _moving_inputs(node))
            faults.append(f"{node.name} from {origin_of(node)} reads {read}")
    if faults:
        raise InternalError("joins read branches of different depth", causes=tuple(faults))


class _Balancer:
    def __init__(self, graph: fx.GraphModule) -> None:
        self.graph = graph
        self.delayed: dict[tuple[fx.Node, int], fx.Node] = {}

    def run(self) -> fx.GraphModule:
        for join in list(self.graph.graph.nodes):
            for source, delay in _late_inputs(self.graph, join).items():
                later = self._delay(source, delay, exclusive=True)
                if later is not source:
                    redirect(join, source, later)
        return finish(self.graph)

    def _delay(self, node: fx.Node, delay: int, *, exclusive: bool) -> fx.Node:
        """The value of `node`, `delay` emission periods later."""
        if not is_moving(node) or delay == 0:
            return node
        if (node, delay) in self.delayed:
            return self.delayed[node, delay]
        if _holds_spikes(node):
            before = self._delay(node, delay - 1, exclusive=False)
            later = insert_after(self.graph, before, Synchronous(), suffix="synchronous", users=[])
        else:
            exclusive = exclusive and len(node.users) == 1
            inputs = {source: self._delay(source, delay, exclusive=exclusive) for source in arguments(node)}
            if exclusive:
                for old, new in inputs.items():
                    redirect(node, old, new)
                return node
            later = self._copy(node, [inputs[source] for source in arguments(node)])
        self.delayed[node, delay] = later
        return later

    def _copy(self, node: fx.Node, inputs: list[fx.Node]) -> fx.Node:
        later = insert_after(self.graph, node, op_of(node).rebuilt(), suffix="later", users=[])
        later.args = tuple(inputs)
        later.meta["origin"] = origin_of(node)
        return later


def is_moving(node: fx.Node) -> bool:
    """Whether the value of `node` depends on spikes, so that it arrives at a time of its own."""
    found, stack = False, [node]
    seen: set[fx.Node] = set()
    while stack and not found:
        current = stack.pop()
        if current in seen or current.op != "call_module" or not op_of(current).reads:
            continue
        seen.add(current)
        found = op_of(current).role in MOVING
        stack += arguments(current)
    return found


def _moving_inputs(node: fx.Node) -> list[fx.Node]:
    return [source for source in dict.fromkeys(arguments(node)) if is_moving(source)]


def _late_inputs(graph: fx.GraphModule, node: fx.Node) -> dict[fx.Node, int]:
    """The inputs of a join that arrive too early, and by how many emission periods."""
    if node.op != "call_module" or len(set(arguments(node))) < 2:
        return {}
    depths = site_depths(graph)
    sources = _moving_inputs(node)
    latest = max((depths[source.name] for source in sources), default=0)
    return {source: latest - depths[source.name] for source in sources if depths[source.name] < latest}


def _holds_spikes(node: fx.Node) -> bool:
    """Whether `node` carries spikes of one neuron per element: a place for synchronous neurons."""
    if node.op != "call_module":
        return False
    op = op_of(node)
    if op.role in MOVING:
        return True
    if op.role == Role.MAXPOOL or kind_of(node) in SUBSAMPLING:
        return _holds_spikes(arguments(node)[0])
    return False


def _pushable(node: fx.Node, *, exclusive: bool) -> bool:
    """Whether a delay of `node` can move to the spikes it is made of without repeating a convolution."""
    if _holds_spikes(node) or not is_moving(node):
        return True
    exclusive = exclusive and len(node.users) == 1
    if not exclusive and op_of(node).role not in CHEAP:
        return False
    return all(_pushable(source, exclusive=exclusive) for source in arguments(node))


def _identity_places(node: fx.Node, user: fx.Node) -> list[tuple[fx.Node, fx.Node]]:
    """The edges (node, user) on the way to a late input where a signed neuron has to stand."""
    if _pushable(node, exclusive=True):
        return []
    if len(node.users) > 1:
        return [(node, user)]
    return [place for source in arguments(node) for place in _identity_places(source, node)]
