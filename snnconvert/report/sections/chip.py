"""How the network fits a chip: what it breaks, and its accuracy within the chip's bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, NotRequired, TypedDict

import altair as alt

from snnconvert.report.blocks import Block, Chart, Fold, On, Table, Text, Title
from snnconvert.report.drawing import data, finish, tips
from snnconvert.report.section import Amount, Count, Document, Section, Spec, Step, means
from snnconvert.report.wording import clean, count, percent, plural

if TYPE_CHECKING:
    from snnconvert.report.measured import Measured


class Violation(TypedDict):
    layer: str
    limit: str
    allowed: Any
    found: Any
    text: str


class Run(TypedDict):
    weight_bits: Step
    state_bits: Step
    timesteps: Step
    correct: Count
    samples: Count
    best: NotRequired[bool]
    spikes_per_image: NotRequired[Amount | None]
    saturations_per_image: NotRequired[Amount | None]
    shortcut_synapses: NotRequired[int | None]


class Core(TypedDict):
    layer: str
    kernels: Count
    kernel: Annotated[Count, means("words of memory that its kernel takes")]
    neurons: Annotated[Count, means("words of memory that its neurons take")]
    biases: Count
    core: Annotated[int | None, means("where it goes; null if no free core holds it")]


class Chip(TypedDict):
    target: dict[str, Any]
    violations: list[Violation]
    runs: NotRequired[list[Run]]
    cores: NotRequired[list[Core]]


class Keys(TypedDict):
    chip: Annotated[Chip | None, means("how the network fits a target and what its limits cost")]


def compute(measured: Measured) -> dict[str, Any]:
    return {"chip": measured.studies.get("chip")}


def lines(chip: Chip) -> list[str]:
    """How the network fits, in short: what it breaks, and its accuracy at the end."""
    broken, name, runs = chip["violations"], clean(chip["target"]["name"]), chip.get("runs", [])
    found = [f"{name}: {plural(len(broken), 'limit')} broken" if broken else f"{name}: no known limit is broken"]
    found += [f"  {row['layer']}: {row['text']} ({_limit(row)} {row['allowed']})" for row in broken]
    last = max((row["timesteps"] for row in runs), default=0)
    found += [
        f"  {row['weight_bits']}-bit weights, {row['state_bits']}-bit membranes, T = {last}: {_right(row)} of "
        f"{plural(row['samples'], 'image')} right"
        for row in runs
        if row["timesteps"] == last
    ]
    return found


def _limit(row: Violation) -> str:
    return row["limit"].replace("_", " ")


def _right(row: Run) -> str:
    return percent(100 * row["correct"] / max(1, row["samples"]), 2)


def blocks(document: Document) -> Sequence[Block]:
    chip: Chip | None = document["chip"]
    if not chip:
        return []
    broken = chip["violations"]
    verdict = f"{plural(len(broken), 'limit')} broken." if broken else "No known limit is broken."
    source = chip["target"].get("source", "not stated")
    found: list[Block] = [
        *(Text(line, On.TERMINAL) for line in lines(chip)),
        Title(clean(chip["target"]["name"])),
        Text(f"{verdict} Limits: {source}; what they leave out is not checked."),
    ]
    if broken:
        head = ("layer", "limit", "allowed", "found", "what is wrong")
        rows = [(row["layer"], _limit(row), str(row["allowed"]), str(row["found"]), row["text"]) for row in broken]
        found.append(Table(head, rows, left=(1, 4)))
    return found + _cores(chip) + _runs(chip)


def _cores(chip: Chip) -> list[Block]:
    rows = [
        ("-" if row["core"] is None else str(row["core"]), row["layer"], count(row["kernel"]), count(row["neurons"]))
        for row in chip.get("cores", [])
    ]
    return [Table(("core", "layer", "words of kernel", "words of neurons"), rows, left=(1,))] if rows else []


def _runs(chip: Chip) -> list[Block]:
    runs = chip.get("runs", [])
    if not runs:
        return []
    text = (
        "Accuracy with integer weights and saturating integer membranes of so many bits, in one unit per "
        f"{chip['target'].get('scale_per', 'channel')} of each layer. Diamonds and bold rows: nothing else is as good "
        "with no more steps and bits."
    )
    if any((row.get("shortcut_synapses") or 1) > 1 for row in runs):
        text += (
            " An identity shortcut adds one number per channel; with weights of so many bits it takes the given number "
            "of synapses side by side."
        )
    head = ("weight bits", "membrane bits", "T", "accuracy", "spikes per image", "saturations per image",
            "synapses of a shortcut")  # fmt: skip
    rows = [
        (
            str(row["weight_bits"]),
            str(row["state_bits"]),
            str(row["timesteps"]),
            _right(row),
            count(row.get("spikes_per_image")),
            count(row.get("saturations_per_image")),
            count(row.get("shortcut_synapses")),
        )
        for row in runs
    ]
    chosen = tuple(index for index, row in enumerate(runs) if row.get("best"))
    table = Table(head, rows, chosen=chosen, named=False)
    several = _several(runs)
    chart = Chart("sweep", "Accuracy over timesteps for several widths of weights and membranes")
    return [Text(text, soft=True), chart, Fold("As a table", [table]) if several else table]


def _several(runs: Sequence[Run]) -> bool:
    return len({(row["weight_bits"], row["state_bits"]) for row in runs}) > 1


def charts(document: Document) -> dict[str, Spec | None]:
    runs = (document["chip"] or {}).get("runs", [])
    return {"sweep": sweep_chart(runs)} if _several(runs) else {}


def sweep_chart(runs: Sequence[Run]) -> Spec:
    """Accuracy over T for every width of weights (colour) and of membranes (dashes)."""
    rows: list[Spec] = [
        {
            "t": row["timesteps"],
            "accuracy": 100 * row["correct"] / max(1, row["samples"]),
            "weights": row["weight_bits"],
            "state": row["state_bits"],
            "line": f"{row['weight_bits']}/{row['state_bits']}",
            "best": row["best"],
        }
        for row in runs
    ]
    x = alt.X("t:Q").scale(type="log", base=2, nice=False).title("T (timesteps)")
    base = alt.Chart(data(rows)).encode(
        x=x.axis(values=sorted({row["t"] for row in rows}), format="d", labelOverlap=True),
        y=alt.Y("accuracy:Q").title("accuracy (%)"),
        tooltip=tips("t:Q T", "weights:Q weight bits", "state:Q membrane bits", "accuracy:Q accuracy | .2f"),
    )
    colour = alt.Color("weights:O").scale(scheme="viridis").legend(title="weight bits", symbolType="stroke")
    dash = alt.StrokeDash("state:O").legend(title="membrane bits", symbolType="stroke")
    drawn = base.mark_line(strokeWidth=1.6).encode(color=colour, strokeDash=dash, detail=alt.Detail("line:N"))
    best = base.transform_filter("datum.best").mark_point(shape="diamond", size=80, filled=True, opacity=1)
    return finish(alt.layer(drawn, best.encode(color=colour)), 280)


SECTION = Section(Keys, compute, "Chip fit", blocks=blocks, charts=charts)
