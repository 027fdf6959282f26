"""What was found, in short: the headline, how sure it is, the figures in large, and what to type next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict

from snnconvert.neurons import NEURONS
from snnconvert.report.blocks import Block, Code, On, Table, Text, Tiles
from snnconvert.report.section import Document, Section, means
from snnconvert.report.sections import energy
from snnconvert.report.wording import count, fixed, interval, percent, plural, schedule
from snnconvert.tasks import METRICS
from snnconvert.tasks.intervals import holds_from

if TYPE_CHECKING:
    from snnconvert.report.measured import Measured


class Gates(TypedDict):
    status: Literal["passed", "failed", "cannot tell"]
    text: str


class Keys(TypedDict):
    gates: Annotated[Gates | None, means("conditions that were asked of this run")]
    next_commands: list[str]
    holds_from: Annotated[
        int | None,
        means(
            "the step from which the answer holds: fit_curve[milestones.basis] stays within the sampling error of its "
            "last value"
        ),
    ]


def compute(measured: Measured) -> dict[str, Any]:
    return {"gates": None, "next_commands": list(measured.next_commands)}


def complete(document: dict[str, Any]) -> None:
    document.setdefault("gates", None)
    document.setdefault("next_commands", [])
    document["holds_from"] = step_of_the_answer(document)


def step_of_the_answer(document: Document) -> int | None:
    """The step from which the answer holds."""
    curve, basis = document["fit_curve"], document["milestones"]["basis"]
    return holds_from(METRICS[basis], curve["timesteps"], curve[basis], curve[f"{basis}_interval"])


def headline(document: Document) -> str:
    """What was found, in plain words: a failed gate, accuracy, drop, T, spikes; and whether it saves energy."""
    gates = document["gates"]
    failed = f"Gate failed: {gates['text']} " if gates and gates["status"] == "failed" else ""
    saving = energy.sentence(document)
    return failed + _accuracy(document) + (f" {saving}" if saving else "")


def _accuracy(document: Document) -> str:
    """Accuracy, drop, T and spikes in one sentence."""
    final, samples = document["analysis"]["final"], document["evaluation"]["samples"]
    name = document["model"]["name"]
    if final is None:
        total = plural(document["latency"]["total"], "timestep")
        return f"The spiking form of {name} gave no answer that could be measured in {total}."
    cost = f"after {plural(final['t'], 'timestep')}"
    if final["spikes_per_image"] is not None:
        cost += f" and about {count(final['spikes_per_image'])} spikes per image"
    if final["accuracy"] is None:
        return (
            f"The spiking form of {name} gives the same answer as the original network on "
            f"{percent(final['agreement'])} of {plural(samples, 'image')} {cost}; without labels nobody can say how "
            "many of these answers are right."
        )
    right = f"{percent(final['accuracy'])} of {plural(samples, 'image')}"
    text = f"The spiking form of {name} classifies {right} correctly {cost}"
    if final["drop"] is not None:
        text += f", {difference(final['drop'])} the original network's {percent(document['ann']['accuracy'])}"
    return text + "."


def difference(drop: float) -> str:
    """`0.5 points below`, `exactly as many as`, `0.3 points above`."""
    if abs(drop) < 0.005:
        return "exactly as many as"
    digits = 1 if abs(drop) >= 0.1 else 2
    return f"{abs(drop):.{digits}f} points {'below' if drop > 0 else 'above'}"


def sentences(document: Document) -> Iterable[Text]:
    yield Text(_time(document), On.TERMINAL)
    pair, band = document["analysis"]["paired"], interval(document)
    if band is None:
        return
    text = (
        f"As far as {plural(document['evaluation']['samples'], 'image')} can tell, the true accuracy lies between "
        f"{band[0]:.1f} and {band[1]:.1f} % (95 % interval)"
    )
    if pair is not None:
        low, high = pair["drop_interval"]
        text += (
            f", and the true drop between {low:+.1f} and {high:+.1f} points (paired, McNemar p = {pair['p_value']:.2g})"
        )
    yield Text(f"{text}.", On.ALL, soft=True)


def _time(document: Document) -> str:
    latency, given, row = document["latency"], document["schedule"], schedule(document)
    kind = row.title(given) if row else given["kind"]
    model = document["neuron"]["model"]
    models = (NEURONS[model].title if model in NEURONS else "") or model
    neurons = "" if row and row.own_neuron else f", {models} neurons"
    late = f", the read-out leaves out the first {left_out}" if (left_out := given.get("read_from")) else ""
    answers = f"first answer at step {latency['first_output']}, {latency['total']} steps in all"
    return f"Schedule: {kind}{neurons}{late}; {answers}."


def blocks(document: Document) -> Sequence[Block]:
    commands = document["next_commands"]
    found: list[Block] = [Tiles(_tiles(document))]
    if document["analysis"]["final"] is not None:
        found.append(_figures(document))
    if commands:
        found += [Text("Next, type:", soft=True), Code(commands)]
    return found


def _tiles(document: Document) -> list[tuple[str, str, str]]:
    final, ann, band = document["analysis"]["final"] or {}, document["ann"]["accuracy"], interval(document)
    first, left_out = document["latency"]["first_output"], document["schedule"].get("read_from")
    late = f", the read-out leaves out the first {left_out}" if left_out else ""
    figures = [
        ("ANN accuracy", ann, percent(ann), "original network"),
        (
            "SNN accuracy",
            final.get("accuracy"),
            percent(final.get("accuracy")),
            f"95 %: {fixed(band[0])} to {fixed(band[1])}" if band else "",
        ),
        ("drop", final.get("drop"), fixed(final.get("drop"), 2), "points"),
        ("same answer", final.get("agreement"), percent(final.get("agreement")), "as the ANN"),
        (
            "timesteps, T",
            document["latency"]["total"],
            str(document["latency"]["total"]),
            f"first answer at step {first}{late}" if first else "",
        ),
        ("spikes per image", final.get("spikes_per_image"), count(final.get("spikes_per_image")), ""),
    ]
    return [(name, text, remark) for name, value, text, remark in figures if value is not None]


def _figures(document: Document) -> Table:
    final = document["analysis"]["final"]
    cells = (
        percent(document["ann"]["accuracy"], 2),
        percent(final["accuracy"], 2),
        fixed(final["drop"], 2),
        percent(final["agreement"], 2),
        str(final["t"]),
        count(final["spikes_per_image"]),
    )
    head = ("ANN", "SNN", "drop, points", "agreement", "T", "spikes per image")
    return Table(head, [cells], On.MARKDOWN)


SECTION = Section(Keys, compute, "", complete, sentences=sentences, blocks=blocks)
