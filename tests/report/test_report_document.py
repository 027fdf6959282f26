from __future__ import annotations

import copy
import enum
import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from make_document import make_document, make_parts

from snnconvert.errors import DataError, InternalError, OutputError
from snnconvert.report.compare import compare
from snnconvert.report.document import assemble, check, dumps, load_report, plain, schema, write_report
from snnconvert.report.findings import RULES, warnings_for
from snnconvert.report.render_html import render_html


def test_schema_is_a_schema_and_fits() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    for options in ({}, {"labelled": False}, {"timesteps": 1}, {"layers": 0}, {"samples": 1, "labelled": False}):
        document = make_document(**options)
        jsonschema.validate(json.loads(dumps(document)), schema(), cls=jsonschema.Draft202012Validator)


@pytest.mark.parametrize(
    ("path", "value", "word"),
    [
        (("schema",), "snnconvert-report/3", "$.schema"),
        (("ann", "accuracy"), 123.0, "$.ann.accuracy"),
        (("fit_curve", "accuracy"), [1.0], "1 values for 32"),
        (("fit_curve", "acuracy"), [], "acuracy"),
        (("latency", "total"), 8, "after latency/total"),
        (("analysis", "paired", "ann_only"), 400, "paired"),
        (("layers", 1, "name"), "layer1_0_relu", "two rows"),
        (("warnings",), [{"code": "Bad code", "text": ""}], "$.warnings[0].code"),
    ],
)
def test_check_names_what_is_wrong(path: tuple[Any, ...], value: Any, word: str) -> None:
    document = make_document()
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(InternalError) as caught:
        check(document)
    assert word in caught.value.render()


def test_assemble_derives_what_it_can() -> None:
    document = make_document()
    curve, milestones = document["fit_curve"], document["milestones"]
    ann = document["ann"]["accuracy"]
    assert ann == pytest.approx(91.2)
    for low, high in zip(
        (milestones["within_2"], milestones["within_1"]),
        (milestones["within_1"], milestones["within_0.5"]),
        strict=True,
    ):
        assert low <= high
    for points, key in ((0.5, "within_0.5"), (1, "within_1"), (2, "within_2")):
        held = [
            t for t, value in zip(curve["timesteps"], curve["accuracy"], strict=True) if value >= ann - points - 1e-9
        ]
        assert milestones[key] == min(held)
    final = document["analysis"]["final"]
    assert final["t"] == 32
    assert final["drop"] == pytest.approx(ann - curve["accuracy"][-1])
    layer = document["layers"][-1]
    assert layer["bound"][0]["value"] == pytest.approx(2 * layer["omega"])
    assert [point["t"] for point in layer["violations"]] == [
        fit["t"] for fit, bound in zip(layer["fit"], layer["bound"], strict=True) if fit["k"] > bound["value"]
    ]
    assert layer["violations"]
    assert layer["slope"] < -1


def test_reports_from_before_other_tasks_are_read(tmp_path: Path) -> None:
    document = make_document()
    old = copy.deepcopy(document)
    for key in ("task", "frontier", "holds_from"):
        del old[key]
    del old["milestones"]["goals"]
    for key in ("metric", "better", "agreement_interval"):
        del old["fit_curve"][key]
    for point in ("final", "best"):
        del old["analysis"][point]["value"], old["analysis"][point]["interval"]
    path = tmp_path / "old.json"
    path.write_text(dumps(old), "utf-8")
    assert load_report(path) == document


def test_without_labels_milestones_speak_of_agreement() -> None:
    document = make_document(labelled=False)
    assert document["milestones"]["basis"] == "agreement"
    assert document["analysis"]["final"]["accuracy"] is None
    assert document["analysis"]["final"]["drop"] is None
    assert set(document["fit_curve"]["accuracy_interval"]) == {None}


def test_plain_turns_every_scalar_into_json() -> None:
    color = enum.IntEnum("color", {"red": 3})
    given = {
        1: np.float32(0.5), "i": np.int64(3), "t": torch.tensor(2), "a": torch.ones(2), "n": float("nan"),
        "b": np.bool_(True), "p": Path("x"), "e": color.red, "s": (1, float("inf")), "f": np.float64("nan"),
    }  # fmt: skip
    expected = {
        "1": 0.5,
        "i": 3,
        "t": 2,
        "a": [1.0, 1.0],
        "n": None,
        "b": True,
        "p": "x",
        "e": 3,
        "s": [1, None],
        "f": None,
    }
    assert plain(given) == expected
    assert json.loads(json.dumps(plain(given))) == expected


def test_caller_keeps_its_parts_unchanged() -> None:
    parts = make_parts()
    before = copy.deepcopy(parts)
    assemble(parts)
    assert parts == before


# One bent document for each rule; the test below fails if a rule has no case.
def _bend_nothing_answered(parts: dict[str, Any]) -> None:
    none = [None] * len(parts["fit_curve"]["timesteps"])
    parts["fit_curve"] = {"timesteps": parts["fit_curve"]["timesteps"], "accuracy": none, "agreement": none}
    parts["paired"] = None


def _bend_fall(parts: dict[str, Any]) -> None:
    correct = parts["fit_curve"]["correct"]
    parts["fit_curve"]["correct"] = [*correct[:-4], 850, 820, 800, 780]
    parts["paired"] = None


def _bend_rising(parts: dict[str, Any]) -> None:
    parts["fit_curve"]["correct"] = [round(900 * (1 - 2.718 ** (-t / 25))) for t in range(1, 33)]
    parts["paired"] = None


def _bend_bound(parts: dict[str, Any]) -> None:
    layer = parts["layers"][4]
    layer["fit"] = [{"t": t, "k": 2.5 * layer["omega"] / t} for t in (1, 8, 32)]


CASES = {
    "no_answer": _bend_nothing_answered,
    "import_differs": lambda parts: parts["comparison"].update(max_difference=0.2),
    "ann_near_chance": lambda parts: (parts["ann"].update(correct=104), parts.update(paired=None)),
    "constant_answer": lambda parts: parts["evaluation"].update(answers={"ann": 1, "snn": 2}),
    "calibrated_on_evaluation": lambda parts: parts["calibration"].update(
        fingerprint=parts["evaluation"]["fingerprint"]
    ),
    "calibration_shift": lambda parts: parts.update(
        shift={"name": "relu", "origin": "relu (Relu)", "calibration": 0.01, "evaluation": 0.2}
    ),
    "dead_layer": lambda parts: parts["layers"][3].update(spikes_per_image=0),
    "curve_falls": _bend_fall,
    "curve_rising": _bend_rising,
    "bound_violated": _bend_bound,
    "sample_too_small": lambda parts: parts.update(paired=None),
    "synthetic_calibration": lambda parts: parts["calibration"].update(synthetic=True),
    "unlabelled": lambda parts: parts.update(make_parts(labelled=False)),
}


def test_every_rule_has_a_case() -> None:
    assert set(CASES) == set(RULES)


@pytest.mark.parametrize("code", list(CASES))
def test_warning_is_raised_by_its_case_only(code: str) -> None:
    parts = make_parts(samples=1000)
    # A drop well beyond chance: nothing is left to warn of.
    parts["fit_curve"]["correct"] = [count - 60 for count in parts["fit_curve"]["correct"]]
    drop = parts["ann"]["correct"] - parts["fit_curve"]["correct"][-1]
    parts["paired"] = (80, 80 - drop)
    assert assemble(parts)["warnings"] == []
    if code == "sample_too_small":
        parts = make_parts()
    CASES[code](parts)
    document = assemble(parts)
    assert code in [row["code"] for row in document["warnings"]]
    found = next(row for row in warnings_for(document) if row["code"] == code)
    assert found["text"].endswith(".")
    assert found["hint"].endswith(".")


def test_paired_answers_can_show_a_small_drop_where_intervals_cannot() -> None:
    parts = make_parts()
    parts["fit_curve"]["correct"][-1] -= 5
    drop = parts["ann"]["correct"] - parts["fit_curve"]["correct"][-1]
    for paired, expected in (((drop, 0), False), (None, True)):
        codes = [row["code"] for row in assemble({**parts, "paired": paired})["warnings"]]
        assert ("sample_too_small" in codes) is expected


def test_a_tight_interval_around_no_drop_is_no_warning() -> None:
    parts = make_parts(samples=100_000)
    parts["fit_curve"]["correct"][-1] = parts["ann"]["correct"] - 20
    for paired in ((60, 40), None):
        assert assemble({**parts, "paired": paired})["warnings"] == []


def test_the_manual_explains_every_warning_and_section() -> None:
    manual = (Path(__file__).parents[2] / "docs" / "report.md").read_text("utf-8")
    for word in [*RULES, *schema()["required"]]:
        assert f"`{word}`" in manual


def test_write_report_writes_both_files_and_reads_back(tmp_path: Path) -> None:
    document = make_document()
    written = write_report(document, tmp_path / "deep" / "run.html")
    assert [path.name for path in written] == ["run.html", "run.json"]
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["run.html", "run.json"]
    assert load_report(written[1]) == document


def test_a_failed_write_leaves_nothing_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    html = tmp_path / "run.html"
    html.write_text("old")

    real = Path.open

    def full(path: Path, *given: Any, **named: Any) -> Any:
        if path.suffix == ".part":
            raise OSError(28, "No space left on device")
        return real(path, *given, **named)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OutputError, match="No space left"):
        write_report(make_document(), html)
    assert [path.name for path in tmp_path.iterdir()] == ["run.html"]
    assert html.read_text() == "old"


def test_unwritable_places_are_named(tmp_path: Path) -> None:
    document = make_document()
    (tmp_path / "file").write_text("")
    (tmp_path / "taken.html").mkdir()
    for target in (tmp_path / "file" / "run.html", tmp_path / "taken.html", tmp_path / "run.json"):
        with pytest.raises(OutputError) as caught:
            write_report(document, target)
        assert str(tmp_path) in caught.value.message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "taken.html"]


def test_load_report_refuses_other_files(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    for text in ("", "[1]", '{"schema": "snnconvert-report/9"}', "[" * 100_000):
        path.write_text(text)
        with pytest.raises(DataError, match=r"r\.json"):
            load_report(path)
    with pytest.raises(DataError):
        load_report(tmp_path / "absent.json")


def test_reports_from_before_the_newer_sections_still_render(tmp_path: Path) -> None:
    document = {**make_document(layers=2), "schema": "snnconvert-report/1", "neuron": "if"}
    for key in ("attribution", "inside", "chip", "gates", "precision", "shift"):
        del document[key]
    del document["evaluation"]["outcomes"]
    path = tmp_path / "old.json"
    path.write_text(dumps(document), "utf-8")
    read = load_report(path)
    assert "Why rates differ" not in render_html(read)
    assert read["neuron"] == {"model": "if"}
    assert compare([("a", read), ("b", read)])["tests"][0]["p_value"] is None
