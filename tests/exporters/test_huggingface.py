"""The folder for the hub and its card; and the way there and back, against a hub of our own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import snnconvert
from snnconvert.errors import ModelFileError, OptionError
from snnconvert.exporters import hub
from snnconvert.exporters.export import export
from snnconvert.graph.checkpoint import load_snn, save_snn
from snnconvert.pipeline import Request, run
from tests.exporters.hub_stub import serving
from tests.exporters.networks import CASES, network_of

pytest.importorskip("huggingface_hub")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hub") / "m.snn"
    asked = {"schedule": "streaming", "timesteps": 6, "calibration": "rnl", "calibration_samples": 32, "limit": 40}
    save_snn(run(Request("zoo:digits-cnn", **asked)).snn, path)  # type: ignore[arg-type]
    return path


def metadata(card: str) -> dict[str, object]:
    """The part that the hub reads: our YAML is JSON by the line."""
    _, head, _ = card.split("---\n", 2)
    return {line.partition(": ")[0]: json.loads(line.partition(": ")[2]) for line in head.splitlines()}


def test_the_card_says_what_the_checkpoint_knows(checkpoint: Path, tmp_path: Path) -> None:
    made = export(checkpoint, tmp_path / "card", to="huggingface")
    assert [path.name for path in made.files] == ["network.snn", "README.md", "curve.png"]
    assert load_snn(made.files[0]).schedule.timesteps == 6
    assert made.files[2].read_bytes().startswith(b"\x89PNG")
    text, kept = made.files[1].read_text("utf-8"), load_snn(checkpoint).evaluation
    accuracy = 100 * kept["correct"][-1] / kept["samples"]
    assert (
        f"Accuracy: {accuracy:.2f} % (the original network {100 * kept['ann_correct'] / 40:.2f} %) on 40 images" in text
    )
    assert "Energy" not in text
    assert any("energy" in note for note in made.written.notes)
    found = metadata(text)
    assert found["library_name"] == "snnconvert"
    assert found["pipeline_tag"] == "image-classification"
    (result,) = found["model-index"][0]["results"]  # type: ignore[index]
    assert result["metrics"][0]["value"] == pytest.approx(accuracy / 100)


def test_the_library_reads_the_card(checkpoint: Path, tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    made = export(checkpoint, tmp_path / "card", to="huggingface", data="zoo:digits-cnn", limit=30)
    card = ModelCard.load(made.files[1])
    assert card.data.library_name == "snnconvert"
    assert card.data.eval_results[0].metric_type == "accuracy"
    assert "- Energy: " in card.text
    assert "on 30 images" in card.text


def test_a_network_without_figures_has_a_card_without_them(tmp_path: Path) -> None:
    made = export(network_of(CASES[0]), tmp_path / "card", to="huggingface")
    assert [path.name for path in made.files] == ["network.snn", "README.md"]
    text = made.files[1].read_text("utf-8")
    assert "Nothing was measured of it on labelled data." in text
    assert "model-index" not in metadata(text)


def snnconvert_in(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "snnconvert.cli.main", *words]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)


def test_there_and_back(checkpoint: Path, tmp_path: Path) -> None:
    export(checkpoint, tmp_path / "card", to="huggingface")
    (tmp_path / "card" / "secret.txt").write_text("stays here")
    with serving() as server:
        environment = {
            "HF_ENDPOINT": server.address,
            "HF_HOME": str(tmp_path / "cache"),
            "HF_TOKEN": "stub",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        code = "import snnconvert; print(snnconvert.load('hf:me/digits').timesteps)"
        load = [sys.executable, "-c", code]
        before = subprocess.run(load, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
        assert "hf:me/digits is not in the cache" in before.stderr
        assert server.seen == []  # loading asks nobody
        pushed = snnconvert_in(environment, "hub", "push", str(tmp_path / "card"), "me/digits")
        assert pushed.returncode == 0, pushed.stderr
        assert {path for _, path in server.files} == {"network.snn", "README.md", "curve.png"}
        assert server.files["me/digits", "network.snn"] == (tmp_path / "card" / "network.snn").read_bytes()
        pulled = snnconvert_in(environment, "hub", "pull", "me/digits")
        assert pulled.returncode == 0, pulled.stderr
        assert Path(pulled.stdout.strip()).read_bytes() == server.files["me/digits", "network.snn"]
        absent = snnconvert_in(environment, "hub", "pull", "me/nothing")
        assert absent.returncode == 2
        assert "cannot get me/nothing from the hub" in absent.stderr
        refused = snnconvert_in(
            {**environment, "HF_TOKEN": "wrong"}, "hub", "push", str(tmp_path / "card"), "me/digits"
        )
        assert refused.returncode == 2
        assert "cannot put" in refused.stderr
    after = subprocess.run(load, env={**os.environ, **environment}, capture_output=True, text=True, check=True)
    assert after.stdout == "6\n"


@pytest.mark.parametrize("name", ["digits", "../x/y", "a/b/c", "hf:me/x", "me/", ""])
def test_names_that_no_repository_has_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="is no name on the hub"):
        hub.pull(name)
    with pytest.raises(OptionError, match="is no name on the hub"):
        hub.push(tmp_path, name)


def test_what_was_not_pulled_is_not_loaded(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="hf:nobody/nothing is not in the cache") as caught:
        snnconvert.load("hf:nobody/nothing")
    assert caught.value.hint == "snnconvert hub pull nobody/nothing"
    with pytest.raises(OptionError, match=r"holds no network\.snn"):
        hub.push(tmp_path, "me/x")
