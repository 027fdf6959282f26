"""How a report speaks: numbers and names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from snnconvert.graph.schedule import SCHEDULES, Schedule
from snnconvert.printable import printable
from snnconvert.tasks import METRICS, Metric

DASH = "–"
# no word, path or name of a layer that anybody reads is as long; ten thousand characters are ten screens
_ENDLESS = re.compile(r"\S{300,}")


# the word alone: not in a path, nor in the name of a layer or a file
_IMAGE = re.compile(r"(?<![\w./\\-])(an |An )?([Ii])mage(s?)(?![\w/\\]|[.-]\w)")


def spoken(document: Mapping[str, Any], text: str) -> str:
    """`text`, which speaks of images, in the words of the report's network: "inputs" for signals and tables."""
    noun = (document.get("task") or {}).get("input", "image")
    if "mage" not in text or noun == "image":
        return text
    article = "a" if noun == "recording" else "an"

    def said(found: re.Match[str]) -> str:
        before = "" if not found[1] else (article if found[1][0] == "a" else article.capitalize()) + " "
        return f"{before}{noun.capitalize() if found[2] == 'I' else noun}{found[3]}"

    return _IMAGE.sub(said, text)


def milliseconds(document: Mapping[str, Any]) -> float | None:
    """Of a recording in one step, where recordings are replayed in time; else None."""
    found: float | None = document["latency"].get("step_milliseconds")
    return found


def moment(document: Mapping[str, Any], step: int, *, bare: bool = False) -> str:
    """`step 12`, or `12 ms` where recordings are replayed in time; `bare` leaves "step" out."""
    each = milliseconds(document)
    if each is None:
        return str(step) if bare else f"step {step}"
    return f"{step * each:.3g} ms" if step * each < 1000 else f"{step * each:,.0f} ms"


def at_time(document: Mapping[str, Any], step: int) -> str:
    """`T = 12`, or `12 ms` where recordings are replayed in time."""
    return f"T = {step}" if milliseconds(document) is None else moment(document, step)


def schedule(document: Mapping[str, Any]) -> type[Schedule] | None:
    """The class of the schedule that a report names; None for one that is not known here."""
    return SCHEDULES.get((document.get("schedule") or {}).get("kind", ""))


def clean(text: object) -> str:
    """One line of printable text for a reader; of an endless name the beginning and the end."""
    return _ENDLESS.sub(lambda found: f"{found[0][:100]}…{found[0][-40:]}", printable(text))


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


def measured(metric: Metric, value: float | None, digits: int = 1) -> str:
    """A figure with its unit: shares with so many decimals, errors in three digits."""
    found = bare(metric, value, digits)
    return f"{found} %" if metric.unit == "%" and value is not None else found


def bare(metric: Metric, value: float | None, digits: int = 1) -> str:
    """A figure without its unit."""
    return fixed(value, digits) if metric.unit == "%" and metric.better == "higher" else short(value)


def share(value: float | None, digits: int = 1) -> str:
    """A percentage given as 0..1."""
    return DASH if value is None else percent(100.0 * value, digits)


def short(value: float | None) -> str:
    """A number of any size in three digits."""
    return DASH if value is None else f"{value:.3g}"


def count(value: float | None) -> str:
    """A count with thousands separators; one decimal below ten."""
    return DASH if value is None else fixed(value, 0 if value >= 10 or value == int(value) else 1)


def against_ann(rows: Sequence[Mapping[str, Any]], document: Mapping[str, Any]) -> tuple[str, list[str]]:
    """How near rows {agreement, value} come to the ANN: a heading, and the figure of each row."""
    metric = METRICS[document["fit_curve"]["metric"]]
    values = [row["agreement"] if metric.name == "agreement" else row.get("value") for row in rows]
    title = "same answer as the ANN" if metric.name == "agreement" else metric.title
    return title, [fixed(value, 1 if metric.unit else 3, f" {metric.unit}".rstrip()) for value in values]


def slug(text: object) -> str:
    """A name for a column: small letters, digits and underscores."""
    return re.sub(r"[^a-z0-9]+", "_", clean(text).lower()).strip("_")


def plural(number: int, noun: str) -> str:
    """`1 image`, `1,000 images`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def interval(document: Mapping[str, Any]) -> tuple[float, float] | None:
    """The 95 % interval of what the report is about, at the last step that has an answer."""
    found = (document["analysis"]["final"] or {}).get("interval")
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
        elif isinstance(value, float):
            yield name, f"{value:.6g}"
        elif value is not None and value != []:
            yield name, clean(value) if isinstance(value, str) else clean(json.dumps(value, ensure_ascii=False))
