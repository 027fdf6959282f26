"""A study is a function and a row of STUDIES: one that is defined here is asked for by name, and a section shows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict

import pytest
from typer.testing import CliRunner

from snnconvert.cli.main import app
from snnconvert.errors import OptionError
from snnconvert.pipeline import Request, run
from snnconvert.report.blocks import On, Text
from snnconvert.report.document import load_report
from snnconvert.report.section import Section
from snnconvert.report.sections import SECTIONS
from snnconvert.study.converted import Converted, Means
from snnconvert.study.studies import STUDIES, Study

REQUEST = Request("zoo:digits-cnn", schedule="wait", timesteps=12, calibration="rnl", calibration_samples=32, limit=40)


class Keys(TypedDict):
    half: list[float] | None


def half_of(converted: Converted, means: Means) -> list[float]:
    """Accuracy in percent of a network that is calibrated for half the steps."""
    curve = means.measure(
        means.convert_for(converted.snn.schedule.timesteps // 2, means.progress), progress=means.progress
    )
    return [100 * right / curve.samples for right in curve.correct if right is not None]


@pytest.fixture(autouse=True)
def _rows(monkeypatch: pytest.MonkeyPatch) -> None:
    row = Study(
        f"{__name__}:half_of",
        "what half the steps would do",
        "--study",
        lambda request: "half" in request.studies,
        schedule="wait",
    )
    section = Section(
        Keys,
        lambda measured: {"half": measured.studies.get("half")},
        "Half the steps",
        blocks=lambda document: (
            [Text(f"With half the steps {document['half'][-1]:.1f} %.", On.ALL)] if document["half"] else []
        ),
    )
    monkeypatch.setitem(STUDIES, "half", row)
    monkeypatch.setitem(SECTIONS, "half", section)


def test_it_is_made_when_it_is_asked_for() -> None:
    asked = run(Request(**{**vars(REQUEST), "studies": ("half",)}))
    assert asked.timings["half"] > 0
    alone = run(Request(**{**vars(REQUEST), "timesteps": 6}))
    expected = [100 * right / 40 for right in alone.evaluation.curve.correct if right is not None]
    assert asked.studies["half"] == expected
    assert "half" not in run(REQUEST).studies


def test_the_command_line_asks_and_the_report_shows_it(tmp_path: Path) -> None:
    output = tmp_path / "m.snn"
    words = ["zoo:digits-cnn", "--schedule", "wait", "-T", "12", "--calibration", "rnl", "--calibration-samples", "32"]
    done = CliRunner().invoke(app, ["convert", *words, "--limit", "40", "--study", "half", "-o", str(output)])
    assert done.exit_code == 0, done.output
    document: dict[str, Any] = load_report(output.with_suffix(".json"))
    sentence = f"With half the steps {document['half'][-1]:.1f} %."
    assert sentence in done.output
    assert sentence in output.with_suffix(".html").read_text("utf-8")


def test_it_is_refused_where_it_does_not_fit() -> None:
    with pytest.raises(OptionError, match="--study half does not fit --schedule streaming: it is for wait networks"):
        run(Request(**{**vars(REQUEST), "schedule": "streaming", "studies": ("half",)}))
