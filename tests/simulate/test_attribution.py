from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
import torch
from small_networks import pictures, small_snn
from test_operations import Recording
from torch import Tensor

from snnconvert.compile.network import compile_network
from snnconvert.graph.checkpoint import load_snn, save_snn
from snnconvert.graph.dialect import Builder, sites
from snnconvert.graph.kinds import Clip, Linear, Neuron, Op, Relu
from snnconvert.graph.schedule import Streaming
from snnconvert.graph.schedule.timing import site_depths
from snnconvert.graph.types import Ann, Calibrated, NeuronChoice, Origin, SiteCalibration, Snn, Source
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.simulate.measure import watched_run
from snnconvert.study.attribution import CAUSES, LOCAL, Attribution, Split, culprit, in_double, neuron_inputs


def watched(snn: Snn, ann: Ann | None, images: Tensor, chunks: int = 1) -> Attribution:
    found, engine = Attribution(snn, ann), LayerEngine(snn)
    for part in images.chunk(chunks):
        watched_run(engine, part, [found])
    return found


class Keeping(Attribution):
    """Keeps the rates and splits of the last batch."""

    def end(self, seen: object) -> None:
        del seen
        self.kept = dict(self.splits())
        self.sent = dict(self.rates)


def kept(snn: Snn, ann: Ann | None, images: Tensor) -> Keeping:
    found = Keeping(snn, ann)
    watched_run(LayerEngine(snn), images, [found])
    return found


@pytest.mark.parametrize("with_ann", [True, False])
@pytest.mark.parametrize(("pool", "neuron", "levels"), [("sum", "if", 1), ("max", "if", 1), ("none", "ternary", 1)])
def test_causes_add_up_to_the_error(pool: str, neuron: str, levels: int, with_ann: bool) -> None:
    snn, ann = small_snn(pool=pool, neuron=neuron, levels=levels)
    found = kept(snn, ann if with_ann else None, pictures(4))
    assert found.reference == ("ANN" if with_ann else "limit")
    for split in found.kept.values():
        assert torch.allclose(sum(split.causes.values()), split.error, atol=1e-12)  # type: ignore[arg-type]
        assert split.error.abs().max() > 1e-3
    first = next(iter(found.kept.values()))
    assert first.causes["propagation"].abs().max() < 1e-6
    assert first.causes["unevenness"].abs().max() < 1e-6


@pytest.mark.parametrize("pool", ["sum", "max", "mean", "none"])
def test_mean_inputs_are_those_of_the_simulation(pool: str) -> None:
    snn, _ = small_snn(pool=pool)
    images = pictures(3)
    engine = Recording(snn)
    engine.run(images)
    rates = kept(snn, None, images).sent
    layers = dict(neuron_inputs(in_double(snn.graph), images, rates))
    by_name = {node.name: value for node, value in layers.items()}
    for node, steps in engine.received.items():
        if node.name in by_name:
            mean = torch.stack([current.double() for (current,) in steps]).mean(0)
            assert torch.allclose(mean, by_name[node.name], atol=1e-5), node.name


def test_waiting_for_the_whole_input_leaves_no_unevenness() -> None:
    snn, ann = small_snn(kind="wait", wait=6, timesteps=6 * 4 + 6)
    assert snn.schedule.frames == 6
    for split in kept(snn, ann, pictures(4)).kept.values():
        assert split.causes["unevenness"].abs().max() < 1e-6
    streaming, ann = small_snn(timesteps=6)
    uneven = [split.causes["unevenness"].abs().max() for split in kept(streaming, ann, pictures(4)).kept.values()]
    assert max(uneven) > 0.1


@pytest.mark.parametrize(("unit", "timesteps", "cause"), [(0.05, 64, "clipping"), (6.0, 4, "quantisation")])
def test_the_built_in_cause_is_found(unit: float, timesteps: int, cause: str) -> None:
    snn, ann = small_snn(unit=unit, timesteps=timesteps)
    found = watched(snn, ann, pictures(8)).document()
    assert found is not None
    assert found["culprit"]["cause"] == cause
    assert found["culprit"]["layer"] == found["layers"][0]["name"]


def test_batches_do_not_matter_and_shares_add_up() -> None:
    snn, ann = small_snn(pool="max")
    images = pictures(6)
    one, six = watched(snn, ann, images, 1).records(), watched(snn, ann, images, 6).records()
    for left, right in zip(one, six, strict=True):
        assert left["name"] == right["name"]
        assert sum(left["shares"].values()) == pytest.approx(1.0)
        for cause in CAUSES:
            assert left["causes"][cause] == pytest.approx(right["causes"][cause], abs=1e-9)
    limited = Attribution(snn, ann, images=4)
    watched_run(LayerEngine(snn), images, [limited])
    assert limited.images == 4
    assert limited.begin(images) is None


def with_thresholds(ann: Ann, thresholds: list[Tensor], timesteps: int = 16) -> Snn:
    """`ann`, whose sites have these thresholds in data-flow order."""
    sites_of = [node.name for node, _ in sites(ann.graph)]
    found = {
        name: SiteCalibration(threshold, threshold * 0 + 0.5)
        for name, threshold in zip(sites_of, thresholds, strict=True)
    }
    schedule = Streaming(timesteps, max(site_depths(ann.graph).values()))
    return compile_network(Calibrated(ann, found, schedule, NeuronChoice(), input_bound=8.0))


def one_layer(site: Op) -> Ann:
    """Two inputs that each go to a site of their own, and a classifier."""
    builder = Builder({"input": torch.ones(2, 2)})
    hidden = builder.call(Linear(torch.eye(2), None), builder.inputs["input"], origin=Origin("hidden", "Gemm"))
    active = builder.call(site, hidden, origin=Origin("site", "Sigmoid unit 1"))
    graph = builder.finish([builder.call(Linear(torch.eye(2), None), active, origin=Origin("last", "Gemm"))])
    return Ann(graph, (2,), ("logits",), Source("one", "", "", "test"))


@pytest.mark.parametrize("reference", ["ANN", "limit", "checkpoint"])
def test_what_the_activation_cuts_off_itself_is_no_clipping(reference: str, tmp_path: Path) -> None:
    ann = one_layer(Clip(high=1.0))
    images = torch.tensor([[7.0, 4.0], [1.0, 6.0]])
    snn = with_thresholds(ann, [torch.ones(2)])
    if reference == "checkpoint":
        save_snn(snn, tmp_path / "one.snn")
        snn = load_snn(tmp_path / "one.snn")
    found = watched(snn, ann if reference == "ANN" else None, images).document()
    assert found is not None
    assert found["layers"][0]["causes"]["clipping"] < 1e-9
    assert found["culprit"] is None
    lower = watched(with_thresholds(ann, [torch.full((2,), 0.5)]), None, images).document()
    assert lower is not None
    assert lower["culprit"]["cause"] == "clipping"
    assert lower["culprit"]["size"] == pytest.approx(0.5)


def test_a_channel_that_hardly_ever_fires_does_not_outweigh_the_others() -> None:
    ann = one_layer(Relu())
    images = torch.tensor([[1.0, 2e-4], [0.5, 1e-4]])
    rows = watched(with_thresholds(ann, [torch.tensor([1.0, 1e-6])]), ann, images).document()
    assert rows is not None
    assert rows["layers"][0]["error"] < 1e-3
    assert rows["culprit"] is None


def test_a_layer_that_is_too_quiet_as_a_whole_is_told_apart() -> None:
    snn, ann = small_snn(timesteps=64)
    found = kept(snn, ann, pictures(4))
    for name, split in found.kept.items():
        quiet = Split(split.causes, -0.75 * split.activation, split.activation)
        found.sums[name].zero_()
        with mock.patch.object(found, "splits", lambda name=name, quiet=quiet: iter([(name, quiet)])):
            Attribution.end(found, None)  # type: ignore[arg-type]
    for row in found.records():
        assert row["error"] == pytest.approx(0.75)
        assert row["scaled_error"] == pytest.approx(0.0, abs=1e-6)
    for row in watched(snn, ann, pictures(4)).records():
        assert 0 < row["scaled_error"] <= row["error"] + 1e-9


def test_nothing_watched_and_nothing_wrong() -> None:
    snn, ann = small_snn()
    assert Attribution(snn, ann).document() is None
    for size in (0.0, 0.02):  # 2 % is not much: nobody is to be sent after it
        harmless = [{"name": "a", "origin": "a", "causes": dict.fromkeys(CAUSES, size)}]
        assert culprit(harmless) is None
    assert set(LOCAL) < set(CAUSES)
    assert any(isinstance(op, Neuron) for op in snn.graph.modules())


def test_an_ann_without_the_same_sites_is_not_compared() -> None:
    snn, ann = small_snn()
    other = replace(ann, graph=small_snn(pool="mean")[1].graph)
    assert Attribution(snn, other).reference == "limit"
