"""The matrix of a zoo: zoo.json, zoo.csv and zoo.html from the same rows; and what continuous integration reads."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from snnconvert.errors import DataError
from snnconvert.files import write_atomically
from snnconvert.gates.junit import Case, junit_xml, markdown
from snnconvert.gates.verdicts import Status
from snnconvert.printable import cell, json_text
from snnconvert.report.render_html import chart_library
from snnconvert.zoo.matrix_page import to_html
from snnconvert.zoo.rows import LIBRARY, Outcome, Result

SCHEMA = "snnconvert-zoo/1"
CSV_COLUMNS = (
    *("name", "status", "gate", "kind", "reason"),
    *("ann_accuracy", "accuracy", "drop", "agreement", "timesteps", "within_1", "spikes_per_image", "energy_ratio"),
    *("samples", "sites", "parameters", "format", "method", "neuron", "schedule", "data", "seconds", "peak_memory"),
    *("task", "metric", "value", "holds_from", "spikes_by_then", "energy", "verdict"),
)


def matrix_document(
    manifest: str, results: Sequence[Result], *, changes: Mapping[str, Any], total: int, seconds: float
) -> dict[str, Any]:
    """The matrix as one dict, `snnconvert-zoo/1`: rows in the order of the manifest, and the counts.

    `changes` are the options that took the place of the manifest's, for all models.
    """
    rows = [_row(result) for result in results]
    counts = {
        "models": total,
        "converted": sum(result.converted for result in results),
        "failed": sum(not result.converted for result in results),
        "gates_failed": sum(result.converted and not result.passed for result in results),
        "cannot_tell": sum(result.gate is not None and result.gate.status == Status.cannot_tell for result in results),
        "kept": sum(result.kept for result in results),
        "waiting": total - len(results),
    }
    return {
        "schema": SCHEMA,
        "manifest": manifest,
        "changes": dict(changes),
        "counts": counts,
        "seconds": round(seconds, 1),
        "rows": rows,
    }


def _row(result: Result) -> dict[str, Any]:
    row, folder = result.row, f"models/{result.entry.name}"
    name = result.entry.name
    links = {"log": f"{folder}/log.txt"}
    if result.converted:
        links |= {kind: f"{folder}/{name}.{kind}" for kind in ("html", "json", "snn")}
    return {
        "name": name,
        "source": result.entry.source,
        "where": result.entry.where,
        **{key: row[key] for key in ("status", "kind", "reason", "hint", "causes")},
        "gate": result.gate.to_dict() if result.gate else None,
        "figures": row["figures"],
        "value_at": _value_at(row["figures"]),
        "links": links,
        "seconds": row["seconds"],
        "peak_memory": row["peak_memory"],
        "kept": result.kept,
    }


def _value_at(figures: Mapping[str, Any]) -> dict[str, float | None]:
    """What the report is about, the row's `metric`, at powers of two and at the last step."""
    if not figures:
        return {}
    curve = figures["curve"]
    wanted = {2**power for power in range(20)} | {curve["t"][-1]}
    return {str(t): value for t, value in zip(curve["t"], curve["value"], strict=True) if t in wanted}


def write_matrix(
    out: Path, manifest: str, results: Sequence[Result], *, changes: Mapping[str, Any], total: int, seconds: float
) -> None:
    """Write zoo.json, zoo.csv and zoo.html, each whole or not at all; and once what the reports' charts need."""
    library = {} if (out / LIBRARY).exists() else {out / LIBRARY: chart_library()}
    document = matrix_document(manifest, results, changes=changes, total=total, seconds=seconds)
    write_atomically(
        {
            out / "zoo.json": json_text(json.dumps(document, indent=1, ensure_ascii=False)) + "\n",
            out / "zoo.csv": to_csv(document),
            out / "zoo.html": to_html(document),
            **library,
        }
    )


def to_csv(document: Mapping[str, Any]) -> str:
    """One line per model; columns as in CSV_COLUMNS, then the metric by step."""
    steps = sorted({int(t) for row in document["rows"] for t in row["value_at"]})
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*CSV_COLUMNS, *(f"value_T{t}" for t in steps)])
    for row in document["rows"]:
        flat = {**row["figures"], **row, "gate": row["gate"]["status"] if row["gate"] else ""}
        cells = [flat.get(column) for column in CSV_COLUMNS] + [row["value_at"].get(str(t)) for t in steps]
        writer.writerow(["" if value is None else cell(value) if isinstance(value, str) else value for value in cells])
    return stream.getvalue()


def write_summaries(
    out: Path, manifest: str, outcome: Outcome, before: Mapping[str, Mapping[str, Any]] | None = None
) -> list[Case]:
    """Write junit.xml and summary.md; `before` as `baseline` reads it."""
    found = cases(outcome.results)
    figures = {result.entry.name: result.row["figures"] for result in outcome.results if result.converted}
    write_atomically(
        {
            out / "junit.xml": junit_xml(f"snnconvert {manifest}", found),
            out / "summary.md": markdown(f"Spiking conversion of {manifest}", found, figures, before),
        }
    )
    return found


def baseline(path: Path) -> dict[str, Mapping[str, Any]]:
    """The figures of the models of an earlier zoo.json, by name; of those that were converted.

    Raises:
        DataError: the file cannot be read, or is no matrix.
    """
    try:
        document = json.loads(path.read_text("utf-8"))
        if document["schema"] != SCHEMA:
            raise ValueError(f"its schema is {document['schema']}")
        return {row["name"]: row["figures"] for row in document["rows"] if row["figures"]}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        hint = "give the zoo.json that an earlier `snnconvert zoo run` wrote"
        raise DataError(f"cannot read the baseline {path}: {error}", hint=hint) from error


def cases(results: Sequence[Result]) -> list[Case]:
    """One case per model for its conversion, and one per gate."""
    found: list[Case] = []
    for result in results:
        row = result.row
        details = [*row["causes"], *([f"hint: {row['hint']}"] if row["hint"] else [])]
        found.append(
            Case(
                model=result.entry.name,
                check="conversion",
                status=None if result.converted else "error",
                text=f"{row['kind']}: {row['reason']}" if not result.converted else "",
                details="\n".join(details),
                seconds=row["seconds"],
                place=result.entry.where,
            )
        )
        if result.gate is not None:
            found += Case.of(result.gate)
    return found
