"""Gates: the expression language, three-valued judgement, and what continuous integration reads."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from make_document import make_document
from typer.testing import CliRunner

from snnconvert.cli.main import app
from snnconvert.errors import DataError, OptionError
from snnconvert.gates.expression import Quantity, parse_condition
from snnconvert.gates.junit import Case, change, figures, github_annotations, junit_xml, markdown
from snnconvert.gates.limits import NAMES, Gates
from snnconvert.gates.quantities import quantities
from snnconvert.gates.verdicts import Status, check_document, worst_layer
from snnconvert.report.document import dumps
from snnconvert.report.verdict import verdict

KNOWN = {"a": Quantity(3.0, 2.0, 4.0), "b": Quantity.exact(10.0), "c": Quantity(0.0, -1.0, 1.0)}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a < 5", True),
        ("a > 5", False),
        ("a > 3", None),
        ("a <= 4", True),
        ("a < 4", None),
        ("b == 10", True),
        ("a == 3", None),
        ("b != 10", False),
        ("a > 5 or b >= 10", True),
        ("a > 3 or b > 10", None),
        ("a > 3 and b > 10", False),
        ("not a > 5", True),
        ("not (a > 3 and b == 10)", None),
        ("a + b > 11.9", True),
        ("b - a > 6", None),
        ("b - a >= 6", True),
        ("2 * a <= 8", True),
        ("-a < -1", True),
        ("b / a >= 2.5", True),
        ("b / c > 0", None),
        ("a > 1e1", False),
        ("a * c <= 4", True),
        ("(a + b) * 2 > 23 and not c > 1", True),
    ],
)
def test_conditions_on_intervals(text: str, wanted: bool | None) -> None:
    assert parse_condition(text, KNOWN).judge(KNOWN) is wanted


@given(
    ends=st.tuples(st.floats(-9, 9), st.floats(0, 5)),
    inside=st.floats(0, 1),
    limit=st.floats(-9, 9),
    sign=st.sampled_from(["<", "<=", ">", ">="]),
    shape=st.sampled_from(["a {} {}", "-a + 1 {} {}", "a * a {} {}"]),
)
def test_certain_verdict_holds_for_every_value_inside(
    ends: tuple[float, float], inside: float, limit: float, sign: str, shape: str
) -> None:
    low, width = ends
    condition = parse_condition(shape.format(sign, f"{limit!r}"), ["a"])
    verdict = condition.judge({"a": Quantity(low, low, low + width)})
    exact = condition.judge({"a": Quantity.exact(min(low + inside * width, low + width))})
    assert verdict is None or verdict is exact


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "ends too early"),
        ("a", "not a comparison"),
        ("1 > 0", "names no figure"),
        ("a >", "ends too early"),
        ("a > 1 1", "'1' is misplaced (character 7)"),
        ("a > 1)", "closed but not opened (character 6)"),
        ("1 < a < 3", "only two numbers can be compared at once"),
        ("a ** 2 > 1", "there are + - * / only (character 5)"),
        ("b > 0x", "is misplaced"),
        ("a > True", "'True' is not understood (character 5)"),
        ("lambda: a", "':' is not understood (character 7)"),
        ("drip > 1", "'drip' is not a name"),
        ("(a > 1", "parenthesis is missing"),
        ("a > 1 and b", "join comparisons"),
        ("(a > 1) > 2", "where a number is needed"),
        ("a > 1; import os", "';' is not understood (character 6)"),
        ("__import__('os') > 1", "is not understood"),
        ("a.real > 1", "is not understood"),
        ("(" * 200 + "a > 1" + ")" * 200, "nested too deeply"),
        ("-" * 100 + "a > 1", "nested too deeply"),
        ("not " * 100 + "a > 1", "nested too deeply"),
        ("a > " + "1" * 3000, "more than 2000 characters"),
    ],
)
def test_conditions_that_cannot_be_read(text: str, reason: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse_condition(text, KNOWN)
    assert reason in caught.value.message
    assert "a, b, c" in caught.value.hint


def statuses(document: dict[str, Any], gates: Gates, baseline: dict[str, Any] | None = None) -> list[str]:
    return [str(verdict.status) for verdict in check_document(document, gates, baseline).verdicts]


def test_a_drop_is_judged_with_its_paired_interval() -> None:
    document = make_document(samples=10000)
    low, high = document["analysis"]["paired"]["drop_interval"]
    drop = document["analysis"]["final"]["drop"]
    assert low < drop < high
    assert statuses(document, Gates(max_drop=low - 0.01)) == ["failed"]
    assert statuses(document, Gates(max_drop=drop)) == ["cannot tell"]
    assert statuses(document, Gates(max_drop=high + 0.01)) == ["passed"]


def test_what_cannot_be_told_counts_as_asked() -> None:
    document = make_document(samples=1000)
    drop = document["analysis"]["final"]["drop"]
    assert check_document(document, Gates(max_drop=drop - 0.1)).ok
    assert not check_document(document, Gates(max_drop=drop - 0.1, uncertain="fail")).ok
    assert not check_document(document, Gates(max_drop=drop - 0.1, uncertain="measured")).ok
    assert check_document(document, Gates(max_drop=drop + 0.1, uncertain="measured")).ok
    assert check_document(document, Gates(max_drop=drop - 0.1)).status is Status.cannot_tell


def test_a_condition_that_divides_by_zero_fails() -> None:
    document = make_document()
    (verdict,) = check_document(document, Gates(fail_if=("drop / (samples - samples) > 1",))).verdicts
    assert verdict.status == Status.failed
    assert "divides by zero" in verdict.text


def test_every_limit_can_fail_and_pass() -> None:
    document = make_document(samples=10000)
    document["energy"] = {"rows": [{"ratio": 0.8, "decides": True}, {"ratio": 9.0, "decides": False}]}
    passing = Gates(
        max_drop=2, min_accuracy=80, min_ann_accuracy=80, min_agreement=80, max_spikes=1e6, max_energy_ratio=1.0
    )
    failing = Gates(
        max_drop=-2, min_accuracy=99, min_ann_accuracy=99, min_agreement=99.9, max_spikes=10, max_energy_ratio=0.5
    )
    assert statuses(document, passing) == ["passed"] * 6
    assert statuses(document, failing) == ["failed"] * 6


def test_a_gate_on_what_is_not_known_fails() -> None:
    document = make_document(labelled=False)
    (verdict,) = check_document(document, Gates(min_accuracy=1)).verdicts
    assert verdict.status is Status.failed
    assert "the images have no labels" in verdict.text


def test_at_another_step_the_interval_is_wider_but_judged() -> None:
    document = make_document(samples=10000)
    early, late = quantities(document, 2).known["drop"], quantities(document).known["drop"]
    assert early.value > late.value
    assert early.low < early.value < early.high
    with pytest.raises(OptionError, match="--at 33 is no step"):
        check_document(document, Gates(max_drop=1, at=33))


def test_baseline() -> None:
    document = make_document(samples=10000)
    same = check_document(document, Gates(fail_if=("accuracy_drop > 1", "spikes_ratio > 1.01")), document)
    assert [verdict.status for verdict in same.verdicts] == [Status.passed, Status.passed]
    better = make_document(samples=10000)
    better["fit_curve"]["accuracy"][-1] += 7.0
    assert statuses(document, Gates(fail_if=("accuracy_drop > 0.5",)), better) == ["failed"]
    other = make_document(samples=500)
    with pytest.raises(DataError, match="not the 10000 of this report"):
        check_document(document, Gates(max_drop=1), other)
    (verdict,) = check_document(document, Gates(fail_if=("spikes_ratio > 2",))).verdicts
    assert "needs a baseline" in verdict.text


def test_every_name_is_known_or_explained() -> None:
    for document in (make_document(), make_document(labelled=False), make_document(layers=0)):
        found = quantities(document)
        assert set(found.known) | set(found.unknown) == set(NAMES)
        assert not set(found.known) & set(found.unknown)
        assert all(row.low <= row.value <= row.high for row in found.known.values())


@pytest.mark.parametrize(
    "values",
    [
        {"max_drip": 1},
        {"max_drop": "1"},
        {"max_drop": True},
        {"at": 0},
        {"uncertain": "maybe"},
        {"fail_if": ["drop >"]},
        {"fail_if": [3]},
    ],
)
def test_gates_that_make_no_sense(values: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        Gates.from_dict(values)


def test_command_line_gates_take_the_place_of_the_manifests() -> None:
    merged = Gates(max_drop=1.0).over(Gates(max_drop=3.0, min_accuracy=90, uncertain="fail"))
    assert merged == Gates(max_drop=1.0, min_accuracy=90, uncertain="fail")


def test_worst_layer_is_the_dead_one_else_the_one_farthest_beyond_its_bound() -> None:
    document = make_document()
    document["layers"][4]["fit"][-1]["k"] = 99.0
    assert document["layers"][4]["origin"] in str(worst_layer(document))
    document["layers"][7]["spikes_per_image"] = 0
    assert worst_layer(document) == f"{document['layers'][7]['origin']} never spiked"
    assert worst_layer(make_document(layers=0)) is None


def some_cases() -> list[Case]:
    result = check_document(make_document(samples=10000), Gates(max_drop=0.01, min_accuracy=80, max_spikes=75200))
    odd = Case("b<|>", "conversion", "error", "ModelFileError: cut \x00 short & <gone>\n|x|", "hint: copy\n100 % again")
    return [*Case.of(result), odd]


def test_junit_names_model_and_layer_and_survives_odd_texts() -> None:
    root = ElementTree.fromstring(junit_xml("s", some_cases()).encode())
    (suite,) = root
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("4", "1", "1")
    (failure,) = suite.iter("failure")
    assert "resnet20" in str(failure.get("message"))
    assert "worst layer: layer" in str(failure.get("message"))
    (error,) = suite.iter("error")
    assert "cut ? short & <gone>" in str(error.get("message"))


def test_markdown_and_annotations() -> None:
    text = markdown("t", some_cases(), {"resnet20": figures(make_document(samples=10000))})
    assert "0 of 2 models are good" in text
    row = next(line for line in text.splitlines() if "gone" in line)
    assert row.count(" | ") == 2
    assert "\\|x\\|" in row
    assert f"| resnet20 | **failed** | {verdict(make_document(samples=10000))} |" in text
    assert "baseline" not in text
    lines = github_annotations(some_cases())
    assert lines[0].startswith("::error title=resnet20%3A max_drop 0.01::drop ")
    assert "100 %25 again" in lines[1]
    assert all("\n" not in line for line in lines)


def test_the_summary_says_what_has_changed() -> None:
    now, then = figures(make_document(samples=10000)), figures(make_document(samples=10000))
    assert change(now, then) == "none"
    assert change(now, None) == "new"
    then |= {"value": then["value"] + 0.5, "holds_from": 2, "spikes_by_then": 2 * then["spikes_by_then"]}
    step = now["holds_from"]
    told = change(now, then)
    assert re.fullmatch(rf"accuracy 91\.\d\d to 90\.\d\d % \(-0\.5\); from step 2 to {step}; spikes x0\.50", told)
    assert "another figure" in change(now, {**then, "metric": "relative_error"})
    text = markdown("t", some_cases(), {"resnet20": now}, {"resnet20": then, "left": then})
    assert "| model | gates | what was found | against the baseline |" in text
    assert f" | {told} |" in text
    assert "No longer there: left." in text


def test_errors_that_grow_are_said_as_errors() -> None:
    row = {"verdict": "", "metric": "relative_error", "holds_from": 3, "spikes_by_then": 10.0}
    assert change({**row, "value": 1.61}, {**row, "value": 1.3}) == "relative error 1.3 to 1.61 % (+0.31)"


def test_command(tmp_path: Path) -> None:
    report = tmp_path / "r.json"
    report.write_text(dumps(make_document(samples=10000)))
    run = CliRunner().invoke
    junit, summary = tmp_path / "j.xml", tmp_path / "s.md"
    outputs = ["--junit", str(junit), "--summary", str(summary)]
    failed = run(app, ["gate", str(report), "--max-drop", "0.01", *outputs])
    assert failed.exit_code == 3
    assert "worst layer: layer" in failed.output
    assert "<failure" in junit.read_text()
    assert run(app, ["gate", str(report), "--max-drop", "9", "--baseline", str(report), *outputs]).exit_code == 0
    assert "| none |" in summary.read_text()
    assert "resnet20" in summary.read_text()
    assert run(app, ["gate", str(report), "--max-drop", "5"]).exit_code == 0
    unsure = ["gate", str(report), "--max-drop", "0.5"]
    assert run(app, unsure).exit_code == 0
    assert run(app, [*unsure, "--strict"]).exit_code == 3
    same = ["gate", str(report), "--baseline", str(report), "--fail-if", "accuracy_drop > 1"]
    assert run(app, same).exit_code == 0
    annotated = run(app, ["gate", str(report), "--max-drop", "0.01", "-q"], env={"GITHUB_ACTIONS": "true"})
    assert annotated.output.startswith("::error title=resnet20")
    broken = tmp_path / "b.json"
    broken.write_text(json.dumps({"schema": "other"}))
    assert isinstance(run(app, ["gate", str(broken), "--max-drop", "1"]).exception, DataError)
    assert isinstance(run(app, ["gate", str(report)]).exception, OptionError)


def test_long_sums_leading_zeros_and_line_breaks_are_read() -> None:
    for text in ("a" + " + a" * 490 + " > 007", "(" * 100 + "a > 01.5" + ")" * 100, "a\n  >\t1e-01"):
        assert parse_condition(text, KNOWN).judge(KNOWN) is True
