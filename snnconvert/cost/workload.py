"""What a machine has to do for one sample of a converted network, layer by layer, counted from a simulation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import fx

from snnconvert.graph.dialect import arguments, calls, op_of, role_of
from snnconvert.graph.flow import Flow, flows
from snnconvert.graph.kinds import Events, Neuron, Role, Weighted
from snnconvert.graph.types import Snn
from snnconvert.graph.walk import walk
from snnconvert.study.backward import Activity
from snnconvert.study.operations import Operations
from snnconvert.study.synapses import READ_OUT, SOURCES, layer_of, spike_sources


@dataclass(frozen=True)
class LayerWork:
    """One layer of neurons with all that feeds it, or the read-out; numbers are of one sample.

    Attributes:
        name, origin: as in reports.
        steps: T, in which spikes arrive.
        moving: synapses of operators that read spikes (dense multiply-accumulates of one step).
        constant: the same of operators that read what is equal in all steps; computed once.
        analog: multiplications on real values that move, over all steps.
        inputs: values that the operators read in one step.
        neurons: of the layer; 0 for the read-out.
        weights: distinct weights.
        planes: binary planes that carry a step's spikes: 1 for binary spikes.
        additions: additions that spikes cause, over all steps.
        reads: synapses that spikes reach, over all steps.
        updates, spikes: over all steps.
        gradient: share of dL/dx that is not zero; None without a training step.
        needed: share of the products W^T dL/dx whose result lies in the surrogate window of the layer that it goes to,
            in all such products: 0 where only the input is behind it.
    """

    name: str
    origin: str
    steps: int
    moving: float
    constant: float
    analog: float
    inputs: float
    neurons: float
    weights: float
    planes: int
    additions: float
    reads: float
    updates: float
    spikes: float
    gradient: float | None = None
    needed: float = 0.0

    @property
    def sent(self) -> float:
        """Bytes of the layer's spikes, a bit for each neuron, step and plane."""
        return self.steps * self.planes * self.neurons / 8

    @property
    def density(self) -> float:
        """Share of ones among the bits that arrive, of all synapses, steps and planes; of pools that add up at most."""
        bits = self.moving * self.steps * self.planes
        return min(1.0, self.additions / bits) if bits else 0.0


@dataclass
class _Feeding:
    """Sums over the operators that feed a layer."""

    moving: float = 0.0
    constant: float = 0.0
    inputs: float = 0.0
    needed: float = 0.0
    carried: int = 1


def workload(counted: Operations, snn: Snn, activity: Mapping[str, Activity] | None = None) -> list[LayerWork]:
    """The work of every layer in data-flow order.

    Args:
        counted: of a simulation of `snn`.
        activity: of a training step (`study.backward`), for the cost of training.
    """
    feeding = _feeding(snn, activity or {})
    steps = snn.schedule.frames * snn.schedule.steps_per_frame
    rows = []
    for row in counted.layers:
        fed = feeding.get(row.name, _Feeding())
        own = None if activity is None else activity.get(row.name)
        rows.append(
            LayerWork(
                row.name,
                row.origin,
                steps,
                moving=fed.moving,
                constant=fed.constant,
                analog=max(0.0, row.multiplies - fed.constant),
                inputs=fed.inputs,
                neurons=row.neurons,
                weights=row.weights,
                planes=fed.carried,
                additions=row.accumulates,
                reads=row.weight_reads,
                updates=row.updates,
                spikes=row.spikes,
                gradient=None if own is None else own.gradient,
                needed=fed.needed / fed.moving if fed.moving else 0.0,
            )
        )
    return rows


@torch.inference_mode()
def _feeding(snn: Snn, activity: Mapping[str, Activity]) -> dict[str, _Feeding]:
    flow, planes, found = flows(snn.graph), _planes(snn), dict[str, _Feeding]()
    for node, op in calls(snn.graph, Weighted):
        (source, *_) = arguments(node)
        owner = layer_of(node, op)
        fed = found.setdefault(READ_OUT if owner is None else owner.name, _Feeding())
        synapses = float(op.counting()(torch.ones(1, *source.meta["shape"], dtype=torch.float64)).sum())
        fed.inputs += math.prod(source.meta["shape"])
        if flow[source] == Flow.CONSTANT:
            fed.constant += synapses
        elif flow[source] == Flow.SPIKES:
            senders = [source] if role_of(source) in SOURCES else spike_sources(source)
            fed.moving += synapses
            windows = [activity[one.name].window for one in senders if one.name in activity]
            fed.needed += synapses * (sum(windows) / len(windows) if windows else 0.0)
            fed.carried = max(fed.carried, planes[source])
    return found


def _planes(snn: Snn) -> dict[fx.Node, int]:
    """Binary planes of one step's units at every node that hands on spikes; a window sends its bits one a step.

    Pools that add spikes up hand on numbers of so many bits.
    """

    def rule(node: fx.Node, inputs: list[tuple[int, int]]) -> tuple[int, int]:
        op = op_of(node)
        if op.role == Role.EVENTS:
            return 0, op_of(node, Events).levels
        if op.role == Role.NEURON:
            neuron = op_of(node, Neuron)
            return (0, 1) if snn.schedule.windowed else neuron.row.range(neuron.levels)
        area = math.prod(op.window) if op.role == Role.POOL else 1
        return area * min(low for low, _ in inputs), area * max(high for _, high in inputs)

    found = walk(snn.graph, (0, 0), rule)
    return {node: max(1, max(-low, high).bit_length() + (low < 0)) for node, _, (low, high) in found}
