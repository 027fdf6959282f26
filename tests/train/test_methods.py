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
from snnconvert.train.methods.amplitude import TernaryAmplitude
from snnconvert.train.methods.batch_norm import BatchNorm
from snnconvert.train.options import FineTuning
from snnconvert.train.rates import _Represented, over_means, represented, sent
from snnconvert.train.student import Student

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
        torch.testing.assert_close(again(IMAGES)[0], normed, rtol=1e-5, atol=1e-4)


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
    torch.testing.assert_close(steps.float(), learned, rtol=1e-4, atol=1e-4)
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


@pytest.mark.parametrize("method", sorted(set(TRAINING_METHODS) - {"distill"}))
def test_every_method_trains_and_is_written(method: str, snn: SpikingNetwork, with_joins: SpikingNetwork) -> None:
    snn = with_joins if method == "ternary" else snn
    found = snnconvert.finetune(snn, data=str(TRAIN), method=method, epochs=0.15, limit=50, held_out=100)
    training = found.report["training"]
    assert training["method"] == method
    assert training["source"]
    assert abs(training["best"] - training["uncompiled"]) <= 1.0
    assert found.snn.calibration["training"]["method"] == method


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
