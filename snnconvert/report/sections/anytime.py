"""One network for every T, beside a network per T."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired, TypedDict

from msgspec import Meta

from snnconvert.report.blocks import Block, On, Table, Text
from snnconvert.report.section import Amount, Count, Document, Percent, Section, Step, means
from snnconvert.report.wording import DASH, count, fixed, percent
from snnconvert.tasks import METRICS

if TYPE_CHECKING:
    from snnconvert.report.measured import Measured
    from snnconvert.simulate.measure import FitCurve
    from snnconvert.study.variants import NetworkForT

ONE, EACH = "one network for every T", "a network per T"
HEAD = ("T", f"{ONE}: %", "95 %", "spikes per image", f"{EACH}: %", "95 %", "spikes per image", "read from step")


class ReadOut(TypedDict):
    accuracy: Percent | None
    accuracy_interval: Annotated[list[float], Meta(min_length=2, max_length=2)] | None
    agreement: Percent | None
    value: NotRequired[Annotated[float | None, means("of fit_curve/metric")]]
    value_interval: NotRequired[list[float] | None]
    spikes_per_image: Amount


class Own(ReadOut):
    same: Annotated[bool, means("it is the network of this report")]
    read_from: Annotated[Count, means("steps that its read-out leaves out")]


class Row(TypedDict):
    t: Step
    this: ReadOut
    own: Own


class Anytime(TypedDict):
    calibrated_for: Annotated[list[Step], means("the steps that this network was calibrated for")]
    rows: Annotated[list[Row], means("the last step last")]


class Keys(TypedDict):
    anytime: Annotated[
        Anytime | None,
        means(
            "this network read after some steps, beside networks calibrated for so many steps alone; null where none "
            "were made"
        ),
    ]


def compute(measured: Measured) -> dict[str, Any]:
    """The last row is that of the last step, where a network that serves no other steps is its own."""
    networks: tuple[NetworkForT, ...] = measured.studies.get("networks per T", ())
    if not networks:
        return {"anytime": None}
    whole, labelled, last = measured.curve, measured.labelled, measured.snn.schedule.timesteps
    rows = [
        {
            "t": own.schedule.timesteps,
            "this": _point(whole, own.schedule.timesteps, labelled=labelled),
            "own": {**_point(own.curve, own.schedule.timesteps, labelled=labelled), "same": False}
            | {"read_from": own.schedule.read_from},
        }
        for own in networks
    ]
    if rows[-1]["t"] != last:
        figures = _point(whole, last, labelled=labelled)
        own = {**figures, "same": True, "read_from": measured.snn.schedule.read_from}
        rows.append({"t": last, "this": figures, "own": own})
    return {"anytime": {"calibrated_for": sorted({*measured.calibrated_for, last}), "rows": rows}}


def _point(curve: FitCurve, step: int, *, labelled: bool) -> dict[str, Any]:
    """A curve's figures at `step`, None before its first answer."""
    known = {name: (found.values[step - 1], found.intervals[step - 1]) for name, found in curve.metrics().items()}
    right, band = known.get("accuracy", (None, None)) if labelled else (None, None)
    value, around = known.get(curve.scores.task.headline.name, (None, None))
    return {
        "accuracy": right,
        "accuracy_interval": band,
        "agreement": known.get("agreement", (None, None))[0],
        "value": value,
        "value_interval": around,
        "spikes_per_image": curve.spikes[step - 1],
    }


def sentence(document: Document) -> str | None:
    """Both figures at every T; None where nothing was compared."""
    section: Anytime | None = document["anytime"]
    if not section:
        return None
    kind, steps = _measure(section), ", ".join(map(str, section["calibrated_for"]))
    pairs = [
        f"{'no answer yet' if row['this'][kind] is None else percent(row['this'][kind], 2)} against "
        f"{percent(row['own'][kind], 2)} at T = {row['t']}"
        for row in section["rows"]
        if not row["own"]["same"]
    ]
    title = METRICS[document["fit_curve"]["metric"]].title if kind == "value" else kind
    networks = f"{ONE} (this one, calibrated for T = {steps}) and of {EACH}"
    return f"{title[:1].upper()}{title[1:]} of {networks}: {'; '.join(pairs)}."


def sentences(document: Document) -> Iterable[Text]:
    if text := sentence(document):
        yield Text(text, On.TERMINAL)


def blocks(document: Document) -> Sequence[Block]:
    section: Anytime | None = document["anytime"]
    if not section:
        return []
    kind, last = _measure(section), section["rows"][-1]
    rows = []
    for row in section["rows"]:
        own = (DASH,) * 4 if row["own"]["same"] else (*_cells(row["own"], kind), str(row["own"]["read_from"] + 1))
        rows.append((str(row["t"]), *_cells(row["this"], kind), *own))
    explained = (
        "The same images, method, neuron and schedule in every row; a network of its own was calibrated for T steps "
        "and is read after them."
    ) + (f" At T = {last['t']} both are this network." if last["own"]["same"] else "")
    return [
        Text(sentence(document) or "", On.PAGE | On.MARKDOWN),
        Text(explained, soft=True),
        Table(HEAD, rows, On.PAGE | On.MARKDOWN, named=False),
    ]


def _measure(section: Anytime) -> Literal["accuracy", "agreement", "value"]:
    """What networks are compared by: accuracy; without labels agreement with the ANN, or the metric of the task."""
    last = section["rows"][-1]["this"]
    if last["accuracy"] is not None:
        return "accuracy"
    return "value" if last["agreement"] is None else "agreement"


def _cells(figures: ReadOut, kind: Literal["accuracy", "agreement", "value"]) -> tuple[str, str, str]:
    band = figures.get("value_interval") if kind == "value" else figures["accuracy_interval"]
    interval = DASH if band is None else f"{fixed(band[0], 2)} to {fixed(band[1], 2)}"
    return fixed(figures[kind], 2), interval, count(figures["spikes_per_image"])


SECTION = Section(Keys, compute, "One network for every T, or a network per T", sentences=sentences, blocks=blocks)
