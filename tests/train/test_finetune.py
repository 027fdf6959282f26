"""Training a converted network on: what it gains, what it refuses, and that an interruption changes nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import snnconvert
from snnconvert.api.network import SpikingNetwork
from snnconvert.compile.network import difference
from snnconvert.data.bundled import dataset_for
from snnconvert.data.selection import calibrated_on, images_for
from snnconvert.errors import DataError, OptionError
from snnconvert.graph.checkpoint import load_snn
from snnconvert.graph.dialect import neurons_of
from snnconvert.graph.walk import walk
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.simulate.step_engine import StepEngine
from snnconvert.tasks import CLASSIFIER
from snnconvert.threads import threads
from snnconvert.train.images import training_images
from snnconvert.train.method import temperature_for
from snnconvert.train.start import _hoyer
from tests.test_tiny import command

TRAIN, TEST, PLAN = dataset_for("digits-cnn")
USUAL = ["--data", "train.npz", "--epochs", "2", "--held-out", "100", "--quiet"]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of two steps that has something to learn, and images that it has not seen."""
    place = tmp_path_factory.mktemp("train")
    stored = np.load(TRAIN)
    np.savez(place / "train.npz", x=stored["x"][:600], y=stored["y"][:600])
    options = {"timesteps": 2, "schedule": "streaming", "calibration": "mse", "calibration_samples": 64, "limit": 200}
    snnconvert.convert_model("zoo:digits-cnn", **options).save(place / "d.snn")
    return place


@pytest.fixture(scope="module")
def tuned(folder: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert command(patch, "finetune", "d.snn", *USUAL, "-o", "e.snn") == 0
    return folder / "e.snn"


def test_a_trained_network_is_better_and_an_ordinary_one(folder: Path, tuned: Path) -> None:
    report = json.loads(tuned.with_suffix(".json").read_text())
    found = report["training"]
    assert found["after"]["accuracy"] > found["before"]["accuracy"]
    assert found["before"]["accuracy"] == json.loads((folder / "d.json").read_text())["fit_curve"]["accuracy"][-1]
    assert found["after"]["accuracy"] == report["fit_curve"]["accuracy"][-1]
    assert found["images"] == 500
    assert found["held_out"] == 100
    assert abs(found["best"] - found["uncompiled"]) <= 1.0  # one image of the hundred: compilation costs nothing
    snn = load_snn(tuned)
    assert difference(snn) == ""
    assert snn.calibration["training"]["method"] == "distill"
    assert snn.calibration["method"] == "mse"
    images = torch.rand(6, *snn.input_shape, generator=torch.Generator().manual_seed(1))
    fast, oracle = LayerEngine(snn).run(images), StepEngine(snn).run(images)
    assert all(torch.equal(fast.spikes[name], oracle.spikes[name]) for name in oracle.spikes)
    assert torch.equal(fast.outputs[0], oracle.outputs[0])
    assert not tuned.with_suffix(".training").exists()


def test_thresholds_and_starts_learn(folder: Path, tuned: Path) -> None:
    before, after = (neurons_of(load_snn(path).graph) for path in (folder / "d.snn", tuned))
    for one, other in zip(before.values(), after.values(), strict=True):
        assert one.threshold.shape == other.threshold.shape
        assert not torch.equal(one.threshold, other.threshold)
        assert not torch.equal(one.initial / one.threshold, other.initial / other.threshold)


def test_a_killed_run_goes_on_to_the_same_bytes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = (
        "import os, signal, sys\n"
        "import torch\n"
        "torch.set_num_threads(3)\n"
        "from snnconvert.train.kept import Kept\n"
        "own, seen = Kept.save, []\n"
        "def save(self, state):\n"
        "    own(self, state)\n"
        "    if state.step > 1:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "Kept.save = save\n"
        "from snnconvert.cli.main import main\n"
        "sys.argv = ['snnconvert', *sys.argv[1:]]\n"
        "main()\n"
    )
    words = ["finetune", "d.snn", *USUAL, "-o", "again.snn"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script, *words], cwd=folder, env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert (folder / "again.training").exists()
    monkeypatch.chdir(folder)
    with threads(3):
        assert command(monkeypatch, *words[:-1], "whole.snn") == 0
    with pytest.raises(OptionError, match=r"again\.training is of an interrupted training that differs in seed"):
        snnconvert.finetune("d.snn", data="train.npz", epochs=2, held_out=100, seed=1, keep="again.training")
    assert command(monkeypatch, *words) == 0
    assert (folder / "again.snn").read_bytes() == (
        folder / "whole.snn"
    ).read_bytes()  # by one thread, had it not begun so


def test_images_of_the_evaluation_are_refused(folder: Path) -> None:
    stored, tested = np.load(folder / "train.npz"), np.load(TEST)
    mixed = np.concatenate([stored["x"][:50], tested["x"][:3], stored["x"][50:60]])
    with pytest.raises(DataError, match=r"3 of the 63 images in .* are also in .*number 50, 51, 52") as caught:
        snnconvert.finetune(folder / "d.snn", data=mixed, epochs=1)
    assert "evaluation_data" in caught.value.hint
    with pytest.raises(DataError, match="too few to train on"):
        snnconvert.finetune(folder / "d.snn", data=mixed[:5], epochs=1)


@pytest.mark.usefixtures("tables")
def test_images_that_calibrated_choose_no_network(folder: Path) -> None:
    """The network is fitted to them: held out, they would prefer it to whatever is learned."""
    snn = load_snn(folder / "d.snn")
    stored = np.load(TRAIN)
    data = images_for(SpikingNetwork.of(snn), str(TRAIN), None)
    known = calibrated_on(snn, data)
    assert known is not None
    assert len(known) == 64
    assert known.fingerprint() == snn.calibration["fingerprint"]
    chosen: dict[str, Any] = {"held_out": 200, "augment": "none", "seed": snn.calibration["seed"]}
    found = training_images(data, None, calibrated=known, **chosen)
    assert len(found.held_out) == 200
    assert len(found.learned) + len(found.held_out) == len(stored["x"])
    assert not set(found.held_out.digests()) & set(known.digests())
    assert set(training_images(data, None, **chosen).held_out.digests()) & set(known.digests())
    alone = training_images(known, None, calibrated=known, held_out=12, augment="none", seed=0)
    assert len(alone.held_out) == 12  # there are no others


def test_images_are_mixed_with_at_most_half_of_another(folder: Path) -> None:
    snn = load_snn(folder / "d.snn")
    data = images_for(SpikingNetwork.of(snn), str(TRAIN), None)
    plain, mixed = (
        training_images(data, None, held_out=200, augment=how, seed=1).batch(3, 32) for how in ("none", "mix")
    )
    moved, others = mixed.images - plain.images, plain.images.roll(1, 0) - plain.images
    share = (moved * others).flatten(1).sum(1) / others.square().flatten(1).sum(1)
    torch.testing.assert_close(moved, share[:, None, None, None] * others, atol=1e-5, rtol=0)
    assert 0 <= float(share.min()) < 0.1
    assert 0.4 < float(share.max()) <= 0.5
    assert plain.labels is not None
    assert mixed.labels is not None
    assert torch.equal(mixed.labels, plain.labels)


@pytest.mark.parametrize(("ahead", "expected"), [(1.0, 0.3), (2.5, 0.75), (100.0, 3.0), (0.0, 3.0)])
def test_the_temperature_follows_how_sure_the_teacher_is(ahead: float, expected: float) -> None:
    answers = torch.zeros(5, 10)
    answers[:, 3] = ahead
    assert temperature_for([answers], CLASSIFIER) == pytest.approx(expected)
    assert temperature_for([answers[:, :1]], CLASSIFIER) == 3.0


def test_neurons_without_a_derivative_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from snnconvert.neurons import NEURONS

    monkeypatch.setitem(NEURONS, "own", NEURONS["if"])  # so that it is gone afterwards
    del NEURONS["own"]

    def fire(state: snnconvert.State, threshold: torch.Tensor, levels: int) -> tuple[torch.Tensor, snnconvert.State]:
        spikes = (state.v >= levels * threshold).to(state.v.dtype)
        return spikes, snnconvert.State(state.v - threshold * spikes, None)

    options = {"timesteps": 2, "schedule": "streaming", "calibration": "mse", "limit": 50}
    model = snnconvert.NeuronModel("own", fire, range=lambda _: (0, 1), source="a test")
    snnconvert.register_neuron(model)
    snn = snnconvert.convert_model("zoo:digits-cnn", neuron="own", **options).snn
    with pytest.raises(OptionError, match=r"the own neurons at .* their model has no surrogate") as caught:
        snnconvert.finetune(snn, data=str(folder / "train.npz"), epochs=1)
    assert "surrogate" in caught.value.hint
    known = replace(NEURONS["own"], surrogate=lambda v, threshold, _: (v > threshold / 2).float())
    NEURONS["own"] = known
    found = snnconvert.finetune(snn, data=str(folder / "train.npz"), epochs=0.1)
    assert found.report["training"]["steps"] > 0
    snn = snnconvert.convert_model("zoo:digits-cnn", neuron="if-zero", **options).snn
    with pytest.raises(OptionError, match="resets to zero"):
        snnconvert.finetune(snn, data=str(folder / "train.npz"), epochs=1)
    snn = snnconvert.convert_model("zoo:digits-cnn", **{**options, "schedule": "bistable", "timesteps": 16}).snn
    with pytest.raises(OptionError, match="do not fire step by step"):
        snnconvert.finetune(snn, data=str(folder / "train.npz"), epochs=1)


def test_options_that_do_not_fit_are_refused(folder: Path, tuned: Path) -> None:
    with pytest.raises(OptionError, match="minutes 1 and epochs 1 both say when to stop"):
        snnconvert.finetune(folder / "d.snn", data=str(folder / "train.npz"), epochs=1, minutes=1)
    with pytest.raises(OptionError, match="finetune has no argument 'epoch'"):
        snnconvert.finetune(folder / "d.snn", data=str(folder / "train.npz"), epoch=1)
    snn = snnconvert.load(tuned)
    snnconvert.save(snn, folder / "alone.snn", original=False)
    with pytest.raises(OptionError, match="does not hold the original network"):
        snnconvert.finetune(folder / "alone.snn", data=str(folder / "train.npz"), epochs=1)


def test_other_steps_and_another_teacher(folder: Path) -> None:
    found = snnconvert.finetune(
        folder / "d.snn", data=str(folder / "train.npz"), epochs=1, timesteps=1, teacher="zoo:digits-cnn", limit=100
    )
    training = found.report["training"]
    assert found.snn.timesteps == training["after"]["timesteps"] == 1
    assert training["before"]["timesteps"] == 2
    assert training["threshold_scale"] != 1
    assert training["after"]["accuracy"] > 50


def test_a_single_step_may_start_at_the_hoyer_extremum(folder: Path) -> None:
    """theta / Omega is |x|_2^2 / |x|_1 of every channel's clipped activations."""
    calibrated = snnconvert.load(folder / "d.snn").calibrated
    assert calibrated is not None
    images = torch.rand(9, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    found, node = _hoyer(calibrated, images), next(iter(calibrated.sites))
    x = next(step.value for step in walk(calibrated.network.graph, images) if step.node.name == node)
    threshold = calibrated.sites[node].threshold
    for channel in range(x.shape[1]):
        values = x[:, channel].clamp(min=0).minimum(threshold[channel])
        if float(values.sum()) > 0:
            expected = values.square().sum() / values.sum()
            torch.testing.assert_close((threshold * found[node])[channel].squeeze(), expected, rtol=1e-4, atol=1e-6)


def test_a_stopped_clock_ends_a_run_of_minutes(folder: Path) -> None:
    found = snnconvert.finetune(folder / "d.snn", data=str(folder / "train.npz"), minutes=0.02, limit=100)
    training = found.report["training"]
    assert 1.2 <= training["seconds"] < 60
    assert training["history"][-1]["seconds"] >= 1.2
