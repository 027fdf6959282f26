"""With and without bistable and synchronous neurons, on small residual networks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from random_networks import images, random_ann, random_snn
from small_networks import SHAPE, small_ann
from torch import fx

from snnconvert.calibrate import METHODS, Task
from snnconvert.compile.balance import with_identity_sites
from snnconvert.compile.network import compile_network
from snnconvert.graph.dialect import Builder, calls
from snnconvert.graph.kinds import Add, Conv, Linear, Neuron, Op, Relu, Reshape
from snnconvert.graph.schedule import Bistable
from snnconvert.graph.schedule.timing import site_depths
from snnconvert.graph.types import Ann, NeuronChoice, Origin, Snn, Source
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.study import ablation as module
from snnconvert.study.ablation import Plan, Subject, ablation, nothing_affordable, planned
from snnconvert.study.streaming_twin import TWIN, streaming_twin

IMAGES = torch.rand(12, *SHAPE, generator=torch.Generator().manual_seed(5))
LABELS = np.arange(12) % 3


def residual_ann() -> Ann:
    """A stem, two residual blocks with two layers beside each shortcut, and a classifier."""
    draw, builder = torch.Generator().manual_seed(3), Builder({"input": torch.zeros(2, *SHAPE)})

    def call(op: Op, *inputs: fx.Node) -> fx.Node:
        return builder.call(op, *inputs, origin=Origin(type(op).__name__.lower(), "test"))

    def conv(x: fx.Node) -> fx.Node:
        weight = torch.randn((6, x.meta["shape"][0], 3, 3), generator=draw) * 0.3
        bias = torch.randn(6, generator=draw) * 0.2
        return call(Conv(weight, bias, stride=(1, 1), padding=(1, 1), dilation=(1, 1)), x)

    x = call(Relu(), conv(builder.inputs["input"]))
    for _ in range(2):
        x = call(Relu(), call(Add(), conv(call(Relu(), conv(x))), x))
    x = call(Reshape(shape=(6 * SHAPE[1] * SHAPE[2],)), x)
    x = call(Linear(torch.randn((3, 6 * SHAPE[1] * SHAPE[2]), generator=draw), torch.zeros(3)), x)
    return Ann(builder.finish([x]), SHAPE, ("logits",), Source("residual", "", "", "test"))


def bistable(ann: Ann | None = None, window: int = 5, frames: int = 1) -> tuple[Ann, Snn]:
    ann = ann or residual_ann()
    depth = max(site_depths(ann.graph).values())
    schedule = Bistable((depth + 1 + 2 * (frames - 1)) * window, depth, window=window)
    ann = with_identity_sites(ann, schedule)
    task = Task(ann, IMAGES, schedule, NeuronChoice())
    return ann, compile_network(METHODS["mse"](task))


def measured(ann: Ann, snn: Snn, labels: np.ndarray | None = LABELS) -> dict:  # type: ignore[type-arg]
    reference = ann.graph(IMAGES)[0].argmax(1).numpy()
    subject = Subject(snn, ann, streaming_twin(ann, snn, IMAGES), TWIN)
    return ablation(subject, IMAGES, reference, labels, plan=planned(snn))


def test_inactivated_neurons_fire_before_and_not_after() -> None:
    ann, snn = bistable(window=8)
    found = measured(ann, snn)
    assert len(found["layers"]) == sum(isinstance(op, Neuron) for _, op in calls(snn.graph))
    assert all(layer["after"]["unprovoked"] == 0.0 for layer in found["layers"])
    deep = found["layers"][1:]
    assert all(layer["before"]["unprovoked"] > 0 for layer in deep)
    for key in ("neurons", "units"):
        assert all(layer["after"][key] < 0.1 * layer["before"][key] for layer in deep), key


def test_the_first_row_is_the_network_itself() -> None:
    ann, snn = bistable(window=3)
    found = measured(ann, snn)
    seen = LayerEngine(snn).run(IMAGES)
    right = (seen.outputs[0][-1].argmax(1).numpy() == LABELS).mean()
    first, *others = found["arms"]
    assert first["accuracy"] == pytest.approx(100 * right)
    assert first["spikes_per_image"] == sum(int(of.sum()) for of in seen.spikes.values()) / 12
    assert [(row["neurons"], row["synchronous"]) for row in others] == [
        ("bistable", False),
        ("bistable, alternating from step 0", False),
        ("plain phase coding", True),
        ("plain phase coding", False),
        ("streaming integrate-and-fire", False),
    ]
    # in one window neurons that keep still hear an early shortcut in time; only the synchronous spikes are missing
    assert others[0]["agreement"] == first["agreement"]
    assert others[0]["spikes_per_image"] < first["spikes_per_image"]
    assert len({row["spikes_per_image"] for row in found["arms"]}) == 6


def test_without_labels_and_in_other_chunks_the_figures_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    ann, snn = bistable(frames=2)
    whole = measured(ann, snn)
    monkeypatch.setattr(module, "chunk_size", lambda _: 5)
    assert measured(ann, snn) == whole
    unlabelled = measured(ann, snn, labels=None)
    assert [{**row, "accuracy": None} for row in whole["arms"]] == unlabelled["arms"]


def test_the_twin_clips_where_the_bistable_network_does() -> None:
    ann, snn = bistable(window=4)
    twin = streaming_twin(ann, snn, IMAGES)
    assert (twin.schedule.kind, twin.schedule.timesteps) == ("streaming", snn.schedule.timesteps)
    thresholds = {node.name: op.threshold for node, op in calls(twin.graph) if isinstance(op, Neuron)}
    for node, op in calls(snn.graph):
        if isinstance(op, Neuron):
            assert torch.equal(thresholds[node.name], 15 * op.threshold.float())


def test_what_cannot_be_computed_without_windows_is_said() -> None:
    ann, snn = bistable(small_ann(1, pool="max"))
    found = measured(ann, snn)
    assert "maxpool" in found["left_out"]
    assert [row["neurons"] for row in found["arms"]] == ["bistable", "streaming integrate-and-fire"]
    assert all(layer["after"]["unprovoked"] == 0.0 for layer in found["layers"])


def test_without_joins_there_are_no_synchronous_neurons_to_leave_out() -> None:
    ann, snn = bistable(small_ann(1))
    arms = measured(ann, snn)["arms"]
    assert [row["neurons"] for row in arms] == ["bistable", "plain phase coding", "streaming integrate-and-fire"]
    assert not any(row["synchronous"] for row in arms)


def test_no_neuron_of_a_random_network_fires_against_its_own_input() -> None:
    for seed in range(20):
        snn, _, _ = random_snn(seed, window=3)
        ann, batch = random_ann(seed), images(seed, 3)
        subject = Subject(snn, ann, streaming_twin(ann, snn, batch), TWIN)
        plan = replace(planned(snn), images=3)
        found = ablation(subject, batch, np.zeros(3, np.int64), None, plan=plan)
        assert len(found["arms"]) == len(plan.arms) + 2
        for layer in found["layers"]:
            assert layer["after"]["unprovoked"] == 0.0, (seed, layer["name"])


def test_large_networks_get_fewer_images_then_fewer_arms_then_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    _, snn = bistable()
    assert planned(snn).images == module.MOST_IMAGES
    sizes = []
    for budget in (2.5e7, 1e7, 1e6, 1e5, 1e3):
        monkeypatch.setattr(module, "BUDGET", budget)
        plan = planned(snn)
        assert (plan.left_out is None) == bool(plan.arms)
        sizes.append(plan.images)
    assert plan == Plan(0, (), plan.left_out)
    assert "too large" in str(nothing_affordable(snn, plan)["left_out"])
    assert len(set(sizes)) > 2
