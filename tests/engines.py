"""What every spiking network has to fulfil, whatever its neurons: equal engines, and sums that no order can change."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, fx

from snnconvert.compile.exact import finest_grids
from snnconvert.graph.dialect import arguments, calls
from snnconvert.graph.flow import Flow, flows
from snnconvert.graph.kinds import Neuron, SumPool, Weighted
from snnconvert.graph.types import Snn
from snnconvert.graph.walk import values_of
from snnconvert.neurons import NeuronModel
from snnconvert.simulate.bistable_engine import BistableEngine
from snnconvert.simulate.first_spike_engine import FirstSpikeEngine
from snnconvert.simulate.kernels import native_available
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.simulate.result import Simulation
from snnconvert.simulate.serial_engine import SerialEngine
from snnconvert.simulate.step_engine import StepEngine


def levels_of(model: NeuronModel) -> tuple[int, ...]:
    """Numbers of levels to test a neuron with: several where it may have any."""
    return (1, 3, 100) if model.range(1000)[1] == 1000 else (model.levels,)


def assert_equal(a: Simulation, b: Simulation) -> None:
    """Equal in every count and output."""
    for name, counts in b.spikes.items():
        assert torch.equal(a.spikes[name], counts), name
        assert torch.equal(a.units[name], b.units[name]), name
    assert a.spikes.keys() == b.spikes.keys()
    for mine, theirs in zip(a.outputs, b.outputs, strict=True):
        assert torch.equal(mine, theirs)


def oracle_of(snn: Snn) -> BistableEngine | FirstSpikeEngine | StepEngine:
    """The literal engine that the layer engine has to equal in every spike."""
    if snn.schedule.once:
        return FirstSpikeEngine(snn)
    if snn.schedule.whole:
        return SerialEngine(snn)
    return BistableEngine(snn) if snn.schedule.windowed else StepEngine(snn)


def engine(snn: Snn, monkeypatch: pytest.MonkeyPatch, kernels: str) -> LayerEngine:
    """The fast engine with `native` kernels or `torch`."""
    monkeypatch.setenv("SNNCONVERT_KERNELS", kernels)
    made = LayerEngine(snn)
    monkeypatch.delenv("SNNCONVERT_KERNELS")
    return made


def assert_engines_agree(snn: Snn, images: Tensor, monkeypatch: pytest.MonkeyPatch) -> Simulation:
    """Oracle and fast engine are equal, by torch and by native kernels where there are any; returns what they did."""
    oracle = oracle_of(snn).run(images)
    for kernels in ("torch", "native") if native_available() else ("torch",):
        assert_equal(engine(snn, monkeypatch, kernels).run(images), oracle)
    assert any(int(counts.sum()) for counts in oracle.spikes.values())
    return oracle


def assert_sums_fit_their_grid(snn: Snn, images: Tensor) -> int:
    """No partial sum of a weighted operator exceeds the bits of its type, in units of its grid; how many were seen.

    Of spikes it is the largest sum that their neurons' range allows, of real values that of the largest on `images`.
    """
    flow, values = flows(snn.graph), dict(values_of(snn.graph, images.double()))
    units: dict[fx.Node, tuple[float, float]] = {}
    seen = 0
    for node, op in calls(snn.graph):
        sources = [source for source in arguments(node) if source in units]
        if isinstance(op, Neuron):
            low, high = op.row.range(op.levels)
            units[node] = float(low), float(high)
        elif flow[node] == Flow.SPIKES:
            area = math.prod(op.kernel) if isinstance(op, SumPool) else 1
            units[node] = area * min(units[one][0] for one in sources), area * max(units[one][1] for one in sources)
        if not isinstance(op, Weighted):
            continue
        (source,) = arguments(node)
        low, high, grid = (*units[source], 1.0) if source in units else _real(values[source])
        rows = op.by_rows(op.weight.double())
        bias = rows.new_zeros(len(rows)) if op.bias is None else op.bias.double()
        grids = torch.minimum(finest_grids(rows) * grid, finest_grids(bias[:, None]))
        most = torch.maximum(rows * low, rows * high).clamp(min=0).sum(1)
        least = torch.minimum(rows * low, rows * high).clamp(max=0).sum(1)
        largest = torch.maximum(most, -least) + bias.abs()
        assert float((largest / grids).max()) <= (2**24 if op.weight.dtype == torch.float32 else 2**53), node.name
        seen += 1
    return seen


def _real(values: Tensor) -> tuple[float, float, float]:
    """The least and the largest of real values, and their grid."""
    return float(values.min()), float(values.max()), float(finest_grids(values.double().reshape(1, -1)))
