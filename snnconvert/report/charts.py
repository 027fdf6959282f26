"""All charts of a report."""

from __future__ import annotations

from snnconvert.report.drawing import unchecked
from snnconvert.report.section import Document, Spec
from snnconvert.report.sections import SECTIONS


@unchecked
def charts(document: Document) -> dict[str, Spec]:
    """The charts that the document has numbers for, as Vega-Lite specifications made by Altair."""
    found = {name: spec for section in SECTIONS.values() for name, spec in section.charts(document).items()}
    return {name: spec for name, spec in found.items() if spec is not None}
