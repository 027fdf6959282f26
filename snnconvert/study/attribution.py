"""Why a layer's spike rates differ from the activations they stand for: one error, split into four causes.

With x the mean input of a neuron in units of its threshold, A the activation that the neuron replaces, C its clipped
form, Q what a neuron can send in F frames if its whole input were there before its first spike, and r its rate:

    r - A(x_ann) = [C(x) - A(x)] + [Q(x) - C(x)] + [r - Q(x)] + [A(x) - A(x_ann)]
                    clipping        quantisation    unevenness   propagation

All four are weighed in the ANN's units: in thresholds, a channel that hardly ever fires (its threshold is tiny) would
outweigh all others. A saturates where the ANN's activation does (a ReLU6, a unit of an approximated function); that is
no clipping. x follows from the rates of the layers before, because everything between two layers of neurons is linear
in time or exact in the mean. The first three causes arise in the layer itself, the last was handed to it. Bu and
others (2025, arXiv 2409.03368) bound the error of a network by the same terms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from snnconvert.compile.added import for_each
from snnconvert.graph.dialect import calls, neurons_of, op_of, origin_of, role_of
from snnconvert.graph.edit import copied
from snnconvert.graph.kinds import Neuron, Op, Role, Snap
from snnconvert.graph.types import Ann, Snn
from snnconvert.graph.walk import applied, walk
from snnconvert.simulate.chunks import watchable
from snnconvert.simulate.result import Probe, Simulation

ATTRIBUTION_IMAGES = 32
CAUSES = ("clipping", "quantisation", "unevenness", "propagation")
LOCAL = CAUSES[:3]
MUCH = 0.05
Activations = Callable[[Tensor], dict[str, Tensor]]


@dataclass(frozen=True)
class Split:
    """One batch of one layer, all in the ANN's units, shape (batch, *sample): the causes and their sum."""

    causes: dict[str, Tensor]
    error: Tensor
    activation: Tensor


class Attribution:
    """Watches a simulation and splits the error of its first images; memory does not grow with their number.

    Args:
        snn: the network.
        ann: what it was made from; None compares with the network's own limit for T -> infinity, in which what
            earlier layers lose by clipping does not show.
        images: stop watching after so many; without it, after as many as a few seconds allow (see `chunks.watchable`).
    """

    def __init__(self, snn: Snn, ann: Ann | None = None, images: int | None = None) -> None:
        most = watchable(snn, ATTRIBUTION_IMAGES) if images is None else images
        self.snn, self.left, self.images = snn, most, 0
        self.graph = in_double(snn.graph)
        self.nodes = {node.name: node for node in neurons_of(self.graph)}
        self.sites = _sites(ann, self.nodes) if ann is not None else {}
        self.ann = in_double(ann.graph) if self.sites and ann is not None else None
        self.reference = "ANN" if self.ann is not None else "limit"
        self.rates: dict[str, Tensor] = {}
        self.sums = {name: torch.zeros(2 * len(CAUSES) + 3, dtype=torch.float64) for name in self.nodes}
        self.batch = torch.zeros(0)

    def begin(self, images: Tensor) -> Probe | None:
        """A probe for the engine's run on `images`, or None once enough were seen."""
        if self.left <= 0:
            return None
        self.batch = images[: self.left]
        self.left -= len(self.batch)
        self.images += len(self.batch)
        frames = self.snn.schedule.frames

        def probe(name: str, by_frame: Tensor) -> None:
            sent = by_frame[:, : len(self.batch)].sum(0, dtype=torch.float32)
            self.rates[name] = sent.cpu().double() / frames

        return probe

    @torch.inference_mode()
    def end(self, seen: Simulation) -> None:
        """Called after the run: one pass through both networks gives every layer's split."""
        del seen
        for name, split in self.splits():
            parts = [split.causes[cause] for cause in CAUSES]
            squares = [float(part.square().sum()) for part in parts]
            along = [float((part * split.error).sum()) for part in parts]
            mixed = float((split.error * split.activation).sum())
            whole = [float(split.error.square().sum()), float(split.activation.square().sum()), mixed]
            self.sums[name] += torch.tensor([*squares, *along, *whole], dtype=torch.float64)
        self.rates.clear()

    def splits(self) -> Iterator[tuple[str, Split]]:
        """The split of every layer for the batch that was just simulated."""
        reference = self._reference()
        frames = self.snn.schedule.frames
        for node, membrane in neuron_inputs(self.graph, self.batch, self.rates):
            op = op_of(node, Neuron)
            unit = op.threshold
            low, high = op.limits
            site = self.sites.get(node.name)
            active: Tensor = site(membrane) / unit if site is not None and op.plain else activation(op, membrane) / unit
            x = membrane / unit
            clipped = x.clamp(low, high)
            # The guard keeps a value that is on a step of the quantiser from falling off it by rounding.
            steps = torch.floor(x * frames + op.initial / unit + 1e-9)
            rounded = steps.clamp(low * frames, high * frames) / frames
            quantised = clipped if self.snn.schedule.continuous else rounded
            rate = self.rates[node.name]
            target = for_each(reference[node.name], rate.shape[1]) / unit
            parts = (clipped - active, quantised - clipped, rate - quantised, active - target)
            causes = {cause: part * unit for cause, part in zip(CAUSES, parts, strict=True)}
            yield node.name, Split(causes, (rate - target) * unit, target * unit)

    def _reference(self) -> dict[str, Tensor]:
        """The activation that each neuron should stand for, in the units of the ANN."""
        if self.ann is None:
            return {
                node.name: activation(op_of(node, Neuron), membrane)
                for node, membrane in neuron_inputs(self.graph, self.batch, None)
            }
        return activations(self.ann, self.batch, set(self.nodes))

    def records(self) -> list[dict[str, Any]]:
        """One JSON-able row per layer in data-flow order.

        `error` is the size of the whole error relative to the activations (root of the sum of squares),
        `scaled_error` what is left of it once all rates are multiplied by the one factor that fits best, and `causes`
        that of each cause on its own; `shares` are the causes' parts of the squared error (they add up to 1, and a
        cause that cancels others counts negative).
        """
        if not self.images:
            return []
        rows = []
        for name, node in self.nodes.items():
            values = self.sums[name].tolist()
            count = len(CAUSES)
            squares, along, (error, activation, mixed) = values[:count], values[count : 2 * count], values[2 * count :]
            scale = activation if activation > 0 else None
            rows.append(
                {
                    "name": name,
                    "origin": str(origin_of(node)),
                    "error": None if scale is None else (error / scale) ** 0.5,
                    "scaled_error": _scaled_error(error, activation, mixed),
                    "causes": {
                        cause: None if scale is None else (square / scale) ** 0.5
                        for cause, square in zip(CAUSES, squares, strict=True)
                    },
                    "shares": {
                        cause: part / error if error > 0 else 0.0 for cause, part in zip(CAUSES, along, strict=True)
                    },
                }
            )
        return rows

    def document(self) -> dict[str, Any] | None:
        """The report's section, or None if nothing was watched."""
        if not self.images:
            return None
        rows = self.records()
        return {"images": self.images, "reference": self.reference, "layers": rows, "culprit": culprit(rows)}


def _scaled_error(error: float, activation: float, mixed: float) -> float | None:
    """Relative error after the best common factor, from sums over error², activation² and error x activation.

    With rates r and activations a it is the sine of the angle between them: a layer that is too quiet as a whole has a
    large error, and the answers hardly suffer.
    """
    rates = error + 2 * mixed + activation
    if activation <= 0 or rates <= 0:
        return None
    return float(max(0.0, 1.0 - (mixed + activation) ** 2 / (activation * rates)) ** 0.5)


def culprit(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The first layer whose own error is at least half of the largest own error, and the cause that dominates there.

    Own errors are those that arise in the layer; what it was handed does not count. None if no layer's own error
    reaches `MUCH` of its activations: naming the first of many harmless layers would send a reader after nothing.
    """

    def own(row: dict[str, Any]) -> float:
        return float(sum((row["causes"][cause] or 0.0) ** 2 for cause in LOCAL) ** 0.5)

    largest = max((own(row) for row in rows), default=0.0)
    if largest < MUCH:
        return None
    first = next(row for row in rows if own(row) >= 0.5 * largest)
    cause = max(LOCAL, key=lambda name: first["causes"][name] or 0.0)
    size = first["causes"][cause]
    return {"layer": first["name"], "origin": first["origin"], "cause": cause, "size": size, "own": own(first)}


# --- running a network on mean values -----------------------------------------------------------


def in_double(graph: fx.GraphModule) -> fx.GraphModule:
    """A copy in float64."""
    made = copied(graph).double()
    for _, op in calls(made, Snap):
        op.grid = 2.0**-40  # sums of rates are finer than the grid of single steps
    return made


def neuron_inputs(
    graph: fx.GraphModule, batch: Tensor, rates: dict[str, Tensor] | None
) -> Iterator[tuple[fx.Node, Tensor]]:
    """The mean input of every neuron layer, membrane units per frame, in data-flow order.

    Args:
        graph: a spiking network in float64 (see `in_double`).
        batch: (n, *sample).
        rates: what each neuron sends per frame; None lets every neuron be its own limit, clip(x / threshold).
    """

    def rule(node: fx.Node, inputs: list[Tensor]) -> Tensor:
        sends = rates is not None and role_of(node) == Role.NEURON
        return rates[node.name] if rates is not None and sends else applied(node, inputs)

    for node, inputs, _ in walk(graph, batch.double(), rule):
        if role_of(node) == Role.NEURON:
            yield node, op_of(node, Neuron).driven(*inputs)


def activations(graph: fx.GraphModule, batch: Tensor, names: set[str]) -> dict[str, Tensor]:
    """Outputs of the named nodes of a network in float64."""
    wanted = [node for node in graph.graph.nodes if node.name in names]
    return {node.name: value for node, _, value in walk(graph, batch.double(), wanted=wanted) if node in wanted}


def activation(op: Neuron, membrane: Tensor) -> Tensor:
    """What the neuron stands for: a rectifier, which may saturate, or the identity if it is signed."""
    return membrane.clamp(min=0.0, max=op.ceiling) if op.row.rectifies else membrane


def _sites(ann: Ann, neurons: dict[str, fx.Node]) -> dict[str, Op]:
    """The ANN's own activation for every neuron; empty unless each neuron has one of its name."""
    found = {node.name: op for node, op in calls(ann.graph) if op.role == Role.SITE and node.name in neurons}
    return found if set(found) == set(neurons) else {}
