"""What has to be known before the figures are believed: warnings, and remarks on the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, NotRequired, TypedDict

from msgspec import Meta

from snnconvert.report import findings
from snnconvert.report.blocks import Block, Notices, On, Text
from snnconvert.report.section import Document, Section

if TYPE_CHECKING:
    from snnconvert.report.measured import Measured


class Warned(TypedDict):
    code: Annotated[str, Meta(pattern="^[a-z][a-z0-9_]*$")]
    text: str
    hint: NotRequired[str]


class Keys(TypedDict):
    warnings: list[Warned]


def compute(measured: Measured) -> dict[str, Any]:
    return {"warnings": list(measured.warnings)}


def complete(document: dict[str, Any]) -> None:
    """What was given comes first; then what the numbers call for."""
    given = document.get("warnings", [])
    document["warnings"] = given + [row for row in findings.warnings_for(document) if row not in given]


# what makes the figures worthless stands before them; all else after the picture
_GRAVE = {"no_answer", "import_differs", "ann_near_chance", "calibrated_on_evaluation", "constant_class"}


def rows(document: Document, *, grave: bool) -> list[tuple[str, str]]:
    """(text, hint) of the warnings that make the figures worthless, or of the others."""
    return [(row["text"], row.get("hint", "")) for row in document["warnings"] if (row["code"] in _GRAVE) == grave]


def blocks(document: Document) -> Sequence[Block]:
    found: list[Block] = [
        Notices(told, on)
        for told, on in ((rows(document, grave=True), On.TEXT), (rows(document, grave=False), On.ALL))
        if told
    ]
    notes = (*document["model"]["notes"], *document["evaluation"]["notes"])
    return [*found, *(Text(f"note: {note}", On.TERMINAL, soft=True) for note in notes)]


SECTION = Section(Keys, compute, "", complete, blocks=blocks)
