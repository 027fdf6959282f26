"""What bistable and synchronous neurons are worth: figures with and without each of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired, TypedDict

import altair as alt

from snnconvert.report.blocks import Block, Chart, Fold, On, Table, Text, Title
from snnconvert.report.drawing import BLUE, ORANGE, alike, data, finish, layer_axis, tips
from snnconvert.report.section import Amount, Count, Document, Percent, Section, Share, Spec, Step, means
from snnconvert.report.wording import against_ann, count, label, percent, plural, share

if TYPE_CHECKING:
    from snnconvert.report.measured import Measured

SERIES = {"before": "streaming integrate-and-fire", "after": "bistable"}
When = Literal["before", "after"]
What = Literal["neurons", "units", "unprovoked"]
_WHEN: tuple[When, ...] = ("before", "after")


class Arm(TypedDict):
    neurons: str
    synchronous: Annotated[bool, means("whether synchronous neurons hold shortcuts back")]
    accuracy: Percent | None
    agreement: Percent | None
    value: NotRequired[Annotated[float, means("of fit_curve/metric")]]
    spikes_per_image: Annotated[Amount, means("those of synchronous neurons only where these are used")]


class Inactivated(TypedDict):
    neurons: Annotated[
        Share, means("share of the layer's neurons that fire though the ANN's activation is 0 or less, over images")
    ]
    units: Annotated[
        Share | None,
        means("their share of what the layer sends, a spike of n units counting n; null if it sends nothing"),
    ]
    unprovoked: Annotated[
        Share, means("share of the layer's neurons that fire though their own input over the whole run is 0 or less")
    ]


class Layer(TypedDict):
    name: str
    origin: str
    neurons: Step
    before: Inactivated
    after: Inactivated


class Ablation(TypedDict):
    images: Annotated[Count, means("the first of the evaluation images")]
    timesteps: Annotated[Step, means("the same in every arm")]
    left_out: Annotated[str | None, means("why arms are missing")]
    before: Annotated[str | None, means("the network that layers/before is measured on")]
    arms: Annotated[list[Arm], means("the network of this report first, streaming integrate-and-fire last")]
    layers: Annotated[list[Layer], means("inactivated neurons that fire; layers of signed neurons have none")]


class Keys(TypedDict):
    ablation: Annotated[
        Ablation | None,
        means("what bistable and synchronous neurons are worth, on a few images; null unless asked for"),
    ]


def compute(measured: Measured) -> dict[str, Any]:
    return {"ablation": measured.studies.get("ablation")}


def sentence(document: Document) -> str | None:
    """What both neurons are worth in two sentences; None without an ablation."""
    section: Ablation | None = document["ablation"]
    if not section:
        return None
    if not section["images"]:
        return f"Figures without bistable and synchronous neurons are left out: {section['left_out']}."
    told = []
    if section["layers"]:
        fired, against = ([share(mean_share(section, when, what), 2) for when in _WHEN] for what in _SAID)
        told.append(
            f"Of all neurons {fired[1]} fire although the original network's are silent (in streaming "
            f"integrate-and-fire {fired[0]}), {against[1]} although their own input is not above zero ({against[0]}), "
            f"on {plural(section['images'], 'image')} at T = {section['timesteps']}."
        )
    arms = section["arms"]
    kind, values = "accuracy", [percent(arm["accuracy"]) for arm in arms]
    if any(arm["accuracy"] is None for arm in arms):
        title, values = against_ann(arms, document)
        kind = "agreement" if arms[0]["agreement"] is not None else title
    figures = [
        f"{arm['neurons']} {'and synchronous neurons' if arm['synchronous'] else 'alone'} {value}"
        for arm, value in zip(arms, values, strict=True)
    ]
    told.append(f"{kind[:1].upper()}{kind[1:]} there: {'; '.join(figures)}.")
    if section["left_out"]:
        told.append(f"Other arms are left out: {section['left_out']}.")
    return " ".join(told)


_SAID: tuple[What, ...] = ("neurons", "unprovoked")


def mean_share(section: Ablation, when: When, what: What) -> float | None:
    """A share over all layers, each neuron counting alike."""
    neurons = sum(layer["neurons"] for layer in section["layers"])
    found = sum(layer["neurons"] * (layer[when][what] or 0.0) for layer in section["layers"])
    return found / neurons if neurons else None


def sentences(document: Document) -> Iterable[Text]:
    if text := sentence(document):
        yield Text(text, On.TEXT)


def blocks(document: Document) -> Sequence[Block]:
    section: Ablation | None = document["ablation"]
    if not section:
        return []
    found: list[Block] = [Text(sentence(document) or "")]
    if section["arms"]:
        text = (
            f"The same {plural(section['images'], 'image')}, the same T = {section['timesteps']} and the same largest "
            "activations in every row, the first being the network of this report. Without the bistable state a neuron "
            "integrates and fires in every step; without synchronous neurons a shortcut is integrated when it arrives, "
            "whatever its reader is doing. “Alternating from step 0”: neurons do not keep still until their own first "
            f"window. Last row: {section['before']}."
        )
        title, near = against_ann(section["arms"], document)
        head = ("neurons", "synchronous neurons", "accuracy", title, "spikes per image")
        rows = [
            (
                arm["neurons"],
                "yes" if arm["synchronous"] else "no",
                percent(arm["accuracy"]),
                value,
                count(arm["spikes_per_image"]),
            )
            for arm, value in zip(section["arms"], near, strict=True)
        ]
        found += [Text(text, soft=True), Table(head, rows, chosen=(0,))]
    return found + (_inactivated(section) if section["layers"] else [])


def _inactivated(section: Ablation) -> list[Block]:
    head = ("layer", "of its neurons, before", "after", "of what it sends, before", "after",
            "against their own input, before", "after")  # fmt: skip
    kinds: tuple[What, ...] = ("neurons", "units", "unprovoked")
    rows = [
        (f"{number}. {layer['origin']}", *(share(layer[when][kind], 2) for kind in kinds for when in _WHEN))
        for number, layer in enumerate(section["layers"], 1)
    ]
    return [
        Title("Spikes of inactivated neurons"),
        Text(
            "Neurons that fire although the ANN’s activation is 0. What is left in the bistable network is rounding "
            "handed on by earlier layers: within one window no neuron fires whose own input is not above zero.",
            soft=True,
        ),
        Chart(
            "inactivated",
            "Share of inactivated neurons that fire, before and after; the numbers are in the table below",
        ),
        Fold("As a table", [Table(head, rows, dense=True)]),
    ]


def charts(document: Document) -> dict[str, Spec | None]:
    """Neurons that fire although the ANN's are silent: two bars a layer."""
    section: Ablation | None = document["ablation"]
    rows = [
        {
            "layer": f"{number}. {label(layer['origin'])}",
            "network": SERIES[when],
            "share": 100 * layer[when]["neurons"],
            "units": None if (units := layer[when]["units"]) is None else 100 * units,
            "unprovoked": 100 * layer[when]["unprovoked"],
        }
        for number, layer in enumerate(section["layers"] if section else [], 1)
        for when in _WHEN
    ]
    if not rows:
        return {}
    names = list(SERIES.values())
    bars = alt.Chart(data(rows)).mark_bar()
    colour = alike("network", alt.Color, names, [ORANGE, BLUE]).legend(symbolType="square", symbolStrokeWidth=0)
    chart = bars.encode(
        x=alt.X("share:Q").title("% of the layer's neurons").axis(format="~r", tickCount=5),
        y=layer_axis(grid=False),
        yOffset=alt.YOffset("network:N").sort(names),
        color=colour,
        tooltip=tips(
            "layer:N layer",
            "network:N network",
            "share:Q % of neurons | .2f",
            "units:Q % of what the layer sends | .2f",
            "unprovoked:Q % against their own input | .2f",
        ),
    )
    return {"inactivated": finish(chart, len(rows) * (11 if len(rows) <= 120 else 7))}


SECTION = Section(
    Keys,
    compute,
    "What bistable and synchronous neurons are worth",
    sentences=sentences,
    blocks=blocks,
    charts=charts,
)
