"""What continuous integration reads: JUnit XML, a Markdown summary, annotations of GitHub Actions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree as Xml

from snnconvert.gates.verdicts import GateResult, Status

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
        figures: of the matrix; for a conversion only.
        place: where the model is asked for, such as "zoo.toml, line 12".
    """

    model: str
    check: str
    status: str | None
    text: str
    details: str = ""
    seconds: float | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)
    place: str = ""

    @classmethod
    def of(cls, gate: GateResult) -> list[Case]:
        """One case per gate; "cannot tell" counts as the gates say."""
        found = []
        for verdict in gate.verdicts:
            status = None if verdict.status == Status.passed else str(verdict.status)
            if verdict.status == Status.cannot_tell and gate.uncertain == "fail":
                status = "failed"
            layer = f"worst layer: {gate.worst_layer}" if gate.worst_layer and status else ""
            found.append(cls(gate.model, verdict.gate, status, verdict.text, layer))
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


def markdown(title: str, cases: Sequence[Case]) -> str:
    """A summary for a pull request: what is wrong first, then all figures."""
    bad = [case for case in cases if case.status in ("error", "failed")]
    models = list(dict.fromkeys(case.model for case in cases))
    failed = {case.model for case in bad}
    lines = [f"## {_cell(title)}", "", f"{len(models) - len(failed)} of {len(models)} models are good.", ""]
    if bad:
        lines += ["| model | check | why |", "|---|---|---|"]
        for case in bad:
            why = _cell("; ".join(part for part in (case.text, *case.details.splitlines()) if part))
            lines.append(f"| {_cell(case.model)} | {_cell(case.check)} {_MARKS[case.status]} | {why} |")
        lines.append("")
    converted = [case for case in cases if case.figures]
    if converted:
        lines += [
            "| model | ANN % | SNN % | drop | T | spikes per image | gates |",
            "|---|---:|---:|---:|---:|---:|---|",
        ]
        for case in converted:
            gates = [other.status for other in cases if other.model == case.model and other is not case]
            worst = next((status for status in ("failed", "cannot tell") if status in gates), None)
            shown = _MARKS[worst] if gates else ""
            figures = case.figures
            cells = [_digits(figures[name]) for name in ("ann_accuracy", "accuracy", "drop")]
            cells += [str(figures["timesteps"]), _digits(figures["spikes_per_image"], 0)]
            lines.append(f"| {_cell(case.model)} | {' | '.join(cells)} | {shown} |")
        lines.append("")
    return "\n".join(lines)


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


def _digits(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


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
