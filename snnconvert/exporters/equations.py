"""A neuron's own equations as a graph of elementary operations, so that every exporter writes them out by itself.

`NeuronModel.fire` is traced, not translated by hand: a new neuron is exported without a word about it here, as long as
its equations are made of comparisons, arithmetic, floor, clamp and maximum.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import Tensor, fx, nn

from snnconvert.errors import UnsupportedError
from snnconvert.neurons import NeuronModel, State

V = TypeVar("V")
OPERATIONS = ("ge", "gt", "le", "lt", "add", "sub", "mul", "truediv", "neg", "and_", "floor", "to", "clamp", "maximum")


class _Step(nn.Module):
    """Sending, as a module that can be traced."""

    def __init__(self, model: NeuronModel, levels: int) -> None:
        super().__init__()
        self.model, self.levels = model, levels

    def forward(self, v: Tensor, sent: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        spikes, state = self.model.fire(State(v, sent if self.model.memory else None), threshold, self.levels)
        return spikes, state.v, state.sent


def traced(model: NeuronModel, levels: int) -> fx.Graph:
    """What `model` does when it may send: placeholders v, sent, threshold; returns (spikes, v, sent or None).

    Raises:
        UnsupportedError: equations that cannot be traced, or use other operations than OPERATIONS.
    """
    try:
        graph = fx.Tracer().trace(_Step(model, levels))
    except Exception as error:
        raise _refused(model, f"they cannot be traced: {error}") from error
    for node in graph.nodes:
        if node.op in ("call_function", "call_method") and name_of(node) not in (*OPERATIONS, "getattr"):
            raise _refused(model, f"they use {name_of(node)}")
    return graph


def why_not(model: NeuronModel, levels: int, *, on_a_grid: bool = False) -> str:
    """Why a neuron's equations cannot be written for another program; empty where they can.

    Args:
        on_a_grid: whether they have to be exact in float32 in every program: then the membrane has to stay a sum of
            whole numbers of what it was and of thresholds.
    """
    try:
        graph = traced(model, levels)
    except UnsupportedError as error:
        return error.message
    if on_a_grid and not stays_on_a_grid(graph):
        return (
            f"membranes of neuron {model.name} do not stay whole numbers of units: every program rounds them otherwise"
        )
    return ""


def stays_on_a_grid(graph: fx.Graph) -> bool:
    """Whether v after a step of `traced` is on every grid that v and the threshold are on; spikes are whole numbers."""
    spikes, v, sent = evaluated(graph, {"v": GRID, "sent": WHOLE, "threshold": GRID}, _unit)
    return v == GRID and spikes == WHOLE and sent in (None, WHOLE)


# what a value is a multiple of: the membrane's grid, 1, or nothing known
GRID, WHOLE, FREE = "grid", "whole", "free"


def _unit(name: str, given: tuple[str | float, ...]) -> str:
    units = [one if isinstance(one, str) else WHOLE if float(one).is_integer() else FREE for one in given]
    if name in ("ge", "gt", "le", "lt", "and_", "floor"):
        return WHOLE
    if name in ("to", "neg"):
        return units[0]
    if name == "mul" and GRID in units:  # by more than 1 it would grow from step to step
        grown = any(not isinstance(one, str) and abs(one) > 1 for one in given)
        return GRID if WHOLE in units and not grown else FREE
    return units[0] if name != "truediv" and len(set(units)) == 1 else FREE


def _refused(model: NeuronModel, reason: str) -> UnsupportedError:
    return UnsupportedError(
        f"the equations of neuron {model.name} cannot be written for another program: {reason}",
        hint=f"write them with {', '.join(OPERATIONS)} only, or export another neuron",
    )


def name_of(node: fx.Node) -> str:
    """The operation of a node of `traced`, as in OPERATIONS."""
    return str(node.target if isinstance(node.target, str) else getattr(node.target, "__name__", node.target))


def evaluated(
    graph: fx.Graph, given: Mapping[str, V], operation: Callable[[str, tuple[V | float, ...]], V]
) -> tuple[V, V, V | None]:
    """(spikes, v, sent or None) of `traced`, as `operation` makes them from (name, arguments).

    Args:
        given: what stands for v, sent and threshold.
        operation: the name is one of OPERATIONS; `to` turns a truth into a number; `clamp` has two bounds.
    """
    values: dict[fx.Node, Any] = {}
    for node in graph.nodes:
        if node.op == "placeholder":
            values[node] = given.get(str(node.target))
        elif node.op == "output":
            spikes, v, sent = node.args[0]
            return values[spikes], values[v], None if sent is None else values[sent]
        elif name_of(node) == "to":
            values[node] = operation("to", (values[node.args[0]],))
        elif name_of(node) != "getattr":
            values[node] = operation(
                name_of(node), tuple(values[one] if isinstance(one, fx.Node) else one for one in node.args)
            )
    raise AssertionError("a graph without an output")


# a comparison is a number already; "and" of numbers is their product
_WRITTEN = {
    "ge": "reached({0}, {1}, threshold)",
    "le": "reached({1}, {0}, threshold)",
    "gt": "(1 - reached({1}, {0}, threshold))",
    "lt": "(1 - reached({0}, {1}, threshold))",
    "to": "{0}",
    "add": "({0} + {1})",
    "sub": "({0} - {1})",
    "mul": "({0} * {1})",
    "and_": "({0} * {1})",
    "truediv": "({0} / {1})",
    "neg": "-{0}",
    "floor": "floored({0})",
    "maximum": "torch.maximum({0}, {1})",
    "clamp": "{0}.clamp({1}, {2})",
}


def as_python(model: NeuronModel, levels: int) -> tuple[list[str], str, str]:
    """The equations of `traced` as lines that assign `spikes` from `risen`, `sent` and `threshold`.

    Comparisons are written as `reached(a, b, threshold)`, 1 where a >= b, and floor as `floored(x)`.

    Returns:
        The lines, and the expressions of v and of sent after them (empty without one).
    """
    graph = traced(model, levels)
    lines: list[str] = []
    text: dict[fx.Node, str] = {}
    (output,) = [node for node in graph.nodes if node.op == "output"]
    spikes, v, sent = output.args[0]
    for node in graph.nodes:
        if node.op == "placeholder":
            text[node] = {"v": "risen"}.get(str(node.target), str(node.target))
        elif node.op in ("call_function", "call_method") and name_of(node) != "getattr":
            given = [text.get(one, "") if isinstance(one, fx.Node) else _plain(one) for one in node.args]
            made = _WRITTEN[name_of(node)].format(*given)
            users = [user for user in node.users if user is not output]
            if node is spikes or (len(users) > 1 and name_of(node) not in ("neg", "to")):
                own = "spikes" if node is spikes else f"n{len(lines)}"
                lines.append(f"{own} = {_bare(made)}")
                made = own
            text[node] = made
    return lines, _bare(text[v]), "" if sent is None else _bare(text[sent])


def _plain(value: object) -> str:
    number = float(value)  # type: ignore[arg-type]
    return str(int(number)) if math.isfinite(number) and number == int(number) else repr(number)


def _bare(text: str) -> str:
    """Without brackets around all of it."""
    if not (text.startswith("(") and text.endswith(")")):
        return text
    depth = 0
    for index, character in enumerate(text):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth == 0 and index < len(text) - 1:
            return text
    return text[1:-1]
