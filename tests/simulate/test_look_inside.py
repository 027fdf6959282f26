from __future__ import annotations

import numpy as np
import pytest
import torch
from small_networks import pictures, small_snn
from torch import Tensor, fx

from snnconvert.graph.kinds import Op
from snnconvert.graph.types import Snn
from snnconvert.report.sections.inside import picture, section_of
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.simulate.measure import watched_run
from snnconvert.simulate.result import Probe, Simulation
from snnconvert.simulate.step_engine import StepEngine
from snnconvert.study.look_inside import EXAMPLE_IMAGES, LookInside


class Traced(StepEngine):
    """Keeps the membrane of every neuron after each step."""

    def run(self, batch: Tensor) -> object:  # type: ignore[override]
        self.traces: dict[str, list[Tensor]] = {}
        return super().run(batch)

    def _step(self, node: fx.Node, op: Op, inputs: list[Tensor], step: int) -> Tensor:
        sent = super()._step(node, op, inputs, step)
        if node.name in self.states and self._emits(node, step):
            self.traces.setdefault(node.name, []).append(self.states[node.name].v[0])
        return sent


def seen(snn: Snn, images: Tensor) -> LookInside:
    found, engine = LookInside(snn), LayerEngine(snn)
    for part in images.chunk(2):
        watched_run(engine, part, [found])
    return found


@pytest.mark.parametrize(("pool", "kind"), [("sum", "streaming"), ("max", "streaming"), ("sum", "wait")])
def test_membranes_are_those_of_the_oracle(pool: str, kind: str) -> None:
    snn, _ = small_snn(pool=pool, kind=kind, timesteps=12, **({"wait": 2} if kind == "wait" else {}))
    images = pictures(4)
    found, oracle = seen(snn, images), Traced(snn)
    oracle.run(images[:1])
    assert len(found.membranes) == 3
    for name, membrane in found.membranes.items():
        threshold = snn.graph.get_submodule(name).get_buffer("threshold")
        expected = torch.stack(oracle.traces[name]) / threshold
        assert torch.allclose(membrane, expected, atol=1e-4), name


def test_spikes_are_unpacked_for_the_first_images_alone() -> None:
    snn, _ = small_snn(timesteps=4)
    found, engine, asked = LookInside(snn), LayerEngine(snn), list[bool]()
    run = engine.run

    def counted(batch: Tensor, probe: Probe | None = None) -> Simulation:
        asked.append(probe is not None)
        return run(batch, probe)

    engine.run = counted  # type: ignore[method-assign]
    for part in pictures(6).chunk(3):
        watched_run(engine, part, [found])
    assert asked == [True, False, False]
    assert len(found.outputs) == 3


def test_section_shows_trains_rates_and_examples() -> None:
    snn, _ = small_snn(timesteps=10)
    images = pictures(8)
    found = seen(snn, images)
    labels = LayerEngine(snn).run(images).outputs[0][-1].argmax(1).numpy().astype(np.int64)
    labels[0] = (labels[0] + 1) % 3
    section = section_of(found, labels, ["ant", "bee", "cat"])
    assert section is not None
    for row in section["neurons"]:
        assert row["rate"][-1] == pytest.approx(sum(row["spikes"]) / 10, abs=1e-4)
        assert len(row["membrane"]) == 10
    for row in section["rates"]:
        assert row["silent"] + sum(row["counts"]) == 4 * found_size(snn, row["layer"])
    kinds = [row["kind"] for row in section["examples"]]
    assert kinds[0] == "right early"
    assert kinds.count("wrong") == 1
    wrong = section["examples"][-1]
    assert wrong["truth"] != wrong["decision"]
    assert wrong["steps"] == list(range(1, 11))
    assert {wrong["truth"], wrong["decision"]} <= {"ant", "bee", "cat"}
    for row in section["raster"]:
        assert all(any(train) for train in row["trains"])


def found_size(snn: Snn, layer: str) -> int:
    (node,) = [node for node in snn.graph.graph.nodes if str(node.meta.get("origin")) == layer]
    return int(np.prod(node.meta["shape"]))


def test_right_late_means_the_last_change_of_mind() -> None:
    snn, _ = small_snn(timesteps=4)
    found = seen(snn, pictures(3))
    sums = torch.zeros(4, 3, 3)
    sums[:, :, 0] = 1.0
    sums[2, 1] = torch.tensor([0.0, 5.0, 0.0])
    sums[:, 2] = torch.tensor([0.0, 5.0, 0.0])
    found.outputs, found.kept = [sums], [pictures(3)]
    early, late, wrong = found.examples(np.zeros(3, np.int64))
    assert (early.kind, early.index, early.settled) == ("right early", 0, 0)
    assert (late.kind, late.index, late.settled) == ("right late", 1, 3)
    assert (wrong.kind, wrong.index, wrong.settled) == ("wrong", 2, None)


def test_enough_is_enough() -> None:
    snn, _ = small_snn()
    found = LookInside(snn)
    found.seen = EXAMPLE_IMAGES
    assert found.begin(pictures(1)) is None
    assert section_of(found, None, None) is None
    assert picture(torch.rand(5)) is None
    text = picture(torch.rand(3, 200, 100))
    assert text is not None
    assert text.startswith("data:image/png;base64,")
