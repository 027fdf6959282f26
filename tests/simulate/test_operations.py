from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from random_networks import images as random_images
from random_networks import random_snn
from small_networks import pictures, small_snn
from torch import Tensor, fx

from snnconvert.graph.dialect import arguments, op_of
from snnconvert.graph.flow import flows
from snnconvert.graph.kinds import Conv, Linear, Op, Role
from snnconvert.graph.types import Snn
from snnconvert.neurons import NEURONS
from snnconvert.simulate.bistable_engine import BistableEngine
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.simulate.measure import watched_run
from snnconvert.simulate.step_engine import StepEngine
from snnconvert.study.operations import SERIES, OperationCounter, operations


class Recording(StepEngine):
    """A step engine that keeps what every node receives in every step."""

    def run(self, batch: Tensor) -> object:  # type: ignore[override]
        self.received: dict[fx.Node, list[list[Tensor]]] = {}
        return super().run(batch)

    def _step(self, node: fx.Node, op: Op, inputs: list[Tensor], step: int) -> Tensor:
        self.received.setdefault(node, []).append(inputs)
        return super()._step(node, op, inputs, step)


class RecordingWindows(BistableEngine):
    def run(self, batch: Tensor) -> object:  # type: ignore[override]
        self.received: dict[str, list[Tensor]] = {}
        return super().run(batch)

    def _step(self, node: fx.Node, inputs: list[Tensor], step: int) -> Tensor:
        self.received.setdefault(node.name, []).append(inputs[0])
        return super()._step(node, inputs, step)


def watched(snn: Snn, images: Tensor, chunks: int = 2) -> OperationCounter:
    counter, engine = OperationCounter(snn, len(images)), LayerEngine(snn)
    for part in images.chunk(chunks):
        watched_run(engine, part, [counter])
    return counter


def taps(op: Op, shape: tuple[int, ...], out: tuple[int, ...]) -> list[tuple[tuple[int, ...], float]]:
    """Every synapse of a layer: the input place that it reads, and its weight; one by one."""
    if isinstance(op, Linear):
        return [((i,), float(op.weight[o, i])) for o in range(out[0]) for i in range(shape[0])]
    assert isinstance(op, Conv)
    found = []
    per_group_out, per_group_in = out[0] // op.groups, shape[0] // op.groups
    for o, y, x, c, ky, kx in product(
        range(out[0]), range(out[1]), range(out[2]), range(per_group_in), *(range(k) for k in op.weight.shape[2:])
    ):
        row = y * op.stride[0] - op.padding[0] + ky * op.dilation[0]
        column = x * op.stride[1] - op.padding[1] + kx * op.dilation[1]
        if 0 <= row < shape[1] and 0 <= column < shape[2]:
            channel = (o // per_group_out) * per_group_in + c
            found.append(((channel, row, column), float(op.weight[o, c, ky, kx])))
    return found


@pytest.mark.parametrize(
    ("pool", "neuron", "levels", "kind", "extra"),
    [
        ("sum", "if", 1, "streaming", {}),
        ("max", "if", 1, "streaming", {}),
        ("mean", "if", 1, "streaming", {}),
        *(("none", name, row.levels, "streaming", {}) for name, row in NEURONS.items() if row.offered),
        ("max", "if", 1, "wait", {"wait": 1}),
    ],
)
def test_counts_equal_a_count_one_by_one(  # noqa: PLR0915 (one long count)
    pool: str, neuron: str, levels: int, kind: str, extra: dict[str, int]
) -> None:
    steps = 12 if kind == "wait" else 7
    snn, _ = small_snn(pool=pool, neuron=neuron, levels=levels, kind=kind, timesteps=steps, **extra)
    images = pictures(3)
    engine = Recording(snn)
    result = engine.run(images)
    flow = flows(snn.graph)
    accumulates = reads = effective_acs = 0
    by_step = [0] * steps
    multiplies = synapses = macs = 0
    for node, steps_seen in engine.received.items():
        op = op_of(node)
        if op.role == Role.WEIGHTED:
            source = arguments(node)[0]
            every = taps(op, source.meta["shape"], node.meta["shape"])
            synapses += len(every)
            if flow[source] == "constant":
                multiplies += len(every)
                seen = steps_seen[0][0]
                macs += sum(int(seen[image][place] != 0) for image in range(3) for place, w in every if w != 0)
                continue
            if flow[source] == "current":  # behind a mean: real values in every step
                multiplies += len(every) * len(steps_seen)
                macs += 3 * len(steps_seen) * sum(weight != 0 for _, weight in every)
                continue
            for step, (spikes,) in enumerate(steps_seen):
                before = accumulates
                for image in range(3):
                    for place, weight in every:
                        n = abs(int(spikes[image][place]))
                        summed = pool == "sum" and n > 1  # a sum of n binary spikes, not one spike of n units
                        accumulates += n if summed else n.bit_count()
                        reads += n if summed else int(n != 0)
                        effective_acs += int(n != 0) * (weight != 0)  # NeuroBench counts inputs, whatever they are
                by_step[step] += accumulates - before
        elif type(op).__name__ == "Scale":
            for step, (spikes,) in enumerate(steps_seen):
                added = len(node.users) * sum(abs(int(n)).bit_count() for n in spikes.flatten())
                by_step[step] += added
                accumulates += added
                reads += len(node.users) * int((spikes != 0).sum())
    found = operations(watched(snn, images))
    assert found is not None
    rows = found.layers
    assert sum(row.synapses for row in rows) == synapses > 0
    assert sum(row.multiplies for row in rows) == multiplies > 0
    assert sum(row.accumulates for row in rows) * 3 == pytest.approx(accumulates, abs=1e-6)
    assert sum(row.weight_reads for row in rows) * 3 == pytest.approx(reads, abs=1e-6)
    assert accumulates > 100
    booked = [sum(row.over_time["accumulates"][step] for row in rows) * 3 for step in range(steps)]
    assert booked == pytest.approx(by_step, abs=1e-6)
    emitted = sum(int(counts.sum()) for counts in result.spikes.values())  # type: ignore[attr-defined]
    assert sum(row.spikes for row in rows) * 3 == pytest.approx(emitted)
    sent = sum(row.effective_acs + row.effective_macs for row in rows) * 3
    assert sent == pytest.approx(effective_acs + macs)
    assert (accumulates > reads) == (levels > 1)
    low, high = NEURONS[neuron].range(levels)
    payload = math.ceil(math.log2(max(high, -low))) + (low < 0)  # its units and its sign
    assert {row.payload_bits for row in rows if row.neurons} == {payload}
    neurons = sum(neurons_of(node) for node in engine.received if op_of(node).role == Role.NEURON)
    assert sum(row.neurons for row in rows) == neurons
    assert sum(row.updates for row in rows) == neurons * (snn.schedule.frames + snn.schedule.waited)


def neurons_of(node: fx.Node) -> int:
    size = 1
    for length in node.meta["shape"]:
        size *= length
    return size


@pytest.mark.parametrize("phases", ["power2", "uniform"])
@pytest.mark.parametrize("seed", range(4))
def test_windows_count_every_spike_of_the_oracle(seed: int, phases: str) -> None:
    snn, _, _ = random_snn(seed, window=3, phases=phases, frames=2)
    images = random_images(seed, 2)
    engine = RecordingWindows(snn)
    result = engine.run(images)
    found = operations(watched(snn, images, chunks=1))
    assert found is not None
    emitted = sum(int(counts.sum()) for counts in result.spikes.values())  # type: ignore[attr-defined]
    assert sum(row.spikes for row in found.layers) * 2 == pytest.approx(emitted)


@pytest.mark.parametrize(("kind", "extra"), [("streaming", {}), ("wait", {"wait": 1}), ("bistable", {"window": 3})])
def test_steps_add_up(kind: str, extra: dict[str, int]) -> None:
    snn, _ = small_snn(kind=kind, timesteps=24, **extra)
    rows = watched(snn, pictures(3)).layers()
    for name in SERIES:
        assert all(sum(row.over_time[name]) == pytest.approx(getattr(row, name)) for row in rows)
    assert all(sum(row.over_time["updates"]) for row in rows if row.neurons)
    assert all(row.padded >= row.synapses for row in rows)
    assert sum(row.padded for row in rows) > sum(row.synapses for row in rows)


def test_batches_do_not_matter_and_watching_stops() -> None:
    snn, _ = small_snn(pool="max")
    images = pictures(6)
    assert watched(snn, images, 1).layers() == watched(snn, images, 6).layers()
    counter, engine = OperationCounter(snn, images=2), LayerEngine(snn)
    watched_run(engine, images[:5], [counter])
    assert counter.begin(images[2:]) is None
    assert counter.layers() == watched(snn, images[:2]).layers()
    assert OperationCounter(snn).layers() == []


def test_figures_of_the_whole_network() -> None:
    snn, _ = small_snn(pool="none")
    found = operations(watched(snn, pictures(4)))
    assert found is not None
    figures = found.neurobench
    zeros = total = 0
    for node in snn.graph.graph.nodes:
        if node.op == "call_module" and op_of(node).role == Role.WEIGHTED:
            zeros += int((op_of(node).weight == 0).sum())
            total += op_of(node).weight.numel()
    assert zeros > 0
    assert figures["connection_sparsity"] == pytest.approx(zeros / total)
    assert 0 < figures["activation_sparsity"] < 1
    assert figures["effective_acs"] < sum(row.accumulates for row in found.layers)
    assert torch.isfinite(torch.tensor(float(figures["footprint"])))
