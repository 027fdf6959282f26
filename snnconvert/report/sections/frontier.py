"""What a network that is made for one T alone reaches, for each of several T: the frontier of accuracy and latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NotRequired, TypedDict

from snnconvert.report.blocks import Block, On, Table, Text
from snnconvert.report.section import Amount, Document, Section, Step, means
from snnconvert.report.wording import DASH, count, fixed
from snnconvert.tasks import METRICS

if TYPE_CHECKING:
    from snnconvert.report.measured import Measured
    from snnconvert.simulate.measure import FitCurve


class Fitted(TypedDict):
    T: Annotated[Step, means("the budget: total steps that the network was fitted for")]
    metric: Annotated[str, means("which figure `value` is, as milestones/basis")]
    value: Annotated[float | None, means("at its last step, on the evaluation images")]
    interval: Annotated[list[float] | None, means("of the value, 95 %")]
    schedule: Annotated[str | None, means("as it was chosen for T")]
    neuron: str | None
    spikes_per_image: Amount | None
    same: Annotated[bool, means("it is the network of this report")]
    reason: NotRequired[Annotated[str | None, means("why there is none for T")]]


class Keys(TypedDict):
    frontier: Annotated[
        list[Fitted] | None, means("with --frontier: a network fitted for each T, by T; null where none was asked for")
    ]


def compute(measured: Measured) -> dict[str, Any]:
    """With all figures of each network, of which `judge` keeps those that the report judges by."""
    networks: tuple[Any, ...] = measured.studies.get("frontier", ())
    rows = [
        {
            "T": one.budget,
            "same": one.same,
            "schedule": None if one.schedule is None else one.schedule.describe(),
            "neuron": one.neuron,
            "spikes_per_image": None if one.curve is None else one.curve.spikes[-1],
            "reason": one.reason,
            "metrics": {} if one.curve is None else figures(one.curve),
        }
        for one in networks
    ]
    return {"frontier": rows or None}


def figures(curve: FitCurve) -> dict[str, Any]:
    """All metrics of a network, until it is known by which the report judges."""
    return {name: vars(of) for name, of in curve.metrics().items()}


def judge(document: dict[str, Any], key: str) -> None:
    """Keep of each network in a list of the document the figure that the report judges by, once that is known."""
    for row in document[key] or []:
        if "metrics" in row:
            known = row.pop("metrics").get(document["milestones"]["basis"])
            row["metric"] = document["milestones"]["basis"]
            row["value"], row["interval"] = (known["values"][-1], known["intervals"][-1]) if known else (None, None)


def title(row: Mapping[str, Any]) -> str:
    """Of the column of figures that a row's belongs to."""
    metric = METRICS[row["metric"]]
    return f"{metric.title}{', ' + metric.unit if metric.unit else ''}"


def value_and_interval(row: Mapping[str, Any]) -> tuple[str, str]:
    """Of a row that `judge` has been through, as cells of a table."""
    value, interval = row["value"], row["interval"]
    ends = DASH if interval is None else " to ".join(fixed(end, 2) for end in interval)
    return DASH if value is None else fixed(value, 2), ends


def blocks(document: Document) -> Sequence[Block]:
    rows: list[Fitted] | None = document["frontier"]
    if not rows:
        return []
    cells = [
        (
            str(row["T"]) + (" (this network)" if row["same"] else ""),
            *value_and_interval(row),
            count(row["spikes_per_image"]),
            row["schedule"] or row.get("reason") or DASH,
            row["neuron"] or DASH,
        )
        for row in rows
    ]
    head = ("T", title(rows[0]), "95 %", "spikes", "schedule", "neuron")
    text = "Each row is a network of its own, calibrated for T steps in all and measured on the same inputs."
    return [Text(text, soft=True), Table(head, cells, On.PAGE | On.MARKDOWN, left=(4, 5), named=False)]


SECTION = Section(Keys, compute, "Frontier: a network fitted for each T", blocks=blocks)
