from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from snnconvert.cli.main import main, with_command
from snnconvert.data.bundled import dataset_for
from snnconvert.data.preprocessing import Preprocessing
from snnconvert.graph.checkpoint import load_snn, save_snn
from snnconvert.report.document import faults

DATA = str(dataset_for("digits-cnn")[1])


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


def snnconvert(*arguments: str, folder: Path) -> Done:
    """The command line in this process: exit code and both streams."""
    out, error, code = io.StringIO(), io.StringIO(), 0
    with (
        contextlib.chdir(folder),
        mock.patch.object(sys, "argv", ["snnconvert", *arguments]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(error),
    ):
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
    return Done(code, out.getvalue(), error.getvalue())


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("converted")
    done = snnconvert(
        "zoo:digits-cnn", "-T", "8", "--schedule", "streaming", "--calibration", "percentile",
        "--limit", "60", "--quiet", "--csv", "--markdown", folder=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {path.name for path in folder.iterdir()} == {
        f"digits-cnn{end}" for end in (".snn", ".html", ".json", ".csv", "-layers.csv", ".md")
    }
    return folder


def read(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def test_conversion_reports_energy_causes_and_outcomes(converted: Path) -> None:
    document = read(converted / "digits-cnn.json")
    assert document["energy"]["verdict"]["code"] in ("saves", "does_not_save", "cannot_tell")
    assert document["energy"]["layers"][-1]["name"] == "read-out"
    assert document["attribution"]["reference"] == "ANN"
    assert document["evaluation"]["outcomes"]["ann"]
    assert "energy" in (converted / "digits-cnn.md").read_text("utf-8").split("\n")[2]


def test_headroom_reaches_the_calibration(tmp_path: Path) -> None:
    for given in ([], ["--headroom", "1.25"]):
        done = snnconvert(
            "zoo:digits-cnn", "-T", "4", "--schedule", "streaming", "--calibration", "mse", *given,
            "--calibration-samples", "20", "--limit", "20", "--quiet", "-o", f"{len(given)}.snn", folder=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    without, with_room = (load_snn(tmp_path / f"{count}.snn") for count in (0, 2))
    smaller = 0
    for node in without.graph.graph.nodes:
        if node.op == "call_module" and hasattr(op := without.graph.get_submodule(str(node.target)), "threshold"):
            other = with_room.graph.get_submodule(str(node.target)).threshold
            assert bool((other >= 1.2 * op.threshold).all()), node.name
            smaller += 1
    assert smaller > 0


def test_report_of_a_checkpoint_repeats_the_conversion(converted: Path) -> None:
    done = snnconvert("report", "digits-cnn.snn", "--data", DATA, "--report", "again.html", "--json", folder=converted)
    assert done.returncode == 0, done.stderr
    first, again = read(converted / "digits-cnn.json"), json.loads(done.stdout)
    assert faults(again) == []
    assert again == read(converted / "again.json")
    assert again["fit_curve"] == first["fit_curve"]
    assert again["ann"] == first["ann"]
    assert again["energy"] == first["energy"]
    assert again["attribution"]["reference"] == "limit"
    assert again["evaluation"]["outcomes"]["snn"] == first["evaluation"]["outcomes"]["snn"]
    compared = snnconvert("report", "digits-cnn.json", "again.json", "--json", folder=converted)
    assert {"comparison.html", "comparison.json"} <= {path.name for path in converted.iterdir()}
    assert json.loads(compared.stdout) == read(converted / "comparison.json")
    (row,) = json.loads(compared.stdout)["tests"]
    assert (row["first_only"], row["second_only"], row["p_value"]) == (0, 0, 1.0)


def test_report_on_other_images_claims_nothing_of_the_ann(converted: Path) -> None:
    done = snnconvert(
        "report", "digits-cnn.snn", "--data", DATA, "--limit", "30", "--report", "few.html", "--json", folder=converted
    )
    document = json.loads(done.stdout)
    assert document["ann"]["accuracy"] is None
    assert document["analysis"]["final"]["accuracy"] > 50
    assert document["milestones"]["within_1"] is None


def test_debug_names_the_cause(converted: Path) -> None:
    done = snnconvert("debug", "digits-cnn.snn", "--data", DATA, "--limit", "8", folder=converted)
    assert done.returncode == 0, done.stderr
    assert "The first layer to add much error is" in " ".join(done.stdout.split())
    as_json = json.loads(snnconvert("debug", "digits-cnn.snn", "--data", DATA, "--json", folder=converted).stdout)
    assert as_json["images"] == 32
    assert len(as_json["layers"]) == len([1 for name in load_names(converted)])


def test_debug_knows_whether_accuracy_was_lost(converted: Path, tmp_path: Path) -> None:
    snn = load_snn(converted / "digits-cnn.snn")
    figures = dict(snn.evaluation)
    for name, lost, remark in (("worse", 5, False), ("equal", 0, True)):
        figures["ann_correct"] = figures["correct"][-1] + lost
        save_snn(replace(snn, evaluation=figures), tmp_path / f"{name}.snn")
        done = snnconvert("debug", f"{name}.snn", "--data", DATA, "--limit", "8", folder=tmp_path)
        assert ("costs no accuracy" in " ".join(done.stdout.split())) == remark
        assert (" helps" in done.stdout or " help:" in done.stdout) != remark


def test_a_report_compared_with_itself_is_noticed(converted: Path, tmp_path: Path) -> None:
    report = str(converted / "digits-cnn.json")
    done = snnconvert("report", report, report, "--report", str(tmp_path / "same.html"), "--markdown", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "are the same report" in " ".join(done.stdout.split())
    comparison = read(tmp_path / "same.json")
    assert [row["name"] for row in comparison["runs"]] == [f"{report} (1)", f"{report} (2)"]
    for page in ("same.html", "same.md"):
        assert "are the same report" in (tmp_path / page).read_text("utf-8")


@pytest.mark.parametrize(("option", "example"), [("--min-accuracy", "95"), ("--max-drop", "1.0")])
def test_a_limit_outside_percent_gets_a_sensible_example(option: str, example: str, tmp_path: Path) -> None:
    done = snnconvert("zoo:digits-cnn", option, "101", folder=tmp_path)
    assert f"e.g. {option} {example}" in done.stderr


def load_names(folder: Path) -> list[str]:
    snn = load_snn(folder / "digits-cnn.snn")
    assert Preprocessing.from_dict(snn.preprocessing)
    return [name for name, module in snn.graph.named_children() if type(module).__name__ == "Neuron"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("report", "digits-cnn.snn"), "add --data"),
        (("report", "digits-cnn.json", "--data", DATA), "for one checkpoint"),
        (("report", "digits-cnn.snn", "digits-cnn.json"), "give one .snn file, or one or more report .json"),
        (("report", "missing.json"), "cannot read the report missing.json"),
        (("report", "digits-cnn.json", "--figures", "bmp", "--report", "x.html"), "choose svg, png"),
        (("debug", "missing.snn", "--data", DATA), "there is no checkpoint"),
        (("report", "digits-cnn.json", "digits-cnn.json", "--report", "digits-cnn.html"), "would overwrite"),
        (("report", "digits-cnn.json", "digits-cnn.json", "--report", "a.json"), "name it a.html"),
        (("debug", "digits-cnn.snn", "--data", DATA, "--limit", "0"), "whole number from 1"),
    ],
)
def test_wrong_use_is_explained(converted: Path, arguments: tuple[str, ...], text: str) -> None:
    done = snnconvert(*arguments, folder=converted)
    assert done.returncode not in (0, 1)
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_names_are_commands() -> None:
    assert with_command(["report", "a.json"]) == ["report", "a.json"]
    assert with_command(["debug", "a.snn"]) == ["debug", "a.snn"]
    assert with_command(["a.onnx"]) == ["convert", "a.onnx"]


def test_a_reader_that_leaves_early_changes_nothing(converted: Path) -> None:
    for arguments in (("info", "digits-cnn.snn", "--json"), ("gate", "digits-cnn.json", "--fail-if", "samples > 1")):
        read_end, write_end = os.pipe()
        os.close(read_end)
        done = subprocess.run(
            [sys.executable, "-m", "snnconvert.cli.main", *arguments],
            stdout=write_end, stderr=subprocess.PIPE, cwd=converted, check=False, text=True,
        )  # fmt: skip
        os.close(write_end)
        assert done.returncode == (0 if arguments[0] == "info" else 3)
        assert "Broken" not in done.stderr
        assert "Traceback" not in done.stderr


def test_info_speaks_in_words(converted: Path) -> None:
    done = snnconvert("info", "digits-cnn.snn", folder=converted)
    assert "{" not in done.stdout
    assert "first answer after step 1, the last after 8" in " ".join(done.stdout.split())


def test_own_energy_constants_reach_every_command(converted: Path) -> None:
    row = '[[constant]]\nname = "sram_bit"\nvalue = 0.0\nunit = "pJ/bit"\nsource = "a wish"\n'
    (converted / "own.toml").write_text(f'name = "wish"\n{row}')
    own = ("--data", DATA, "--limit", "20", "--energy-constants", "own.toml", "--json")
    for arguments in (("report", "digits-cnn.snn", "--report", "own.html", *own), ("run", "digits-cnn.snn", *own)):
        done = snnconvert(*arguments, folder=converted)
        assert done.returncode == 0, done.stderr
        section = json.loads(done.stdout)["energy"]
        assert {row["constants"] for row in section["rows"] if row["decides"]} == {"wish"}
        assert section["constants"][0]["source"] == "a wish"
    (converted / "own.toml").write_text(row.replace("sram_bit", "dram_bit"))
    for arguments in (("report", "digits-cnn.snn", *own), ("run", "digits-cnn.snn", *own), ("zoo:digits-cnn", *own)):
        done = snnconvert(*arguments, folder=converted)
        assert done.returncode == 2
        assert "own.toml: the constant 'dram_bit' is not known; allowed: fp32_add" in done.stderr
