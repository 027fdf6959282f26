"""Habits of a command line: short help, completion, and options that are refused where they would change nothing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import snnconvert
from snnconvert.cli.help import complete_as_convert
from snnconvert.cli.main import commands
from snnconvert.data.bundled import MODELS, dataset_for, model_path
from snnconvert.gates.limits import Gates, Judging
from snnconvert.gates.verdicts import check_document
from snnconvert.options import declared
from snnconvert.report.document import load_report
from snnconvert.request import Request
from snnconvert.zoo.manifest import load_manifest
from tests.test_cli_report import Done, converted, snnconvert  # noqa: F811 (the command line as a function)

TRAIN, TEST, _ = dataset_for("digits-cnn")
ROOT = Path(__file__).parents[1]
FLAG = re.compile(r"^  (?:-\w, )?(--[a-z-]+)", re.MULTILINE)
assert converted


def process(*words: str, folder: Path, **environment: str) -> Done:
    """A process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "snnconvert", *words],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT), **environment}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)


def test_the_help_opens_with_what_matters(tmp_path: Path) -> None:
    short, long = (snnconvert("convert", word, folder=tmp_path) for word in ("-h", "--help-all"))
    assert (short.returncode, long.returncode) == (0, 0)
    listed, everything = FLAG.findall(short.stdout), FLAG.findall(long.stdout)
    matter = [flag for flag in listed if flag not in ("--help-all", "--help")]
    assert 9 <= len(matter) <= 10
    assert {"--timesteps", "--data", "--calibration-data", "--output", "--max-drop"} <= set(matter)
    assert set(listed) <= set(everything)
    assert len(everything) == len(set(everything)) > 50
    (count,) = re.findall(r"^(\d+) more options: .* --help-all$", short.stdout, re.MULTILINE)
    assert int(count) == len(everything) - len(listed)
    for panel in ("Model", "Data", "Calibration", "Spiking network", "Output", "Gates"):
        assert f"\n{panel}:\n" in long.stdout
    assert len(short.stdout.splitlines()) < 60 < len(long.stdout.splitlines())


def test_every_command_knows_h_and_groups_its_options(tmp_path: Path) -> None:
    for name in ("", *sorted(commands()), "zoo init", "zoo list", "zoo run", "zoo check", "zoo pull"):
        done = snnconvert(*name.split(), "-h", folder=tmp_path)
        assert done.returncode == 0, name
        assert done.stdout.startswith("Usage: ") and "-h, --help" in done.stdout, name
        assert done.stdout == snnconvert(*name.split(), "--help", folder=tmp_path).stdout
    root = snnconvert("-h", folder=tmp_path).stdout
    assert "--version" in root and "--install-completion" in root
    version = snnconvert("--version", folder=tmp_path).stdout
    assert re.fullmatch(r"snnconvert \d+\.\d+\.\d+\n", version)
    assert snnconvert("m.onnx", "-h", folder=tmp_path).stdout == snnconvert("convert", "-h", folder=tmp_path).stdout


def test_the_package_can_be_run(tmp_path: Path) -> None:
    done = process("--version", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == snnconvert("--version", folder=tmp_path).stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    ("line", "offered", "kept_away"),
    [
        ("ch", ["check"], ["convert"]),
        ("convert m.onnx --neu", ["--neuron"], ["--data"]),
        ("m.onnx --neu", ["--neuron"], ["--data"]),
        ("m.onnx --neuron ter", ["ternary", "ternary-late"], ["burst"]),
        ("m.onnx --calibration ", ["reconstruct", "mse"], ["--data"]),
        ("zoo ", ["init", "list", "run"], ["convert"]),
        ("run m.snn --sch", ["--schedule"], ["--neuron"]),
    ],
)
def test_shells_complete(shell: str, line: str, offered: list[str], kept_away: list[str], tmp_path: Path) -> None:
    words = f"snnconvert {line}"
    environment = {"_SNNCONVERT_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": words, "COMP_WORDS": words}
    environment |= {"COMP_CWORD": str(len(words.split(" ")) - 1), "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    code = "import sys; sys.argv = ['snnconvert']; from snnconvert.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = set(re.findall(r"[\w-]+", done.stdout))
    assert set(offered) <= found, done.stdout + done.stderr
    assert not set(kept_away) & found


def test_only_a_model_is_taken_for_one() -> None:
    for words, count, expected in (
        ("snnconvert m.onnx --d", "2", "snnconvert convert m.onnx --d"),
        ("snnconvert m.on", "1", "snnconvert m.on"),
        ("snnconvert run m.snn ", "3", "snnconvert run m.snn "),
        ("snnconvert --ver", "1", "snnconvert --ver"),
        ("snnconvert", "1", "snnconvert"),
    ):
        environment = {"COMP_WORDS": words, "COMP_CWORD": count}
        complete_as_convert(environment, commands())
        assert environment["COMP_WORDS"] == expected
        assert environment["COMP_CWORD"] == str(int(count) + (expected != words))


def test_what_is_bundled_is_listed(tmp_path: Path) -> None:
    done = snnconvert("zoo", "list", folder=tmp_path)
    assert done.returncode == 0
    assert all(f"zoo:{name}" in done.stdout for name in MODELS)
    assert "zoo:digits-resnet" not in snnconvert("zoo", "list", "--only", "*-cnn", folder=tmp_path).stdout
    refused = snnconvert("zoo", "list", "--only", "lenet", folder=tmp_path)
    assert refused.returncode == 2 and "no bundled model is called lenet" in refused.stderr


def test_a_manifest_is_begun_with_what_is_known(tmp_path: Path) -> None:
    (tmp_path / "nets").mkdir()
    (tmp_path / "sets").mkdir()
    shutil.copy(model_path("digits-cnn"), tmp_path / "nets" / "a.onnx")
    for name, source in (("test", TEST), ("train", TRAIN)):
        shutil.copy(source, tmp_path / "sets" / f"{name}.npz")
    done = snnconvert(
        "zoo", "init", "nets", "--data", "sets/test.npz", "--calibration-data", "sets/train.npz", "--scale", "16",
        "--mean", "0.5", folder=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "guessed" not in done.stdout
    path = tmp_path / "nets" / "zoo.toml"
    defaults = tomllib.loads(path.read_text("utf-8"))["defaults"]
    assert defaults["preprocessing"] == {"mean": [0.5], "scale": 16.0}
    (entry,) = load_manifest(path).entries
    for name, expected in (("data", "test"), ("calibration_data", "train")):
        assert (path.parent / str(entry.options[name])).resolve() == tmp_path / "sets" / f"{expected}.npz"
    assert snnconvert("zoo", "check", "nets/zoo.toml", folder=tmp_path).returncode == 0
    # what is not given is still guessed, with the data that are
    again = snnconvert("zoo", "init", "nets", "--data", "sets/test.npz", "--force", folder=tmp_path)
    assert "guessed: preprocessing" in again.stdout and "guessed: data" not in again.stdout
    assert "scale" in tomllib.loads(path.read_text("utf-8"))["model"][0]["preprocessing"]
    bundled = snnconvert("zoo", "init", "nets", "--data", "zoo:digits-cnn", "--scale", "16", "--force", folder=tmp_path)
    assert bundled.returncode == 0
    assert load_manifest(path).entries[0].options["data"] == "zoo:digits-cnn"
    missing = snnconvert("zoo", "init", "nets", "--data", "nowhere.npz", "--force", folder=tmp_path)
    assert missing.returncode == 2 and "nowhere.npz does not exist" in missing.stderr
    np.savez(tmp_path / "sets" / "other.npz", x=np.zeros((4, 5, 5), np.uint8), y=np.zeros(4, np.int64))
    other = snnconvert("zoo", "init", "nets", "--data", "sets/other.npz", "--force", folder=tmp_path)
    assert "a.onnx: data does not fit it" in other.stdout


@pytest.mark.usefixtures("converted")
def test_options_that_would_change_nothing_are_refused(converted: Path, tmp_path: Path) -> None:
    report = str(converted / "digits-cnn.json")
    for words, message in (
        (["--limit", "30"], "--limit cannot change a finished report"),
        (["--batch-size", "3"], "--batch-size cannot change a finished report"),
        (["--data", str(TEST), "--sweep"], "--data and --sweep cannot change a finished report"),
        ([report, "--csv"], "--csv is for one report"),
        ([report, "--figures", "svg"], "--figures is for one report"),
        (["--figures", "gif"], "--figures 'gif' is not known"),
    ):
        done = snnconvert("report", report, *words, folder=tmp_path)
        assert done.returncode == 2 and message in done.stderr, done.stderr
    for words, message in (
        (["--label-offset", "1"], "change nothing"),
        (["--resize", "8"], "change nothing"),
        (["--data", str(TEST)], "check needs no data"),
    ):
        done = snnconvert("check", "zoo:digits-cnn", *words, folder=tmp_path)
        assert done.returncode == 2 and message in done.stderr, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_format_that_cannot_be_written_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(*_: object, **__: object) -> None:
        raise AssertionError("the conversion has begun")

    monkeypatch.setattr("snnconvert.api.conversion.run", work)
    done = snnconvert("zoo:digits-cnn", "--figures", "gif", folder=tmp_path)
    assert done.returncode == 2 and "--figures 'gif' is not known" in done.stderr


def test_a_condition_takes_the_names_of_the_report(converted: Path) -> None:
    document = load_report(converted / "digits-cnn.json")
    one, other = (
        check_document(document, Gates(fail_if=(f"{name} > 10",))).verdicts[0]
        for name in ("spikes", "spikes_per_image")
    )
    assert one.status == other.status == "failed"
    assert one.text == other.text.replace("spikes_per_image", "spikes")


def test_what_comes_first_is_declared_once() -> None:
    rows = [row for holder in (Request, Judging) for row in declared(holder).values()]
    assert any("convert" in row.option.first for row in rows)
    assert all(set(row.option.first) <= set(row.option.commands) for row in rows)
