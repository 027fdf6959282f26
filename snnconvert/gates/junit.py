"""What continuous integration reads: JUnit XML, a Markdown summary, annotations of GitHub Actions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree as Xml

from snnconvert.gates.verdicts import GateResult, Status
from snnconvert.report.verdict import answer_step, at_step, metric, verdict
from snnconvert.report.wording import bare, measured
from snnconvert.tasks import METRICS

Figures = Mapping[str, Any]

# What XML 1.0 cannot hold.
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ELEMENTS = {"error": "error", "failed": "failure", "cannot tell": "skipped"}
_MARKS = {None: "passed", "error": "**not converted**", "failed": "**failed**", "cannot tell": "cannot tell"}


@dataclass(frozen=True)
class Case:
    """One check of one model.

    Attributes:
        check: "conversion", or a gate such as "max_drop 1".
        status: None for passed, "error" (not converted), "failed", or "cannot tell".
        text: one line that says why.
        details: further lines.
        place: where the model is asked for, such as "zoo.toml, line 12".
    """

    model: str
    check: str
    status: str | None
    text: str
    details: str = ""
    seconds: float | None = None
    place: str = ""

    @classmethod
    def of(cls, gate: GateResult) -> list[Case]:
        """One case per gate; "cannot tell" counts as the gates say."""
        found = []
        for row in gate.verdicts:
            status = None if row.status == Status.passed else str(row.status)
            if row.status == Status.cannot_tell and gate.uncertain == "fail":
                status = "failed"
            layer = f"worst layer: {gate.worst_layer}" if gate.worst_layer and status else ""
            found.append(cls(gate.model, row.gate, status, row.text, layer))
        return found


def junit_xml(suite: str, cases: Sequence[Case]) -> str:
    """One test suite; the class name of a case is its model."""
    counts = {name: str(sum(case.status == status for case in cases)) for status, name in _COUNTED.items()}
    seconds = sum(case.seconds or 0.0 for case in cases)
    root = Xml.Element("testsuites")
    found = Xml.SubElement(
        root, "testsuite", {"name": _clean(suite), "tests": str(len(cases)), **counts, "time": f"{seconds:.3f}"}
    )
    for case in cases:
        attributes = {"classname": _clean(case.model), "name": _clean(case.check), "time": f"{case.seconds or 0.0:.3f}"}
        row = Xml.SubElement(found, "testcase", attributes)
        if case.status:
            message = _clean(f"{case.model}: {case.text}" + (f"; {case.details}" if case.check != "conversion" else ""))
            inner = Xml.SubElement(row, _ELEMENTS[case.status], {"message": message.strip("; ")})
            if case.status != "cannot tell":
                inner.set("type", _clean(case.check))
            inner.text = _clean(case.details)
    Xml.indent(root)
    return Xml.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


_COUNTED = {"failed": "failures", "error": "errors", "cannot tell": "skipped"}


def markdown(
    title: str, cases: Sequence[Case], figures: Mapping[str, Figures], before: Mapping[str, Figures] | None = None
) -> str:
    """A summary for a pull request: what is wrong first, then what was found, and how it has changed.

    Args:
        title: its heading.
        cases: of all models.
        figures: of each converted model, by name, as `figures` makes them.
        before: those of the baseline; None without one.
    """
    bad = [case for case in cases if case.status in ("error", "failed")]
    models = list(dict.fromkeys([*(case.model for case in cases), *figures]))
    failed = {case.model for case in bad}
    lines = [f"## {_cell(title)}", "", f"{len(models) - len(failed)} of {len(models)} models are good.", ""]
    if bad:
        lines += ["| model | check | why |", "|---|---|---|"]
        for case in bad:
            why = _cell("; ".join(part for part in (case.text, *case.details.splitlines()) if part))
            lines.append(f"| {_cell(case.model)} | {_cell(case.check)} {_MARKS[case.status]} | {why} |")
        lines.append("")
    if figures:
        head = ["model", "gates", "what was found", *(["against the baseline"] if before is not None else [])]
        lines += [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
        for name, found in figures.items():
            gates = [case.status for case in cases if case.model == name and case.check != "conversion"]
            worst = next((status for status in ("failed", "cannot tell") if status in gates), None)
            cells = [_cell(name), _MARKS[worst] if gates else "", _cell(found["verdict"])]
            cells += [_cell(change(found, before.get(name)))] if before is not None else []
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    if gone := [name for name in before or () if name not in models]:
        lines += [f"No longer there: {_cell(', '.join(gone))}.", ""]
    return "\n".join(lines)


def figures(document: Mapping[str, Any]) -> Figures:
    """What a summary says of a report, and compares: the line, and the metric, step and spikes that stand in it.

    Gates have a place of their own there.
    """
    final, used = document["analysis"]["final"] or {}, metric(document)
    return {
        "verdict": verdict({**document, "gates": None}),
        "metric": used.name,
        "value": final.get("value"),
        "holds_from": answer_step(document) if final else None,
        "spikes_by_then": at_step(document, "spikes_per_image", answer_step(document)) if final else None,
    }


def change(now: Figures, then: Figures | None) -> str:
    """How a model's figures have changed, `accuracy 91.2 to 90.8 % (-0.4); from step 4 to 6; spikes x0.82`."""
    if then is None:
        return "new"
    if now["metric"] != then.get("metric") or None in (now["value"], then.get("value")):
        return "cannot be compared: judged by another figure"
    used, told = METRICS[now["metric"]], []
    old, new = (bare(used, row["value"], 2) for row in (then, now))
    if old != new:
        told.append(f"{used.title} {old} to {measured(used, now['value'], 2)} ({now['value'] - then['value']:+.2g})")
    if now["holds_from"] != then["holds_from"]:
        told.append(f"from step {then['holds_from']} to {now['holds_from']}")
    ratio = now["spikes_by_then"] / then["spikes_by_then"] if then["spikes_by_then"] and now["spikes_by_then"] else 1.0
    if abs(ratio - 1.0) >= 0.005:
        told.append(f"spikes x{ratio:.2f}")
    return "; ".join(told) or "none"


def github_annotations(cases: Sequence[Case]) -> list[str]:
    """Lines that GitHub Actions turns into annotations: errors, and warnings for what cannot be told."""
    lines = []
    for case in cases:
        if not case.status:
            continue
        level = "warning" if case.status == "cannot tell" else "error"
        title = _property(f"{case.model}: {case.check}")
        text = "; ".join(part for part in (case.text, *case.details.splitlines()) if part)
        lines.append(f"::{level} title={title}::{_data(text)}")
    return lines


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("?", text)


def _cell(text: str) -> str:
    """Text that cannot leave its table cell or become markup."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
    return " ".join(_clean(escaped).split())


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
