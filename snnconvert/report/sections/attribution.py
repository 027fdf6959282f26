"""Why rates differ from activations: each layer's error split into causes, and which option would help."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired, TypedDict

import altair as alt

from snnconvert.neurons import NEURONS
from snnconvert.report.blocks import Block, Chart, Fold, On, Table, Text
from snnconvert.report.drawing import BLUE, finish, heat_map, height_of, tips
from snnconvert.report.section import Amount, Document, Section, Spec, Step, means
from snnconvert.report.verdict import lost
from snnconvert.report.wording import fixed, label, percent, schedule, share

if TYPE_CHECKING:
    from snnconvert.report.measured import Measured

CAUSES = {
    "clipping": "clipping (activations above the threshold cannot be sent)",
    "quantisation": "quantisation (too few levels in T steps)",
    "unevenness": "unevenness (spikes sent before the whole input was in)",
    "propagation": "propagation (handed on by earlier layers)",
}
REMEDIES = {
    "clipping": "Higher thresholds help: --calibration percentile --percentile 99.99, or --neuron burst, which may "
    "send several spikes at once. Higher thresholds make each spike coarser; bursts need hardware that can send them.",
    "clipping, levels": "Higher thresholds help: --calibration percentile --percentile 99.99, or more --levels. Higher "
    "thresholds make each spike coarser; more levels need hardware that can send them.",
    "quantisation": "More timesteps help: twice the -T halves it and doubles spikes and latency. --neuron graded gets "
    "there without more steps, on hardware whose spikes carry numbers.",
    "quantisation, memory, levels": "More timesteps help: twice the -T halves it and doubles spikes and latency. So do "
    "more --levels, on hardware whose spikes carry numbers so fine.",
    "unevenness, memory": "--schedule wait --wait 1 helps: each layer listens for a step before it sends, which adds "
    "a step of latency per layer.",
    "unevenness": "--schedule wait --wait 1 helps: each layer listens for a step before it sends, which adds a step of "
    "latency per layer. --neuron ternary helps without waiting: it takes back spikes, on hardware with signed spikes.",
}


class Causes(TypedDict):
    clipping: float | None
    quantisation: float | None
    unevenness: float | None
    propagation: float | None


class LayerError(TypedDict):
    name: str
    origin: str
    error: Amount | None
    scaled_error: NotRequired[
        Annotated[
            Amount | None,
            means(
                "what is left of the error once all rates of the layer are multiplied by the one factor that fits best"
            ),
        ]
    ]
    causes: Annotated[Causes, means("size of each cause on its own")]
    shares: Annotated[
        Causes, means("parts of the squared error; they add up to 1, and what cancels others is negative")
    ]


class Culprit(TypedDict):
    layer: str
    origin: str
    cause: Literal["clipping", "quantisation", "unevenness"]
    size: float
    own: float


class Attribution(TypedDict):
    images: Step
    reference: Annotated[
        Literal["ANN", "limit"],
        means("limit: compared with the network's own limit for ever more steps, for want of the ANN"),
    ]
    layers: list[LayerError]
    culprit: Culprit | None


class Keys(TypedDict):
    attribution: Annotated[
        Attribution | None, means("each layer's error split into causes, relative to the size of the activations")
    ]


def compute(measured: Measured) -> dict[str, Any]:
    return {"attribution": measured.watched.attribution if measured.watched else None}


def culprit(document: Document) -> tuple[str, str] | None:
    """Where error starts and why, and which options would help at what cost; None where no layer adds much.

    No option is named for a network that is measured to be as accurate as the original: there is nothing to repair.
    """
    section: Attribution | None = document.get("attribution")
    if not section or not section["culprit"]:
        return None
    text, causes = _where(section, section["culprit"])
    final = (document.get("analysis") or {}).get("final") or {}
    if final.get("drop") is not None and final["drop"] <= 0:
        return f"{text} It costs no accuracy: on the evaluation images the SNN is as accurate as its original.", ""
    row, models = schedule(document), (document.get("neuron") or {}).get("model") or ""
    used = [NEURONS[model] for model in models.split(", ") if model in NEURONS]
    memory, levels = any(one.memory for one in used), any(one.adjustable for one in used)  # in use: no advice
    near = [*["memory, levels"] * (memory and levels), *["levels"] * levels, *["memory"] * memory]
    own = row.remedies if row else {}
    wanted = [
        own.get(cause) or REMEDIES[next((key for one in near if (key := f"{cause}, {one}") in REMEDIES), cause)]
        for cause in causes
    ]
    return text, " ".join(wanted)


def _where(section: Attribution, found: Culprit) -> tuple[str, list[str]]:
    """The first layer to add much error, in words, and the causes to do something about."""
    layers, last, local = section["layers"], section["layers"][-1], list(CAUSES)[:3]
    whole = max((row["error"] or 0.0 for row in layers), default=0.0)
    causes: list[dict[str, Any]] = [{**row.get("causes", {})} for row in layers]
    totals = {cause: sum((row.get(cause) or 0.0) ** 2 for row in causes) for cause in local}
    most = max(local, key=lambda cause: (float(totals[cause]), cause == found["cause"]))
    other = "" if most == found["cause"] else f" Over all layers it is {CAUSES[most]} that adds most."
    there = next((row["error"] for row in layers if row.get("name") == found["layer"]), None)
    back = there is not None and found["size"] > there
    text = (
        f"The first layer to add much error is {found['origin']}, by {CAUSES[found['cause']]}: "
        f"{percent(100 * found['size'])} of the size of its activations"
        f"{f', of which other causes take back all but {share(there)}' if back else ''}.{other} The last layer is off "
        f"by {share(last['error'])}{_common(last)}, the worst by {percent(100 * whole)}."
    )
    return text, list(dict.fromkeys((found["cause"], most)))


def _common(row: LayerError) -> str:
    """What of a layer's error is no factor on all of its rates, where that is most of the squared error."""
    error, left = row["error"], row.get("scaled_error")
    if error is None or left is None or left**2 > 0.5 * error**2:
        return ""
    return f" (by {share(left)} but for a factor that all its rates have in common)"


def sentences(document: Document) -> Iterable[Text]:
    """Only where something was lost: nobody asks why nothing was."""
    if lost(document) and (why := culprit(document)):
        yield Text(" ".join(filter(None, why)), On.TEXT)


def blocks(document: Document) -> Sequence[Block]:
    return details(document) if lost(document) else []


def details(document: Document) -> list[Block]:
    """Each layer's error and its causes."""
    section: Attribution | None = document["attribution"]
    if not section or not _rows(section):
        return []
    limit = (
        " The original network was not at hand: compared with this network’s own limit for ever more timesteps, which "
        "hides what earlier layers lose by clipping."
    )
    rows = []
    for number, layer in enumerate(section["layers"], 1):
        cells = [f"{number}. {layer['origin']}", _bare(layer["error"])]
        for cause in CAUSES:
            cells += [_bare(layer["causes"][cause]), fixed(layer["shares"][cause], 2)]  # type: ignore[literal-required]
        rows.append(cells)
    head = ["layer", "whole error, %", *(title for cause in CAUSES for title in (f"{cause}, %", "share"))]
    return [
        Text(" ".join(filter(None, culprit(document) or ("No layer adds much error of its own.",)))),
        Text(
            "Size of each cause in percent of the size of the layer’s activations (root of the sum of squares), on the "
            f"first {section['images']} images. Clipping, quantisation and unevenness arise in the layer; propagation "
            "is what earlier layers handed on. Causes may cancel, so they do not simply add up."
            + (limit if section["reference"] == "limit" else ""),
            soft=True,
        ),
        Chart("attribution", "Size of each cause in each layer; the numbers are in the table below"),
        Fold("As a table, with each cause’s share of the squared error", [Table(head, rows, dense=True)]),
    ]


def _bare(value: float | None) -> str:
    return share(value, 2).replace(" %", "")


def _rows(section: Attribution) -> list[Spec]:
    return [
        {"layer": f"{number}. {label(layer['origin'])}", "cause": cause, "size": 100 * size}
        for number, layer in enumerate(section["layers"], 1)
        for cause in CAUSES
        if (size := layer["causes"][cause]) is not None  # type: ignore[literal-required]
    ]


def charts(document: Document) -> dict[str, Spec | None]:
    section: Attribution | None = document["attribution"]
    rows = _rows(section) if section else []
    if not rows:
        return {}
    x = alt.X("cause:N").sort(list(CAUSES)).title(None)
    x = x.axis(orient="top", labelAngle=0, labelFontSize=9, ticks=False, domain=False)
    hint = tips("layer:N layer", "cause:N cause", "size:Q % of the activations | .2f")
    largest = max(1e-6, *(row["size"] for row in rows))
    drawn = heat_map(rows, x, field="size", colour=BLUE, most=largest, form=".1f", hint=hint)
    return {"attribution": finish(drawn, height_of(len({row["layer"] for row in rows})))}


SECTION = Section(Keys, compute, "Why something was lost", sentences=sentences, blocks=blocks, charts=charts)
