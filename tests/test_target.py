"""Target mode: the smallest T is found, and an unreachable target says so."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from snnconvert.target import LARGEST, Attempt, smallest, unreachable
from tests.test_tiny import command


def attempts_from(needed: int, refused: int = 0) -> object:
    def attempt(timesteps: int) -> Attempt | None:
        if timesteps < refused:
            return None
        final = {"accuracy": min(90.0, float(timesteps)), "agreement": 1.0, "spikes_per_image": 1.0}
        return Attempt(timesteps, timesteps >= needed, {"analysis": {"final": final}, "latency": {"total": timesteps}})

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
    assert "the best is 90.00 %" in unreachable(tried, "layer x loses it")
    assert "layer x loses it" in unreachable(tried, "layer x loses it")
    assert "no schedule fits" in unreachable([], None)


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
