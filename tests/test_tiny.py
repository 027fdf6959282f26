"""The whole main path in seconds, on the bundled network: convert, save, load, run, report, determinism."""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from snnconvert import convert_model
from snnconvert.cli.main import main
from snnconvert.graph.checkpoint import load_snn
from snnconvert.pipeline import Request, run
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.simulate.step_engine import StepEngine


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the command line in this process and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["snnconvert", *arguments])
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        arguments = ["zoo:digits-resnet", "-T", "16", "--calibration-samples", "128", "--limit", "200", "--quiet"]
        arguments += ["--schedule", "streaming"]
        assert command(patch, *arguments) == 0
    return folder


def test_the_bundled_network_keeps_its_accuracy(converted: Path) -> None:
    report = json.loads((converted / "digits-resnet.json").read_text())
    assert report["evaluation"]["samples"] == 200
    assert report["ann"]["accuracy"] >= 97
    curve = report["fit_curve"]
    assert curve["timesteps"] == list(range(1, 17))
    assert curve["accuracy"][-1] >= report["ann"]["accuracy"] - 2
    first = report["latency"]["first_output"]
    assert first == report["schedule"]["read_from"] + 1 < 16
    assert curve["accuracy"][: first - 1] == [None] * (first - 1)
    assert curve["accuracy"][first - 1] <= curve["accuracy"][-1]
    spikes = curve["spikes_per_image"]
    assert all(later > earlier > 0 for earlier, later in pairwise(spikes))
    assert report["latency"] == {"window": 16, "first_output": first, "total": 16, "asked": 16}


def test_a_checkpoint_reproduces_its_accuracies(
    converted: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from snnconvert.data.bundled import dataset_for

    _, test, _ = dataset_for("digits-resnet")
    arguments = ["run", str(converted / "digits-resnet.snn"), "--data", str(test), "--json", "--batch-size", "7"]
    assert command(monkeypatch, *arguments) == 0
    figures = json.loads(capsys.readouterr().out)
    report = json.loads((converted / "digits-resnet.json").read_text())
    assert figures["same_as_conversion"] is True
    assert figures["fit_curve"]["accuracy"] == report["fit_curve"]["accuracy"]
    assert figures["fit_curve"]["spikes_per_image"] == report["fit_curve"]["spikes_per_image"]


def test_engines_agree_on_the_saved_network(converted: Path) -> None:
    snn = load_snn(converted / "digits-resnet.snn")
    images = torch.rand(5, *snn.input_shape, generator=torch.Generator().manual_seed(1))
    fast, oracle = LayerEngine(snn).run(images), StepEngine(snn).run(images)
    assert all(torch.equal(fast.spikes[name], oracle.spikes[name]) for name in oracle.spikes)
    assert fast.spikes.keys() == oracle.spikes.keys()
    assert torch.equal(fast.outputs[0], oracle.outputs[0])


def test_calibration_does_not_depend_on_order_or_batch_size(tmp_path: Path) -> None:
    import numpy as np

    from snnconvert.data.bundled import dataset_for

    train, test, preprocessing = dataset_for("digits-resnet")
    stored = np.load(train)
    order = np.random.default_rng(3).permutation(200)
    results = []
    for name, index in (("forward", np.arange(200)), ("shuffled", order)):
        np.savez(tmp_path / f"{name}.npz", x=stored["x"][:200][index], y=stored["y"][:200][index])
        for method in ("rnl", "mse", "percentile"):
            outcome = run(
                Request(
                    model="zoo:digits-resnet",
                    timesteps=8,
                    data=str(test),
                    calibration_data=str(tmp_path / f"{name}.npz"),
                    calibration_samples=200,
                    calibration=method,
                    preprocessing=preprocessing,
                    batch_size=32 if name == "forward" else 5,
                    limit=60,
                )
            )
            tensors = dict(outcome.snn.graph.state_dict())
            results.append((name, method, tensors, outcome.evaluation.curve.correct))
    for (_, method, first, correct), (_, other, second, again) in zip(results[:3], results[3:], strict=True):
        assert method == other
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first), method
        assert correct == again


def test_auto_tries_every_schedule_that_fits() -> None:
    outcome = run(
        Request(model="zoo:digits-resnet", timesteps=20, calibration="mse", calibration_samples=64, limit=100)
    )
    rows = outcome.snn.calibration["schedules"]
    names = [row["name"] for row in rows]
    assert {"streaming", "wait 1"} < set(names)
    assert any("window 2" in name for name in names)
    assert [row["name"] for row in rows if not row["eligible"]] == [f"bistable, window {k}" for k in range(4, 9)]
    assert all(row["reason"] for row in rows if not row["eligible"])
    (chosen,) = [row for row in rows if row["chosen"]]
    assert chosen["agreement"] == max(row["agreement"] for row in rows if row["eligible"])
    assert outcome.snn.schedule.to_dict() == chosen["schedule"]


def test_a_module_is_converted_and_left_alone() -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Flatten(),
        torch.nn.Linear(4 * 64, 3),
    )  # fmt: skip
    before = {name: value.clone() for name, value in module.state_dict().items()}
    snn = convert_model(module, input_shape=(1, 8, 8), timesteps=4, calibration_samples=16).snn
    assert module.training
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert snn.schedule.timesteps == 4
    assert len(list(snn.graph.graph.nodes)) > 3


def test_an_interrupted_run_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("snnconvert.pipeline.measured", interrupt)
    assert command(monkeypatch, "zoo:digits-cnn", "-T", "2", "--calibration-samples", "8", "--quiet") == 130
    assert list(tmp_path.iterdir()) == []
    assert "interrupted" in capsys.readouterr().err


def test_an_interrupted_zoo_says_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    (tmp_path / "zoo.toml").write_text('[[model]]\nsource = "zoo:digits-cnn"\n')
    monkeypatch.setattr("snnconvert.zoo.commands.run_zoo", interrupt)
    monkeypatch.setattr("sys.argv", ["snnconvert", "zoo", "run", str(tmp_path / "zoo.toml")])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 130
    said = capsys.readouterr().err
    assert "finished models are kept in zoo-out" in said
    assert "no checkpoint" not in said


def test_without_data_nothing_is_claimed() -> None:
    from snnconvert.data.bundled import model_path

    outcome = run(Request(model=str(model_path("digits-resnet")), timesteps=4, calibration_samples=32))
    assert outcome.evaluation.ann_correct is None
    assert all(value is None for value in outcome.evaluation.curve.correct)
    assert outcome.snn.calibration["synthetic"] is True
    assert any("no data was given" in note for note in outcome.inputs.notes)


def test_a_damaged_checkpoint_is_refused(converted: Path, tmp_path: Path) -> None:
    from snnconvert.errors import ModelFileError

    good = (converted / "digits-resnet.snn").read_bytes()
    half = len(good) // 2
    for name, content in {
        "flipped": good[: len(good) - 100] + bytes([good[-100] ^ 1]) + good[-99:],
        "truncated": good[:half],
        "stride": good.replace(b'\\"stride\\": [2, 2]', b'\\"stride\\": [1, 2]', 1),
    }.items():
        assert content != good, name
        path = tmp_path / f"{name}.snn"
        path.write_bytes(content)
        with pytest.raises(ModelFileError):
            load_snn(path)


def test_the_example_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    convert_model("zoo:digits-cnn", timesteps=2, calibration="mse", calibration_samples=16, limit=20).save("m.snn")
    assert load_snn("m.snn").schedule.timesteps == 2


def test_an_unknown_option_is_named() -> None:
    from snnconvert.errors import OptionError

    with pytest.raises(OptionError, match="no argument 'bogus'"):
        convert_model("zoo:digits-cnn", bogus=1)


def test_one_network_for_several_steps_is_compared_with_one_for_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["zoo:digits-resnet", "-T", "6", "--calibrate-for", "3", "--early-exit", "0.95", "--limit", "40"]
    assert command(monkeypatch, *arguments, "--calibration-samples", "48", "--quiet") == 0
    report = json.loads((tmp_path / "digits-resnet.json").read_text())
    section = report["anytime"]
    assert section["calibrated_for"] == [3, 6]
    assert [row["t"] for row in section["rows"]] == [3, 6]
    for row in section["rows"]:
        assert row["this"]["accuracy"] == report["fit_curve"]["accuracy"][row["t"] - 1]
        assert not row["own"]["same"]
        assert row["own"]["spikes_per_image"] != row["this"]["spikes_per_image"]
    early_exit = load_snn(tmp_path / "digits-resnet.snn").early_exit
    assert early_exit is not None
    assert early_exit.share == 0.95
    assert sum(report["early_exit"]["images"]) == 40
