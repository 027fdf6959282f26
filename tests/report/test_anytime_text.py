"""One network for every T beside a network per T: the sentence, the table and the line in the chart."""

from __future__ import annotations

from make_document import make_document

from snnconvert.report.charts import charts
from snnconvert.report.render_html import render_html
from snnconvert.report.render_markdown import render_markdown
from snnconvert.report.sections.anytime import HEAD, blocks
from snnconvert.report.sections.anytime import sentence as anytime_text


def test_both_figures_are_named_at_every_step() -> None:
    document = make_document(timesteps=32)
    assert anytime_text(document) == (
        "Accuracy of one network for every T (this one, calibrated for T = 32) and of a network per T: no answer yet "
        "against 60.00 % at T = 1; 70.00 % against 80.00 % at T = 16."
    )
    rows = blocks(document)[-1].rows
    assert all(len(row) == len(HEAD) for row in rows)
    assert rows[1] == ("16", "70.00", "68.00 to 72.00", "5", "80.00", "78.00 to 82.00", "5", "1")
    assert rows[2][:2] == ("32", "90.00")
    assert set(rows[2][4:]) == {"–"}


def test_without_labels_agreement_is_compared() -> None:
    text = anytime_text(make_document(labelled=False))
    assert text is not None
    assert text.startswith("Agreement of")
    assert "71.00 % against 81.00 %" in text


def test_the_chart_has_a_second_line_and_the_pages_a_table() -> None:
    document = make_document(timesteps=32)
    values = [row for rows in charts(document)["curve"]["datasets"].values() for row in rows]
    line = [(row["t"], row["value"]) for row in values if row.get("series") == "a network fitted for each T"]
    assert line == [(1, 60.0), (16, 80.0), (32, 90.0)]
    assert "78.00 to 82.00" in render_html(document)
    assert "| 16 | 70.00 | 68.00 to 72.00 | 5 | 80.00 | 78.00 to 82.00 | 5 | 1 |" in render_markdown(document)


def test_nothing_is_said_where_nothing_was_compared() -> None:
    document = {**make_document(), "anytime": None}
    assert anytime_text(document) is None
    assert blocks(document) == []
    assert "a network per T" not in render_html(document)
    assert "a network per T" not in render_markdown(document)
