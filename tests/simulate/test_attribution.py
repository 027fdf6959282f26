from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_networks import pictures, small_snn
from test_operations import Recording
from torch import Tensor

from snnconvert.graph.neuron_ops import Neuron
from snnconvert.graph.types import Ann, Snn
from snnconvert.simulate.attribution import CAUSES, LOCAL, Attribution, culprit, in_double, neuron_inputs
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.simulate.measure import watched_run


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


def test_nothing_watched_and_nothing_wrong() -> None:
    snn, ann = small_snn()
    assert Attribution(snn, ann).document() is None
    exact = [{"name": "a", "origin": "a", "causes": dict.fromkeys(CAUSES, 0.0)}]
    assert culprit(exact) is None
    assert set(LOCAL) < set(CAUSES)
    assert any(isinstance(op, Neuron) for op in snn.graph.modules())


def test_an_ann_without_the_same_sites_is_not_compared() -> None:
    snn, ann = small_snn()
    other = replace(ann, graph=small_snn(pool="mean")[1].graph)
    assert Attribution(snn, other).reference == "limit"
