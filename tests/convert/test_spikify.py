"""The spiking network: equal engines, exact sums, and convergence to the clipped ANN as T grows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from snnconvert.calibrate import METHODS, Task
from snnconvert.calibrate.observe import in_canonical_order
from snnconvert.calibrate.rate_norm import clipped
from snnconvert.compile.balance import with_identity_sites
from snnconvert.compile.network import compile_network
from snnconvert.convert.passes import canonicalize
from snnconvert.convert.pytorch import import_module
from snnconvert.errors import OptionError, OutputError
from snnconvert.graph import checkpoint
from snnconvert.graph.checkpoint import load_snn, save_snn
from snnconvert.graph.dialect import calls
from snnconvert.graph.kinds import SumPool
from snnconvert.graph.schedule import SCHEDULES, Bistable, Schedule, Streaming, Wait
from snnconvert.graph.schedule.timing import site_depths
from snnconvert.graph.types import NeuronChoice, Snn
from snnconvert.neurons import NEURONS, offered
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.simulate.step_engine import StepEngine
from tests.convert.networks import NETWORKS, network, samples
from tests.engines import assert_engines_agree, assert_sums_fit_their_grid


def task(name: str, timesteps: int, neuron: str = "if", levels: int = 1) -> Task:
    ann = canonicalize(network(name))
    schedule = Streaming(timesteps, max(site_depths(ann.graph).values()))
    return Task(ann, in_canonical_order(samples(24)), schedule, NeuronChoice(neuron, levels))


def spiking(name: str, timesteps: int, neuron: str = "if", levels: int = 1) -> Snn:
    wanted = task(name, timesteps, neuron, levels)
    return compile_network(METHODS["mse"](wanted))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("neuron", offered())
def test_engines_agree_and_sums_are_exact(name: str, neuron: str, monkeypatch: pytest.MonkeyPatch) -> None:
    snn, batch = spiking(name, 6, neuron, NEURONS[neuron].levels), samples(3, seed=1)
    assert_engines_agree(snn, batch, monkeypatch)
    assert assert_sums_fit_their_grid(snn, batch) > 2


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("kind", SCHEDULES)
def test_engines_agree_in_every_schedule(name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In those that a search would try: the first and the last that fit into 40 steps."""
    ann, row, batch = canonicalize(network(name)), SCHEDULES[kind], samples(3, seed=1)
    ann = with_identity_sites(ann, next(one for _, one in row.within(40, 1) if isinstance(one, Schedule)))
    depth = max(site_depths(ann.graph).values())
    fit = [one for _, one in row.within(40, depth) if isinstance(one, Schedule)]
    for schedule in (fit[0], *fit[1:][-1:]):
        snn = compile_network(METHODS["mse"](Task(ann, in_canonical_order(samples(24)), schedule, NeuronChoice())))
        assert_engines_agree(snn, batch, monkeypatch)
        assert assert_sums_fit_their_grid(snn, batch) > 2


@pytest.mark.parametrize("name", NETWORKS)
def test_batch_size_changes_nothing(name: str) -> None:
    snn = spiking(name, 5)
    batch = samples(7, seed=2)
    together = LayerEngine(snn).run(batch)
    apart = [LayerEngine(snn).run(batch[index : index + 1]) for index in range(len(batch))]
    assert torch.equal(together.outputs[0], torch.cat([one.outputs[0] for one in apart], 1))
    for site, counts in together.spikes.items():
        assert torch.equal(counts, sum(one.spikes[site] for one in apart))


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_converge_to_the_clipped_network(name: str) -> None:
    """The error of the mean logits against the clipped ANN falls about as 1 / T."""
    errors = {}
    for timesteps in (32, 512):
        wanted = task(name, timesteps)
        calibration = METHODS["percentile"](wanted)
        snn = compile_network(calibration)
        batch = samples(4, seed=3)
        limit = clipped(wanted.ann.graph, {site: one.threshold for site, one in calibration.sites.items()})(batch)[0]
        mean = LayerEngine(snn).run(batch).outputs[0][-1] / timesteps
        errors[timesteps] = float((mean - limit).norm() / limit.norm())
    assert errors[512] < max(errors[32] / 8, 1e-4)


def test_a_checkpoint_is_the_same_network(tmp_path: Path) -> None:
    path = tmp_path / "m.snn"
    for name in NETWORKS:
        snn = spiking(name, 4)
        save_snn(snn, path)
        again = load_snn(path)
        batch = samples(2)
        assert torch.equal(LayerEngine(snn).run(batch).outputs[0], LayerEngine(again).run(batch).outputs[0])
        first = path.read_bytes()
        save_snn(again, path)
        assert path.read_bytes() == first


def test_a_full_disk_is_no_defect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OutputError, match="No space left"):
        save_snn(spiking(next(iter(NETWORKS)), 4), tmp_path / "m.snn")
    assert list(tmp_path.iterdir()) == []


def test_schedules_refuse_what_does_not_fit() -> None:
    with pytest.raises(OptionError, match="too few"):
        Wait(8, depth=10, wait=1)
    with pytest.raises(OptionError) as refused:
        Bistable(32, depth=19, window=4)
    assert "-T 40" in refused.value.hint
    assert "-T 80" in refused.value.hint


class Signal(nn.Module):
    """Sound and other signals: one axis of time, pooled on the way by averages over three."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.pool = nn.Conv1d(2, 6, 5, padding=2), nn.AvgPool1d(3, 2, 1)
        self.second, self.best, self.last = nn.Conv1d(6, 8, 3, groups=2), nn.MaxPool1d(3, 2), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(torch.relu(self.first(x)))
        return self.last(self.best(torch.relu(self.second(x))).mean(2))


@pytest.mark.parametrize("kind", ["streaming", "wait"])
def test_signals_are_pooled_exactly(kind: str) -> None:
    torch.manual_seed(0)
    ann = canonicalize(import_module(Signal().eval(), (2, 40), name="signal"))
    depth = max(site_depths(ann.graph).values())
    schedule = SCHEDULES[kind](12, depth)
    batch = torch.rand(8, 2, 40, generator=torch.Generator().manual_seed(1))
    wanted = Task(ann, in_canonical_order(batch), schedule, NeuronChoice("if", 1))
    snn = compile_network(METHODS["mse"](wanted))
    pools = [op for _, op in calls(snn.graph) if isinstance(op, SumPool)]
    assert pools and all(torch.equal(pool(x), pool(x).round()) for pool in pools for x in [torch.ones(1, 6, 40) * 5])
    fast, slow = LayerEngine(snn).run(batch).outputs[0], StepEngine(snn).run(batch).outputs[0]
    assert torch.equal(fast, slow)
