"""A calibration method is a function, its options and a row of METHODS: one that is defined here runs end to end."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from snnconvert.calibrate import METHODS, Method
from snnconvert.calibrate.observe import ranges
from snnconvert.calibrate.task import Task
from snnconvert.cli.main import app
from snnconvert.errors import OptionError
from snnconvert.graph.checkpoint import load_snn
from snnconvert.graph.dialect import neurons_of
from snnconvert.graph.types import Calibrated
from snnconvert.options import made, option
from snnconvert.pipeline import Request, run
from snnconvert.report.document import load_report
from snnconvert.request import check_request
from snnconvert.zoo.manifest import load_manifest


@dataclass(frozen=True)
class Largest:
    """Of `--calibration largest`."""

    times: float = option(1.0, "Thresholds are this many times the largest activation.", above=0)


def calibrate_largest(task: Task) -> Calibrated:
    times = made(Largest, task.options).times
    found, _ = ranges(task.ann.graph, task.images, task.progress)
    sites = {name: task.site(times * site.largest, site) for name, site in found.items()}
    return task.calibrated(task.ann.graph, sites, {"method": "largest", "options": {"times": times}, "candidates": []})


@pytest.fixture(autouse=True)
def _row(monkeypatch: pytest.MonkeyPatch) -> None:
    row = Method("the largest activation", Largest, f"{__name__}:calibrate_largest", costly=True)
    monkeypatch.setitem(METHODS, "largest", row)


def test_the_command_line_converts_with_it(tmp_path: Path) -> None:
    output = tmp_path / "m.snn"
    words = ["zoo:digits-cnn", "--calibration", "largest", "-T", "8", "--calibration-samples", "160", "--limit", "40"]
    done = CliRunner().invoke(app, ["convert", *words, "-o", str(output)])
    assert done.exit_code == 0, done.output
    document = load_report(output.with_suffix(".json"))
    assert document["calibration"]["method"] == "largest"
    # several schedules were compared, and as the row says that it is costly, on fewer images
    assert len([row for row in document["candidates"] if row["eligible"]]) > 1
    snn = load_snn(output)
    assert snn.calibrated is not None
    assert snn.calibrated.record["options"] == {"times": 1.0}
    done = CliRunner().invoke(
        app, ["run", str(output), "--data", "zoo:digits-cnn", "--schedule", "streaming", "-T", "4", "--json"]
    )
    assert done.exit_code == 0, done.output
    assert len(json.loads(done.stdout)["fit_curve"]["timesteps"]) == 4


def test_its_options_are_its_own() -> None:
    given = {"schedule": "streaming", "timesteps": 8, "calibration_samples": 32, "limit": 40}
    once, twice = (
        run(Request("zoo:digits-cnn", calibration="largest", options={"times": times}, **given)).snn  # type: ignore[arg-type]
        for times in (1.0, 2.0)
    )
    pairs = list(zip(neurons_of(once.graph).values(), neurons_of(twice.graph).values(), strict=True))
    assert pairs
    for one, other in pairs:
        assert torch.allclose(2 * one.threshold, other.threshold)


def test_what_does_not_fit_is_refused_and_a_manifest_takes_it(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"options\.times 0 is not a number above 0"):
        check_request(Request("m.onnx", calibration="largest", options={"times": 0}))
    with pytest.raises(OptionError, match=r"options\.times means nothing to --calibration mse") as caught:
        check_request(Request("m.onnx", calibration="mse", options={"times": 1}))
    assert caught.value.hint == "add --calibration largest"
    path = tmp_path / "zoo.toml"
    path.write_text('[[model]]\nsource = "m.onnx"\ncalibration = "largest"\noptions = { times = 1.5 }\n')
    assert load_manifest(path).entries[0].options == {"calibration": "largest", "options": {"times": 1.5}}
