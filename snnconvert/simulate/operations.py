"""Count what a spiking network really does: additions, multiplications and neuron updates per image, layer by layer.

Exact, not estimated: a spike is charged with the synapses it has at its own place, so borders, strides, groups, pooling
and pruned channels are all considered. Because fan-out is linear, the spikes of all steps and images are summed to one
map per layer first, and each weighted operator is then run once with ones for weights.

    additions        for each spike, its synapses; a spike of n units is charged one addition for each set bit of n
    multiplications  operators on real values: once where the value does not change over time, else in every step
    neuron updates   neurons times the steps in which they take in or send

Pooling, wiring and the sum of branches are free on both sides, ANN and SNN; a spike that passes a sum pool or a
shortcut is charged where its current arrives. Padding is not counted as a synapse.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from snnconvert.graph.analog_ops import MatMul
from snnconvert.graph.dialect import arguments, calls, op_of, origin_of
from snnconvert.graph.neuron_ops import Neuron, Scale
from snnconvert.graph.ops import Affine, Constant, Conv, ConvTranspose, Linear, MaxPool, Op, Pad, Role
from snnconvert.graph.schedule import Schedule, site_depths
from snnconvert.graph.types import Snn
from snnconvert.neurons import NEURONS
from snnconvert.simulate.result import Probe, Simulation

OPERATION_IMAGES = 32
READ_OUT = "read-out"
Weighted = Conv | ConvTranspose | Linear


@dataclass
class Counts:
    """Operations of one layer, per image: a neuron layer with all that feeds it, or the read-out.

    Attributes:
        synapses: multiplications of the dense ANN layer, borders considered.
        accumulates: additions that spikes cause.
        weight_reads: synapses that spikes reach; equals `accumulates` for binary spikes.
        multiplies: multiplications on real values.
        neurons, updates, spikes: of the layer itself and of synchronous neurons behind it.
        payload_bits: bits of a spike besides its address (0 for a binary spike).
        weights, zero_weights: distinct weights, and how many of them are 0.
        effective_acs, effective_macs: after NeuroBench: only non-zero weights on non-zero inputs; a layer called on
            anything else than -1, 0, 1 counts as MACs.
    """

    name: str
    origin: str
    synapses: float = 0.0
    accumulates: float = 0.0
    weight_reads: float = 0.0
    multiplies: float = 0.0
    neurons: float = 0.0
    updates: float = 0.0
    spikes: float = 0.0
    payload_bits: int = 0
    weights: int = 0
    zero_weights: int = 0
    effective_acs: float = 0.0
    effective_macs: float = 0.0


@dataclass
class _Maps:
    """Sums over steps and images, shape (1, *sample): spikes, set bits; and whether all were -1, 0 or 1."""

    spikes: Tensor
    bits: Tensor
    unit: bool = True

    def mapped(self, function: Callable[[Tensor], Tensor], *, unit: bool | None = None) -> _Maps:
        return _Maps(function(self.spikes), function(self.bits), self.unit if unit is None else unit)


class OperationCounter:
    """Watches a simulation and counts the operations of its first images.

    Args:
        snn: the network.
        images: stop watching after so many.
    """

    def __init__(self, snn: Snn, images: int = OPERATION_IMAGES) -> None:
        self.snn, self.left, self.images, self.batch = snn, images, 0, 0
        self.schedule = snn.schedule
        self.domains = domains(snn)
        self.nodes = {node.name: node for node in self.domains}
        self.maps: dict[fx.Node, _Maps] = {}
        self.inputs: dict[fx.Node, Tensor] = {}
        self.pools = {node: _sources(node) for node, op in calls(snn.graph) if self._spiking_pool(node, op)}
        self.kept: dict[fx.Node, Tensor] = {}

    def begin(self, images: Tensor) -> Probe | None:
        """A probe for the engine's run on `images` (batch, *sample), or None once enough were seen."""
        if self.left <= 0:
            return None
        self.batch = min(self.left, len(images))
        self.left -= self.batch
        self.images += self.batch
        self._count_inputs(images[: self.batch])
        return self._probe

    def end(self, seen: Simulation) -> None:
        """Called after the run: count what max pooling let through."""
        del seen
        for pool in self.pools if self.kept else ():
            self._add(pool, self._pooled(pool))
        self.kept.clear()

    @torch.inference_mode()
    def layers(self) -> list[Counts]:
        """Counts per image of every layer in data-flow order; empty if nothing was watched."""
        if not self.images:
            return []
        maps: dict[fx.Node, _Maps] = dict(self.maps)
        found: dict[str, Counts] = {}
        for node, op in calls(self.snn.graph):
            if node not in maps and self.domains[node] == "spikes":
                maps[node] = _moved(op, [maps[source] for source in arguments(node)])
            layer = self._layer(node, op, found)
            if op.role in (Role.NEURON, Role.DELAY):
                self._count_neurons(layer, node, op, maps[node])
            else:
                self._count(layer, node, op, maps)
        order = {node.name: index for index, node in enumerate(self.snn.graph.graph.nodes)}
        rows = sorted(found.values(), key=lambda row: order.get(row.name, len(order)))
        for row in rows:
            for name in ("accumulates", "weight_reads", "spikes", "effective_acs", "effective_macs"):
                setattr(row, name, getattr(row, name) / self.images)
        return [row for row in rows if row.synapses or row.accumulates or row.multiplies or row.neurons]

    # --- while the engine runs ---

    def _probe(self, name: str, by_frame: Tensor) -> None:
        node, by_frame = self.nodes[name], by_frame[:, : self.batch]
        self._add(node, by_frame)
        if any(node in sources for sources in self.pools.values()):
            self.kept[node] = by_frame

    def _add(self, node: fx.Node, by_frame: Tensor) -> None:
        op = op_of(node)
        negative = not isinstance(op, Neuron) or NEURONS[op.model].negative
        spikes, bits = _spikes_and_bits(by_frame, self._levels(node), self.schedule, negative=negative)
        peak = float(by_frame.abs().max()) if by_frame.numel() and self._levels(node) > 1 else 1.0
        unit = peak <= 1.0 or self.schedule.kind == "bistable"
        before = self.maps.get(node)
        if before is not None:
            spikes, bits, unit = spikes + before.spikes, bits + before.bits, unit and before.unit
        self.maps[node] = _Maps(spikes, bits, unit)

    def _levels(self, node: fx.Node) -> int:
        op = op_of(node)
        if isinstance(op, Neuron):
            return op.levels
        return max(self._levels(source) for source in _sources(node))

    def _spiking_pool(self, node: fx.Node, op: Op) -> bool:
        return isinstance(op, MaxPool) and self.domains[node] == "spikes"

    def _pooled(self, pool: fx.Node) -> Tensor:
        """What a max pool sends, (frames, batch, *sample): the increments of the running maximum."""
        frames = self.schedule.frames
        values: dict[fx.Node, Tensor] = {}

        def value(node: fx.Node) -> Tensor:
            if node not in values:
                op = op_of(node)
                if isinstance(op, Neuron):
                    values[node] = self.kept[node].to("cpu", torch.float32).flatten(0, 1)
                elif isinstance(op, MaxPool):
                    values[node] = increments(op, value(arguments(node)[0]), frames, self.schedule)
                else:
                    values[node] = op(*(value(source) for source in arguments(node)))
            return values[node]

        pooled = value(pool)
        return pooled.reshape(frames, -1, *pooled.shape[1:])

    @torch.inference_mode()
    def _count_inputs(self, images: Tensor) -> None:
        """How often each real-valued, constant input of a weighted operator is not zero."""
        values: dict[fx.Node, Tensor] = {}

        def value(node: fx.Node) -> Tensor:
            if node not in values:
                if node.op == "placeholder":
                    values[node] = images.double()
                else:
                    inputs, own = [value(source) for source in arguments(node)], next(op_of(node).buffers(), None)
                    values[node] = op_of(node)(*(inputs if own is None else [x.to(own.dtype) for x in inputs]))
            return values[node]

        for node, op in calls(self.snn.graph):
            if op.role == Role.WEIGHTED and self.domains[arguments(node)[0]] == "constant":
                count = (value(arguments(node)[0]) != 0).sum(0, keepdim=True).double()
                self.inputs[node] = count + self.inputs.get(node, 0.0)

    # --- afterwards ---

    def _layer(self, node: fx.Node, op: Op, found: dict[str, Counts]) -> Counts:
        """The row of the neurons that `node` feeds; synchronous neurons belong to the neurons before them."""
        owner = _sources(node)[0] if op.role == Role.DELAY else node if isinstance(op, Neuron) else _first_reader(node)
        name = READ_OUT if owner is None else owner.name
        if name not in found:
            found[name] = Counts(name, READ_OUT if owner is None else str(origin_of(owner)))
        return found[name]

    def _count_neurons(self, layer: Counts, node: fx.Node, op: Op, maps: _Maps) -> None:
        size, schedule = math.prod(node.meta["shape"]), self.schedule
        active = 2 * schedule.window if schedule.kind == "bistable" else 1
        waiting = schedule.wait if schedule.kind == "wait" else 0
        layer.updates += size * (schedule.frames * active + waiting)
        layer.spikes += float(maps.spikes.sum())
        if isinstance(op, Neuron):
            layer.neurons = size
            if schedule.kind != "bistable":
                signed = op.model in ("signed", "ternary", "ternary-late", "graded")
                layer.payload_bits = math.ceil(math.log2(op.levels)) + signed if op.levels > 1 else int(signed)

    def _count(self, layer: Counts, node: fx.Node, op: Op, maps: dict[fx.Node, _Maps]) -> None:
        if isinstance(op, Constant) or not arguments(node):
            return
        source = arguments(node)[0]
        domain, size = self.domains[source], math.prod(node.meta["shape"])
        steps = 1 if self.domains[node] == "constant" else self.schedule.frames * self.schedule.steps_per_frame
        if isinstance(op, Weighted):
            every, present = ones_like(op), ones_like(op, only_nonzero=True)
            filled = torch.ones(1, *source.meta["shape"], dtype=torch.float64)
            synapses = float(every(filled).sum())
            layer.synapses += synapses
            layer.weights += op.weight.numel()
            layer.zero_weights += int((op.weight == 0).sum())
            if domain == "spikes":
                layer.accumulates += float(every(maps[source].bits).sum())
                layer.weight_reads += float(every(maps[source].spikes).sum())
                effective = float(present(maps[source].spikes).sum())
                layer.effective_acs += effective if maps[source].unit else 0.0
                layer.effective_macs += 0.0 if maps[source].unit else effective
            else:
                layer.multiplies += synapses * steps
                seen = self.inputs[node] if node in self.inputs else filled * self.images * steps
                layer.effective_macs += float(present(seen).sum())
        elif isinstance(op, Scale | Affine):
            if domain == "spikes":
                readers = max(1, len(node.users))
                layer.accumulates += readers * float(maps[source].bits.sum())
                layer.weight_reads += readers * float(maps[source].spikes.sum())
            else:
                layer.multiplies += size * steps
                layer.synapses += size
        elif op.role == Role.ANALOG:
            inner = source.meta["shape"][-1] if isinstance(op, MatMul) else 1
            layer.synapses += size * inner
            layer.multiplies += size * inner * steps


def domains(snn: Snn) -> dict[fx.Node, str]:
    """What flows at every node: "constant" (the same in all steps), "spikes", or "current" (real values, moving)."""
    depths, found = site_depths(snn.graph), dict[fx.Node, str]()
    for node in snn.graph.graph.nodes:
        if node.op == "output":
            continue
        op = op_of(node) if node.op == "call_module" else None
        if op is None or isinstance(op, Constant) or depths[node.name] == 0:
            found[node] = "constant"
            continue
        passes = op.role in (Role.WIRING, Role.MAXPOOL, Role.DELAY) or type(op).__name__ == "SumPool"
        passes = passes and not (isinstance(op, Pad) and op.value != 0.0)
        spikes = passes and all(found[source] == "spikes" for source in arguments(node))
        found[node] = "spikes" if isinstance(op, Neuron) or spikes else "current"
    return found


def increments(op: MaxPool, spikes: Tensor, frames: int, schedule: Schedule) -> Tensor:
    """What a max pool passes on of `spikes` (frames * batch, *sample): how much its running maximum grows."""
    if schedule.kind == "bistable":
        pooled: Tensor = op(spikes)
        return pooled
    best = op(spikes.reshape(frames, -1, *spikes.shape[1:]).cumsum(0).flatten(0, 1))
    best = best.reshape(frames, -1, *best.shape[1:])
    return torch.cat([best[:1], best[1:] - best[:-1]]).flatten(0, 1)


def ones_like(op: Weighted, *, only_nonzero: bool = False) -> Weighted:
    """`op` with 1 for every weight (or only for those that are not 0) and without bias, in float64: counts synapses."""
    weight = op.weight.detach().to("cpu", torch.float64)
    ones = (weight != 0).double() if only_nonzero else torch.ones_like(weight)
    return op.rebuilt(weight=ones, bias=None)


def _moved(op: Op, sources: list[_Maps]) -> _Maps:
    """Maps behind an operator that moves or sums spikes; a sum of spikes is no longer a unit spike."""
    unit = all(source.unit for source in sources) and type(op).__name__ != "SumPool"
    return _Maps(op(*(source.spikes for source in sources)), op(*(source.bits for source in sources)), unit)


def _spikes_and_bits(by_frame: Tensor, levels: int, schedule: Schedule, *, negative: bool) -> tuple[Tensor, Tensor]:
    """Number of spikes and of set bits at every place, summed over frames and batch, shape (1, *sample), float64."""
    if schedule.kind != "bistable" and levels == 1:
        positive = by_frame.abs() if negative else by_frame
        # Summing frames first is several times as fast as counting; float32 is exact up to 2^24 spikes.
        spikes = positive.sum(0, dtype=torch.float32).sum(0, dtype=torch.float64).cpu().unsqueeze(0)
        return spikes, spikes
    codes = by_frame.abs().to("cpu", torch.int64)
    if schedule.kind == "bistable" and schedule.phases == "uniform":
        sent = codes.sum((0, 1)).double().unsqueeze(0)
        return sent, sent
    bits = torch.zeros(by_frame.shape[2:], dtype=torch.int64)
    for shift in range(max(1, int(codes.max()).bit_length()) if codes.numel() else 0):
        bits += ((codes >> shift) & 1).sum((0, 1))
    set_bits = bits.double().unsqueeze(0)
    if schedule.kind == "bistable":
        return set_bits, set_bits
    return codes.count_nonzero((0, 1)).double().unsqueeze(0), set_bits


def _sources(node: fx.Node) -> list[fx.Node]:
    """The neurons whose spikes reach `node` unchanged, or moved and pooled only."""
    found: list[fx.Node] = []
    for source in arguments(node):
        if source.op == "call_module":
            found += [source] if isinstance(op_of(source), Neuron) else _sources(source)
    return list(dict.fromkeys(found))


def _first_reader(node: fx.Node) -> fx.Node | None:
    """The first neuron layer that the value of `node` reaches, or None if only the output reads it."""
    todo, seen = [node], set[fx.Node]()
    while todo:
        current = todo.pop(0)
        for user in current.users:
            if user.op == "call_module" and user not in seen:
                if isinstance(op_of(user), Neuron):
                    return user
                seen.add(user)
                todo.append(user)
    return None


@dataclass(frozen=True)
class Operations:
    """Operations per image, measured on `images` images; `neurobench` has that benchmark's own figures."""

    images: int
    layers: list[Counts]
    neurobench: dict[str, Any] = field(default_factory=dict)


def operations(counter: OperationCounter) -> Operations | None:
    """What `counter` has found, or None if it saw nothing that could be counted."""
    layers = counter.layers()
    if not layers or not sum(row.synapses for row in layers):
        return None
    weights = sum(row.weights for row in layers)
    steps = counter.schedule.frames * counter.schedule.steps_per_frame
    activations = sum(row.neurons for row in layers) * steps
    figures = {
        "effective_acs": sum(row.effective_acs for row in layers),
        "effective_macs": sum(row.effective_macs for row in layers),
        "activation_sparsity": 1.0 - sum(row.spikes for row in layers) / activations if activations else None,
        "connection_sparsity": sum(row.zero_weights for row in layers) / weights if weights else None,
        "footprint": sum(buffer.nbytes for _, op in calls(counter.snn.graph) for buffer in op.buffers()),
        "membrane_updates": sum(row.updates for row in layers),
    }
    return Operations(counter.images, layers, figures)
