"""Training methods: what they fold, what they differentiate, and that each is trained and written like any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import snnconvert
from snnconvert.api.network import SpikingNetwork
from snnconvert.compile.network import compile_network, difference
from snnconvert.data.bundled import dataset_for
from snnconvert.errors import OptionError
from snnconvert.graph.checkpoint import load_snn, save_snn
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.tasks import CLASSIFIER
from snnconvert.train import TRAINING_METHODS
from snnconvert.train.images import Batch
from snnconvert.train.methods.amplitude import TernaryAmplitude
from snnconvert.train.methods.batch_norm import BatchNorm
from snnconvert.train.methods.hybrid_code import HybridCode
from snnconvert.train.methods.progressive import Progressive
from snnconvert.train.methods.single_spike import earliness
from snnconvert.train.options import FineTuning
from snnconvert.train.rates import _Represented, over_means, represented, sent
from snnconvert.train.scratch import draw
from snnconvert.train.student import Site, Student, as_neurons

TRAIN, _, _ = dataset_for("digits-cnn")
IMAGES = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def snn() -> SpikingNetwork:
    options: dict[str, Any] = {"timesteps": 3, "schedule": "streaming", "calibration": "mse", "limit": 100}
    return snnconvert.convert_model("zoo:digits-cnn", **options).snn


@pytest.fixture(scope="module")
def with_joins() -> SpikingNetwork:
    options: dict[str, Any] = {"timesteps": 3, "schedule": "streaming", "calibration": "mse", "limit": 100}
    return snnconvert.convert_model("zoo:digits-resnet", neuron="ternary", **options).snn


def student_of(snn: SpikingNetwork) -> Student:
    assert snn.calibrated is not None
    return Student(snn.calibrated, snn.schedule)


def apart(one: Tensor, other: Tensor) -> float:
    """The largest difference, as a share of the largest value."""
    return float((one - other).abs().max() / other.abs().max())


@pytest.mark.parametrize("network", ["snn", "with_joins"])
def test_batch_normalisation_folds(network: str, request: pytest.FixtureRequest) -> None:
    student = student_of(request.getfixturevalue(network))
    with torch.no_grad():
        plain = student(IMAGES)[0]
    method = BatchNorm(student, CLASSIFIER, FineTuning(method="tdbn"))
    method.prepare(IMAGES)
    assert len(method.norms) >= 3
    with torch.no_grad():
        torch.testing.assert_close(student(IMAGES)[0], plain, rtol=1e-5, atol=1e-5)  # nothing changes at first
        for norm in method.norms.values():
            norm.gain.mul_(1.2)
            norm.shift.add_(0.05)
    student(IMAGES)[0].sum().backward()  # moves the running statistics
    assert all(norm.gain.grad is not None for norm in method.norms.values())
    with torch.no_grad():
        normed = student(IMAGES)[0]
        again = Student(method.folded(student.trained(IMAGES)), student.schedule)
        assert float((normed - plain).abs().max()) > 1e-2
        assert apart(again(IMAGES)[0], normed) <= 1e-5


def test_amplitudes_fold(with_joins: SpikingNetwork, tmp_path: Path) -> None:
    """Into weights, and into scales where an identity joins."""
    student = student_of(with_joins)
    with torch.no_grad():
        plain = student(IMAGES)[0]
    method = TernaryAmplitude(student, CLASSIFIER, FineTuning(method="ternary"))
    method.prepare(IMAGES)
    with torch.no_grad():
        for index, gain in enumerate(method.extra.values()):
            gain.add_(0.1 * (index % 3) - 0.05)
        learned = student(IMAGES)[0]
    assert float((learned - plain).abs().max()) > 1e-2
    values: dict[str, Tensor] = {}
    compiled = compile_network(method.folded(student.trained(IMAGES)))
    seen = LayerEngine(compiled).run(IMAGES, probe=lambda name, sent: values.update({name: sent}))
    steps = seen.outputs[0].diff(dim=0, prepend=torch.zeros(1, *learned.shape[1:], dtype=torch.float64))
    assert apart(steps.float(), learned) <= 1e-5
    assert {int(one) for sent in values.values() for one in sent.unique()} == {-1, 0, 1}
    save_snn(compiled, tmp_path / "a.snn")
    again = load_snn(tmp_path / "a.snn")
    assert difference(again) == ""
    with torch.no_grad():  # and who trains on starts from there
        torch.testing.assert_close(student_of(SpikingNetwork.of(again))(IMAGES)[0], learned, rtol=1e-5, atol=1e-5)
    with pytest.raises(OptionError, match="these were trained by method ternary"):
        snnconvert.finetune(SpikingNetwork.of(again), data=str(TRAIN), method="dsr", epochs=1)


def test_rates_are_differentiated_as_clipped_means() -> None:
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(6, 4, dtype=torch.float64, generator=generator)
    found = []
    for ours in (True, False):
        current = torch.linspace(-1, 2, 24, dtype=torch.float64).view(6, 4).requires_grad_()
        top = torch.full((4,), 0.9, dtype=torch.float64).requires_grad_()
        clipped = torch.minimum(current.clamp(min=0), top.expand(6, 4))
        rate: Tensor = _Represented.apply(current, top, clipped.detach(), True, False) if ours else clipped  # type: ignore[no-untyped-call]
        (rate * weights).sum().backward()
        found.append((rate.detach(), current.grad, top.grad))
    torch.testing.assert_close(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1])
    torch.testing.assert_close(found[0][2], found[1][2], rtol=1e-6, atol=1e-6)


def test_memory_of_rates_does_not_grow_with_time(snn: SpikingNetwork) -> None:
    assert snn.calibrated is not None
    kept = []
    for frames in (4, 20):
        student = Student(snn.calibrated, type(snn.schedule)(frames, snn.schedule.depth))
        seen: dict[int, int] = {}

        def pack(one: Tensor, seen: dict[int, int] = seen) -> Tensor:
            seen[one.untyped_storage().data_ptr()] = one.untyped_storage().nbytes()
            return one

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda one: one):
            means, outputs = sent(student, IMAGES)
            carried = over_means(student, IMAGES, means, represented)
        torch.testing.assert_close(carried[0], outputs[0], rtol=1e-4, atol=1e-4)  # a linear read-out of the same means
        kept.append(sum(seen.values()))
    assert kept[1] <= 1.05 * kept[0]


@pytest.fixture(scope="module")
def of_other_neurons() -> dict[str, SpikingNetwork]:
    """For methods that are for one kind of neuron."""
    options: dict[str, Any] = {"schedule": "streaming", "calibration": "mse", "limit": 100, "read_from": 0}
    wanted = {"hybrid-code": {"neuron": "burst", "timesteps": 2}, "single-spike": {"neuron": "single", "timesteps": 3}}
    return {name: snnconvert.convert_model("zoo:digits-cnn", **options, **own).snn for name, own in wanted.items()}


@pytest.mark.parametrize("method", sorted(set(TRAINING_METHODS) - {"distill"}))
def test_every_method_trains_and_is_written(
    method: str, snn: SpikingNetwork, with_joins: SpikingNetwork, of_other_neurons: dict[str, SpikingNetwork]
) -> None:
    snn = of_other_neurons.get(method, with_joins if method == "ternary" else snn)
    found = snnconvert.finetune(snn, data=str(TRAIN), method=method, epochs=0.15, limit=50, held_out=100)
    training = found.report["training"]
    assert training["method"] == method
    assert training["source"]
    assert abs(training["best"] - training["uncompiled"]) <= 1.0
    assert found.snn.calibration["training"]["method"] == method


def test_neurons_of_one_spike_fire_once_and_learn_from_scratch(of_other_neurons: dict[str, SpikingNetwork]) -> None:
    snn, drawn = of_other_neurons["single-spike"], {"from_scratch": True, "learning_rate": 5e-3}
    options: dict[str, Any] = {"method": "single-spike", "epochs": 4, "held_out": 100, "limit": 200, **drawn}
    found = snnconvert.finetune(snn, data=str(TRAIN), **options)
    training = found.report["training"]
    assert training["history"][0]["score"] < 40  # nothing is known at first
    assert training["details"]["most_spikes_of_a_neuron"] == 1
    assert 0 < training["details"]["spikes_per_neuron"] < 1
    assert training["after"]["accuracy"] > 70
    seen: dict[str, Tensor] = {}
    LayerEngine(found.snn).run(IMAGES, probe=lambda name, sent: seen.update({name: sent.sum(0)}))
    assert {int(one) for count in seen.values() for one in count.unique()} == {0, 1}
    with pytest.raises(OptionError, match="not burst") as caught:
        snnconvert.finetune(of_other_neurons["hybrid-code"], data=str(TRAIN), method="single-spike", epochs=1)
    assert "neuron single" in caught.value.hint


def test_a_time_readout_prefers_what_comes_early() -> None:
    outputs = torch.zeros(4, 1, 2)
    outputs[0, 0, 0] = outputs[3, 0, 1] = 1.0
    torch.testing.assert_close(earliness(outputs), torch.tensor([[0.4, 0.1]]))
    torch.testing.assert_close(earliness(torch.ones(4, 1, 2)), torch.ones(1, 2))


def test_layers_of_bursts_learn_from_their_own_targets(of_other_neurons: dict[str, SpikingNetwork]) -> None:
    """A layer's weights are moved by its own target alone, and the read-out's by the answer."""
    student = student_of(of_other_neurons["hybrid-code"])
    method = HybridCode(student, CLASSIFIER, FineTuning(method="hybrid-code"))
    method.prepare(IMAGES)
    goal, gradients = torch.randn(len(IMAGES), 10, generator=torch.Generator().manual_seed(1)), []
    for factor in (1.0, 3.0):
        for one in student.parameters().values():
            one.grad = None
        method.loss(Batch(IMAGES, None), [factor * goal]).backward()  # type: ignore[no-untyped-call]
        gradients.append({name: one.grad.clone() for name, one in student.parameters().items() if one.grad is not None})
    changed = [name for name, one in gradients[0].items() if not torch.allclose(one, gradients[1][name])]
    assert {name.rsplit(".", 1)[0] for name in changed} == {student.outputs[0].name}
    assert len(gradients[0]) == len(student.parameters())


def test_layers_that_spike_are_frozen_one_after_the_other(snn: SpikingNetwork) -> None:
    student = student_of(snn)
    method = Progressive(student, CLASSIFIER, FineTuning(method="progressive"))
    method.prepare(IMAGES)
    layers = [name for name in student.parameters() if name.endswith(".weight")]
    assert len(layers) == len(student.sites) + 1
    for stage in range(1, len(layers)):
        assert method.stage == stage
        for one in student.parameters().values():
            one.grad = None
        goal = [torch.randn(len(IMAGES), 10, generator=torch.Generator().manual_seed(stage))]
        method.loss(Batch(IMAGES, None), goal).backward()  # type: ignore[no-untyped-call]
        learned = student.parameters()
        assert [learned[name].grad is not None for name in layers] == [at >= stage for at in range(len(layers))]
        thresholds = [site.threshold.detach().clone() for site in student.sites.values()]
        with torch.no_grad():
            for name in layers[stage:]:
                learned[name].mul_(2)  # currents grow, and so does the threshold that is next
        method.after_step(stage / len(student.sites))
        grown = [
            float((site.threshold / old).mean()) for site, old in zip(student.sites.values(), thresholds, strict=True)
        ]
        assert grown[:stage] == pytest.approx([1] * stage)
        if stage < len(grown):
            assert grown[stage] > 1.3


def test_weights_drawn_anew_make_currents_of_the_thresholds_size(with_joins: SpikingNetwork) -> None:
    student = student_of(with_joins)
    before = {name: one.detach().clone() for name, one in student.parameters().items()}
    draw(student, IMAGES, seed=3)
    after = student.parameters()
    assert not student.after
    for name, one in after.items():
        changed = not torch.equal(one, before[name])
        assert changed == name.endswith((".weight", ".bias")), name
    again = student_of(with_joins)
    draw(again, IMAGES, seed=3)
    assert all(torch.equal(one, after[name]) for name, one in again.parameters().items())
    currents: list[float] = []

    def fire(node: Any, site: Site, current: Tensor, constant: bool) -> Tensor:
        currents.append(float(current.std() / site.start.mean()))
        return as_neurons(node, site, current, constant)

    student.fire = fire
    with torch.no_grad():
        outputs = student(IMAGES)[0]
    assert all(0.5 < one < 2 for one in currents), currents
    assert 0.5 < float(outputs.std()) < 2


def test_one_p_for_all_thresholds(snn: SpikingNetwork) -> None:
    found = snnconvert.finetune(snn, data=str(TRAIN), method="rnl", omega=10.0, epochs=0.5, limit=50, held_out=100)
    details = found.report["training"]["details"]
    assert 0 < details["p"] < 1
    assert snn.calibrated is not None
    assert found.snn.calibrated is not None
    ratios = [found.snn.calibrated.sites[name].threshold / one.threshold for name, one in snn.calibrated.sites.items()]
    for ratio in ratios:
        torch.testing.assert_close(ratio, torch.full_like(ratio, details["p"]), rtol=1e-4, atol=1e-4)
    with pytest.raises(OptionError, match="method ternary is for ternary neurons"):
        snnconvert.finetune(snn, data=str(TRAIN), method="ternary", epochs=1)
    with pytest.raises(OptionError, match="omega means nothing to method distill") as caught:
        snnconvert.finetune(snn, data=str(TRAIN), omega=10.0, epochs=1)
    assert "rnl" in caught.value.hint


def test_synapses_go_until_few_are_left(snn: SpikingNetwork) -> None:
    options: dict[str, Any] = {"method": "rewire", "connectivity": 0.6, "epochs": 3, "limit": 50, "held_out": 100}
    found = snnconvert.finetune(snn, data=str(TRAIN), **options)
    details = found.report["training"]["details"]
    weights = [one for name, one in found.snn.graph.named_buffers() if name.endswith("weight")]
    left = sum(int((one != 0).sum()) for one in weights) / sum(one.numel() for one in weights)
    assert left == pytest.approx(details["connectivity"], abs=1e-3)
    assert 0.5 < left < 0.7
    assert found.report["training"]["after"]["accuracy"] > 80
