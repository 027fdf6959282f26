"""Whenever a conversion is stopped, what is on disk is whole and belongs together, and the next run is as the first."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import snnconvert
from snnconvert import files
from snnconvert.errors import OutputError, SnnConvertError
from snnconvert.files import atomic, together, write_atomically
from snnconvert.graph.checkpoint import load_snn
from snnconvert.report.document import load_report
from snnconvert.zoo.worker import convert_task
from tests.faults.test_names import two_layers

ROOT = Path(snnconvert.__file__).parent.parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
OPTIONS = ("-T", "4", "--calibration", "mse", "--calibration-samples", "8", "--schedule", "streaming", "--csv", "-q")
# at every place there is, in some minutes
LONG = bool(os.environ.get("SNNCONVERT_LONG_TESTS"))
OUTPUTS = ("net.snn", "net.html", "net.json", "net.csv", "net-layers.csv")


@pytest.fixture(autouse=True, scope="module")
def heard() -> Iterator[None]:
    """Interrupts are heard, and by the programs started here as well, also where a shell has started the tests deaf.

    That is what it does with what runs in the background.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def contents(folder: Path) -> dict[str, str]:
    """Digests of the files in a folder; of reports without what is a matter of time."""
    found = {}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".json":
            document = json.loads(path.read_text("utf-8"))
            document.pop("timings", None)
            text = json.dumps(document, sort_keys=True).encode()
        elif path.suffix == ".html":
            text = b"a page"  # drawn from the JSON, times included
        else:
            text = path.read_bytes()
        found[path.name] = hashlib.sha256(text).hexdigest()
    return found


# --- one write after the other --------------------------------------------------------------------


class Failing:
    """Lets the calls of some functions of `os` succeed until the n-th, which fails as on a full disk."""

    def __init__(self, patch: pytest.MonkeyPatch, at: int, action: Callable[[], None]) -> None:
        self.at, self.calls, self.action = at, 0, action
        for owner, name in ((os, "fsync"), (Path, "replace"), (Path, "chmod"), (files.tempfile, "mkstemp")):
            patch.setattr(owner, name, self.wrapped(getattr(owner, name)))

    def wrapped(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self.calls == self.at:
                self.action()
            return function(*args, **kwargs)

        return call


def full_disk() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def read_only() -> None:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def interrupted() -> None:
    os.kill(os.getpid(), signal.SIGINT)


TEXTS = ("first", "second", "third")


def write(folder: Path, mark: str) -> None:
    with together():
        with atomic(folder / "first") as temporary:
            temporary.write_text(mark)
        write_atomically({folder / name: mark for name in TEXTS[1:]})


@pytest.mark.parametrize("action", [full_disk, read_only, interrupted])
@pytest.mark.parametrize("before", [False, True])
def test_every_step_of_writing_fails_in_turn(tmp_path: Path, action: Callable[[], None], before: bool) -> None:
    """Files of two conversions never stand side by side, and nothing temporary is left."""
    count = 0
    for at in range(1, 40):
        folder = tmp_path / str(at)
        folder.mkdir()
        if before:
            write(folder, "old")
        with pytest.MonkeyPatch.context() as patch:
            failing = Failing(patch, at, action)
            try:
                write(folder, "new")
            except (OutputError, KeyboardInterrupt):
                count += 1
            stopped = failing.calls >= at
        found = {path.name: path.read_text() for path in folder.iterdir()}
        assert set(found) <= set(TEXTS), found
        assert len(set(found.values())) <= 1, (at, found)
        if not stopped:
            assert found == dict.fromkeys(TEXTS, "new")
            break
    assert count > 5
    assert not stopped


def test_ctrl_c_while_files_appear_waits_for_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = Path.replace

    def interrupting(self: Path, target: Path) -> Path:
        os.kill(os.getpid(), signal.SIGINT)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", interrupting)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, "new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(TEXTS, "new")
    assert files.PLACED[-3:] == [tmp_path / name for name in TEXTS]


# --- the command convert --------------------------------------------------------------------------

# Converts once for each job, in a process of its own that starts with everything imported. It ends, or presses Ctrl-C,
# or finds the disk full when the n-th of these is called: the borders of the stages, and every write.
DRIVER = textwrap.dedent(
    """
    import json, os, signal, sys, tempfile
    from pathlib import Path
    from snnconvert import files, pipeline
    from snnconvert.cli import convert as command
    from snnconvert.cli import main
    from snnconvert.report import render_html

    at, action, count = 0, "", 0

    def watch(owner, name):
        function = getattr(owner, name)

        def call(*args, **kwargs):
            global count
            count += 1
            if count == at and action == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if count == at and action == "interrupt":
                os.kill(os.getpid(), signal.SIGINT)
            if count == at and action == "full" and owner is not pipeline:
                raise OSError(28, "No space left on device")
            return function(*args, **kwargs)

        setattr(owner, name, call)

    for name in ("open_ann", "chosen_inputs", "spiking", "measured", "studied", "kept"):
        watch(pipeline, name)
    for owner, name in ((tempfile, "mkstemp"), (os, "fsync"), (Path, "replace"), (Path, "unlink")):
        watch(owner, name)
    codes = []
    for folder, at, action in json.loads(sys.argv[1]):
        child = os.fork()
        if not child:
            os.chdir(folder)
            said = os.open(folder + ".log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(said, 1)
            os.dup2(said, 2)
            sys.argv = ["snnconvert", "../net.onnx", *sys.argv[2:]]
            code = 0
            try:
                main.main()
            except SystemExit as stop:
                code = stop.code or 0
            print("calls", count, file=sys.stderr, flush=True)
            os._exit(code)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    print(json.dumps(codes))
    """
)
Job = tuple[Path, int, str]


def convert(*jobs: Job) -> list[tuple[int, str]]:
    """The exit code of each job, and what it printed."""
    for folder, _, _ in jobs:
        folder.mkdir(exist_ok=True)
    command = [sys.executable, "-c", DRIVER, json.dumps([(str(folder), at, action) for folder, at, action in jobs])]
    done = subprocess.run(
        [*command, *OPTIONS], env=ENVIRONMENT, timeout=500, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    said = [Path(f"{folder}.log").read_text("utf-8") for folder, _, _ in jobs]
    assert not any("Traceback" in one for one in said), said
    return list(zip(json.loads(done.stdout), said, strict=True))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str], int]:
    """A folder with a model, what an undisturbed conversion of it leaves, and how many calls it makes."""
    folder = tmp_path_factory.mktemp("convert")
    two_layers(folder / "net.onnx", "x")
    ((code, said),) = convert((folder / "whole", 0, ""))
    assert code == 0, said
    found = contents(folder / "whole")
    assert set(found) == set(OUTPUTS)
    return folder, found, int(said.split("calls")[1])


@pytest.mark.parametrize("action", ["kill", "interrupt", "full"])
def test_a_conversion_stopped_anywhere(whole: tuple[Path, dict[str, str], int], action: str) -> None:
    """At the borders of all stages, at every write, and between the files as they appear."""
    home, wanted, calls = whole
    first = 7 if action == "full" else 1  # the stages themselves write nothing
    places = [
        at for at in range(first, calls + 1) if LONG or at % (3 if action == "kill" else 5) == 1 or at > calls - 2
    ]
    jobs = [(home / f"{action}-{at}", at, action) for at in places]
    stopped = 0
    for (folder, at, _), (code, said) in zip(jobs, convert(*jobs), strict=True):
        left = {path.name for path in folder.iterdir() if not path.name.endswith(".part")}
        assert left <= set(OUTPUTS), at
        stopped += code != 0
        if action == "kill":
            assert code == -signal.SIGKILL
        else:
            assert not list(folder.glob(".*")), at
            assert code in ({0, 130} if action == "interrupt" else {0, 2}), said
        if action == "interrupt" and code:
            assert set(said.split("interrupted; written:")[1].replace(",", " ").split()) & set(OUTPUTS) == left, said
        assert code or left == set(OUTPUTS)
        if "net.snn" in left:
            load_snn(folder / "net.snn")
        if "net.json" in left:
            load_report(folder / "net.json")
    assert 2 * stopped >= len(jobs)
    jobs = jobs if LONG else jobs[1::3]
    for (folder, at, _), (code, said) in zip(jobs, convert(*((folder, 0, "") for folder, _, _ in jobs)), strict=True):
        assert code == 0, said
        # as if nothing had happened; of the process that was killed nothing is left either
        assert contents(folder) == wanted, at


def test_two_conversions_to_one_place(whole: tuple[Path, dict[str, str], int]) -> None:
    """The files that are left are those of one of them, whichever came last."""
    home, wanted, _ = whole
    folder = home / "two"
    folder.mkdir()
    command = [sys.executable, "-m", "snnconvert.cli.main", "../net.onnx", *OPTIONS]
    other = [*command, "--seed", "5"]
    running = [subprocess.Popen(one, cwd=folder, env=ENVIRONMENT) for one in (command, other, command, other)]
    assert [one.wait(timeout=300) for one in running] == [0, 0, 0, 0]
    assert {path.name for path in folder.iterdir()} == set(wanted)
    seed = json.loads((folder / "net.json").read_text())["calibration"]["seed"]
    assert load_snn(folder / "net.snn").calibration["seed"] == seed


# --- a model of a zoo -----------------------------------------------------------------------------


def task(folder: Path) -> dict[str, Any]:
    return {
        "name": "net",
        "model": str(folder / "net.onnx"),
        "url": None,
        "sha256": None,
        "options": {"timesteps": 4, "calibration": "mse", "calibration_samples": 8, "schedule": "streaming"},
        "gates": {},
        "exports": [],
        "finetune": None,
        "folder": str(folder / "out"),
        "key": "k",
        "limits": {"seconds": 100.0, "memory": None},
        "command_line": "snnconvert zoo run",
    }


def test_a_worker_whose_writes_fail_in_turn(tmp_path: Path) -> None:
    """Each failure is the disk's, not the model's; the row says so, and the folder holds no half of a result."""
    two_layers(tmp_path / "net.onnx", "x")
    assert convert_task(task(tmp_path))["status"] == "converted"
    wanted = contents(tmp_path / "out")
    wanted.pop("row.json")
    failed = 0
    for at in (1, 2, 4, 6, 8, 9, 10, 30):
        with pytest.MonkeyPatch.context() as patch:
            failing = Failing(patch, at, full_disk)
            try:
                row = convert_task(task(tmp_path))
            except SnnConvertError as error:  # the row itself could not be written: the run ends, and says so
                assert isinstance(error, OutputError)
                assert not (tmp_path / "out" / "row.json").exists()
                continue
            stopped = failing.calls >= at
        if row["status"] != "converted":
            failed += 1
            assert row["kind"] == "place"
            assert {path.name for path in (tmp_path / "out").iterdir()} <= {"row.json", "log.txt"}
        else:
            assert not stopped or at > 9
    assert failed >= 4
    row = convert_task(task(tmp_path))
    found = contents(tmp_path / "out")
    found.pop("row.json")
    assert found == wanted
