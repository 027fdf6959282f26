"""What a conversion will take is said before it begins: only where that is long, and from the shapes of its network."""

from __future__ import annotations

import pytest

from snnconvert import forecast
from snnconvert.calibrate.expected import nanoseconds
from snnconvert.calibrate.options import Reconstruct
from snnconvert.graph.dialect import calls
from snnconvert.graph.kinds import Role
from snnconvert.pipeline import run
from snnconvert.request import Request
from snnconvert.stages import open_ann

ASKED = Request("zoo:digits-cnn", timesteps=4, schedule="streaming", calibration_samples=128, limit=10)


def test_what_takes_long_is_said_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    heard: list[str] = []

    def progress(what: str, done: int, total: int) -> None:
        del done, total
        heard.append(f"{what} after {len(said)}")

    run(ASKED, progress, say=said.append)
    assert said == []
    monkeypatch.setattr(forecast, "LONG", 0.0)
    heard.clear()
    run(ASKED, progress, say=said.append)
    (line,) = said
    assert line.startswith("expected: about 10 seconds of one core and 0.")
    assert "; with --calibration-samples 64: about " in line
    assert heard
    assert "reconstruct after 0" not in heard


def test_a_guess_follows_images_steps_and_weights() -> None:
    graph = open_ann(Request("zoo:digits-resnet"))[0].graph
    nodes = [node for node, op in calls(graph) if op.role in (Role.WEIGHTED, Role.SITE)]

    def whole(images: int, frames: int, **options: int) -> float:
        return sum(nanoseconds(node, images, frames, Reconstruct(**options)) for node in nodes)  # type: ignore[arg-type]

    few = {"rows": 10**9}  # as many rows as there are
    assert whole(128, 32, **few) == pytest.approx(2 * whole(64, 32, **few), rel=0.1)
    assert 1.5 * whole(64, 16, **few) < whole(64, 32, **few) < 2 * whole(64, 16, **few)
    assert whole(64, 32, rounds=0, **few) < 0.7 * whole(64, 32, **few)
    assert whole(512, 32, rows=1024) < whole(512, 32, rows=8192)
