"""How fast each layer's rates settle on the activations they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

import altair as alt

from snnconvert.report.blocks import Block, Chart, Group, Text, Title
from snnconvert.report.drawing import BLUE, DEPTH_RANGE, RED, data, finish, tips
from snnconvert.report.section import Document, Section, Spec
from snnconvert.report.wording import label

# More small charts than this make the page long and slow; the layers closest to their bound are shown.
MOST_SMALL_CHARTS = 24
_TIPS = ("layer:N layer", "t:Q T", "k:Q K | .4f", "bound:Q bound | .4f")


class Keys(TypedDict):
    """None: what is drawn here stands in `layers`."""


def small_layers(document: Document) -> list[int]:
    """Indices, in data-flow order, of the layers that get a chart of their own: those closest to their bound."""

    def closeness(index: int) -> float:
        layer = document["layers"][index]
        bound = {point["t"]: point["value"] for point in layer["bound"]}
        return max((point["k"] / bound[point["t"]] for point in layer["fit"] if bound.get(point["t"])), default=0.0)

    usable = [index for index, layer in enumerate(document["layers"]) if any(p["k"] > 0 for p in layer["fit"])]
    return sorted(sorted(usable, key=closeness, reverse=True)[:MOST_SMALL_CHARTS])


def blocks(document: Document) -> Sequence[Block]:
    rows, small, layers = _rows(document), small_layers(document), document["layers"]
    if not rows:
        return []
    each = f"The {len(small)} layers closest to their bound, or beyond it"
    charts = [
        Chart(
            f"fit_{index + 1}",
            f"Fit error of layer {index + 1} over timesteps",
            f"{index + 1}. {layers[index]['origin']}{' (beyond)' if layers[index]['violations'] else ''}",
        )
        for index in small
    ]
    return [
        Text(
            "K is the squared difference between a layer's spike rates after T steps and the activations they stand "
            "for, relative to the latter. For steady input the theory promises K < 2 Ω / T, and a slope of −2 in the "
            "end. Red triangles are steps at which a layer is beyond that bound; deep layers often are at first, "
            "because their own input has not settled yet.",
            soft=True,
        ),
        Chart("fit", "Fit error of every layer over timesteps, logarithmic axes"),
        Title("Each layer and its bound" if len(small) == len(layers) else each),
        Text(
            "Solid: K. Dashed: the bound 2 Ω / T. Both axes logarithmic (x: T in timesteps, y: K), the same for all "
            "layers.",
            soft=True,
        ),
        Group("multiples", charts),
    ]


def _rows(document: Document) -> list[Spec]:
    """The errors of all layers; empty where there is only one answer: nothing settles, and K stands with the layers."""
    rows = []
    for number, layer in enumerate(document["layers"], 1):
        bound = {point["t"]: point["value"] for point in layer["bound"]}
        beyond = {point["t"] for point in layer["violations"]}
        rows += [
            {"number": number, "layer": f"{number}. {label(layer['origin'])}", "t": point["t"], "k": point["k"],
             "bound": bound.get(point["t"]) or None, "beyond": point["t"] in beyond}
            for point in layer["fit"] if point["k"] > 0
        ]  # fmt: skip
    return rows if len({row["t"] for row in rows}) > 1 else []


def charts(document: Document) -> dict[str, Spec | None]:
    rows = _rows(document)
    if not rows:
        return {}
    values = [row["k"] for row in rows] + [row["bound"] for row in rows if row["bound"]]
    domain = [min(values) * 0.8, max(values) * 1.25]
    found: dict[str, Spec | None] = {"fit": finish(alt.layer(*_every(rows, domain)), 320)}
    for index in small_layers(document):
        own = [row for row in rows if row["number"] == index + 1]
        found[f"fit_{index + 1}"] = finish(alt.layer(*_single(own, domain)), 130)
    return found


def _base(rows: list[Spec], domain: list[float], titles: tuple[str | None, str | None], ticks: int) -> alt.Chart:
    steps = sorted({row["t"] for row in rows})
    shown = steps if len(steps) <= 9 else [t for t in steps if float(t).is_integer() and not int(t) & (int(t) - 1)]
    x = alt.X("t:Q").scale(type="log", base=2, nice=False).title(titles[0])
    y = alt.Y("k:Q").scale(type="log", domain=domain, nice=False).title(titles[1])
    return alt.Chart(data(rows)).encode(
        x=x.axis(values=shown, format="d", labelOverlap=True, labelSeparation=4),
        y=y.axis(format="~g", tickCount=ticks, labelOverlap=True),
    )


def _every(rows: list[Spec], domain: list[float]) -> list[Any]:
    base = _base(rows, domain, ("T (timesteps)", "fit error K (relative)"), 6)
    shade = alt.Color("number:Q").scale(range=DEPTH_RANGE).legend(
        title="layer, from input to output", type="gradient", gradientLength=140, format="d", tickMinStep=1,
    )  # fmt: skip
    line = base.mark_line(strokeWidth=1.6, color=BLUE, opacity=0.9)
    line = line.encode(color=shade, detail=alt.Detail("layer:N"), tooltip=tips(_TIPS[0]))
    return [
        line,
        base.mark_circle(size=26, opacity=0.9).encode(color=shade, tooltip=tips(*_TIPS)),
        *_flags(rows, base, 30),
    ]


def _single(rows: list[Spec], domain: list[float]) -> list[Any]:
    base = _base(rows, domain, (None, None), 3)
    bound = base.transform_filter("isValid(datum.bound)")
    bound = bound.mark_line(color="currentColor", strokeDash=[4, 3], opacity=0.6)
    return [
        bound.encode(y=alt.Y("bound:Q").scale(type="log", domain=domain, nice=False)),
        base.mark_line(strokeWidth=1.6, color=BLUE, opacity=0.9),
        base.mark_circle(size=24, color=BLUE, opacity=1).encode(tooltip=tips(*_TIPS)),
        *_flags(rows, base, 65),
    ]


def _flags(rows: list[Spec], base: alt.Chart, size: int) -> list[Any]:
    if not any(row["beyond"] for row in rows):
        return []
    flags = base.transform_filter("datum.beyond")
    flags = flags.mark_point(shape="triangle-up", size=size, filled=True, color=RED, opacity=1)
    return [flags.encode(tooltip=tips(*_TIPS))]


SECTION = Section(Keys, lambda _: {}, "How fast each layer settles", blocks=blocks, charts=charts)
