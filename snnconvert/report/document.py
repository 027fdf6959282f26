"""The report as JSON, `snnconvert-report/2`: put together from its sections, checked, saved and read back.

Every rendering (HTML, terminal, Markdown, CSV) reads this and nothing else. Its type and JSON Schema are those of its
sections. They are typed dicts, not classes of their own, because the report *is* JSON: what a section computes, what
programs read from the file, and what a later version reads back have the same form.
"""

from __future__ import annotations

import json
import math
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypedDict, Union, get_args, get_origin, get_type_hints

import msgspec

from snnconvert.errors import DataError, InternalError, OutputError
from snnconvert.files import read_json, write_atomically
from snnconvert.printable import json_text
from snnconvert.report.sections import SECTIONS, curve_figures, made, summary

SCHEMA = "snnconvert-report/2"
OLDER = "snnconvert-report/1"


def assemble(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Put a report together and check it.

    Numbers may be Python, NumPy or torch scalars; NaN and infinity become null. Keys that may be null need not be
    there, and sections add what follows from what they are given (see each `complete`).

    Raises:
        InternalError: the parts do not make a report.
    """
    document: dict[str, Any] = plain({"schema": SCHEMA, **parts})
    for section in reversed(SECTIONS.values()):  # what sums up and warns stands first and knows of all others
        for key, kind in get_type_hints(section.keys).items():
            if get_origin(kind) in (Union, types.UnionType) and type(None) in get_args(kind):
                document.setdefault(key, None)
        section.complete(document)
    check(document)
    return document


def plain(value: Any) -> Any:
    """JSON-able copy: mappings and sequences to dict and list, scalars of NumPy and torch to Python, NaN to None."""
    result: Any = str(value)
    if isinstance(value, Mapping):
        result = {str(key): plain(item) for key, item in value.items()}
    elif value is None or isinstance(value, str | bool):
        result = value
    elif isinstance(value, int | float):
        # Subclasses (IntEnum, numpy.float64) become the plain type.
        result = int(value) if isinstance(value, int) else float(value) if math.isfinite(value) else None
    elif hasattr(value, "tolist"):
        result = plain(value.tolist())
    elif isinstance(value, Sequence | set | frozenset):
        result = [plain(item) for item in value]
    return result


_types: dict[tuple[Any, ...], tuple[Any, dict[str, Any]]] = {}


def _type() -> tuple[Any, dict[str, Any]]:
    """What a report has to be, the keys of the sections that there are now, with its JSON Schema; made once."""
    now = tuple(SECTIONS.items())
    if now not in _types:
        keys: dict[str, Any] = {"schema": Literal[SCHEMA]}
        for section in SECTIONS.values():
            keys |= get_type_hints(section.keys, include_extras=True)
        made: Any = TypedDict("Report", keys)  # type: ignore[misc]
        _types[now] = made, _inlined(msgspec.json.schema(made))
    return _types[now]


def _inlined(found: dict[str, Any]) -> dict[str, Any]:
    """A schema whose outermost reference is replaced by what it refers to."""
    parts = dict(found["$defs"])
    return {**parts.pop(found["$ref"].rsplit("/", 1)[-1]), "$defs": parts}


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a report."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:snnconvert:report:2",
        "description": "Accuracies and agreements are percent (0..100); shares and rates are fractions (0..1); times "
        "are seconds; t is a simulation step counted from 1.",
        **_type()[1],
        "title": "Report of one conversion by snnconvert",
        "additionalProperties": False,
    }


def faults(document: Any) -> list[str]:
    """What keeps `document` from being a report: the first wrong type, else all else; empty when it is one."""
    try:
        msgspec.convert(document, _type()[0], strict=True)
    except msgspec.ValidationError as error:
        return [str(error)]
    found = [f"{key}: no section has it" for key in sorted(set(document) - set(_type()[1]["properties"]))]
    curve, total = document["fit_curve"], document["latency"]["total"]
    length = len(curve["timesteps"])
    if curve["timesteps"] != sorted(set(curve["timesteps"])):
        found.append("fit_curve/timesteps: must increase")
    found += [
        f"fit_curve/{key}: {len(row)} values for {length} timesteps"
        for key, row in curve.items()
        if isinstance(row, list) and len(row) != length
    ]
    if curve["timesteps"][-1] > total:
        found.append(f"fit_curve/timesteps: ends at {curve['timesteps'][-1]}, after latency/total {total}")
    pair, final = document["analysis"]["paired"], document["analysis"]["final"]
    if pair and final and final["drop"] is not None:
        counted = 100.0 * (pair["ann_only"] - pair["snn_only"]) / document["evaluation"]["samples"]
        if abs(counted - final["drop"]) > 0.01:
            found.append(f"analysis/paired: counts say {counted:.3f} points, the accuracies {final['drop']:.3f}")
    names = [layer["name"] for layer in document["layers"]]
    found += [f"layers: two rows are called {name!r}" for name in sorted({n for n in names if names.count(n) > 1})]
    return found


def check(document: Any) -> None:
    """Raise InternalError with its faults unless `document` is a report."""
    if found := faults(document):
        raise InternalError(f"this is no {SCHEMA} document", causes=tuple(found[:20]))


def dumps(document: Mapping[str, Any]) -> str:
    """The JSON text of a report; equal documents give equal text."""
    return json_text(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)) + "\n"


def load_report(path: Path) -> dict[str, Any]:
    """Read a report's JSON file, of this version or the one before.

    Raises:
        DataError: the file is missing, no JSON, or no report.
    """
    hint = f"give the .json file that `snnconvert` wrote beside its HTML report ({SCHEMA})"
    try:
        document = read_json(path)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read the report {path}: {error}", hint=hint) from error
    try:
        document = _of_version_1(document) if _is_version_1(document) else document
        document = document if "task" in document else _of_classifiers_alone(document)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"{path} is no {OLDER} document: {error!r}", hint=hint) from error
    if found := faults(document):
        raise DataError(f"{path} is no {SCHEMA} document", hint=hint, causes=tuple(found[:5]))
    result: dict[str, Any] = document
    return result


@contextmanager
def of_reports(paths: Sequence[Path]) -> Iterator[None]:
    """Whatever is made of reports that were read: where their parts do not fit each other, it is the files' fault.

    Types and lengths are checked when a report is read; that every layer, class and comparison that one part names is
    in the others as well shows only when they are put together.

    Raises:
        DataError: naming the reports.
    """
    try:
        yield
    except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise DataError(
            f"the parts of {', '.join(map(str, paths))} do not fit each other: {type(error).__name__}: {error}",
            hint="a report that was edited? convert again, or rebuild it: snnconvert report FILE.snn --data DATA",
        ) from error


def _is_version_1(document: Any) -> bool:
    return isinstance(document, Mapping) and document.get("schema") == OLDER


def _of_version_1(document: dict[str, Any]) -> dict[str, Any]:
    """A report of version 1 in today's form.

    There, rounded weights stood in `evaluation`, the shift in `calibration`, a neuron could be a text, and keys that
    version 1 had gained over time are missing in its older files.
    """
    evaluation, calibration = dict(document["evaluation"]), dict(document["calibration"])
    moved = {"precision": evaluation.pop("precision", None), "shift": calibration.pop("shift", None)}
    neuron = document["neuron"]
    named = neuron if isinstance(neuron, Mapping) else {"model": str(neuron)}
    optional = ("attribution", "inside", "chip", "gates", "plan", "early_exit", "ablation", "anytime")
    found = {**dict.fromkeys(optional), **document, **moved, "schema": SCHEMA}
    found |= {"evaluation": {"outcomes": None, **evaluation}, "calibration": calibration, "neuron": named}
    found["layers"] = [{"first_spike": None, **layer} for layer in document["layers"]]
    return found


def _of_classifiers_alone(document: dict[str, Any]) -> dict[str, Any]:
    """A report of version 2 from before there were other tasks than classification, with the keys that came since."""
    if document.get("schema") != SCHEMA:
        return document
    found = curve_figures.with_later_keys({"task": made.CLASSIFIER, "frontier": None, "capacity": None, **document})
    return found | {"holds_from": summary.step_of_the_answer(found)}


def write_report(
    document: Mapping[str, Any], html_path: Path, *, static: bool = False, library: str = ""
) -> list[Path]:
    """Write STEM.html and STEM.json side by side, each whole or not at all; returns both paths.

    `static` and `library` are those of `render_html.page`.

    Raises:
        OutputError: the folder or one of the files cannot be written; nothing new is left behind.
    """
    from snnconvert.report.render_html import render_html

    html_path = Path(html_path)
    json_path = html_path.with_suffix(".json")
    if json_path == html_path:
        raise OutputError(
            f"the report {html_path} would overwrite its own data", hint="choose a name that ends in .html"
        )
    write_atomically({json_path: dumps(document), html_path: render_html(document, static=static, library=library)})
    return [html_path, json_path]


if __name__ == "__main__":
    print(json.dumps(schema(), indent=1))
