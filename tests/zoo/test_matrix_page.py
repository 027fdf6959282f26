"""A zoo's table and page: reasons where they are looked for, pictures that are never empty, cards on a phone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from snnconvert.report.verdict import verdict
from snnconvert.zoo.matrix import CSV_COLUMNS
from snnconvert.zoo.matrix_page import to_html
from snnconvert.zoo.rows import figures
from tests.browser import measured, needs_browser
from tests.report.make_document import make_document, make_parts

REASON = "images of shape 3x32x32 do not fit the model's input 3x240x320"


def row(name: str, **changes: Any) -> dict[str, Any]:
    base = {"name": name, "status": "converted", "kind": "", "reason": "", "hint": "", "causes": [], "gate": None}
    links = {"log": "log.txt", "html": f"{name}.html"}
    return {**base, "figures": {}, "links": links, "seconds": 1.5, **changes}


def page(*rows: dict[str, Any]) -> str:
    counts = {"models": len(rows), "converted": 1, "failed": 1, "gates_failed": 0, "waiting": 0}
    return to_html({"manifest": "zoo.toml", "counts": counts, "rows": rows})


def failed(name: str = "broken") -> dict[str, Any]:
    causes = [f"cause {number}" for number in range(40)]
    return row(name, status="failed", kind="DataError", reason=REASON, hint="add --resize 240x320", causes=causes)


def test_a_reason_stands_under_its_status_and_causes_are_folded() -> None:
    text = page(failed(), row("good", figures=figures(make_document(layers=3))))
    (cell,) = re.findall(r'<td class="left status" colspan="12">(.*?)</td>', text, re.DOTALL)
    assert re.match(r'<span class="failed">not converted</span> <a href="log.txt">log</a><div class="why">', cell)
    assert "images of shape 3x32x32 do not fit" in cell
    assert cell.index("<details><summary>40 causes") < cell.index("cause 0")
    assert verdict(make_document(layers=3)) in text


def test_a_gate_that_is_missed_is_said_below_the_row() -> None:
    verdicts = [{"gate": "max_drop 1", "status": "failed", "text": "drop 2.10 misses max_drop 1"}]
    gate = {"ok": False, "status": "failed", "verdicts": verdicts, "worst_layer": "layer3"}
    text = page(failed(), row("good", gate=gate, figures=figures(make_document(layers=3))))
    after = text[text.index("gate failed") :]
    assert (
        after.index("</tr>")
        < after.index("max_drop 1: drop 2.10 misses max_drop 1")
        < after.index("worst layer: layer3")
    )


def drawn(**changes: Any) -> str:
    from snnconvert.report.document import assemble

    parts = make_parts(layers=3, **changes)
    (svg,) = re.findall(r"<svg.*?</svg>", page(failed(), row("good", figures=figures(assemble(parts)))))
    return svg


def test_pictures_are_never_empty() -> None:
    curve = drawn()
    assert len(re.findall(r"[\d.]+,[\d.]+", str(re.findall(r'<polyline points="([^"]*)"', curve)[0]))) == 32
    single = drawn(timesteps=8, first_output=8)
    assert "polyline" not in single
    assert len(re.findall('class="own"', single)) == 1
    # One of the four candidates is chosen, and two may not be had.
    assert len(re.findall('class="tried"', single)) == 1
    heights = [float(y) for y in re.findall(r'(?:cy="| M0 |d="M0 )([\d.]+)', single)]
    assert all(0 <= y <= 30 for y in heights)


def test_an_error_falls_towards_its_line() -> None:
    found = figures(make_document(layers=3)) | {"metric": "relative_error", "ann_accuracy": None, "tried": []}
    found["curve"] = {"basis": "relative_error", "t": [1, 2, 3], "value": [60.0, 20.0, 5.0]}
    (points,) = re.findall(r'<polyline points="([^"]*)"', page(failed(), row("good", figures=found)))
    heights = [float(pair.split(",")[1]) for pair in points.split()]
    assert heights == sorted(heights, reverse=True)
    (level,) = re.findall(r'class="level" d="M0 ([\d.]+)H', page(failed(), row("good", figures=found)))
    assert float(level) <= min(heights)


@needs_browser
@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
def test_the_reason_is_on_the_screen(width: int, height: int, tmp_path: Path) -> None:
    text = page(failed(), row("good", figures=figures(make_document(layers=3))))
    places = "{status: box('.failed'), why: box('.why'), wide: document.documentElement.scrollWidth, "
    places += "status2: box('td .failed'), body: box('tbody')}"
    found = measured(text, places, tmp_path, width, height)
    assert found["wide"] <= width
    assert 0 <= found["why"]["left"] < found["why"]["right"] <= width
    assert 0 <= found["why"]["top"] - found["status2"]["bottom"] < 12
    assert found["body"]["bottom"] - found["body"]["top"] < 160


def test_no_column_of_the_table_stands_twice() -> None:
    assert len(set(CSV_COLUMNS)) == len(CSV_COLUMNS)
