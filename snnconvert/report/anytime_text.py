"""What a report says of one network for every T, beside a network per T."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from snnconvert.report.wording import DASH, count, fixed, percent

ONE, EACH = "one network for every T", "a network per T"
HEAD = ("T", f"{ONE}: %", "95 %", "spikes per image", f"{EACH}: %", "95 %", "spikes per image", "read from step")


def anytime_text(document: Mapping[str, Any]) -> str | None:
    """Both figures at every T in a sentence; None where nothing was compared."""
    section = document.get("anytime")
    if not section:
        return None
    kind, steps = measure(section), ", ".join(map(str, section["calibrated_for"]))
    pairs = [
        f"{percent(row['this'][kind], 2) if row['this'][kind] is not None else 'no answer yet'} against "
        f"{percent(row['own'][kind], 2)} at T = {row['t']}"
        for row in section["rows"]
        if not row["own"]["same"]
    ]
    return f"{kind.capitalize()} of {ONE} (this one, calibrated for T = {steps}) and of {EACH}: {'; '.join(pairs)}."


def anytime_rows(document: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Cells under HEAD, one row per T; the last step's network may be the same."""
    section = document.get("anytime")
    if not section:
        return []
    kind = measure(section)
    rows: list[tuple[str, ...]] = []
    for row in section["rows"]:
        own = (DASH,) * 4 if row["own"]["same"] else (*_cells(row["own"], kind), str(row["own"]["read_from"] + 1))
        rows.append((str(row["t"]), *_cells(row["this"], kind), *own))
    return rows


def measure(section: Mapping[str, Any]) -> str:
    """What networks are compared by: accuracy, or agreement with the ANN where there are no labels."""
    return "agreement" if section["rows"][-1]["this"]["accuracy"] is None else "accuracy"


def _cells(figures: Mapping[str, Any], kind: str) -> tuple[str, str, str]:
    band = figures["accuracy_interval"]
    interval = DASH if band is None else f"{fixed(band[0], 2)} to {fixed(band[1], 2)}"
    return fixed(figures[kind], 2), interval, count(figures["spikes_per_image"])
