"""Pages whose charts are pictures, or are drawn by a library beside them."""

from __future__ import annotations

from make_document import make_document
from pages import Page, executed, hostile_document

from snnconvert.report.charts import charts
from snnconvert.report.render_html import render_html


def test_a_static_page_holds_pictures_and_no_script() -> None:
    text = render_html(make_document(layers=24), static=True)
    page = Page(text)
    assert page.scripts == []
    assert "script-src 'none'" in text
    assert "JavaScript" not in text
    drawn = [attrs for tag, attrs in page.tags if tag == "svg"]
    assert len(drawn) == text.count('class="chart"') == len(charts(make_document(layers=24)))
    names = [attrs["id"] for _, attrs in page.tags if attrs.get("id")]
    assert len(names) == len(set(names))
    assert len(text.encode()) < 200_000
    assert all(attrs.get("aria-label") for _, attrs in page.tags if attrs.get("class") == "chart")


def test_hostile_strings_stay_text_in_pictures() -> None:
    page = Page(render_html(hostile_document(), static=True))
    assert page.scripts == []
    assert not {tag for tag, _ in page.tags} & {"img", "iframe", "foreignobject", "a", "use"}
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]


def test_a_page_can_share_its_library() -> None:
    text = render_html(make_document(), library="../../charts.js")
    assert '<script src="../../charts.js"></script>' in text
    assert len(text) < 150_000
    assert executed(Page(text))  # what draws is still in the page, pinned by its digest
