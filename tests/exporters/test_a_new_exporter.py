"""An exporter is a file and a row of EXPORTERS: one that is defined here is written, run and compared by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import snnconvert
from snnconvert.cli.main import app
from snnconvert.errors import OptionError
from snnconvert.exporters import EXPORTERS, Exporter
from snnconvert.exporters.portable import portable
from snnconvert.exporters.task import Reader, Recording, Task, Written
from snnconvert.graph.checkpoint import load_snn, save_snn
from snnconvert.pipeline import Request, run
from snnconvert.simulate.step_engine import StepEngine


def write_wrapped(task: Task) -> Written:
    """A checkpoint under another name."""
    network = portable(task.snn)
    save_snn(network, task.path)
    return Written((task.path,), network, notes=(f"in {task.form} letters",))


def read_wrapped(task: Task, written: Written) -> Reader:
    """Run by the literal engine, which shows what a site sent in each step, summed over its neurons."""
    network = load_snn(written.files[0])

    def run_batch(batch: Tensor) -> Recording:
        each = [StepEngine(network).run(image) for image in batch.split(1)]
        spikes = {name: torch.tensor([[int(one.units[name].sum()) for one in each]]) for name in each[0].units}
        if task.form == "wrong":
            next(iter(spikes.values()))[0, 0] += 1
        return Recording(spikes, torch.cat([one.outputs[0] for one in each], 1))

    return run_batch


@pytest.fixture(autouse=True)
def _row(monkeypatch: pytest.MonkeyPatch) -> None:
    row = Exporter(
        "a wrapped checkpoint",
        f"{__name__}:write_wrapped",
        f"{__name__}:read_wrapped",
        forms={"small": "small letters", "wrong": "one spike too many"},
        suffix=".wrapped",
    )
    monkeypatch.setitem(EXPORTERS, "wrapped", row)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "m.snn"
    asked = Request(
        "zoo:digits-cnn", schedule="streaming", timesteps=6, calibration="rnl", calibration_samples=32, limit=20
    )
    save_snn(run(asked).snn, path)
    return path


def test_the_command_line_writes_runs_and_compares_it(checkpoint: Path, tmp_path: Path) -> None:
    words = ["export", str(checkpoint), "--to", "wrapped", "--data", "zoo:digits-cnn", "--limit", "8"]
    done = CliRunner().invoke(app, [*words, "--verify", "-o", str(tmp_path / "m.wrapped"), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["files"] == [str(tmp_path / "m.wrapped")]
    assert found["notes"] == ["in small letters"]
    assert found["verified"]["equal"]
    assert found["verified"]["differing"] == 0
    assert found["verified"]["compared"] == 8 * 4  # images times sites
    assert found["changed"]["agreed"] == 8
    shown = CliRunner().invoke(app, [*words, "-o", str(tmp_path / "m.wrapped")]).output
    assert "of 24,646 spikes differ from the checkpoint, 8 of 8 answers are the same" in " ".join(shown.split())


def test_a_difference_is_told_and_fails(checkpoint: Path, tmp_path: Path) -> None:
    words = ["--to", "wrapped", "--form", "wrong", "--data", "zoo:digits-cnn", "--limit", "3", "--verify"]
    done = CliRunner().invoke(app, ["export", str(checkpoint), *words, "-o", str(tmp_path / "m.wrapped")])
    assert done.exit_code == 3
    assert "spikes differ from our engine" in " ".join(done.output.split())
    assert "relu1: 1 differ" in done.output


def test_python_does_the_same(checkpoint: Path, tmp_path: Path) -> None:
    made = snnconvert.export(
        load_snn(checkpoint), tmp_path / "m.wrapped", to="wrapped", verify=True, data="zoo:digits-cnn"
    )
    assert made.verified is not None
    assert made.verified.equal
    assert made.verified.images == 64
    assert made.changed is not None
    assert np.isfinite(made.changed.logits)
    assert made.changed.right is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": "wrapt"}, "--to 'wrapt' is not known"),
        ({"to": "wrapped", "form": "tiny"}, "--to wrapped has no form 'tiny'"),
        ({"to": "wrapped", "verify": True}, "--verify needs images"),
        ({"to": "wrapped", "limit": 0}, "--limit 0 is not a whole number from 1"),
    ],
)
def test_what_does_not_fit_is_refused(
    options: dict[str, object], message: str, checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match=message):
        snnconvert.export(checkpoint, tmp_path / "m.wrapped", **options)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_a_package_that_is_missing_is_named(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = Exporter("needs more", f"{__name__}:write_wrapped", packages=("no_such_package",), extra="more")
    monkeypatch.setitem(EXPORTERS, "needy", row)
    with pytest.raises(OptionError, match="--to needy needs no_such_package") as caught:
        snnconvert.export(checkpoint, to="needy")
    assert "snnconvert[more]" in caught.value.hint
