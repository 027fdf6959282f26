"""One model's result: `row.json`, written last, so that a folder with a fitting row is a finished one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from snnconvert.errors import DataError, OptionError
from snnconvert.files import sha256_of, write_atomically, writing_to
from snnconvert.gates import junit
from snnconvert.gates.limits import Gates
from snnconvert.gates.verdicts import GateResult, Status, Verdict, check_document, worst_layer
from snnconvert.report import latency_chart
from snnconvert.report.verdict import saving, span
from snnconvert.zoo.manifest import Entry

SCHEMA = "snnconvert-zoo-row/1"
CONVERTED, FAILED = "converted", "failed"
Row = dict[str, Any]
# the charts' library of all reports of a run, in its folder and as they see it from models/NAME/
LIBRARY = "charts.js"
CHARTS = f"../../{LIBRARY}"
# exit codes of a run
GATE_FAILED, NOT_CONVERTED = 3, 4


def row_path(folder: Path) -> Path:
    """Where the row of a model's folder lies."""
    return folder / "row.json"


def log_path(folder: Path) -> Path:
    """What the conversion printed."""
    return folder / "log.txt"


def failed_row(task: Mapping[str, Any], kind: str, reason: str, *, hint: str = "", causes: tuple[str, ...] = ()) -> Row:
    """The row of a model without a result.

    Args:
        kind: name of the exception, or "time", "memory", "crash", "place" (the disk's or the system's fault).
    """
    return {
        "schema": SCHEMA,
        "name": task["name"],
        "key": task["key"],
        "limits": task["limits"],
        "status": FAILED,
        "kind": kind,
        "reason": reason,
        "hint": hint,
        "causes": list(causes),
        "seconds": None,
        "peak_memory": None,
        "files": {},
        "figures": {},
        "gates": None,
    }


def converted_row(task: Mapping[str, Any], document: Mapping[str, Any], files: list[Path]) -> Row:
    """The row of a converted model, with the checksums of what was written into its folder."""
    folder = Path(task["folder"])
    return failed_row(task, "", "") | {
        "status": CONVERTED,
        "files": {path.relative_to(folder).as_posix(): sha256_of(path) for path in files},
        "figures": figures(document),
        "gates": document["gates"],
    }


def judged(name: str, document: Mapping[str, Any], gates: Gates) -> GateResult | None:
    """The gates' outcome on a report, under the model's name in the manifest; None where nothing is asked."""
    if not gates.conditions():
        return None
    try:
        return replace(check_document(document, gates), model=name)
    except (OptionError, DataError) as error:
        return GateResult(name, (Verdict("gates", Status.failed, error.message),), None, gates.uncertain)


def judged_again(folder: Path, row: Row, gates: Gates) -> tuple[Row, GateResult | None]:
    """A converted model's row and outcome under `gates`; its report is written again where they say something else."""
    if not gates.conditions() and row["gates"] is None:
        return row, None
    # Written and checked by this package, and found unchanged by its checksum: no need to validate it again.
    document = json.loads((folder / f"{row['name']}.json").read_text("utf-8"))
    result = judged(row["name"], document, gates)
    section = None if result is None else result.section()
    if section == row["gates"]:
        return row, result
    from snnconvert.report.document import write_report

    written = write_report({**document, "gates": section}, folder / f"{row['name']}.html", library=CHARTS)
    row = {**row, "gates": section, "files": row["files"] | {path.name: sha256_of(path) for path in written}}
    write_row(folder, row)
    return row, result


def figures(document: Mapping[str, Any]) -> dict[str, Any]:
    """What the matrix shows of a report."""
    curve, final = document["fit_curve"], document["analysis"]["final"] or {}
    basis = curve[document["milestones"]["basis"]]
    energy, spent = document["energy"] or {}, saving(document)
    ratios = [row["ratio"] for row in energy.get("rows", []) if row["decides"] and row["ratio"] is not None]
    return {
        **junit.figures(document),
        "format": document["model"]["format"],
        "sites": document["model"]["sites"],
        "parameters": document["model"]["parameters"],
        "samples": document["evaluation"]["samples"],
        "data": document["evaluation"]["source"],
        "method": document["calibration"]["method"],
        "neuron": document["neuron"]["model"],
        "schedule": document["schedule"]["kind"],
        "ann_accuracy": document["ann"]["accuracy"],
        "timesteps": final.get("t", document["latency"]["total"]),
        "accuracy": final.get("accuracy"),
        "agreement": final.get("agreement"),
        "task": document["task"]["kind"],
        "metric": document["milestones"]["basis"],
        "value": final.get("value"),
        "holds_from": document["holds_from"],
        "drop": final.get("drop"),
        "drop_interval": document["analysis"]["drop_interval"],
        "spikes_per_image": final.get("spikes_per_image"),
        "within_1": document["milestones"]["within_1"],
        "energy_ratio": max(ratios, default=None),
        "energy": None if spent is None else span(spent.low, spent.high),
        "energy_verdict": (energy.get("verdict") or {}).get("code"),
        "curve": {"basis": document["milestones"]["basis"], "t": curve["timesteps"], "value": basis},
        "tried": _tried(document),
        "warnings": [row["code"] for row in document["warnings"]],
        "worst_layer": worst_layer(document),
    }


def _tried(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Where each other candidate ends: {name, t, value}, as the report's picture has it."""
    drawn = latency_chart.series(document)
    ends = {row["who"]: row for title in latency_chart.OTHERS for row in drawn.get(title, [])}
    return [{"name": who, "t": row["t"], "value": row["value"]} for who, row in ends.items()]


def clear(folder: Path) -> None:
    """Remove what a failed or interrupted conversion has left, but for its log."""
    with writing_to(folder):
        for path in folder.iterdir():
            if path.is_file() and path != log_path(folder):
                path.unlink(missing_ok=True)


def write_row(folder: Path, row: Row) -> None:
    """Put a row beside the files it vouches for."""
    write_atomically({row_path(folder): json.dumps(row, indent=1, sort_keys=True) + "\n"})


def read_row(folder: Path, key: str) -> Row | None:
    """The row of a finished model if it has this key and its files are as they were written; else None."""
    try:
        row: Row = json.loads(row_path(folder).read_text("utf-8"))
        if row["schema"] != SCHEMA or row["key"] != key:
            return None
        intact = all(sha256_of(folder / name) == digest for name, digest in row["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return row if intact else None


@dataclass(frozen=True)
class Result:
    """One model's row, its gates' outcome, and whether the row is from an earlier run."""

    entry: Entry
    row: Row
    gate: GateResult | None
    kept: bool

    @property
    def converted(self) -> bool:
        return bool(self.row["status"] == CONVERTED)

    @property
    def passed(self) -> bool:
        return self.converted and (self.gate is None or self.gate.ok)


@dataclass(frozen=True)
class Outcome:
    """All results in the order of the manifest."""

    results: tuple[Result, ...]
    seconds: float

    @property
    def exit_code(self) -> int:
        if not all(result.converted for result in self.results):
            return NOT_CONVERTED
        return 0 if all(result.passed for result in self.results) else GATE_FAILED
