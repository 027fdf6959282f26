"""Target mode: the smallest T is found, and an unreachable target says so."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from snnconvert.data.bundled import model_path
from snnconvert.target import LARGEST, Attempt, best_of, smallest, unreachable
from tests.test_tiny import command


def attempts_from(needed: int, refused: int = 0) -> object:
    def attempt(timesteps: int) -> Attempt | None:
        if timesteps < refused:
            return None
        document = {
            "analysis": {"final": {"value": min(90.0, float(timesteps))}},
            "milestones": {"basis": "accuracy"},
            "latency": {"total": timesteps},
        }
        return Attempt(timesteps, timesteps >= needed, document)

    return attempt


@pytest.mark.parametrize("needed", [1, 2, 3, 5, 8, 13, 60, 200, 256])
def test_the_smallest_is_found(needed: int) -> None:
    best, tried = smallest(attempts_from(needed))  # type: ignore[arg-type]
    assert best is not None
    assert needed <= best.timesteps <= max(2, needed * 1.13)
    assert len({one.timesteps for one in tried}) == len(tried)
    assert all(one.holds == (one.timesteps >= needed) for one in tried)


def test_what_cannot_be_reached_says_so() -> None:
    best, tried = smallest(attempts_from(LARGEST + 1, refused=16))  # type: ignore[arg-type]
    assert best is None
    assert min(one.timesteps for one in tried) == 16
    nearest = best_of(tried)
    assert nearest.timesteps == 128, "of equals the shortest"
    assert "the best is accuracy 90.00 % at T = 128; there layer x loses it" in unreachable(nearest, "layer x loses it")
    assert "no schedule fits" in unreachable(None, None)


def test_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["zoo:digits-cnn", "--limit", "150", "--calibration", "mse", "--schedule", "streaming"]
    small += ["--calibration-samples", "64"]
    assert command(monkeypatch, *small, "-T", "auto", "--max-drop", "1") == 0
    assert "holds" in capsys.readouterr().err
    assert {path.suffix for path in tmp_path.iterdir()} == {".snn", ".html", ".json"}
    assert command(monkeypatch, *small, "-T", "1", "--min-accuracy", "99.9", "--quiet") == 3
    assert "gate failed" in capsys.readouterr().err
    assert command(monkeypatch, *small, "-T", "auto") == 2
    assert "no target" in capsys.readouterr().err
    assert sys.argv[0] == "snnconvert"


def test_what_no_number_of_steps_can_mend_is_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["--limit", "150", "--calibration", "mse", "--schedule", "streaming", "--calibration-samples", "64"]
    assert command(monkeypatch, "zoo:digits-cnn", *small, "-T", "auto", "--min-accuracy", "100") == 3
    said = capsys.readouterr().err
    assert "the original network itself has" in said
    assert said.count("T = ") <= 1, "further numbers of steps cannot help"
    assert command(monkeypatch, "zoo:digits-cnn", *small, "-T", "auto", "--max-drop", "1", "--percentile", "99") == 2
    assert "percentile" in capsys.readouterr().err
    assert command(monkeypatch, "zoo:digits-cnn", *small, "-T", "4", "--max-drop", "0.1", "--strict", "--quiet") == 3
    undecided = capsys.readouterr().err
    assert "more images" in undecided and "relu" not in undecided, "no layer is to blame for a small sample"
    shutil.copy(model_path("digits-cnn"), "net.onnx")
    assert command(monkeypatch, "net.onnx", *small[2:], "-T", "4", "--max-drop", "1", "--quiet") == 3
    unlabelled = capsys.readouterr().err
    assert "--data with labels" in unlabelled and "relu" not in unlabelled
    assert command(monkeypatch, "net.onnx", *small, "-T", "auto", "--max-drop", "1") == 2
    assert "needs labelled images" in capsys.readouterr().err
    assert command(monkeypatch, "zoo:digits-cnn", *small, "-T", "auto", "--max-drop", "1", "--read-from", "300") == 3
    assert "no schedule fits" in capsys.readouterr().err
