"""What the network needs beside integer ANNs: an estimate from counted operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired, TypedDict

import altair as alt

from snnconvert.report.blocks import Block, Chart, Fold, Items, Table, Text, Title
from snnconvert.report.drawing import BLUE, GREY, ORANGE, RED, alike, data, finish, tips
from snnconvert.report.latency_chart import TIME, linear_axis
from snnconvert.report.section import Amount, Document, Section, Spec, Step, means
from snnconvert.report.verdict import REUSED, answer_step, saving, span
from snnconvert.report.wording import at_time, clean, count, fixed, moment, short, times

if TYPE_CHECKING:
    from snnconvert.report.measured import Measured

_POWERS = [10.0**power for power in range(-4, 7)]
_SCOPES = {"arithmetic only": [1, 0], "with memory, weights reused": [6, 3], "with memory, no reuse": [2, 2]}
Amounts = list[Amount]


class Verdict(TypedDict):
    code: Literal["saves", "does_not_save", "cannot_tell"]
    text: str


class Row(TypedDict):
    baseline: str
    constants: NotRequired[Annotated[str, means("name of the set of constants")]]
    scope: str
    snn_pj: Amount
    ann_pj: Amount
    ratio: Amount | None
    decides: bool


class BreakEven(TypedDict):
    source: str
    low: float
    high: float
    provenance: str


class Constant(TypedDict):
    name: str
    set: NotRequired[str]
    value: float
    unit: str
    source: str
    provenance: str


class LayerEnergy(TypedDict):
    name: str
    origin: str
    ann_multiplications: Amount
    ann_multiplications_with_padding: NotRequired[Amount]
    snn_additions: Amount
    snn_multiplications: Amount
    neuron_updates: Amount
    spikes: Amount
    ratio: Amount | None
    spikes_per_synapse: Amount | None
    break_even: Amount | None


class RowOverTime(TypedDict):
    baseline: str
    scope: str
    snn_pj: Amounts
    ann_pj: Amounts
    ratio: list[Amount | None]


class OverTime(TypedDict):
    timesteps: list[Step]
    spikes: Amounts
    snn_additions: Amounts
    snn_multiplications: Amounts
    neuron_updates: Amounts
    rows: list[RowOverTime]


class Energy(TypedDict):
    verdict: Verdict
    rows: list[Row]
    spikes_per_synapse: Amount | None
    break_even: list[BreakEven]
    constants: list[Constant]
    assumptions: list[str]
    operations: NotRequired[Annotated[dict[str, Amount], means("per image, all layers together")]]
    activation_bits: NotRequired[Step]
    images: NotRequired[Annotated[Step, means("the first so many images were counted")]]
    layers: NotRequired[
        Annotated[
            list[LayerEnergy],
            means("per image; ratio, spikes_per_synapse and break_even against an INT8 ANN with memory and no reuse"),
        ]
    ]
    over_time: NotRequired[
        Annotated[
            OverTime,
            means("up to and including each step, per image: cumulated counts, and energy by each comparison"),
        ]
    ]
    neurobench: NotRequired[
        Annotated[
            dict[str, float | None],
            means("figures by NeuroBench's definitions; operations per image, footprint in bytes"),
        ]
    ]


class Keys(TypedDict):
    energy: Energy | None


def compute(measured: Measured) -> dict[str, Any]:
    from snnconvert.cost.estimate import estimate

    counted = measured.watched.operations if measured.watched else None
    return {"energy": None if counted is None else estimate(counted, measured.snn, measured.constants)}


def crossings(document: Document) -> str | None:
    """Up to which T the network has needed less than each integer ANN, in one sentence; None without counts."""
    spent = (document["energy"] or {}).get("over_time")
    if not spent:
        return None
    told = []
    for row in spent["rows"]:
        if row["baseline"].startswith("fp32"):
            continue
        above = [t for t, ratio in zip(spent["timesteps"], row["ratio"], strict=True) if ratio is None or ratio >= 1]
        until = above[0] - 1 if above else spent["timesteps"][-1]
        known = f"up to {at_time(document, until)}" if until < spent["timesteps"][-1] else "at all times"
        told.append(f"{row['baseline']}, {row['scope']}: {known if until else 'at no time'}")
    return f"The SNN has needed less, against {'; '.join(told)}." if told else None


def blocks(document: Document) -> Sequence[Block]:
    found: Energy | None = document["energy"]
    if not found:
        return []
    text = (
        "An estimate from operation counts, not a measurement. Rows that decide compare with integer ANNs; the fp32 "
        "row is the ratio papers usually print. Right of 1 the SNN needs more."
    )
    if found["spikes_per_synapse"] is not None:
        points = "; ".join(
            f"{' to '.join(dict.fromkeys((str(row['low']), str(row['high']))))} ({row['source']}; {row['provenance']})"
            for row in found["break_even"]
        )
        measured = short(found["spikes_per_synapse"])
        text += f" Spikes per synapse and image: {measured}; published break-even points: {points}."
    head = ("against", "what is counted", "constants", "SNN, µJ per image", "ANN, µJ per image", "SNN / ANN", "decides")
    rows = [
        (
            row["baseline"],
            row["scope"],
            row.get("constants", "45 nm"),
            _micro(row["snn_pj"]),
            _micro(row["ann_pj"]),
            short(row["ratio"]),
            "yes" if row["decides"] else "no",
        )
        for row in found["rows"]
    ]
    return [
        Text(f"{_by_then(document)} {found['verdict']['text']}".strip()),
        Text(text, soft=True),
        Chart("energy", "Energy of the SNN relative to several ANNs; the numbers are in the table below"),
        Table(head, rows, left=(1, 2)),
        *_over_time(document),
        *_by_layer(found),
        _assumed(found),
    ]


def _by_then(document: Document) -> str:
    """What decides at the step from which the answer holds, and the case that a user most likely has."""
    spent = saving(document)
    if spent is None:
        return ""
    step = answer_step(document)
    when, needed = f"By {moment(document, step)}, from which the answer holds", span(spent.low, spent.high)
    told = f"{when}: {needed} times {spent.against}."
    if spent.decides == "memory":
        told += (
            " What decides is memory: how often each network reads a weight. Counted without memory an event-driven "
            "network is cheap; with it, an ANN that reads every weight once an image is hard to beat."
        )
    elif spent.decides:
        told += f" What decides is {spent.decides}: the narrower its activations, the less there is to save."
    if spent.likely is not None:
        told += (
            f" Most users have an accelerator that keeps weights on the chip and reuses them: there the SNN needs "
            f"{times(spent.likely)} times as much ({REUSED}, 8 bits)."
        )
    return told


def _micro(picojoule: float) -> str:
    return short(picojoule / 1e6)


def _over_time(document: Document) -> list[Block]:
    spent = document["energy"].get("over_time")
    if not spent or not _spent_rows(spent):
        return []
    head = ["T", "spikes", "additions", "multiplications", "neuron updates"]
    for row in spent["rows"]:
        head += [f"{row['baseline']}: {row['scope']}, µJ", "SNN / ANN"]
    lines = []
    for k, t in enumerate(spent["timesteps"]):
        counts = (spent[name][k] for name in ("spikes", "snn_additions", "snn_multiplications", "neuron_updates"))
        figures = [cell for row in spent["rows"] for cell in (_micro(row["snn_pj"][k]), short(row["ratio"][k]))]
        lines.append([moment(document, t, bare=True), *map(count, counts), *figures])
    explained = (
        "What has been spent up to each step, against the whole of an ANN’s image; below 1 the SNN has needed less so "
        "far. The ANN of equal capacity gets wider as T grows."
    )
    table = (
        "Up to and including each step, per image: events (spikes), operations, and the energy of the SNN in µJ with "
        "its ratio to the ANN’s."
    )
    label = "Energy of the SNN relative to several ANNs over timesteps; the numbers are in the table below"
    return [
        Title("Energy over time"),
        Text(" ".join(filter(None, (explained, crossings(document)))), soft=True),
        Chart("energy_time", label),
        Fold("Every step as a table", [Text(table, soft=True), Table(head, lines, dense=True, named=False)]),
    ]


def _by_layer(found: Energy) -> list[Block]:
    if "layers" not in found:
        return []
    text = (
        f"Per image, counted on the first {found['images']} images. The ratio and the break-even point are against an "
        "INT8 ANN, memory counted, nothing reused: a layer needs less than the ANN’s while its spikes per synapse stay "
        "below break-even."
    )
    operations = found.get("operations", {})
    if operations.get("ann_multiplications_with_padding"):
        text += (
            f" The ANN has {count(operations['ann_multiplications'])} multiplications, as NeuroBench counts them; with "
            "those on padding, as most papers and tools count, "
            f"{count(operations['ann_multiplications_with_padding'])}."
        )
    head = ("layer, with what feeds it", "ANN multiplications", "additions", "multiplications", "neuron updates",
            "spikes", "spikes per synapse", "break-even", "SNN / ANN")  # fmt: skip
    counts = ("ann_multiplications", "snn_additions", "snn_multiplications", "neuron_updates", "spikes")
    rows = [
        (
            row["origin"],
            *(count(row[key]) for key in counts),  # type: ignore[literal-required]
            *(short(row[key]) for key in ("spikes_per_synapse", "break_even", "ratio")),
        )
        for row in found["layers"]
    ]
    bad = tuple((index, len(head) - 1) for index, row in enumerate(found["layers"]) if (row["ratio"] or 0) > 1)
    inner: list[Block] = [Text(text, soft=True), Table(head, rows, dense=True, bad=bad)]
    if bench := found.get("neurobench"):
        inner.append(
            Text(
                f"By NeuroBench’s definitions: {count(bench['effective_acs'])} effective ACs, "
                f"{count(bench['effective_macs'])} effective MACs, activation sparsity "
                f"{fixed(bench['activation_sparsity'], 3)}, connection sparsity "
                f"{fixed(bench['connection_sparsity'], 3)}, footprint {count(bench['footprint'])} bytes, "
                f"{count(bench['membrane_updates'])} membrane updates.",
                soft=True,
            )
        )
    return [Fold("Operations and energy of each layer", inner)]


def _assumed(found: Energy) -> Block:
    rows = [
        (
            row["name"].replace("_", " "),
            row.get("set", ""),
            f"{row['value']} {row['unit']}",
            row["source"],
            row["provenance"],
        )
        for row in found["constants"]
    ]
    table = Table(("constant", "set", "value", "source", "provenance"), rows, left=(1, 3, 4))
    return Fold("Constants and assumptions", [Items(found["assumptions"]), table])


def charts(document: Document) -> dict[str, Spec | None]:
    found: Energy | None = document["energy"]
    if not found:
        return {}
    spent = found.get("over_time")
    rows = _spent_rows(spent) if spent else []
    return {"energy": _last(found), "energy_time": _time_chart(document, rows) if rows else None}


def _last(found: Energy) -> Spec | None:
    """SNN over ANN for every comparison at the last step."""
    several = len({row.get("constants") for row in found["rows"]}) > 2
    rows = [
        {"row": _label(row, several), "ratio": ratio, "one": 1.0, "side": "less" if ratio < 1 else "more"}
        for row in found["rows"]
        if (ratio := row["ratio"])
    ]
    if not rows:
        return None
    x = alt.X("ratio:Q").scale(type="log").title("energy of the SNN / of the ANN").axis(format="~g", values=_POWERS)
    hint = tips("row:N against", "ratio:Q ratio | .3g")
    y = alt.Y("row:N").sort(None).title(None).axis(labelLimit=190, ticks=False, grid=False)
    base = alt.Chart(data(rows)).encode(y=y)
    colour = alike("side", alt.Color, ["less", "more"], [BLUE, RED]).legend(None)
    bars = base.mark_rule(strokeWidth=3).encode(x=x, x2=alt.X2("one:Q"), color=colour, tooltip=hint)
    dots = base.mark_circle(size=90, opacity=1).encode(x=x, color=colour, tooltip=hint)
    rule = alt.Chart(data([{"one": 1.0}])).mark_rule(color="currentColor").encode(x=alt.X("one:Q"))
    return finish(alt.layer(bars, dots, rule), len(rows) * 22)


def _label(row: Row, several: bool) -> str:
    """Baseline and scope, short enough for a phone; the table below the chart has the full words."""
    label = f"{clean(row['baseline'])}: {clean(row['scope'])}"
    for filler in (" ANN", "with ", "weights ", "activations ", " only"):
        label = label.replace(filler, "")
    return f"{label} ({clean(row['constants'])[:12]})" if several else label


def _spent_rows(spent: OverTime) -> list[Spec]:
    return [
        {"t": t, "ratio": ratio, "against": clean(row["baseline"]), "scope": clean(row["scope"])}
        for row in spent["rows"]
        for t, ratio in zip(spent["timesteps"], row["ratio"], strict=True)
        if ratio
    ]


def _time_chart(document: Document, rows: list[Spec]) -> Spec:
    """SNN over ANN for what was spent up to each step; 1 is break-even."""
    baselines = list(dict.fromkeys(row["against"] for row in rows))
    scopes = [scope for scope in _SCOPES if any(row["scope"] == scope for row in rows)]
    dashes = alike("scope", alt.StrokeDash, scopes, [_SCOPES[scope] for scope in scopes])
    single = len({row["t"] for row in rows}) == 1
    lines = (
        alt.Chart(data(rows))
        .mark_line(strokeWidth=1.8, point=single)  # points hide the strokes of the legend
        .encode(
            x=linear_axis(document, max(row["t"] for row in rows), TIME, 10),
            y=alt.Y("ratio:Q").scale(type="log").title("energy so far, SNN / ANN").axis(format="~g", values=_POWERS),
            color=alike("against", alt.Color, baselines, [GREY, BLUE, ORANGE][: len(baselines)]).legend(columns=1),
            strokeDash=dashes.legend(columns=1, orient="bottom", symbolStrokeColor=GREY, symbolType="stroke"),
            tooltip=tips("t:Q T", "against:N against", "scope:N counted", "ratio:Q SNN / ANN | .3g"),
        )
    )
    rule = alt.Chart(data([{"one": 1.0}])).mark_rule(color="currentColor").encode(y=alt.Y("one:Q"))
    return finish(alt.layer(rule, lines), 260)


SECTION = Section(Keys, compute, "Energy", blocks=blocks, charts=charts)
