"""A few neurons and images in detail: spikes, membranes, rates, and how answers form."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, NotRequired, TypedDict

import altair as alt

from snnconvert.data.moving import over_time_of
from snnconvert.report.blocks import Block, Chart, Group, Text, Title
from snnconvert.report.drawing import BLUE, GREY, ORANGE, RED, TEAL, alike, data, finish, heat_map, height_of, tips
from snnconvert.report.latency_chart import linear_axis
from snnconvert.report.section import Document, Section, Spec, means
from snnconvert.report.wording import clean, label, moment, short

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from snnconvert.report.measured import Measured
    from snnconvert.study.look_inside import Example, LookInside

LARGEST_PICTURE = 96
STRIP = 6
FRAMES = "T (frames of the layer)"
MOST_POINTS = 64


class Followed(TypedDict):
    layer: str
    neuron: int
    spikes: list[int]
    membrane: list[float]
    rate: list[float]
    limit: float


class Raster(TypedDict):
    layer: str
    neurons: list[int]
    trains: list[list[int]]


class Rates(TypedDict):
    layer: str
    silent: int
    counts: list[int]
    edges: list[float]


class ClassOverTime(TypedDict):
    name: str
    probabilities: list[float]


class Shown(TypedDict):
    kind: str
    image: str | None
    truth: str
    decision: str
    settled: NotRequired[int | None]
    steps: list[int]
    classes: list[ClassOverTime]


class Inside(TypedDict):
    neurons: NotRequired[list[Followed]]
    raster: NotRequired[list[Raster]]
    rates: NotRequired[list[Rates]]
    examples: NotRequired[list[Shown]]


class Keys(TypedDict):
    inside: Annotated[
        Inside | None, means("a few neurons and images in detail; times are frames of the layer's own emission")
    ]


def compute(measured: Measured) -> dict[str, Any]:
    labels, names = None, None
    if measured.data is not None and measured.snn.task.row.counted and measured.classes > 1:
        labels, names = measured.data.classes_of_images, measured.data.classes
    return {"inside": section_of(measured.watched.inside, labels, names) if measured.watched else None}


def section_of(
    seen: LookInside, labels: NDArray[np.int64] | None, names: Sequence[str] | None
) -> dict[str, Any] | None:
    """What was seen; examples need labels. None if nothing was watched."""
    if not seen.histograms:
        return None
    # A bistable network of one or two windows has no course over frames to look at.
    moving = seen.snn.schedule.frames > 2
    examples = [] if labels is None or not moving else seen.examples(labels)
    return {
        "neurons": seen.neurons() if moving else [],
        "raster": seen.raster() if moving else [],
        "rates": seen.rates(),
        "examples": [_example(row, int(labels[row.index]), names, seen) for row in examples],  # type: ignore[index]
    }


def _example(row: Example, truth: int, names: Sequence[str] | None, seen: LookInside) -> dict[str, Any]:
    import torch

    steps, frames = seen.snn.schedule.answer_steps, len(row.probabilities)
    shown = sorted({round(float(k)) for k in torch.linspace(0, frames - 1, min(frames, MOST_POINTS))})
    best = row.probabilities[-1].argsort(descending=True)[:3].tolist()
    rival = row.probabilities.mean(0).argsort(descending=True)[:3].tolist()
    wanted = list(dict.fromkeys([truth, *best, *rival]))[:4]

    def name(index: int) -> str:
        return str(names[index]) if names is not None and index < len(names) else f"class {index}"

    return {
        "kind": row.kind,
        "image": picture(row.image[0]) if over_time_of(row.image) is None else strip(row.image),
        "truth": name(truth),
        "decision": name(int(best[0])),
        "settled": None if row.settled is None else steps[row.settled],
        "steps": [steps[k] for k in shown],
        "classes": [
            {"name": name(index), "probabilities": [round(float(row.probabilities[k, index]), 4) for k in shown]}
            for index in wanted
        ],
    }


def picture(image: Tensor) -> str | None:
    """A prepared image as a small PNG in a data URL, its values stretched to black and white; None if it is none."""
    if image.ndim != 3 or not (image.shape[0] in (1, 3) or image.shape[-1] in (1, 3)):
        return None
    import torch
    from PIL import Image

    array = image if image.shape[0] in (1, 3) else image.permute(2, 0, 1)
    low, high = float(array.min()), float(array.max())
    values = ((array - low) / max(high - low, 1e-12) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    drawn = Image.fromarray(values[..., 0] if values.shape[2] == 1 else values)
    drawn.thumbnail((LARGEST_PICTURE, LARGEST_PICTURE))
    return _in_url(drawn)


def strip(recording: Tensor) -> str:
    """The events of one recording, (1, *sample), in a row of frames from its beginning to its end.

    Events of polarity 1 are light, those of 0 dark.
    """
    import torch
    from PIL import Image

    incoming = over_time_of(recording)
    assert incoming is not None
    edges = [incoming.steps * index // STRIP for index in range(STRIP + 1)]
    drawn = []
    for start, stop in pairwise(edges):
        counts = incoming.frames(start, stop)[:, 0].double().sum(0)
        balance = counts[-1] - counts[0] if len(counts) == 2 else counts[0]
        drawn.append(torch.nn.functional.pad(balance, (0, 2)))
    row = torch.cat(drawn, 1)[:, :-2]
    most = max(float(row.abs().quantile(0.995)), 1.0)
    image = Image.fromarray((128 + 127 * (row / most).clamp(-1, 1)).round().to(torch.uint8).numpy())
    image.thumbnail((STRIP * LARGEST_PICTURE, LARGEST_PICTURE))
    return _in_url(image)


def _in_url(image: Any) -> str:
    out = io.BytesIO()
    image.save(out, "PNG")
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode('ascii')}"


def blocks(document: Document) -> Sequence[Block]:
    section: Inside | None = document["inside"]
    if not section:
        return []
    found: list[Block] = []
    if examples := section.get("examples"):
        text = (
            "Images in detail: the probability (softmax of the mean output so far) of the true class and its rivals "
            "over time."
        )
        charts = [
            Chart(f"example_{number}", "Class probabilities over time", _caption(document, row), row["image"] or "")
            for number, row in enumerate(examples, 1)
        ]
        found += [Text(text, soft=True), Group("examples", charts)]
    if neurons := section.get("neurons"):
        text = (
            "One neuron of a few layers on the first image. Left: its membrane after each step, in thresholds; "
            "red dots are steps in which it sends a spike, the dashed line is the threshold. Right: its firing rate so "
            "far, and dashed the rate that its input calls for."
        )
        found += [Title("Neurons approaching their activation"), Text(text, soft=True)]
        for number, row in enumerate(neurons, 1):
            left = f"{row['layer']}, neuron {row['neuron']}: membrane"
            right = f"its rate, approaching {short(row['limit'])}"
            pair = [
                Chart(f"membrane_{number}", "Membrane potential over time", left),
                Chart(f"approach_{number}", "Firing rate over time", right),
            ]
            found.append(Group("pair", pair))
    if any(row["trains"] for row in section.get("raster", [])):
        text = "Each row is a neuron that fires, each tick a spike; the first image."
        found += [Title("Spikes"), Text(text, soft=True), Chart("raster", "Spike trains of some neurons")]
    if section.get("rates"):
        text = "Percent of each layer’s neurons in each tenth of the largest rate, on four images."
        found += [
            Title("Distribution of firing rates"),
            Text(text, soft=True),
            Chart("rate_map", "Distribution of firing rates in each layer"),
        ]
    return found


def _caption(document: Document, row: Shown) -> str:
    if row["kind"] == "wrong":
        return f"{row['kind']}: {row['truth']}, taken for {row['decision']}"
    settled = row.get("settled")
    right = f", right from {moment(document, settled)} on" if settled else ""
    return f"{row['kind']}: {row['truth']}{right}"


def charts(document: Document) -> dict[str, Spec | None]:
    """rate_map, raster, membrane_1, approach_1, ..., example_1, ..."""
    section: Inside = document["inside"] or {}
    found: dict[str, Spec | None] = {}
    if section.get("rates"):
        found["rate_map"] = _rate_map(section["rates"])
    if any(row["trains"] for row in section.get("raster", [])):
        found["raster"] = _raster(document, section["raster"])
    for number, neuron in enumerate(section.get("neurons", []), 1):
        found[f"membrane_{number}"] = _membrane(document, neuron)
        found[f"approach_{number}"] = _approach(document, neuron)
    for number, example in enumerate(section.get("examples", []), 1):
        found[f"example_{number}"] = _probabilities(document, example)
    return found


def _rate_map(layers: list[Rates]) -> Spec:
    rows: list[Spec] = []
    for index, layer in enumerate(layers, 1):
        names = ["silent", *(f"to {100 * high:.0f} %" for high in layer["edges"][1:])]
        counts = [layer["silent"], *layer["counts"]]
        rows += [
            {"layer": f"{index}. {label(layer['layer'])}", "rate": name, "share": 100 * n / max(1, sum(counts))}
            for name, n in zip(names, counts, strict=True)
        ]
    order = list(dict.fromkeys(row["rate"] for row in rows))
    x = alt.X("rate:N").sort(order).title("firing rate, of the largest possible")
    x = x.axis(labelAngle=0, labelOverlap=True, ticks=False, domain=False)
    hint = tips("layer:N layer", "rate:N rate", "share:Q % of neurons | .2f")
    drawn = heat_map(rows, x, field="share", colour=ORANGE, most=100, form=".0f", hint=hint)
    return finish(drawn, height_of(len(layers)))


def _raster(document: Document, layers: list[Raster]) -> Spec:
    rows: list[Spec] = []
    order: list[str] = []
    for index, layer in enumerate(layers):
        for neuron, train in zip(layer["neurons"], layer["trains"], strict=True):
            order.append(f"{index + 1}: neuron {neuron}")
            rows += [
                {"t": t, "neuron": order[-1], "layer": label(layer["layer"]), "units": n}
                for t, n in enumerate(train, 1)
                if n
            ]
    shown = list(dict.fromkeys(row["layer"] for row in rows))
    steps = max(len(train) for layer in layers for train in layer["trains"])  # a silent layer has none
    ticks = alt.Chart(data(rows)).mark_tick(thickness=2.2, bandSize=9)
    colour = alike("layer", alt.Color, shown, [BLUE, TEAL, ORANGE][: len(shown)])
    chart = ticks.encode(
        x=linear_axis(document, steps, FRAMES),
        y=alt.Y("neuron:N").sort(order).title(None).axis(labels=False, ticks=False, grid=False),
        color=colour.legend(symbolType="square", symbolStrokeWidth=6),
        tooltip=tips("layer:N", "neuron:N", "t:Q T", "units:Q"),
    )
    return finish(chart, max(60, 9 * len(order)))


def _membrane(document: Document, neuron: Followed) -> Spec:
    pairs = zip(neuron["membrane"], neuron["spikes"], strict=True)
    rows = [{"t": t, "v": v, "sent": s} for t, (v, s) in enumerate(pairs, 1)]
    x = linear_axis(document, len(rows), FRAMES)
    base = alt.Chart(data(rows)).encode(x=x, tooltip=tips("t:Q T", "v:Q v | .3f", "sent:Q"))
    y = alt.Y("v:Q").title("membrane (thresholds)").axis(tickCount=4)
    line = base.mark_line(color=BLUE, strokeWidth=1.6).encode(y=y)
    dots = base.transform_filter("datum.sent != 0").mark_point(filled=True, size=34, color=RED, opacity=1).encode(y=y)
    return finish(alt.layer(_dashed(1.0), line, dots), 130)


def _approach(document: Document, neuron: Followed) -> Spec:
    rows = [{"t": t, "rate": rate} for t, rate in enumerate(neuron["rate"], 1)]
    y = alt.Y("rate:Q").title("rate (thresholds)").axis(tickCount=4)
    line = alt.Chart(data(rows)).mark_line(color=ORANGE, strokeWidth=1.8, interpolate="step-after")
    hint = tips("t:Q T", "rate:Q rate | .3f")
    drawn = line.encode(x=linear_axis(document, len(rows), FRAMES), y=y, tooltip=hint)
    return finish(alt.layer(_dashed(neuron["limit"]), drawn), 130)


def _dashed(level: float) -> Any:
    rule = alt.Chart(data([{"level": level}])).mark_rule(color="currentColor", strokeDash=[3, 3])
    return rule.encode(y=alt.Y("level:Q"))


def _probabilities(document: Document, example: Shown) -> Spec:
    names = [clean(row["name"]) for row in example["classes"]]
    rows = [
        {"t": t, "class": name, "p": p}
        for name, row in zip(names, example["classes"], strict=True)
        for t, p in zip(example["steps"], row["probabilities"], strict=True)
    ]
    point = alt.OverlayMarkDef(size=14) if len(example["steps"]) < 20 else False
    chart = (
        alt.Chart(data(rows))
        .mark_line(strokeWidth=1.8, point=point)
        .encode(
            x=linear_axis(document, example["steps"][-1], "T (timesteps)"),
            y=alt.Y("p:Q").title("probability").scale(domain=[0, 1]).axis(tickCount=3),
            color=alike("class", alt.Color, names, [BLUE, RED, ORANGE, GREY][: len(names)]),
            tooltip=tips("class:N", "t:Q T", "p:Q probability | .3f"),
        )
    )
    return finish(chart, 130)


SECTION = Section(Keys, compute, "Look inside", blocks=blocks, charts=charts)
