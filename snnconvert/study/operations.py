"""Count what a spiking network really does: additions, multiplications and neuron updates per image, layer by layer.

Exact, not estimated: a spike is charged with the synapses it has at its own place (see `synapses.reaches`), so borders,
strides, groups, pooling and pruned channels are all considered.

    additions        for each spike, its synapses; a spike of n units is charged one addition for each set bit of n
    multiplications  operators on real values: once where the value does not change over time, else in every step
    neuron updates   neurons times the steps in which they take in or send

Pooling, wiring and the sum of branches are free on both sides, ANN and SNN; a spike that passes a sum pool or a
shortcut is charged where its current arrives. Padding is not counted as a synapse. Where spikes are sent in windows,
a window's operations are booked at its last step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from snnconvert.data.moving import over_time_of
from snnconvert.graph.dialect import arguments, calls, op_of, origin_of, role_of
from snnconvert.graph.flow import Flow, flows
from snnconvert.graph.kinds import Events, Neuron, Op, Role, Weighted
from snnconvert.graph.schedule import Schedule
from snnconvert.graph.schedule.timing import site_depths
from snnconvert.graph.types import Snn
from snnconvert.graph.walk import Pull, in_own_precision, walk
from snnconvert.simulate.chunks import watchable
from snnconvert.simulate.over_time import running_maximum
from snnconvert.simulate.result import Probe, Simulation
from snnconvert.study.synapses import READ_OUT, layer_of, reaches, spike_sources

OPERATION_IMAGES = 32
SERIES = ("accumulates", "weight_reads", "multiplies", "updates", "spikes")
_Series = dict[str, dict[str, NDArray[np.float64]]]


@dataclass
class Counts:
    """Operations of one layer, per image: a neuron layer with all that feeds it, or the read-out.

    Attributes:
        synapses: multiplications of the dense ANN layer, borders considered (NeuroBench's dense operations per call).
        padded: the same with those on padding, as fvcore, ptflops and most papers count.
        accumulates: additions that spikes cause.
        weight_reads: synapses that spikes reach; equals `accumulates` for binary spikes.
        multiplies: multiplications on real values.
        neurons, updates, spikes: of the layer itself and of synchronous neurons behind it.
        payload_bits: bits of a spike besides its address (0 for a binary spike).
        weights, zero_weights: distinct weights, and how many of them are 0.
        effective_acs, effective_macs: after NeuroBench: only non-zero weights on non-zero inputs, each once whatever
            it is; a layer called on anything else than -1, 0, 1 counts as MACs. What is constant in time is computed,
            and counted, once: a model that is called in every step counts its first layer T times.
        over_time: accumulates, weight_reads, multiplies, updates and spikes of each step alone, shape (T,).
    """

    name: str
    origin: str
    synapses: float = 0.0
    padded: float = 0.0
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
    over_time: dict[str, list[float]] = field(default_factory=dict)


@dataclass
class _Maps:
    """Sums over steps and images, shape (1, *sample): spikes, set bits; and whether all were -1, 0 or 1.

    `present` is in how many steps a value was not zero, which behind a sum of spikes is less than their number.
    """

    spikes: Tensor
    bits: Tensor
    unit: bool
    present: Tensor


class OperationCounter:
    """Watches a simulation and counts the operations of its first images.

    Args:
        snn: the network.
        images: stop watching after so many; without it, after as many as a few seconds allow (see `chunks.watchable`).
    """

    def __init__(self, snn: Snn, images: int | None = None) -> None:
        most = watchable(snn, OPERATION_IMAGES) if images is None else images
        self.snn, self.left, self.images, self.batch = snn, most, 0, 0
        self.schedule = snn.schedule
        self.domains, self.depths = flows(snn.graph), site_depths(snn.graph)
        self.reached = reaches(snn, self.domains)
        self.arrived: _Series = {}
        self.booked: _Series = {}
        self.nodes = {node.name: node for node in self.domains}
        self.maps: dict[fx.Node, _Maps] = {}
        self.inputs: dict[fx.Node, Tensor] = {}
        self.pools = {node: spike_sources(node) for node, op in calls(snn.graph) if self._spiking_pool(node, op)}
        self.sums = {} if self.schedule.windowed else self._sums()
        self.kept: dict[fx.Node, Tensor] = {}
        self.present: dict[fx.Node, Tensor] = {}

    def begin(self, images: Tensor) -> Probe | None:
        """A probe for the engine's run on `images` (batch, *sample), or None once enough were seen."""
        if self.left <= 0:
            return None
        self.batch = min(self.left, len(images))
        self.left -= self.batch
        self.images += self.batch
        self._count_inputs(images[: self.batch])
        for node, op in calls(self.snn.graph, Events):
            incoming = over_time_of(images[: self.batch])
            assert incoming is not None
            self._probe(node.name, op.received(incoming.frames(0, self.schedule.frames))[0])
        return self._probe

    def end(self, seen: Simulation) -> None:
        """Called after the run: count what pooling let through."""
        del seen
        for pool in self.pools if self.kept else ():
            self._add(pool, self._pooled(pool))
        for node in self.sums if self.kept else ():
            present = self._pooled(node).count_nonzero((0, 1)).double().unsqueeze(0)
            self.present[node] = present + self.present[node] if node in self.present else present
        self.kept.clear()

    @torch.inference_mode()
    def layers(self) -> list[Counts]:
        """Counts per image of every layer in data-flow order; empty if nothing was watched."""
        if not self.images:
            return []
        maps: dict[fx.Node, _Maps] = dict(self.maps)
        found: dict[str, Counts] = {}
        self.booked = {
            layer: {name: row / self.images for name, row in rows.items()} for layer, rows in self.arrived.items()
        }
        for node, op in calls(self.snn.graph):
            if node not in maps and self.domains[node] == Flow.SPIKES:
                maps[node] = _moved(op, [maps[source] for source in arguments(node)], self.present.get(node))
            layer = self._layer(node, op, found)
            if op.role in (Role.NEURON, Role.DELAY):
                self._count_neurons(layer, node, op)
            else:
                self._count(layer, node, op, maps)
        order = {node.name: index for index, node in enumerate(self.snn.graph.graph.nodes)}
        rows = sorted(found.values(), key=lambda row: order.get(row.name, len(order)))
        for row in rows:
            row.effective_acs, row.effective_macs = row.effective_acs / self.images, row.effective_macs / self.images
            for name in SERIES:
                series = self._steps(row.name, name)
                setattr(row, name, float(series.sum()))
                row.over_time[name] = series.tolist()
        return [row for row in rows if row.synapses or row.accumulates or row.multiplies or row.neurons]

    # --- while the engine runs ---

    def _probe(self, name: str, by_frame: Tensor) -> None:
        node, by_frame = self.nodes[name], by_frame[:, : self.batch]
        self._add(node, by_frame)
        if any(node in sources for sources in (*self.pools.values(), *self.sums.values())):
            self.kept[node] = by_frame

    def _add(self, node: fx.Node, by_frame: Tensor) -> None:
        op = op_of(node)
        coded = op_of(node, Neuron).slots if op.role == Role.NEURON else 0
        negative = op.sends_negative
        spikes, bits = _spikes_and_bits(by_frame, self._levels(node), self.schedule, negative=negative, slots=coded)
        self._book(node, spikes.flatten(1), bits.flatten(1))
        spikes, bits = spikes.sum(0, keepdim=True), bits.sum(0, keepdim=True)
        peak = float(by_frame.abs().max()) if by_frame.numel() and self._levels(node) > 1 else 1.0
        unit = peak <= 1.0 or self.schedule.windowed
        before = self.maps.get(node)
        if before is not None:
            spikes, bits, unit = spikes + before.spikes, bits + before.bits, unit and before.unit
        self.maps[node] = _Maps(spikes, bits, unit, spikes)

    def _book(self, node: fx.Node, spikes: Tensor, bits: Tensor) -> None:
        """Charge spikes and set bits, shape (frames, neurons), to the layers and steps in which they arrive."""
        for reach in self.reached[node]:
            at, read = self._last_steps(reach.depth), (spikes @ reach.each).numpy()
            added = {"spikes": read}
            if reach.kind == "synapses":
                added = {"weight_reads": read, "accumulates": (bits @ reach.each).numpy()}
            rows = self.arrived.setdefault(reach.layer, {})
            for name, values in added.items():
                rows.setdefault(name, np.zeros(self.schedule.timesteps))[at] += values

    def _steps(self, layer: str, what: str) -> NDArray[np.float64]:
        """The series of one kind of operation in one layer per image, one value a step."""
        return self.booked.setdefault(layer, {}).setdefault(what, np.zeros(self.schedule.timesteps))

    def _last_steps(self, depth: int) -> list[int]:
        """The step (0-based) in which each frame of a site at `depth` has been sent."""
        schedule = self.schedule
        return [schedule.emission_step(depth, frame, schedule.steps_per_frame - 1) for frame in range(schedule.frames)]

    def _levels(self, node: fx.Node) -> int:
        if role_of(node) == Role.EVENTS:
            return op_of(node, Events).levels
        if role_of(node) == Role.NEURON:
            op = op_of(node, Neuron)
            return op.row.peak(op.levels)
        return max(self._levels(source) for source in spike_sources(node))

    def _spiking_pool(self, node: fx.Node, op: Op) -> bool:
        return op.role == Role.MAXPOOL and self.domains[node] == Flow.SPIKES

    def _sums(self) -> dict[fx.Node, list[fx.Node]]:
        """Pools that add spikes up, and the neurons that they read; without max pools, which send on their own."""
        return {
            node: spike_sources(node)
            for node, op in calls(self.snn.graph)
            if op.role == Role.POOL and self.domains[node] == Flow.SPIKES
        }

    def _pooled(self, pool: fx.Node) -> Tensor:
        """What a pool sends, (frames, batch, *sample): of a max pool the increments of the running maximum."""
        frames, windowed = self.schedule.frames, self.schedule.windowed

        def moved(node: fx.Node, inputs: list[Tensor]) -> Tensor:
            op = op_of(node)
            maximum = op.role == Role.MAXPOOL and not windowed
            value: Tensor = running_maximum(op, inputs[0], frames) if maximum else op(*inputs)
            return value

        read = self.pools.get(pool) or self.sums[pool]
        sent = {node: self.kept[node].to("cpu", torch.float32).flatten(0, 1) for node in read}
        pooled = Pull(moved, sent.get)(pool)
        return pooled.reshape(frames, -1, *pooled.shape[1:])

    @torch.inference_mode()
    def _count_inputs(self, images: Tensor) -> None:
        """How often each real-valued, constant input of a weighted operator is not zero."""
        readers: dict[fx.Node, list[fx.Node]] = {}
        for node, op in calls(self.snn.graph):
            (source, *_) = arguments(node) or [node]
            if op.role == Role.WEIGHTED and self.domains[source] == Flow.CONSTANT:
                readers.setdefault(source, []).append(node)
        for source, _, value in walk(self.snn.graph, images.double(), in_own_precision, wanted=readers):
            for node in readers.get(source, ()):
                self.inputs[node] = (value != 0).sum(0, keepdim=True).double() + self.inputs.get(node, 0.0)

    # --- afterwards ---

    def _layer(self, node: fx.Node, op: Op, found: dict[str, Counts]) -> Counts:
        """The row of the neurons that `node` feeds; synchronous neurons belong to the neurons before them."""
        owner = layer_of(node, op)
        name = READ_OUT if owner is None else owner.name
        if name not in found:
            found[name] = Counts(name, READ_OUT if owner is None else str(origin_of(owner)))
        return found[name]

    def _count_neurons(self, layer: Counts, node: fx.Node, op: Op) -> None:
        size = math.prod(node.meta["shape"])
        updates = self._steps(layer.name, "updates")
        updates += size * np.array(self.schedule.updates(self.depths[node.name]))
        if isinstance(op, Neuron):
            updates[self._last_steps(self.depths[node.name])] += size * op.compared
            layer.neurons = size
            if not self.schedule.windowed:
                layer.payload_bits = op.row.payload_bits(op.levels)

    def _count(self, layer: Counts, node: fx.Node, op: Op, maps: dict[fx.Node, _Maps]) -> None:
        if not op.reads:
            return
        source = arguments(node)[0]
        domain = self.domains[source]
        alone = op.additions([one.meta["shape"] for one in arguments(node)], node.meta["shape"])
        if alone:
            self._steps(layer.name, "accumulates")[self._last_steps(self.depths[node.name])] += alone
        steps = 1 if self.domains[node] == Flow.CONSTANT else self.schedule.frames * self.schedule.steps_per_frame
        if isinstance(op, Weighted):
            every, present = op.counting(), op.counting(only_nonzero=True)
            filled = torch.ones(1, *source.meta["shape"], dtype=torch.float64)
            synapses = float(every(filled).sum())
            layer.synapses += synapses
            layer.padded += op.multiply_accumulates([source.meta["shape"]], node.meta["shape"])
            layer.weights += op.weight.numel()
            layer.zero_weights += int((op.weight == 0).sum())
            if domain == Flow.SPIKES:
                effective = float(present(maps[source].present).sum())
                layer.effective_acs += effective if maps[source].unit else 0.0
                layer.effective_macs += 0.0 if maps[source].unit else effective
            else:
                self._multiply(layer, node, synapses)
                seen = self.inputs[node] if node in self.inputs else filled * self.images * steps
                layer.effective_macs += float(present(seen).sum())
        elif op.role == Role.PRODUCT:
            products = op.multiply_accumulates([one.meta["shape"] for one in arguments(node)], node.meta["shape"])
            layer.synapses += products
            layer.padded += products
        elif op.role == Role.ANALOG or (op.role == Role.AFFINE and domain != Flow.SPIKES):
            products = op.multiply_accumulates([one.meta["shape"] for one in arguments(node)], node.meta["shape"])
            layer.synapses += products
            layer.padded += products
            self._multiply(layer, node, products)

    def _multiply(self, layer: Counts, node: fx.Node, each: float) -> None:
        """Book `each` multiplications: once where the value is constant, else in every step."""
        series = self._steps(layer.name, "multiplies")
        if self.domains[node] == Flow.CONSTANT:
            series[0] += each
        else:
            series[self._last_steps(self.depths[node.name])] += each * self.schedule.steps_per_frame


def _moved(op: Op, sources: list[_Maps], present: Tensor | None) -> _Maps:
    """Maps behind an operator that moves or sums spikes; a sum of spikes is no longer a unit spike.

    `present` is what was counted there, for sums.
    """
    unit = all(source.unit for source in sources) and op.role != Role.POOL
    spikes, bits, seen = (op(*(getattr(source, name) for source in sources)) for name in ("spikes", "bits", "present"))
    return _Maps(spikes, bits, unit, seen if present is None else present)


def _spikes_and_bits(
    by_frame: Tensor, levels: int, schedule: Schedule, *, negative: bool, slots: int = 0
) -> tuple[Tensor, Tensor]:
    """Number of spikes and of set bits at every place, summed over the batch, shape (frames, *sample), float64."""
    if not schedule.windowed and levels == 1:
        # Summing is several times as fast as counting; float32 is exact up to 2^24 spikes.
        spikes = (by_frame.abs() if negative else by_frame).sum(1, dtype=torch.float32).double().cpu()
        return spikes, spikes
    if schedule.once:  # a weight is added to the slope of the membrane, once, whatever the spike is worth
        sent = (by_frame != 0).sum(1).double().cpu()
        return sent, sent
    small = by_frame.dtype == torch.int8 and not slots
    codes = by_frame.abs().to("cpu", torch.int8 if small else torch.int64)
    if slots:  # signed powers of two, no two of which follow each other: 3 n and n differ where one is sent
        codes = codes ^ (3 * codes)
    elif schedule.windowed and not schedule.positional:
        sent = codes.sum(1).double()
        return sent, sent
    bits = torch.zeros_like(codes[:, 0], dtype=torch.float32)
    for shift in range(max(1, int(codes.max()).bit_length()) if codes.numel() else 0):
        bits += ((codes >> shift) & 1).sum(1, dtype=torch.float32)
    set_bits = bits.double()
    if schedule.windowed:
        return set_bits, set_bits
    return (codes != 0).sum(1, dtype=torch.float32).double(), set_bits


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
