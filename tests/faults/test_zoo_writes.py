"""A batch run whose disk fills up, is read-only, or that is killed, at every write: what is there is whole, and the
next run ends as an undisturbed one."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from snnconvert import files, pipeline
from snnconvert.errors import OutputError
from snnconvert.zoo import rows, worker
from snnconvert.zoo.batch import Settings, run_zoo
from snnconvert.zoo.manifest import Manifest, load_manifest
from snnconvert.zoo.rows import read_row, write_row
from snnconvert.zoo.worker import convert_task
from tests.faults.test_interruptions import LONG, contents, full_disk, read_only, task
from tests.faults.test_names import two_layers

MATRIX = ("zoo.html", "zoo.json", "zoo.csv", "summary.md", "junit.xml")


class Home:
    """A manifest of two models, and what a conversion of one of them leaves."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        two_layers(folder / "net.onnx", "x")
        shutil.copyfile(folder / "net.onnx", folder / "other.onnx")
        options = "timesteps = 4\ncalibration = 'mse'\ncalibration_samples = 8\nschedule = 'streaming'\n"
        text = f"[defaults]\n{options}gates = {{ min_agreement = 1 }}\n"
        (folder / "zoo.toml").write_text(text + "[[model]]\nsource = 'net.onnx'\n[[model]]\nsource = 'other.onnx'\n")
        self.manifest: Manifest = load_manifest(folder / "zoo.toml")
        self.task = task(folder)
        self.row = convert_task(self.task)
        assert self.row["status"] == "converted"

    def settings(self) -> Settings:
        home = self

        class Copies:
            """An engine that converts nothing: it puts the finished files in place, the row last, as workers do."""

            def __init__(self, *, watcher: Any, **_: Any) -> None:
                self.watcher = watcher

            def run(self, tasks: Sequence[Any]) -> None:
                for one in tasks:
                    target = Path(one["folder"])
                    with files.writing_to(target):
                        target.mkdir(parents=True, exist_ok=True)
                    names = {name: name.replace("net", one["name"], 1) for name in home.row["files"]}
                    for name, new in names.items():
                        shutil.copyfile(home.folder / "out" / name, target / new)
                    made = {names[name]: digest for name, digest in home.row["files"].items()}
                    row = {**home.row, "name": one["name"], "key": one["key"], "limits": one["limits"], "files": made}
                    write_row(target, row)
                    self.watcher.finished(one, row)

        return Settings(jobs=1, engine=Copies)

    def run(self, out: Path) -> int:
        return run_zoo(self.manifest, out, self.settings()).exit_code


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("zoo"))


def seen(out: Path) -> dict[str, Any]:
    """What a run leaves, without what is a matter of time or of how often it was started."""
    document = json.loads((out / "zoo.json").read_text("utf-8"))
    document.pop("seconds")
    document["counts"].pop("kept")
    for row in document["rows"]:
        row.pop("kept")
        row.pop("seconds")
        row.pop("peak_memory")
    models = {path.name: contents(path) for path in sorted((out / "models").iterdir())}
    return {"matrix": document, "models": models, "files": sorted(path.name for path in out.iterdir())}


def whole(out: Path) -> None:
    """Every file that is there can be read, and a row vouches for files that are as it says, or counts for nothing."""
    if (out / "zoo.json").exists():
        document = json.loads((out / "zoo.json").read_text("utf-8"))
        assert document["counts"]["models"] == 2
        assert len(document["rows"]) + document["counts"]["waiting"] == 2
    if (out / "zoo.html").exists():
        assert (out / "zoo.html").read_text("utf-8").rstrip().endswith("</html>")
    for name in ("net", "other"):
        row = out / "models" / name / "row.json"
        if row.exists():
            found = json.loads(row.read_text("utf-8"))
            assert read_row(row.parent, found["key"]) in (found, None)


WATCHED: tuple[tuple[Any, str], ...] = (
    (os, "fsync"), (Path, "replace"), (Path, "chmod"), (files.tempfile, "mkstemp"), (Path, "mkdir"), (Path, "unlink"),
    (Path, "rmdir"),
)  # fmt: skip


def failing(patch: pytest.MonkeyPatch, at: int, action: Callable[[], None], inside: Path) -> list[int]:
    """Let the `at`-th of the calls that change the folder `inside` do `action` first; counts them."""
    calls = [0]

    def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if args and isinstance(args[0], Path) and inside not in (args[0], *args[0].parents):
                return function(*args, **kwargs)
            calls[0] += 1
            if calls[0] == at:
                action()
            return function(*args, **kwargs)

        return call

    for owner, name in WATCHED:
        patch.setattr(owner, name, wrapped(getattr(owner, name)))
    return calls


@pytest.mark.parametrize("action", [full_disk, read_only] if LONG else [full_disk])
def test_every_write_of_a_batch_fails_in_turn(home: Home, tmp_path: Path, action: Callable[[], None]) -> None:
    assert home.run(tmp_path / "wanted") == 0
    wanted = seen(tmp_path / "wanted")
    assert set(MATRIX) <= set(wanted["files"])
    refused, at, step = 0, 0, 1 if LONG else 16
    while True:
        at += step if at else 1
        out = tmp_path / str(at)
        with pytest.MonkeyPatch.context() as patch:
            calls = failing(patch, at, action, out)
            try:
                home.run(out)
            except OutputError as error:  # nothing else: a traceback would be a defect
                refused += 1
                assert error.hint
        if calls[0] < at:
            break
        if out.exists():
            whole(out)
        assert home.run(out) == 0
        assert seen(out) == wanted, at
    assert refused > at // step // 2 > 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a process is killed, which has to be a copy of this one")
def test_a_batch_killed_at_every_write(home: Home, tmp_path: Path) -> None:
    assert home.run(tmp_path / "wanted") == 0
    wanted, killed = seen(tmp_path / "wanted"), 0
    for at in range(1, 200, 1 if LONG else 24):
        out = tmp_path / str(at)
        child = os.fork()
        if not child:
            with pytest.MonkeyPatch.context() as patch:
                failing(patch, at, lambda: os.kill(os.getpid(), signal.SIGKILL), out)
                home.run(out)
            os._exit(0)
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if ended == 0:
            break
        assert ended == -signal.SIGKILL
        killed += 1
        if out.exists():
            whole(out)
        assert home.run(out) == 0
        assert seen(out) == wanted, at
    assert killed > 3


STAGES: tuple[tuple[Any, str], ...] = (
    *((pipeline, name) for name in ("open_ann", "chosen_inputs", "spiking", "measured", "studied", "kept")),
    (worker, "converted_row"), (worker, "write_row"), (rows, "write_atomically"),
)  # fmt: skip


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a process is killed, which has to be a copy of this one")
def test_a_worker_killed_at_every_stage(home: Home, tmp_path: Path) -> None:
    """The folder holds no row then, so that the next run converts the model again, to the same files."""
    wanted = contents(home.folder / "out")
    wanted.pop("row.json")
    for owner, name in STAGES if LONG else STAGES[::3]:
        own = {**home.task, "folder": str(tmp_path / name)}
        child = os.fork()
        if not child:
            setattr(owner, name, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
            convert_task(own)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL, name
        assert read_row(tmp_path / name, own["key"]) is None
        assert convert_task(own)["status"] == "converted"
        found = contents(tmp_path / name)
        found.pop("row.json")
        assert found == wanted, name
