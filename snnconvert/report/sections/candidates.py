"""What was tried, which was chosen, and why others were not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired, TypedDict

from snnconvert.report.blocks import Block, On, Table, Text
from snnconvert.report.section import Amount, Document, Percent, Section, Step, means
from snnconvert.report.wording import count, fixed
from snnconvert.tasks import METRICS, Metric

if TYPE_CHECKING:
    from snnconvert.report.measured import Measured


class RankingCurve(TypedDict):
    metric: Annotated[str, means("as fit_curve/metric")]
    steps: Annotated[list[Step], means("the steps after which there is an answer")]
    values: Annotated[list[float], means("on the images that the candidates were ranked on")]
    ranked_by: Annotated[
        Literal["calibration", "stand-in"],
        means("calibration: as the chosen network is made; stand-in: on fewer images, which is cheaper"),
    ]
    images: Annotated[Step, means("on how many images")]


class Candidate(TypedDict):
    name: str
    eligible: bool
    reason: str | None
    options: dict[str, Any]
    agreement: Annotated[Percent | None, means("of classifiers")]
    value: NotRequired[Annotated[float | None, means("of fit_curve/metric, on the ranking images, at the last step")]]
    timesteps: Step | None
    spikes_per_image: NotRequired[Amount | None]
    chosen: bool
    curve: NotRequired[Annotated[RankingCurve | None, means("its curve on the ranking images")]]
    holds_from: NotRequired[
        Annotated[
            Step | None,
            means("the step from which its answer is as good as the best candidate's last, within sampling error"),
        ]
    ]


class Keys(TypedDict):
    candidates: list[Candidate]


def compute(measured: Measured) -> dict[str, Any]:
    """Everything that was tried: schedules, also those that do not fit and why, then the method's own settings."""
    record, timesteps = measured.snn.calibration, measured.snn.schedule.timesteps
    schedules = record.get("schedules", [])
    rows = [_schedule(row) for row in schedules] if len(schedules) > 1 else []
    return {"candidates": rows + [_setting(row, timesteps) for row in record.get("candidates", [])]}


def _schedule(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": row["name"],
        "eligible": row["eligible"],
        "reason": row.get("reason"),
        "agreement": row.get("agreement"),
        "value": row.get("value", row.get("agreement")),
        "timesteps": row.get("total"),
        "spikes_per_image": row.get("spikes"),
        "chosen": row["chosen"],
        "curve": row.get("curve"),
        "holds_from": row.get("holds_from"),
        "options": {name: row[name] for name in ("window", "first_output", "interval") if row.get(name) is not None},
    }


def _setting(row: dict[str, Any], timesteps: int) -> dict[str, Any]:
    """What the report has columns for, and the rest as its options."""
    own = ("name", "eligible", "reason", "agreement", "value", "timesteps", "spikes_per_image", "chosen")
    kept = {name: row[name] for name in own if name in row}
    options = {name: value for name, value in row.items() if name not in own}
    return {"eligible": True, "agreement": None, "timesteps": timesteps, "options": options, **kept}


def complete(document: dict[str, Any]) -> None:
    document["candidates"] = [{"reason": None, "options": {}, **row} for row in document.get("candidates") or []]


def sentence(document: Document) -> str | None:
    """From where on a network that streams is nearly as good, where the chosen one answers once."""
    curves = [(row["chosen"], row["name"], row.get("curve")) for row in document["candidates"] if row["eligible"]]
    chosen = next((curve for took, _, curve in curves if took), None)
    if chosen is None or len(chosen["steps"]) > 1:
        return None
    used, (step,), (value,) = METRICS[chosen["metric"]], chosen["steps"], chosen["values"]
    near = min(used.goals)
    for _, name, curve in curves:
        if curve is None or name.split(", ")[-1] != "streaming":
            continue
        far = [at for at, other in zip(curve["steps"], curve["values"], strict=True) if not _near(used, value, other)]
        since = next((at for at in curve["steps"] if at > max(far, default=0)), step)
        if since < step:
            return (
                f"This network answers once, at step {step}. One that streams answers in every step, and from step "
                f"{since} on comes within {near:g} points of it ({used.title}, on calibration images): --schedule "
                "streaming."
            )
    return None


def _near(used: Metric, value: float | None, other: float | None) -> bool:
    return value is not None and other is not None and used.gain(value, other) <= min(used.goals)


def sentences(document: Document) -> Iterable[Text]:
    if text := sentence(document):
        yield Text(text, On.TERMINAL)


def blocks(document: Document) -> Sequence[Block]:
    candidates: list[Candidate] = document["candidates"]
    if not candidates:
        return []
    stand_in = "ranked by a stand-in that was calibrated on fewer images"
    rows = [
        (
            row["name"],
            fixed(row.get("value", row["agreement"]), 2),
            count(row["options"].get("first_output")),
            count(row.get("holds_from")),
            count(row["timesteps"]),
            count(row["options"].get("interval")),
            count(row.get("spikes_per_image")),
            ("chosen" if row["chosen"] else "possible" if row["eligible"] else "not eligible")
            + (f": {row['reason']}" if row["reason"] else "")
            + (f" ({stand_in})" if (curve := row.get("curve")) and curve["ranked_by"] == "stand-in" else ""),
        )
        for row in candidates
    ]
    text = (
        "What was tried before this network was chosen; the chosen one is marked. Interval: timesteps between the "
        "answers when inputs follow each other as closely as they can. An answer holds from the step from which it "
        "stays as good as the last one of the best candidate, within sampling error; chosen is who holds earliest."
    )
    metric = METRICS[document["fit_curve"]["metric"]]
    shown = f"{metric.title}{', ' + metric.unit if metric.unit else ''}"
    head = ("candidate", shown, "first output", "holds from", "T", "interval", "spikes per image", "outcome")
    chosen = tuple(index for index, row in enumerate(candidates) if row["chosen"])
    earlier = [Text(said, On.PAGE | On.MARKDOWN)] if (said := sentence(document)) else []
    return [*earlier, Text(text, soft=True), Table(head, rows, left=(7,), chosen=chosen)]


SECTION = Section(Keys, compute, "What else was tried", complete, sentences, blocks)
