"""A conversion for a chip tries only what the chip can run, and says what no choice mends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from snnconvert import OptionError, convert_model
from snnconvert.report.document import load_report
from tests.test_cli_report import snnconvert

SMALL = ("zoo:digits-cnn", "-T", "20", "--calibration", "mse", "--calibration-samples", "64", "--limit", "60", "-q")


def test_auto_takes_what_the_chip_can_run(tmp_path: Path) -> None:
    (tmp_path / "chip.toml").write_text(
        "units_per_spike = 1\nsigned_spikes = false\nkernel = 1\nweight_bits = 8\nstate_bits = 16\n"
    )
    done = snnconvert(*SMALL, "--neuron", "auto", "--target", "chip.toml", "-o", "m.snn", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    document = load_report(tmp_path / "m.json")
    assert {layer["model"] for layer in document["layers"]} == {"if"}
    refused = [row for row in document["candidates"] if not row["eligible"]]
    assert any("chip cannot run it" in row["reason"] for row in refused)
    assert all("ternary" not in row["name"] for row in document["candidates"] if row["eligible"])
    # the kernels are what they are: no choice mends them, and the report lists them
    assert {row["limit"] for row in document["chip"]["violations"]} == {"kernel"}
    assert document["chip"]["runs"][-1]["samples"] == 60
    # what is asked for by name stays, with everything that it breaks in the report
    named = convert_model(
        "zoo:digits-cnn", timesteps=8, schedule="streaming", neuron="ternary", calibration="mse", limit=20,
        target=tmp_path / "chip.toml",
    )  # fmt: skip
    assert {"signed_spikes", "kernel"} == {row["limit"] for row in named.report["chip"]["violations"]}


def test_check_says_what_each_choice_would_break(tmp_path: Path) -> None:
    done = snnconvert("check", "zoo:digits-cnn", "--target", "speck2f", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    chip = json.loads(done.stdout)["chip"]
    broken = {row["name"]: row["broken"] for row in chip["choices"]}
    assert broken["if, streaming"] == 0
    assert broken["ternary, streaming"] > 0
    assert None in broken.values(), "windows that need more steps"
    assert chip["violations"] == []
    shown = snnconvert("check", "zoo:digits-cnn", "--target", "speck2f", folder=tmp_path).stdout
    assert "on speck2f, in 32 steps" in shown
    short = snnconvert("check", "zoo:digits-cnn", "--target", "speck2f", "-T", "4", "--json", folder=tmp_path)
    chip = json.loads(short.stdout)["chip"]
    fewer = {row["name"]: row["broken"] for row in chip["choices"]}
    assert chip["timesteps"] == 4
    assert broken["if, wait 1"] is not None and fewer["if, wait 1"] is None, "waiting takes more than four steps"
    alone = snnconvert("check", "zoo:digits-cnn", "-T", "4", folder=tmp_path)
    assert alone.returncode == 2 and "--target" in alone.stderr


def test_a_chip_that_is_not_known_is_refused_before_the_work(tmp_path: Path) -> None:
    for words in (["zoo:digits-cnn"], ["check", "zoo:digits-cnn"]):
        done = snnconvert(*words, "--target", "no-such-chip", folder=tmp_path)
        assert done.returncode == 2 and "bundled targets" in done.stderr
    with pytest.raises(OptionError, match="target no-such-chip"):
        convert_model("zoo:digits-cnn", target="no-such-chip")
