"""A network in integers as a list of instructions: what `reference.c` interprets, and hardware has to do."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from snnconvert.compile.integers import Integers
from snnconvert.errors import UnsupportedError
from snnconvert.graph.dialect import arguments, op_of, origin_of, output_nodes
from snnconvert.graph.flow import Flow
from snnconvert.graph.kinds import MaxPool, Op, Role, SumPool
from snnconvert.graph.schedule import Schedule
from snnconvert.graph.schedule.timing import site_depths

Array = NDArray[np.int64]
# neurons that `fire` of reference.c knows: whether they remember what they sent, and round negative units up
NEURONS_IN_C: dict[str, dict[str, int]] = {
    "if": {},
    "if-zero": {"zero": 1},
    "burst": {},
    "signed": {},
    "bistable": {},
    "first-spike": {},
    "ternary": {"memory": 1},
    "ternary-late": {"memory": 1, "late": 1},
    "graded": {"memory": 1},
}


@dataclass
class Instruction:
    """One operation.

    Attributes:
        kind: of reference.c.
        name, origin: of the node it computes.
        numbers: fields of op_t.
        arrays: `weight`, `first`, `second`, as there.
    """

    kind: str
    name: str
    origin: str
    numbers: dict[str, int]
    arrays: dict[str, Array] = field(default_factory=dict)


class IntegerProgram:
    """The instructions of a network, with the places of its values.

    Args:
        integers: with an integer input.

    Attributes:
        instructions: in the order in which a step computes them.
        values, states: how many numbers they keep.
        score_at, score_depth, scores: where the first output is, at which depth, and its size.

    Raises:
        UnsupportedError: naming the first node that has no integer form.
    """

    def __init__(self, integers: Integers) -> None:
        self.integers, self.schedule = integers, integers.snn.schedule
        self.depths, self.domains = site_depths(integers.snn.graph), integers.domains
        self.instructions: list[Instruction] = []
        self.values = self.states = 0
        self.at: dict[fx.Node, int] = {}
        self.rescaled: dict[tuple[fx.Node, int, int], int] = {}
        for node in integers.snn.graph.graph.nodes:
            if node.op == "placeholder":
                self.at[node] = self._place(node)
            elif node.op == "call_module":
                self.at[node] = self._translate(node, integers.ops[node])
        output = output_nodes(integers.snn.graph)[0]
        if self.domains[output] != Flow.CURRENT:
            raise _refused(output, "an output that no spike reaches")
        self.score_at, self.score_depth = self.at[output], self.depths[output.name]
        self.scores = math.prod(output.meta["shape"])

    def sites(self) -> list[Instruction]:
        """The neuron layers, in order."""
        return [one for one in self.instructions if one.kind == "FIRE"]

    # --- nodes ---

    def _translate(self, node: fx.Node, op: Op) -> int:
        if self.domains[node] == Flow.CONSTANT and node not in self.integers.bounds:
            raise _refused(node, f"a {op.plain_name} on real values")
        rules: dict[Role, Callable[[fx.Node], int]] = {
            Role.NEURON: self._neuron,
            Role.DELAY: self._delay,
            Role.WEIGHTED: self._weighted,
            Role.AFFINE: self._affine,
            Role.JOIN: self._join,
            Role.POOL: self._pool,
            Role.MAXPOOL: self._pool,
            Role.WIRING: self._wiring,
        }
        if op.role not in rules:
            raise _refused(node, f"a {op.plain_name} on real values in every step")
        return rules[op.role](node)

    def _op(self, node: fx.Node) -> Any:
        return self.integers.ops[node]

    def _fed(self, node: fx.Node) -> Flow:
        sources = arguments(node)
        return self.domains[sources[0]] if sources else Flow.CONSTANT

    def _neuron(self, node: fx.Node) -> int:
        op = self._op(node)
        if op.model not in NEURONS_IN_C:
            raise _refused(node, f"a neuron {op.model!r}")
        numbers, first = self._parameter(op.threshold, node)
        starts, second = self._parameter(op.initial, node)
        if starts != numbers:
            numbers = {"inner": 1, "count": math.prod(node.meta["shape"])}
            first, second = _spread(op.threshold, node), _spread(op.initial, node)
        low, high = op.row.range(op.levels)
        numbers |= {"low": low, "high": high, **NEURONS_IN_C[op.model], "state": self._state(node, 2)}
        source = self._read(arguments(node)[0], node)
        return self._add("FIRE", node, numbers, source=source, first=first, second=second)

    def _affine(self, node: fx.Node) -> int:
        op = self._op(node)
        if op.passes_units:  # only rounds
            return self._read(arguments(node)[0], node)
        if not op.repeatable or self._fed(node) != Flow.SPIKES:
            raise _refused(node, f"a {op.plain_name} on real values in every step")
        numbers, first = self._parameter(op.factor, node)
        return self._add("SCALE", node, numbers, first=first)

    def _delay(self, node: fx.Node) -> int:
        if self.schedule.delay == 0:
            return self.at[arguments(node)[0]]
        return self._add("HOLD", node, {"state": self._state(node, self.schedule.delay)})

    def _weighted(self, node: fx.Node) -> int:
        op, source = self._op(node), arguments(node)[0]
        if self._fed(node) == Flow.CURRENT:
            raise _refused(node, "a weighted sum of a sum, with no neurons between")
        shape, made = tuple(source.meta["shape"]), tuple(node.meta["shape"])
        if not op.gathers or op.weight.ndim > 4 or (op.features_last and len(shape) > 1):
            raise _refused(node, f"a {op.plain_name} over {len(shape)} axes")
        numbers = {"g": op.groups, **_sides(shape, made), **_window(op, tuple(op.weight.shape[2:]))}
        numbers |= {"inner": numbers["y"] * numbers["x"], "count": op.outputs}
        return self._add("CONVOLVE", node, numbers, weight=_whole(op.weight), first=_whole(op.bias))

    def _pool(self, node: fx.Node) -> int:
        op, source = self._op(node), arguments(node)[0]
        kind = {SumPool: "SUM", MaxPool: "MAXIMUM"}.get(type(op))
        if kind is None or self._fed(node) == Flow.CURRENT:
            raise _refused(node, f"a {op.plain_name} on real values in every step")
        numbers = {"g": 1, **_sides(tuple(source.meta["shape"]), tuple(node.meta["shape"])), **_window(op, op.kernel)}
        if kind == "MAXIMUM":
            kept = math.prod(source.meta["shape"]) + math.prod(node.meta["shape"])
            numbers["state"], self.states = self.states, self.states + kept
        return self._add(kind, node, numbers)

    def _join(self, node: fx.Node) -> int:
        sources = arguments(node)
        if any(one.meta["shape"] != node.meta["shape"] for one in sources):
            raise _refused(node, "a sum of branches of different shapes")
        first, *others = [self._read(one, node) for one in sources]
        for other in others:
            first = self._add("ADD", node, {"in2": other}, source=first)
        return first

    def _wiring(self, node: fx.Node) -> int:
        """Where every value comes from, found by moving places instead of values; -1 is 0."""
        op, sources = self._op(node), arguments(node)
        places = []
        for one in sources:
            at = self._read(one, node)
            shape = one.meta["shape"]
            places.append(torch.arange(at + 1, at + 1 + math.prod(shape), dtype=torch.float64).reshape(1, *shape))
        if op.brings:
            raise _refused(node, f"a {op.plain_name} that brings numbers of its own")
        table = (op(*places).flatten() - 1).to(torch.int64)
        if len(sources) == 1 and torch.equal(table, torch.arange(len(table)) + table[0]):
            return int(table[0])
        return self._add("MOVE", node, {}, first=table.numpy())

    # --- values ---

    def _read(self, source: fx.Node, user: fx.Node) -> int:
        """Where `user` finds the value of `source` in its own unit."""
        unit = self.integers.units.get(user)
        moving = self.domains[user] != Flow.CONSTANT
        own = self.integers.units.get(source)
        if unit is None or self.domains[source] == Flow.SPIKES or own is unit:
            if moving and self.domains[source] == Flow.CONSTANT:
                raise _refused(user, "a constant on real values")
            return self.at[source]
        rescale = self.integers.rescale(source, unit)
        if rescale is None or source not in self.integers.bounds:
            raise _refused(source, "a sum that is not in the unit of its neurons")
        depth = self.depths[user.name] - (op_of(user).role == Role.NEURON)
        key = (source, id(unit), depth)
        if key not in self.rescaled:
            shape = tuple(source.meta["shape"])
            count = rescale.multiplier.numel()
            inner = math.prod(shape[1:]) if rescale.axis == 0 else 1
            numbers = {"depth": depth, "inner": inner if count > 1 else 1, "count": count}
            first, second = rescale.multiplier.numpy(), rescale.shift.expand(count).numpy()
            self.rescaled[key] = self._add(
                "RESCALE", source, numbers, source=self.at[source], first=first, second=second
            )
        return self.rescaled[key]

    def _add(self, kind: str, node: fx.Node, numbers: dict[str, int], source: int | None = None, **arrays: Any) -> int:
        sources = arguments(node)
        start = (self.at[sources[0]] if sources else 0) if source is None else source
        out = self._place(node)
        constant = self.domains[node] == Flow.CONSTANT and kind != "RESCALE"
        fixed = {
            "in": start,
            "out": out,
            "size": math.prod(node.meta["shape"]),
            "depth": self.depths[node.name],
            "constant": int(constant),
        }
        kept = {name: array for name, array in arrays.items() if array is not None}
        self.instructions.append(Instruction(kind, node.name, str(origin_of(node)), fixed | numbers, kept))
        return out

    def _place(self, node: fx.Node) -> int:
        at, self.values = self.values, self.values + math.prod(node.meta["shape"])
        return at

    def _state(self, node: fx.Node, times: int) -> int:
        at, self.states = self.states, self.states + times * math.prod(node.meta["shape"])
        return at

    def _parameter(self, tensor: Tensor, node: fx.Node) -> tuple[dict[str, int], Array]:
        """A tensor that broadcasts against a sample, as (n / inner) % count, and its values."""
        shape = tuple(node.meta["shape"])
        padded = [1] * (len(shape) - tensor.ndim) + list(tensor.shape)
        long = [axis for axis, size in enumerate(padded) if size > 1]
        if len(long) > 1:
            return {"inner": 1, "count": math.prod(shape)}, _spread(tensor, node)
        inner = math.prod(shape[long[0] + 1 :]) if long else 1
        values = _whole(tensor.flatten())
        assert values is not None
        return {"inner": inner, "count": tensor.numel()}, values


def timing(schedule: Schedule) -> dict[str, int]:
    """The constants of reference.c that say when a site is at which of its steps."""
    residual = getattr(schedule, "residual", "keep")
    return {
        "TIMESTEPS": schedule.timesteps,
        "FRAMES": schedule.frames,
        "STEPS": schedule.steps_per_frame,
        "DELAY": schedule.delay,
        "SPACING": schedule.spacing,
        "READ_FROM": schedule.read_from,
        "WINDOWED": int(schedule.windowed),
        "POSITIONAL": int(schedule.positional),
        "ONCE": int(schedule.once),
        "CLEARED": int(residual == "clear"),
        "CLAMPED": int(residual == "clamp"),
    }


def _sides(read: tuple[int, ...], written: tuple[int, ...]) -> dict[str, int]:
    """Channels, rows and columns; one spatial axis counts as columns."""
    named: dict[str, int] = {}
    for names, shape in (("chw", read), ("fyx", written)):
        channels, *spatial = shape
        full = (channels, *([1] * (2 - len(spatial))), *spatial)
        named |= dict(zip(names, full, strict=True))
    return named


def _window(op: Any, kernel: tuple[int, ...]) -> dict[str, int]:
    """Kernel, stride, padding and dilation over rows and columns."""
    found: dict[str, int] = {}
    sides = {"k": kernel, "s": op.stride, "p": op.padding, "d": getattr(op, "dilation", ())}
    for letter, given in sides.items():
        fill = 0 if letter == "p" else 1
        full = (*([fill] * (2 - len(given))), *given)
        found |= {f"{letter}h": full[0], f"{letter}w": full[1]}
    return found


def _spread(tensor: Tensor, node: fx.Node) -> Array:
    found = _whole(tensor.expand(node.meta["shape"]).flatten())
    assert found is not None
    return found


def _whole(tensor: Tensor | None) -> Array | None:
    return None if tensor is None else tensor.double().round().to(torch.int64).cpu().numpy()


def _refused(node: fx.Node, what: str) -> UnsupportedError:
    return UnsupportedError(
        f"{origin_of(node)} has no integer form: {what}",
        hint="integers need spikes, or the input alone, in front of every weighted sum: give the sum before it an "
        "activation, or replace functions that stay analog with --approximate units",
    )
