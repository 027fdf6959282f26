"""Where the chosen network answers once, what a streaming one would give is said."""

from __future__ import annotations

from typing import Any

import pytest

from snnconvert.report.sections.candidates import sentence


def row(name: str, steps: list[int], values: list[float | None], *, chosen: bool = False) -> dict[str, Any]:
    curve = {"metric": "pixel_agreement", "steps": steps, "values": values}
    return {"name": name, "eligible": True, "chosen": chosen, "curve": curve}


def said(*others: dict[str, Any], steps: tuple[int, ...] = (30,)) -> str | None:
    taken = row("bistable, window 6, 1 window", list(steps), [99.9] * len(steps), chosen=True)
    return sentence({"candidates": [*others, taken, {"name": "wait 9", "eligible": False, "chosen": False}]})


@pytest.mark.parametrize("name", ["streaming", "ternary, streaming"])
def test_a_streaming_candidate_that_is_nearly_as_good_earlier(name: str) -> None:
    text = said(row(name, [1, 2, 3, 4], [99.5, 98.0, 99.4, 99.8]))
    assert text is not None
    assert "once, at step 30" in text
    assert "from step 3 on comes within 0.5 points" in text
    assert "--schedule streaming" in text


def test_nothing_is_said_where_streaming_is_no_better_off() -> None:
    streams = row("streaming", [1, 2, 3], [99.9, 99.9, 99.9])
    assert said(streams) is not None
    assert said(streams, steps=(20, 30)) is None
    assert said(row("wait 1", [2, 3], [99.9, 99.9])) is None
    assert said(row("streaming", [2, 31], [99.0, 99.9])) is None
    assert said(row("streaming", [2, 3], [99.9, None])) is None
    assert said(row("streaming", [2, 3], [99.9, 99.0])) is None
    assert said() is None
