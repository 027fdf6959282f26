"""How a report speaks: numbers and names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from snnconvert.graph.schedule import SCHEDULES, Schedule

DASH = "–"


def clean(text: object) -> str:
    """One line of printable text: control characters (escape sequences in a model's name, say) become "\\ufffd"."""
    return "".join(c if c.isprintable() else " " if c in "\n\r\t" else "\ufffd" for c in str(text))


def schedule(document: Mapping[str, Any]) -> type[Schedule] | None:
    """The class of the schedule that a report names; None for one that is not known here."""
    return SCHEDULES.get((document.get("schedule") or {}).get("kind", ""))


def label(origin: str) -> str:
    """A layer's name without its operator, short enough for an axis."""
    return re.sub(r" \([^()]*\)$", "", clean(origin))


def fixed(value: float | None, digits: int = 1, unit: str = "") -> str:
    """A rounded number with thousands separators, or a dash."""
    if value is None:
        return DASH
    # Adding 0.0 turns a rounded -0.0 into 0.0.
    return f"{round(value, digits) + 0.0:,.{digits}f}{unit}"


def percent(value: float | None, digits: int = 1) -> str:
    """A percentage given as 0..100."""
    return fixed(value, digits, " %")


def share(value: float | None, digits: int = 1) -> str:
    """A percentage given as 0..1."""
    return DASH if value is None else percent(100.0 * value, digits)


def short(value: float | None) -> str:
    """A number of any size in three digits."""
    return DASH if value is None else f"{value:.3g}"


def count(value: float | None) -> str:
    """A count with thousands separators; one decimal below ten."""
    return DASH if value is None else fixed(value, 0 if value >= 10 or value == int(value) else 1)


def slug(text: object) -> str:
    """A name for a column: small letters, digits and underscores."""
    return re.sub(r"[^a-z0-9]+", "_", clean(text).lower()).strip("_")


def plural(number: int, noun: str) -> str:
    """`1 image`, `1,000 images`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def interval(document: Mapping[str, Any]) -> tuple[float, float] | None:
    """The 95 % interval of the accuracy at the last step that has an answer."""
    final, curve = document["analysis"]["final"], document["fit_curve"]
    if final is None:
        return None
    found = curve["accuracy_interval"][curve["timesteps"].index(final["t"])]
    return None if found is None else (found[0], found[1])


def times(ratio: float) -> str:
    """A ratio in two digits, without an exponent."""
    return f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.2g}"


def flat(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """(key, value) rows of a section, nested mappings joined by a dot; nulls and empty lists are left out."""
    for key, value in section.items():
        name = f"{prefix}{clean(key).replace('_', ' ')}"
        if isinstance(value, Mapping):
            yield from flat(value, f"{name}: ")
        elif isinstance(value, list) and value and all(isinstance(item, str) for item in value):
            yield name, "; ".join(clean(item) for item in value)
        elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            yield name, f"{plural(len(value), 'row')} in the JSON report"
        elif isinstance(value, bool):
            yield name, "yes" if value else "no"
        elif value is not None and value != []:
            yield name, clean(value) if isinstance(value, str) else clean(json.dumps(value, ensure_ascii=False))
