"""What a section of the report is: its keys in report.json, and how it is computed, worded and drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta

from snnconvert.report.blocks import Block, Text

if TYPE_CHECKING:
    from snnconvert.report.measured import Measured

Document = Mapping[str, Any]
Spec = dict[str, Any]

# the field types of report.json: percent and shares as in `docs/report.md`
Percent = Annotated[float, Meta(ge=0, le=100)]
Share = Annotated[float, Meta(ge=0, le=1)]
Amount = Annotated[float, Meta(ge=0)]
Step = Annotated[int, Meta(ge=1)]
Count = Annotated[int, Meta(ge=0)]


def means(text: str) -> Any:
    """A description in the JSON schema."""
    return Meta(description=text)


def nothing(_: Any) -> Any:
    """For sections that have nothing of a kind."""
    return ()


@dataclass(frozen=True)
class Section:
    """One section.

    Attributes:
        keys: a TypedDict: the keys that it has in report.json.
        compute: those keys from what was measured.
        complete: fills in, in a document under construction, what is missing of its keys and what follows from others.
        sentences: what it says in short, at the top.
        title: its heading on the page, given that it has blocks.
        blocks: what it shows.
        charts: specifications by name, None where there are no numbers for one.
    """

    keys: type
    compute: Callable[[Measured], dict[str, Any]]
    title: str = ""
    complete: Callable[[dict[str, Any]], Any] = nothing
    sentences: Callable[[Document], Iterable[Text]] = nothing
    blocks: Callable[[Document], Sequence[Block]] = nothing
    charts: Callable[[Document], Mapping[str, Spec | None]] = lambda _: {}
