"""The few verbs with which every rewrite changes a graph. The caller works on a copy and recompiles once at the end."""

from __future__ import annotations

import copy

from torch import fx

from snnconvert.graph.dialect import arguments, erase_dead, op_of, safe_name
from snnconvert.graph.kinds import Op
from snnconvert.graph.types import Origin


def copied(graph: fx.GraphModule) -> fx.GraphModule:
    """A deep copy whose nodes keep their names and meta data."""
    clone = copy.deepcopy(graph)
    for old, new in zip(graph.graph.nodes, clone.graph.nodes, strict=True):
        new.meta = dict(old.meta)
    return clone


def replace_op(graph: fx.GraphModule, node: fx.Node, op: Op) -> None:
    """Let `node` call `op` instead; inputs, name and origin stay."""
    op.eval()
    graph.set_submodule(str(node.target), op)


def insert_after(graph: fx.GraphModule, node: fx.Node, op: Op, *, suffix: str, users: list[fx.Node]) -> fx.Node:
    """Put `op` on the edges from `node` to `users` and return the new node, named after `node` and `suffix`."""
    with graph.graph.inserting_after(node):
        added = _called(graph, f"{node.name}_{suffix}", op, node)
    origin = node.meta.get("origin", Origin(node.name, node.op))
    added.meta["origin"] = Origin(origin.name, f"{origin.operator} {suffix}")
    added.meta["shape"] = node.meta["shape"]
    for user in users:
        redirect(user, node, added)
    return added


def insert_before(graph: fx.GraphModule, node: fx.Node, op: Op, *inputs: fx.Node, suffix: str) -> fx.Node:
    """Put `op` on `inputs` in front of `node` and return the new node, with its origin and shape."""
    with graph.graph.inserting_before(node):
        added = _called(graph, f"{node.name}_{suffix}", op, *inputs)
    added.meta.update(origin=node.meta["origin"], shape=node.meta["shape"])
    return added


def redirect(user: fx.Node, old: fx.Node, new: fx.Node) -> None:
    """Let `user` read `new` wherever it read `old`."""

    def swap(argument: fx.Node) -> fx.Node:
        return new if argument is old else argument

    user.args = fx.map_arg(user.args, swap)


def bypass(node: fx.Node) -> None:
    """Let every user of `node` read its only input instead, and erase it."""
    (source,) = arguments(node)
    node.replace_all_uses_with(source)
    node.graph.erase_node(node)


def only_user(node: fx.Node) -> fx.Node | None:
    """The single user of `node`, or None."""
    return next(iter(node.users)) if len(node.users) == 1 else None


def kind_of(node: fx.Node | None) -> str:
    """The kind that `node` calls, or its fx op, or "" for None."""
    if node is None:
        return ""
    return type(op_of(node)).__name__ if node.op == "call_module" else node.op


def finish(graph: fx.GraphModule) -> fx.GraphModule:
    """Drop what no output needs and compile again."""
    graph.graph.lint()
    erase_dead(graph)
    return graph


def _called(graph: fx.GraphModule, name: str, op: Op, *inputs: fx.Node) -> fx.Node:
    """A new node where the graph inserts, which calls `op`."""
    target = _unused(graph, name)
    op.eval()
    graph.add_submodule(target, op)
    return graph.graph.create_node("call_module", target, inputs, {}, name=target)


def _unused(graph: fx.GraphModule, name: str) -> str:
    taken = {node.name for node in graph.graph.nodes} | {str(node.target) for node in graph.graph.nodes}
    return safe_name(name, lambda one: one in taken or hasattr(graph, one))
