"""A section is one file and a row; and what versions before wrote can still be read."""

from __future__ import annotations

import html
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypedDict

import altair as alt
import pytest
from make_document import make_parts
from msgspec import Meta
from rich.console import Console
from typer.testing import CliRunner

from snnconvert.cli.main import app
from snnconvert.errors import InternalError
from snnconvert.gates.limits import Gates
from snnconvert.gates.verdicts import check_document
from snnconvert.report.blocks import Block, Chart, On, Table, Text
from snnconvert.report.compare import compare
from snnconvert.report.document import assemble, load_report, schema
from snnconvert.report.drawing import data, finish
from snnconvert.report.render_html import render_html
from snnconvert.report.render_markdown import render_markdown
from snnconvert.report.render_terminal import print_summary
from snnconvert.report.section import Section
from snnconvert.report.sections import SECTIONS
from snnconvert.report.verdict import verdict

DATA = Path(__file__).parent / "data"
REPORTS = ("streaming", "bistable", "rebuilt")


class Keys(TypedDict):
    parity: Annotated[list[int], Meta(min_length=1, description="odd layers")]


def blocks(document: Any) -> Sequence[Block]:
    rows = [(f"layer {number}", str(number)) for number in document["parity"]]
    return [Text("Some layers are odd.", On.ALL), Table(("odd", "number"), rows, On.ALL), Chart("odd", "odd layers")]


def charts(document: Any) -> dict[str, Any]:
    dots = alt.Chart(data([{"n": number} for number in document["parity"]])).mark_point().encode(x="n:Q")
    return {"odd": finish(dots, 50)}


def complete(document: dict[str, Any]) -> None:
    document.setdefault("parity", [n for n in range(len(document["layers"])) if n % 2])


def test_a_new_section_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    before = schema()
    section = Section(Keys, lambda _: {}, "Odd layers", complete, blocks=blocks, charts=charts)
    monkeypatch.setitem(SECTIONS, "parity", section)
    document = assemble(make_parts(layers=4))
    assert document["parity"] == [1, 3]
    assert schema()["properties"]["parity"]["description"] == "odd layers"
    assert set(schema()["properties"]) - set(before["properties"]) == {"parity"}
    with pytest.raises(InternalError):
        assemble({**make_parts(layers=4), "parity": []})
    console = Console(file=io.StringIO(), width=80)
    print_summary(document, console)
    page = render_html(document)
    for text in (console.file.getvalue(), render_markdown(document), page):  # type: ignore[attr-defined]
        assert "Some layers are odd." in text
        assert "layer 3" in text
    assert "<h2>Odd layers</h2>" in page
    assert 'data-chart="odd"' in page
    monkeypatch.delitem(SECTIONS, "parity")
    assert schema() == before


@pytest.mark.parametrize("name", REPORTS)
def test_reports_of_version_1_are_read_and_shown(name: str, tmp_path: Path) -> None:
    path = DATA / f"version1-{name}.json"
    old, document = json.loads(path.read_text("utf-8")), load_report(path)
    assert old["schema"] == "snnconvert-report/1"
    assert {key: document["fit_curve"][key] for key in old["fit_curve"]} == old["fit_curve"]
    assert document["precision"] == old["evaluation"].get("precision")
    assert verdict(document) in html.unescape(render_html(document))
    told = tmp_path / "again.html"
    done = CliRunner().invoke(app, ["report", str(path), "--report", str(told), "--markdown", "--csv"])
    assert done.exit_code == 0, done.output
    assert load_report(told.with_suffix(".json")) == document
    judged = check_document(document, Gates(min_accuracy=50.0), load_report(path))
    assert judged.ok
    assert judged.verdicts[0].text.startswith("accuracy")


def test_gate_and_comparison_read_version_1(tmp_path: Path) -> None:
    files = [str(DATA / f"version1-{name}.json") for name in REPORTS]
    runner = CliRunner()
    done = runner.invoke(app, ["gate", files[0], "--max-drop", "5", "--baseline", files[0]])
    assert done.exit_code == 0, done.output
    page = tmp_path / "all.html"
    done = runner.invoke(app, ["report", *files, "--report", str(page), "--markdown"])
    assert done.exit_code == 0, done.output
    assert all(f"version1-{name}" in page.read_text("utf-8") for name in REPORTS)
    read = [(name, load_report(Path(file))) for name, file in zip(REPORTS, files, strict=True)]
    assert [row["accuracy"] for row in compare(read)["runs"]] == [
        document["analysis"]["final"]["accuracy"] for _, document in read
    ]
