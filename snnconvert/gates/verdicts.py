"""Gates: conditions that a report must meet, judged with the error that sampling leaves.

A gate is *failed* where the whole 95 % interval is beyond the limit, *passed* where none of it is, and *cannot tell*
in between. What "cannot tell" counts as is the user's choice; the default lets it pass, `strict` does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from snnconvert.gates.expression import Condition, Quantity
from snnconvert.gates.limits import Gates, number
from snnconvert.gates.quantities import Document, Quantities, quantities


class Status(StrEnum):
    """What became of a gate."""

    passed = "passed"
    failed = "failed"
    cannot_tell = "cannot tell"


@dataclass(frozen=True)
class Verdict:
    """One gate's outcome; `text` is a sentence with the figures."""

    gate: str
    status: Status
    text: str


@dataclass(frozen=True)
class GateResult:
    """All verdicts on one report.

    Attributes:
        model: name of the model.
        verdicts: one per gate.
        worst_layer: where to look first, as a sentence; None without layers.
        uncertain: what "cannot tell" counts as.
    """

    model: str
    verdicts: tuple[Verdict, ...]
    worst_layer: str | None
    uncertain: str

    @property
    def ok(self) -> bool:
        """Whether the report may pass."""
        refused = {Status.failed} | ({Status.cannot_tell} if self.uncertain == "fail" else set())
        return not any(verdict.status in refused for verdict in self.verdicts)

    @property
    def status(self) -> Status | None:
        """The worst of all verdicts; None without gates."""
        found = {verdict.status for verdict in self.verdicts}
        return next((status for status in (Status.failed, Status.cannot_tell, Status.passed) if status in found), None)

    def section(self) -> dict[str, Any] | None:
        """What a report says of its gates; None without any."""
        text = "; ".join(verdict.text for verdict in self.verdicts)
        return None if self.status is None else {"status": str(self.status), "text": text}

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "status": self.status,
            "ok": self.ok,
            "uncertain": self.uncertain,
            "verdicts": [{"gate": row.gate, "status": row.status, "text": row.text} for row in self.verdicts],
            "worst_layer": self.worst_layer,
        }


def check_document(document: Document, gates: Gates, baseline: Document | None = None) -> GateResult:
    """Judge a report.

    A gate on a figure that the report does not have is failed: nothing passes unmeasured.

    Raises:
        OptionError: `gates.at` is no step of the report.
        DataError: the baseline was measured on other images.
    """
    found = quantities(document, gates.at, baseline)
    verdicts = tuple(_verdict(name, condition, found, gates) for name, condition in gates.conditions())
    return GateResult(document["model"]["name"], verdicts, worst_layer(document), gates.uncertain)


def _verdict(name: str, condition: Condition, found: Quantities, gates: Gates) -> Verdict:
    missing = [f"{used} is not known: {found.unknown[used]}" for used in condition.names if used not in found.known]
    if missing:
        return Verdict(name, Status.failed, "; ".join(missing))
    known = {used: found.known[used] for used in condition.names}
    if gates.uncertain == "measured":
        known = {used: Quantity.exact(quantity.value) for used, quantity in known.items()}
    try:
        holds = condition.judge(known)
    except ZeroDivisionError:
        return Verdict(name, Status.failed, f"{condition.text} cannot be computed: it divides by zero")
    status = Status.cannot_tell if holds is None else Status.failed if holds else Status.passed
    figures = ", ".join(_figure(used, quantity) for used, quantity in known.items())
    step = int(found.known["timesteps"].value)
    samples = int(found.known["samples"].value)
    saying = _SAYING[status] if name.startswith("fail_if") else _SAYING_LIMIT[status]
    subject = condition.text if name.startswith("fail_if") else name
    return Verdict(name, status, f"{figures} at T = {step} on {samples:,} images: {saying.format(subject)}")


_SAYING = {
    Status.failed: "{} holds",
    Status.passed: "{} does not hold",
    Status.cannot_tell: "too few images to tell whether {}",
}
_SAYING_LIMIT = {
    Status.failed: "misses {}",
    Status.passed: "keeps {}",
    Status.cannot_tell: "too few images to tell about {}",
}


def _figure(name: str, quantity: Quantity) -> str:
    if quantity.low == quantity.high:
        return f"{name} {number(quantity.value)}"
    return f"{name} {quantity.value:.2f} ({quantity.low:.2f} to {quantity.high:.2f})"


def worst_layer(document: Document) -> str | None:
    """The layer to look at first: one that never spikes, else the first to add much error, as far as that is known.

    Without an attribution it is the one whose error most exceeds what its T allows.
    """
    layers = document["layers"]
    for layer in layers:
        if layer["spikes_per_image"] == 0:
            return f"{layer['origin']} never spiked"
    found = (document.get("attribution") or {}).get("culprit")
    if found:
        return f"{found['origin']} adds {100 * found['size']:.1f} % of error to its activations, by {found['cause']}"
    measured = [layer for layer in layers if layer["fit"]]
    if not measured:
        return None

    def excess(layer: Mapping[str, Any]) -> float:
        bound = layer["bound"][-1]["value"] if layer["bound"] else 0.0
        return float(layer["fit"][-1]["k"]) / bound if bound > 0 else 0.0

    worst = max(measured, key=lambda layer: (excess(layer), layer["fit"][-1]["k"]))
    point = worst["fit"][-1]
    text = f"{worst['origin']}: error K = {point['k']:.3g} at T = {point['t']}"
    return text + (f", {excess(worst):.2g} times its bound" if excess(worst) else "")
