"""Layer by layer: thresholds, rates, spikes, first spikes, and the error at the end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NotRequired, TypedDict

import altair as alt
from msgspec import Meta

from snnconvert.report import statistics
from snnconvert.report.blocks import Block, Chart, Fold, Group, On, Table, Text
from snnconvert.report.drawing import BLUE, ORANGE, data, finish, height_of, layer_axis, tips
from snnconvert.report.section import Amount, Count, Document, Section, Share, Spec, Step, means
from snnconvert.report.sections import attribution
from snnconvert.report.verdict import lost
from snnconvert.report.wording import DASH, count, fixed, label, share, short

if TYPE_CHECKING:
    from snnconvert.report.measured import Measured

Time = Annotated[float, Meta(gt=0)]


class Threshold(TypedDict):
    min: float
    median: float
    max: float


class FirstSpike(TypedDict):
    p10: Step | None
    p50: Step | None
    p90: Step | None
    silent_share: Share | None


class Error(TypedDict):
    t: Time
    k: Amount


class Bound(TypedDict):
    t: Time
    value: Amount


class Beyond(TypedDict):
    t: Time
    ratio: Amount


class Layer(TypedDict):
    name: str
    origin: str
    depth: Count | None
    channels: Step
    neurons: Step
    units: NotRequired[Annotated[Step, means("most that one neuron sends a step, or a window")]]
    threshold: Threshold
    firing_rate: Annotated[Amount | None, means("spikes per neuron and step")]
    spikes_per_image: Amount | None
    dead_share: Annotated[Share | None, means("neurons that never spiked on the measured images")]
    first_spike: Annotated[
        FirstSpike | None,
        means(
            "step by which 10, 50, 90 % of those that fire at all have sent their first spike, over neurons and "
            "images; and the share that stays silent for an image"
        ),
    ]
    saturated_share: Annotated[Share | None, means("neurons at their largest possible rate")]
    sin_share: Annotated[
        Share | None, means("share of all neurons whose ANN activation is 0 but that spiked; null where unknown")
    ]
    omega: Amount | None
    fit: list[Error]
    bound: list[Bound]
    violations: list[Beyond]
    slope: float | None


class Keys(TypedDict):
    layers: list[Layer]


UNKNOWN = (
    "depth",
    "firing_rate",
    "spikes_per_image",
    "dead_share",
    "saturated_share",
    "sin_share",
    "omega",
    "first_spike",
)


def compute(measured: Measured) -> dict[str, Any]:
    rows = []
    for layer in measured.curve.layers:
        kept = {name: value for name, value in layer.items() if name != "units_per_image"}
        rows.append({**kept, "origin": f"{layer['origin']['name']} ({layer['origin']['operator']})"})
    return {"layers": rows}


def complete(document: dict[str, Any]) -> None:
    """Each layer's bound 2 Omega / t on its error, where the error is beyond it, and the slope of the error."""
    document["layers"] = [_completed(layer) for layer in document["layers"]]


def _completed(given: dict[str, Any]) -> dict[str, Any]:
    layer: dict[str, Any] = {**given, **{key: None for key in UNKNOWN if key not in given}}
    fit, omega = layer.setdefault("fit", []), layer["omega"]
    if layer.get("bound") is None:
        layer["bound"] = (
            [] if omega is None else [{"t": point["t"], "value": 2.0 * omega / point["t"]} for point in fit]
        )
    if layer.get("violations") is None:
        bound = {point["t"]: point["value"] for point in layer["bound"]}
        pairs = [(point["t"], point["k"], bound.get(point["t"], 0.0)) for point in fit]
        layer["violations"] = [{"t": t, "ratio": k / b} for t, k, b in pairs if b > 0 and k > b * (1 + 1e-6)]
    if layer.get("slope") is None:
        layer["slope"] = statistics.log_slope([p["t"] for p in fit], [p["k"] for p in fit]) if fit else None
    return layer


def last_error(layer: Layer) -> float | None:
    """K of a layer at its last measured step."""
    return layer["fit"][-1]["k"] if layer["fit"] else None


def blocks(document: Document) -> Sequence[Block]:
    layers: list[Layer] = document["layers"]
    if not layers:
        return []
    rates = [] if lost(document) else attribution.details(document)
    return [
        Text(
            "Thresholds are in units of the ANN activation that the neuron replaces. Dead neurons never spiked on any "
            "of the measured images; silent ones not on one image, on average. First spikes: the step by which 10, 50 "
            "and 90 % of the neurons that spike at all for an image have done so. Saturated neurons are at their "
            "largest rate; “spiked at zero” are neurons whose ANN activation is 0 but that spiked.",
            soft=True,
        ),
        _whole(layers),
        Group(
            "pair",
            [
                Chart("rates", "Firing rate of each layer", "Firing rate of each layer"),
                Chart("layer_spikes", "Spikes per image of each layer", "Spikes of each layer per image"),
            ],
        ),
        *([Fold("How far rates are from activations, and why", rates)] if rates else []),
        Fold("Layers", [_brief(layers)], On.MARKDOWN),
    ]


def _whole(layers: Sequence[Layer]) -> Table:
    differ = len({layer.get("units") for layer in layers}) > 1
    head = (
        "layer", "neurons", "threshold, min / median / max", "spikes per neuron and step",
        *(["units a step"] if differ else []), "spikes per image", "dead",
        "silent per image", "first spike at step, 10 / 50 / 90 %", "saturated", "spiked at zero", "Ω",
        "error K at the end", "slope", "beyond bound, at T",
    )  # fmt: skip
    rows = [
        (
            f"{number}. {layer['origin']}",
            count(layer["neurons"]),
            " / ".join(short(layer["threshold"][key]) for key in ("min", "median", "max")),
            fixed(layer["firing_rate"], 3),
            *([count(layer.get("units"))] if differ else []),
            count(layer["spikes_per_image"]),
            share(layer["dead_share"]),
            share(layer["first_spike"]["silent_share"]) if layer["first_spike"] else DASH,
            _first_spikes(layer),
            share(layer["saturated_share"]),
            share(layer["sin_share"]),
            short(layer["omega"]),
            short(last_error(layer)),
            fixed(layer["slope"], 2),
            _beyond(layer),
        )
        for number, layer in enumerate(layers, 1)
    ]
    bad = tuple((row, len(head) - 1) for row, layer in enumerate(layers) if layer["violations"])
    return Table(head, rows, dense=True, bad=bad)


def _beyond(layer: Layer) -> str:
    if not layer["violations"]:
        return "no"
    most = max(layer["violations"], key=lambda point: point["ratio"])
    return f"{fixed(most['ratio'])}× at {int(most['t'])}"


def _first_spikes(layer: Layer) -> str:
    """Steps by which 10, 50 and 90 % of a layer's spiking neurons have spiked, `1 / 3 / 11`."""
    found = layer["first_spike"]
    if not found or found["p50"] is None:
        return DASH
    return f"{found['p10']} / {found['p50']} / {found['p90']}"


def _brief(layers: Sequence[Layer]) -> Table:
    """All layers in few columns, for Markdown."""
    head = ("layer", "threshold, median", "spikes per neuron and step", "spikes per image", "error K", "beyond bound")
    rows = [
        (
            *_figures(layer),
            f"{max(point['ratio'] for point in layer['violations']):.1f}x" if layer["violations"] else "no",
        )
        for layer in layers
    ]
    return Table(head, rows, On.MARKDOWN)


def _figures(layer: Layer) -> tuple[str, ...]:
    return (
        layer["origin"],
        short(layer["threshold"]["median"]),
        fixed(layer["firing_rate"], 3),
        count(layer["spikes_per_image"]),
        short(last_error(layer)),
    )


def charts(document: Document) -> dict[str, Spec | None]:
    return {
        "rates": _bars(document["layers"], "firing_rate", "spikes per neuron and timestep", BLUE, ("~g", ".3f")),
        "layer_spikes": _bars(document["layers"], "spikes_per_image", "spikes per image", ORANGE, ("~s", ",.0f")),
    }


def _bars(layers: Iterable[Any], key: str, title: str, colour: str, forms: tuple[str, str]) -> Spec | None:
    rows = [
        {"layer": f"{number}. {label(layer['origin'])}", "value": layer[key]} for number, layer in enumerate(layers, 1)
    ]
    if all(row["value"] is None for row in rows):
        return None
    bars = alt.Chart(data(rows)).mark_bar(color=colour, height={"band": 0.75})
    chart = bars.encode(
        x=alt.X("value:Q").title(title).axis(format=forms[0], tickCount=5),
        y=layer_axis(grid=False),
        tooltip=tips("layer:N layer", f"value:Q {title} | {forms[1]}"),
    )
    return finish(chart, height_of(len(rows), 17, many=12))


SECTION = Section(Keys, compute, "Layers", complete, blocks=blocks, charts=charts)
