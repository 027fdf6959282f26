"""Non-linearities without a spiking form, written as a few rectifiers that spike.

    f(x)  ~  c + sum_j s_j unit_j,      unit_j = clip(x - b_j, 0, w_j)  or  clip(b_j - x, 0, w_j)

Knots and slopes are fitted by least squares on the histogram of the node's own inputs. Each piece grows away from an
anchor (0 where f(0) = 0), so that a unit is silent until its piece is reached, and no two units cancel each other. The
outermost piece of an unbounded function is a plain rectifier. A node whose error stays above the tolerance is left
analog: the engines compute it compensated, exact in the mean at every step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from snnconvert.convert.passes import canonicalize
from snnconvert.convert.piecewise import Pieces, Vector, fit, pieces_of
from snnconvert.graph.dialect import arguments, calls, op_of, origin_of, verify
from snnconvert.graph.edit import copied, finish, insert_after, replace_op
from snnconvert.graph.kinds import FUNCTIONS, Add, Affine, Clamp, Clip, Elementwise, Op, Relu, Role, Stage
from snnconvert.graph.types import Ann, Origin
from snnconvert.graph.walk import batch_of, walk

TOLERANCE = 0.02
NETWORK_TOLERANCE = 0.05
UNITS = 10
BINS = 256
IMAGES = 128
FIXED_RANGE = (-6.0, 6.0)

_BOUNDED = ("sigmoid", "tanh", "hardsigmoid", "softsign")
_RISING = ("hardswish", "silu", "gelu", "gelu_tanh", "elu", "selu", "softplus", "mish")
_KINKS = {"hardsigmoid": (-3.0, 3.0), "hardswish": (-3.0, 3.0), "elu": (0.0,), "selu": (0.0,)}
_STRAIGHT = ("hardsigmoid", "abs")
_UNLIMITED = 1e30


@dataclass(frozen=True)
class Approximation:
    """What became of one analog node.

    Attributes:
        name: the user's own name for it.
        operator: the user's operator.
        function: a name from FUNCTIONS, or "clamp".
        units: number of spiking units, 0 where the node stays analog.
        low, high: range of its inputs that was fitted.
        relative_error: root mean squared error over the standard deviation of the output.
        mean_error, largest_error: absolute, in units of the activation.
    """

    name: str
    operator: str
    function: str
    units: int
    low: float
    high: float
    relative_error: float
    mean_error: float
    largest_error: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self)


def function_of(op: Op) -> str | None:
    """The name of the function that `approximate` can offer units for, or None."""
    if isinstance(op, Clamp):
        return "clamp"
    if isinstance(op, Elementwise) and op.function in (*_BOUNDED, *_RISING, "abs"):
        return op.function
    return None


def candidates(graph: fx.GraphModule) -> list[fx.Node]:
    """Analog nodes that could be units; not those that only analog nodes read, where spikes would gain nothing."""
    return [node for node, op in calls(graph) if function_of(op) is not None and not _only_analog_readers(node)]


def _only_analog_readers(node: fx.Node) -> bool:
    readers = [user for user in node.users if user.op == "call_module"]
    return bool(readers) and all(op_of(user).role == Role.ANALOG for user in readers)


def approximate(
    ann: Ann, images: Tensor | None, *, tolerance: float = TOLERANCE, units: int = UNITS
) -> tuple[Ann, tuple[Approximation, ...]]:
    """Write every candidate as spiking units where that holds `tolerance`.

    Args:
        ann: a canonical network; not changed.
        images: inputs (n, *sample) in an order that does not depend on chance; None fits on a fixed range.
        tolerance: largest relative error (root mean square) of one node. Fits aim lower where many nodes add up.
        units: largest number of units for one node.

    Returns:
        The canonical network with units (`ann` itself where nothing changed), and one record per candidate.
    """
    graph = copied(ann.graph)
    wanted = candidates(graph)
    if not wanted:
        return ann, ()
    counts = _histograms(graph, wanted, images)
    aim = min(tolerance, NETWORK_TOLERANCE / len(wanted) ** 0.5)
    records = []
    fitted: dict[str, Pieces] = {}
    for node in wanted:
        op, (x, weights) = op_of(node), counts[node]
        key = node.name if images is not None else str((function_of(op), op.arguments()))
        if key not in fitted:
            fitted[key] = _fitted(op, x, weights, units, aim)
        found = fitted[key]
        origin, name = origin_of(node), function_of(op)
        assert name is not None
        count = 0
        if found.relative_error <= tolerance:
            count = _write(graph, node, found, _anchor(found, x, weights))
        errors = (found.relative_error, found.mean_error, found.largest_error)
        records.append(Approximation(origin.name, origin.operator, name, count, float(x[0]), float(x[-1]), *errors))
    if not any(record.units for record in records):
        return ann, tuple(records)
    verify(finish(graph), Stage.ANN)
    return canonicalize(replace(ann, graph=graph)), tuple(records)


def remarks(records: tuple[Approximation, ...]) -> tuple[str, ...]:
    """The approximations in a line per function, for the report."""
    lines = []
    for function in dict.fromkeys(record.function for record in records):
        done = [record for record in records if record.function == function and record.units]
        left = [record.name for record in records if record.function == function and not record.units]
        if done:
            worst = max(done, key=lambda record: record.relative_error)
            fewest, most = min(record.units for record in done), max(record.units for record in done)
            number = str(most) if fewest == most else f"{fewest} to {most}"
            lines.append(
                f"{len(done)} {function} node(s) written as {number} spiking units each; the largest error is "
                f"{worst.relative_error:.2%} of the output's standard deviation, at {worst.name}"
            )
        if left:
            lines.append(f"{len(left)} {function} node(s) stay analog (no few units fit): {', '.join(left)}")
    return tuple(lines)


# --- what the nodes see ---------------------------------------------------------------------------


def _histograms(
    graph: fx.GraphModule, wanted: list[fx.Node], images: Tensor | None
) -> dict[fx.Node, tuple[Vector, Vector]]:
    """Bin centres and weights of the inputs of every wanted node."""
    if images is None:
        x = np.linspace(*FIXED_RANGE, BINS)
        return {node: (x, np.exp(-0.5 * (x / 2) ** 2) + 1e-3) for node in wanted}
    ranges: dict[fx.Node, tuple[float, float]] = {}
    for node, values in _inputs(graph, wanted, images[:IMAGES]):
        low, high = ranges.get(node, (np.inf, -np.inf))
        ranges[node] = (min(low, float(values.amin())), max(high, float(values.amax())))
    edges = {node: _widened(*found) for node, found in ranges.items()}
    counts: dict[fx.Node, Vector] = {node: np.zeros(BINS) for node in wanted}
    for node, values in _inputs(graph, wanted, images[:IMAGES]):
        low, high = edges[node]
        counts[node] += torch.histc(values.float(), BINS, low, high).double().numpy()
    result: dict[fx.Node, tuple[Vector, Vector]] = {}
    for node in wanted:
        low, high = edges[node]
        width = (high - low) / BINS
        centres: Vector = low + width * (np.arange(BINS, dtype=np.float64) + 0.5)
        # places that no image reached count a little, so that the pieces stay sensible there
        result[node] = (centres, counts[node] + 1e-3 * counts[node].mean())
    return result


def _widened(low: float, high: float) -> tuple[float, float]:
    margin = 0.05 * (high - low) or 1.0
    return low - margin, high + margin


@torch.inference_mode()
def _inputs(graph: fx.GraphModule, wanted: list[fx.Node], images: Tensor) -> Iterator[tuple[fx.Node, Tensor]]:
    """The input of every wanted node, batch by batch; values are dropped after their last use."""
    chosen = set(wanted)
    for some in images.split(batch_of(graph)):  # type: ignore[no-untyped-call]
        for node, inputs, _ in walk(graph, some, wanted=wanted):
            if node in chosen:
                yield node, inputs[0]


# --- fit and rewrite ------------------------------------------------------------------------------


def _fitted(op: Op, x: Vector, weights: Vector, units: int, aim: float) -> Pieces:
    y: Vector = op(torch.from_numpy(x)).double().numpy()
    if isinstance(op, Clamp):
        kinks: tuple[float, ...] = tuple(edge for edge in (op.low, op.high) if abs(edge) < _UNLIMITED)
        straight, silent = True, False
    else:
        assert isinstance(op, Elementwise)
        kinks = (0.0,) if op.function == "abs" else _KINKS.get(op.function, ())
        straight = op.function in _STRAIGHT
        silent = float(FUNCTIONS[op.function](torch.zeros(()))) == 0.0
    if straight:
        inner = [kink for kink in kinks if x[0] < kink < x[-1]]
        return pieces_of(x, y, weights, np.array([x[0], *inner, x[-1]]))
    return fit(x, y, weights, units, kinks, tolerance=aim, silent=silent)


def _write(graph: fx.GraphModule, node: fx.Node, pieces: Pieces, anchor: int) -> int:
    """Replace `node` by units that grow away from knot `anchor`; returns how many there are."""
    (source,) = arguments(node)
    origin = origin_of(node)
    knots, values = pieces.knots, pieces.values
    rising_left, rising_right = _unbounded(op_of(node))
    reach = float(np.abs(np.diff(values)).sum())
    made: list[tuple[fx.Node, float]] = []
    for index in range(len(knots) - 1):
        width = float(knots[index + 1] - knots[index])
        slope = float(values[index + 1] - values[index]) / width
        if abs(slope) * width <= 1e-4 * reach:
            continue
        right = index >= anchor
        start, sign = (float(knots[index]), 1.0) if right else (float(knots[index + 1]), -1.0)
        endless = (right and index == len(knots) - 2 and rising_right) or (not right and index == 0 and rising_left)
        shifted = insert_after(
            graph, source, Affine(torch.tensor([sign]), torch.tensor([-sign * start])), suffix="shifted", users=[]
        )
        unit = insert_after(graph, shifted, Relu() if endless else Clip(high=width), suffix="unit", users=[])
        for part in (shifted, unit):
            part.meta["origin"] = Origin(origin.name, f"{origin.operator} unit {len(made) + 1}")
        made.append((unit, slope * sign))
    constant = float(values[anchor])
    branches = []
    for number, (unit, slope) in enumerate(made):
        shift = torch.tensor([constant if number == 0 else 0.0])
        scaled = insert_after(graph, unit, Affine(torch.tensor([slope]), shift), suffix="scaled", users=[])
        scaled.meta["origin"] = Origin(origin.name, f"{origin.operator} unit {number + 1}")
        branches.append(scaled)
    if not branches:
        replace_op(graph, node, Affine(torch.zeros(1), torch.tensor([constant])))
    elif len(branches) == 1:
        node.args = (made[0][0],)
        replace_op(graph, node, Affine(torch.tensor([made[0][1]]), torch.tensor([constant])))
    else:
        node.args = tuple(branches)
        replace_op(graph, node, Add())
    return len(made)


def _anchor(pieces: Pieces, x: Vector, weights: Vector) -> int:
    """Index of the knot that all units grow away from: a zero of the function at 0, or the median of the inputs."""
    knots = pieces.knots
    silent = [index for index, knot in enumerate(knots) if knot == 0.0 and pieces.values[index] == 0.0]
    if silent:
        return silent[0]
    median = float(x[int(np.searchsorted(np.cumsum(weights), weights.sum() / 2))])
    return int(np.abs(knots - median).argmin())


def _unbounded(op: Op) -> tuple[bool, bool]:
    """Whether the function goes on straight to the left, and to the right, of what was seen."""
    if isinstance(op, Clamp):
        return op.low <= -_UNLIMITED, op.high >= _UNLIMITED
    function = getattr(op, "function", "")
    return function == "abs", function == "abs" or function in _RISING
