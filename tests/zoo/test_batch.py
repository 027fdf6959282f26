"""Zoo runs: failures become rows, exit codes are the truth, a second run does only what changed, bytes repeat."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import time
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from tiny_zoo import Inline, Listener, check_pages, factory, rows, run, write_folder, write_manifest, write_onnx
from typer.testing import CliRunner

from snnconvert.cli.zoo import zoo_app
from snnconvert.convert.doors import open_model
from snnconvert.errors import OptionError, OutputError
from snnconvert.gates.limits import Gates
from snnconvert.graph.checkpoint import load_snn
from snnconvert.report.document import load_report
from snnconvert.report.verdict import verdict
from snnconvert.zoo.batch import Settings, preflight, run_zoo
from snnconvert.zoo.digests import Digests
from snnconvert.zoo.manifest import load_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_folder(tmp_path)
    return tmp_path


def label_by(network: Path, data: Path) -> None:
    """Give the images the labels that the network itself gives them when they are scaled to 0..1."""
    images = np.load(data)["x"]
    logits = open_model(str(network)).graph(torch.from_numpy(images[:, None]).float() / 255)[0]
    np.savez(data.with_name("labelled.npz"), x=images, y=logits.argmax(1).numpy())


def test_one_bad_model_never_costs_the_others(folder: Path) -> None:
    write_onnx(folder / "whole.onnx")
    label_by(folder / "whole.onnx", folder / "test.npz")
    labelled = 'source = "whole.onnx"\ndata = "labelled.npz"\ngates = { min_ann_accuracy = 80 }\n'
    write_onnx(folder / "unsupported.onnx", operator="Hardmax")
    (folder / "truncated.onnx").write_bytes((folder / "whole.onnx").read_bytes()[:200])
    models = "".join(
        [
            f"[[model]]\n{labelled}",
            f'[[model]]\nname = "other"\n{labelled}preprocessing = {{ mean = [0.5], std = [0.25] }}\n',
            *(f'[[model]]\nsource = "{name}.onnx"\n' for name in ("unsupported", "truncated", "missing")),
            factory("hang", "limits = { seconds = 1.5 }"),
            factory("greedy"),
            factory("crash"),
            factory("good", "gates = { min_accuracy = 1 }"),
        ]
    )
    path = write_manifest(folder, models)
    outcome, _ = run(path)
    found = rows(outcome)
    assert outcome.exit_code == 4
    assert {name for name, row in found.items() if row["status"] == "converted"} == {"whole", "good", "other"}
    reasons = {name: (row["kind"], row["reason"]) for name, row in found.items()}
    assert reasons["unsupported"][0] == "UnsupportedError"
    assert "the_activation" in json.dumps(found["unsupported"]["causes"])
    assert reasons["truncated"][0] == "ModelFileError"
    assert reasons["missing"][0] == "ModelFileError"
    assert reasons["hang"][0] == "time"
    assert "not done after 1.5 s" in reasons["hang"][1]
    assert reasons["greedy"][0] == "memory"
    assert reasons["crash"][0] == "crash"
    assert "SIGKILL, 2 times" in reasons["crash"][1]
    wrong = next(result for result in outcome.results if result.entry.name == "other")
    assert wrong.converted
    assert not wrong.passed
    assert wrong.row["figures"]["ann_accuracy"] < 60
    assert [result.row["figures"]["ann_accuracy"] for result in outcome.results if result.entry.name == "whole"] == [
        100
    ]

    out = folder / "out"
    document = json.loads((out / "zoo.json").read_text())
    assert document["counts"] | {"cannot_tell": 0} == {
        "models": 9, "converted": 3, "failed": 6, "gates_failed": 1, "cannot_tell": 0, "kept": 0, "waiting": 0,
    }  # fmt: skip
    for row in document["rows"]:
        assert all((out / link).is_file() for link in row["links"].values()), row
    assert "the_activation" in (out / "models" / "unsupported" / "log.txt").read_text()
    assert [row["name"] for row in csv.DictReader((out / "zoo.csv").open())] == [*found]
    suite = ElementTree.parse(out / "junit.xml").getroot()[0]
    assert {case.get("classname") for case in suite if case.find("error") is not None} == {
        *("unsupported", "truncated", "missing", "hang", "greedy", "crash")
    }
    (failure,) = suite.iter("failure")
    assert "other: ann_accuracy" in str(failure.get("message"))
    check_pages(out)

    # Deterministic failures are not tried again, those from outside are; good ones only come back from disk.
    again, done = run(path)
    assert done == ["crash"]
    assert again.exit_code == 4
    assert sum(result.kept for result in again.results) == 8
    # What is converted, but below a gate, is another exit code.
    converted = Listener()
    gated = run_zoo(load_manifest(path).only(("whole", "other", "good")), folder / "out", Settings(), converted)
    assert (gated.exit_code, converted.done) == (3, [])
    # With another time limit, what took too long deserves another try.
    patient = load_manifest(write_manifest(folder, models.replace("seconds = 1.5", "seconds = 1.0")))
    listener = Listener()
    run_zoo(patient.only(("hang", "greedy", "good")), folder / "out", Settings(jobs=2), listener)
    assert listener.done == ["hang"]


def test_large_files_are_begun_first_and_listed_in_their_place(folder: Path) -> None:
    write_onnx(folder / "small.onnx")
    (folder / "large.onnx").write_bytes((folder / "small.onnx").read_bytes() + b"\0" * 100_000)  # refused, but large
    models = "".join(f'[[model]]\nname = "{name}"\nsource = "{name}.onnx"\n' for name in ("small", "large"))
    path = write_manifest(folder, factory("good") + models)
    outcome, done = run(path, engine=Inline)
    assert done == ["large", "small", "good"]
    assert [result.entry.name for result in outcome.results] == ["good", "small", "large"]


def test_resume_does_only_what_changed(folder: Path) -> None:
    models = factory("good", 'data = "mine.npz"') + factory("other")
    shutil.copy(folder / "test.npz", folder / "mine.npz")
    path = write_manifest(folder, models)
    assert sorted(run(path, engine=Inline)[1]) == ["good", "other"]
    start = time.monotonic()
    outcome, done = run(path, engine=Inline)
    assert done == []
    assert outcome.exit_code == 0
    assert time.monotonic() - start < 5
    shutil.copy(folder / "train.npz", folder / "mine.npz")
    assert run(path, engine=Inline)[1] == ["good"]
    assert run(write_manifest(folder, models + "limit = 20\n"), engine=Inline)[1] == ["other"]
    checkpoint = folder / "out" / "models" / "good" / "good.snn"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1])
    (folder / "out" / "models" / "good" / ".good.snn.tmp123").touch()
    assert run(path, engine=Inline)[1] == ["good"]
    assert not list((folder / "out" / "models").rglob(".*"))
    # Gates are judged anew each time and cost no conversion.
    gated, done = run(path, gates=Gates(min_accuracy=100, uncertain="measured"), engine=Inline)
    assert (done, gated.exit_code) == ([], 3)


def test_changes_on_the_command_line(folder: Path) -> None:
    path = write_manifest(
        folder, factory("good", "options = { percentile = 99.0 }", 'schedule = "wait"', "wait = 2") + factory("other")
    )
    out = folder / "results"
    call = ["run", str(path), "--out", str(out), "-j", "1"]
    changes = [
        "-T",
        "8",
        "--calibration",
        "rnl",
        "--schedule",
        "streaming",
        "--neuron",
        "burst",
        "--batch-size",
        "3",
        "--limit",
        "12",
    ]
    done = CliRunner().invoke(zoo_app, [*call, *changes])
    assert done.exit_code == 0, done.output
    document = json.loads((out / "zoo.json").read_text())
    assert document["changes"]["calibration"] == "rnl"
    assert [row["figures"]["timesteps"] for row in document["rows"]] == [8, 8]
    report = load_report(out / "models" / "good" / "good.json")
    assert (report["calibration"]["method"], report["evaluation"]["samples"]) == ("rnl", 12)
    assert (report["neuron"]["model"], report["neuron"]["levels"]) == ("burst", 5)
    assert report["tool"]["command_line"] == (
        "snnconvert zoo run zoo.toml --only good --timesteps 8 --calibration rnl --neuron burst "
        "--schedule streaming --limit 12"
    )
    # Changes are part of what a result depends on, but for the batch size.
    again = CliRunner().invoke(zoo_app, [*call, *changes[:-4], "--limit", "12", "--batch-size", "5"])
    assert "2 of all rows from an earlier run" in again.output
    other = CliRunner().invoke(zoo_app, [*call, "--only", "good"])
    assert "0 of all rows from an earlier run" in other.output
    for given, message in (
        (["-T", "0"], "--timesteps 0 is not a whole number from 1"),
        (["--schedule", "bistable", "--neuron", "burst"], "good (zoo.toml, line"),
    ):
        refused = CliRunner().invoke(zoo_app, [*call, *given]).exception
        assert isinstance(refused, OptionError)
        assert message in refused.message


def contents(out: Path) -> dict[str, bytes]:
    """All checkpoints and reports; of these without their timings."""
    found = {}
    for path in sorted((out / "models").rglob("*")):
        if path.suffix == ".snn":
            found[path.name] = path.read_bytes()
        elif path.suffix == ".json" and path.name != "row.json":
            found[path.name] = json.dumps({**json.loads(path.read_text()), "timings": None}).encode()
    return found


def test_same_bytes_whatever_the_jobs_and_the_batch_size(folder: Path) -> None:
    models = factory("good") + factory("other", 'calibration = "rnl"') + factory("third", 'schedule = "auto"')
    path = write_manifest(folder, models)
    run(path, jobs=1, changes={"batch_size": 64})
    first = contents(folder / "out")
    assert len(first) == 6
    for settings in ({"jobs": 2, "changes": {"batch_size": 7}}, {"engine": Inline, "changes": {"batch_size": 1}}):
        shutil.rmtree(folder / "out")
        run(path, **settings)
        second = contents(folder / "out")
        assert [name for name in first if first[name] != second.get(name)] == []
    for name in ("good", "other", "third"):
        load_snn(folder / "out" / "models" / name / f"{name}.snn")
        load_report(folder / "out" / "models" / name / f"{name}.json")


def test_reports_do_not_depend_on_where_the_folder_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for name in ("here", "there/deep"):
        folder = tmp_path / name
        write_folder(folder)
        write_onnx(folder / "net.onnx")
        write_manifest(folder, '[[model]]\nsource = "net.onnx"\n')
        monkeypatch.chdir(folder if name == "here" else tmp_path)
        run(Path(os.path.relpath(folder / "zoo.toml")), engine=Inline)
        found.append(contents(folder / "out"))
    assert found[0] == found[1]


def test_command_line(folder: Path) -> None:
    path = write_manifest(folder, factory("good") + factory("other"))
    out = folder / "results"
    call = ["run", str(path), "--out", str(out), "-j", "1"]
    first = CliRunner().invoke(zoo_app, [*call, "--only", "g*"])
    assert first.exit_code == 0, first.output
    assert "1 of 1 models converted" in first.output
    failed = CliRunner().invoke(zoo_app, [*call, "--only", "g*", "--max-spikes", "0.1"])
    assert failed.exit_code == 3
    assert "good: max_spikes 0.1: failed: spikes" in failed.output
    assert "worst layer: " in failed.output
    quiet = CliRunner().invoke(
        zoo_app, [*call, "--only", "g*", "-q", "--max-spikes", "0.1"], env={"GITHUB_ACTIONS": "true"}
    )
    assert quiet.output.startswith("::error title=good%3A max_spikes 0.1::spikes")
    for wrong in (
        ["-j", "0"],
        ["--engine", "slurm"],
        ["--address", "x"],
        ["--memory-limit", "x"],
        ["--time-limit", "0"],
        ["--time-limit", "nan"],
        ["--max-drop", "1", "--at", "5"],
    ):
        assert isinstance(CliRunner().invoke(zoo_app, [*call, *wrong]).exception, OptionError)


def test_only_one_run_at_a_time(folder: Path) -> None:
    path = write_manifest(folder, factory("good"))
    (folder / "out").mkdir()
    with (folder / "out" / ".lock").open("w") as lock:
        import fcntl

        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(OutputError, match="another run is writing"):
            run(path)


def test_a_module_beside_the_manifest_shadows_nothing(folder: Path) -> None:
    (folder / "torch.py").write_text("raise SystemExit(9)")
    (folder / "json.py").write_text("raise SystemExit(9)")
    write_onnx(folder / "net.onnx")
    assert run(write_manifest(folder, '[[model]]\nsource = "net.onnx"\n'), jobs=1)[0].exit_code == 0


def test_changed_file_with_a_checksum_is_refused(folder: Path) -> None:
    write_onnx(folder / "net.onnx")
    outcome, _ = run(write_manifest(folder, f'[[model]]\nsource = "net.onnx"\nsha256 = "{"0" * 64}"\n'), engine=Inline)
    (row,) = rows(outcome).values()
    assert row["kind"] == "ModelFileError"
    assert "the manifest wants 0000" in row["reason"]


def test_reports_carry_their_gates(folder: Path) -> None:
    gated = factory("good", "gates = { min_accuracy = 99.9 }") + factory("other", "gates = { min_accuracy = 0.1 }")
    path = write_manifest(folder, gated)
    outcome, _ = run(path, engine=Inline)
    assert outcome.exit_code == 3
    failed = folder / "out" / "models" / "good" / "good.html"
    report = load_report(failed.with_suffix(".json"))
    assert report["gates"]["status"] == "failed"
    assert "misses min_accuracy 99.9" in report["gates"]["text"]
    assert verdict(report).startswith("Gate failed: accuracy ")
    assert "Gate failed: accuracy " in failed.read_text("utf-8")
    passed = load_report(folder / "out" / "models" / "other" / "other.json")
    assert passed["gates"]["status"] == "passed"
    first = contents(folder / "out")
    # Other gates change the reports, and only them; the same gates again bring back the same bytes.
    again, done = run(path, engine=Inline, gates=Gates(min_accuracy=0.1))
    assert (done, again.exit_code) == ([], 0)
    assert load_report(failed.with_suffix(".json"))["gates"]["status"] == "passed"
    assert "Gate failed" not in failed.read_text("utf-8")
    run(path, engine=Inline)
    assert contents(folder / "out") == first
    ungated, done = run(write_manifest(folder, factory("good") + factory("other")), engine=Inline)
    assert (done, ungated.exit_code) == ([], 0)
    assert load_report(failed.with_suffix(".json"))["gates"] is None


def test_energy_constants_lie_beside_the_manifest(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = '[[constant]]\nname = "int32_add"\nvalue = 0.05\nunit = "pJ"\nsource = "data sheet"\n'
    (folder / "mine.toml").write_text(f'name = "my chip"\n{text}')
    path = write_manifest(folder, factory("good", 'energy_constants = "mine.toml"'))
    monkeypatch.chdir("/")
    assert run(path, engine=Inline)[0].exit_code == 0
    report = load_report(folder / "out" / "models" / "good" / "good.json")
    assert any("my chip" in json.dumps(row) for row in report["energy"]["rows"])
    assert run(path, engine=Inline)[1] == []
    (folder / "mine.toml").write_text(f'name = "another"\n{text}')
    assert run(path, engine=Inline)[1] == ["good"]
    (folder / "mine.toml").unlink()
    (row,) = rows(run(path, engine=Inline)[0]).values()
    assert row["kind"] == "OptionError"
    assert "mine.toml cannot be read" in row["reason"]
    error = preflight(load_manifest(path).entries[0], folder)
    assert error is not None
    assert "mine.toml cannot be read" in error.message


@pytest.mark.parametrize(
    "fault",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EROFS, "Read-only file system"),
        OutputError("cannot write net.snn: no room", hint="make room"),
    ],
    ids=["raw", "read-only", "wrapped"],
)
def test_what_is_not_the_models_fault_is_tried_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    path = write_manifest(folder, factory("good"))

    def full(*_: object, **__: object) -> None:
        raise fault

    with monkeypatch.context() as patched:
        patched.setattr("snnconvert.graph.checkpoint.save_snn", full)
        outcome, _ = run(path, engine=Inline)
        assert rows(outcome)["good"]["kind"] == "place"
        assert "defect" not in rows(outcome)["good"]["hint"]
    outcome, done = run(path, engine=Inline)
    assert done == ["good"]
    assert rows(outcome)["good"]["status"] == "converted"


def test_a_device_behind_a_model_is_no_file(folder: Path) -> None:
    """Reading it would never end, and the process that looks for changes has no limit of time."""
    (folder / "endless").symlink_to("/dev/zero")
    digests = Digests(folder / "digests.json")
    assert digests.file(folder / "endless") == digests.file(folder / "nothing") == "missing"
    os.mkfifo(folder / "pipe")
    assert digests.file(folder / "pipe") == "missing"
