"""A schedule is a class and a row: one that is defined here is searched, simulated, reported and reloaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from snnconvert.errors import OptionError
from snnconvert.graph.checkpoint import load_snn, save_snn
from snnconvert.graph.schedule import SCHEDULES, Streaming
from snnconvert.pipeline import Request, run
from snnconvert.report.document import plain
from snnconvert.report.from_run import document_of
from snnconvert.simulate.layer_engine import LayerEngine
from tests.engines import oracle_of

REQUEST = Request("zoo:digits-cnn", timesteps=9, calibration="rnl", calibration_samples=32, limit=40)


@dataclass(frozen=True)
class Late(Streaming):
    """Streaming after a pause, in which a sensor settles."""

    kind: ClassVar[str] = "late"
    label: ClassVar[str] = "late, after {pause}"

    pause: int = field(default=3, kw_only=True)

    def start(self, depth: int) -> int:
        return super().start(depth) + self.pause

    def _budget_hint(self) -> str:
        return f"use at least -T {self.pause + 1}"


@pytest.fixture(autouse=True)
def _row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCHEDULES, "late", Late)


def test_it_runs_from_a_request_to_a_report_and_back(tmp_path: Path) -> None:
    outcome = run(Request(**{**vars(REQUEST), "schedule": "late"}))
    snn, document = outcome.snn, plain(document_of(outcome, command_line="", next_commands=()))
    assert isinstance(snn.schedule, Late) and snn.schedule.frames == 6
    assert document["latency"] == {"window": 6, "first_output": 4, "total": 9, "asked": 9}
    assert document["schedule"]["kind"] == "late" and document["schedule"]["pause"] == 3
    assert document["fit_curve"]["accuracy"][:3] == [None] * 3
    assert all(document["energy"]["over_time"]["spikes"][step] == 0 for step in range(3))
    batch = outcome.inputs.calibration[:6]
    seen, oracle = LayerEngine(snn).run(batch), oracle_of(snn).run(batch)
    assert torch.equal(seen.outputs[0], oracle.outputs[0])
    assert all(torch.equal(seen.spikes[name], counts) for name, counts in oracle.spikes.items())
    save_snn(snn, tmp_path / "m.snn")
    assert load_snn(tmp_path / "m.snn").schedule == snn.schedule
    # after the pause it is the streaming network
    streaming = run(Request(**{**vars(REQUEST), "schedule": "streaming", "timesteps": 6}))
    assert streaming.evaluation.curve.correct == outcome.evaluation.curve.correct[3:]


def test_it_takes_part_in_the_search_and_refuses_what_is_not_its_own() -> None:
    rows = run(Request(**{**vars(REQUEST), "schedule": "auto"})).snn.calibration["schedules"]
    assert "late, after 3" in {row["name"] for row in rows if row["eligible"]}
    with pytest.raises(OptionError, match="--wait means nothing to --schedule late"):
        run(Request(**{**vars(REQUEST), "schedule": "late", "wait": 2}))
    with pytest.raises(OptionError, match="no schedule fits"):
        run(Request(**{**vars(REQUEST), "schedule": "late", "timesteps": 3}))
