"""All charts of a report."""

from __future__ import annotations

from typing import Any

from snnconvert.report.drawing import unchecked
from snnconvert.report.section import Document, Spec
from snnconvert.report.sections import SECTIONS
from snnconvert.report.wording import spoken


@unchecked
def charts(document: Document) -> dict[str, Spec]:
    """The charts that the document has numbers for, as Vega-Lite specifications made by Altair."""
    found = {name: spec for section in SECTIONS.values() for name, spec in section.charts(document).items()}
    return {name: _titled(document, spec) for name, spec in found.items() if spec is not None}


def _titled(document: Document, part: Any) -> Any:
    """A specification, its titles in the words of the report."""
    if isinstance(part, list):
        return [_titled(document, item) for item in part]
    if not isinstance(part, dict):
        return part
    return {
        key: spoken(document, value) if key == "title" and isinstance(value, str) else _titled(document, value)
        for key, value in part.items()
    }
