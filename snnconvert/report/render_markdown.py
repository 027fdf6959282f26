"""The report as Markdown for a pull request."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from snnconvert.report import wording
from snnconvert.report.ablation_text import ablation_text
from snnconvert.report.anytime_text import HEAD, anytime_rows, anytime_text


def render_markdown(document: Mapping[str, Any]) -> str:
    """GitHub-flavoured Markdown: headline, warnings, key figures, milestones, layers in a fold, command line."""
    final, ann = document["analysis"]["final"], document["ann"]["accuracy"]
    lines = [
        f"### Spiking network: {escaped(document['model']['name'])}",
        "",
        f"**{escaped(wording.headline(document))}**",
    ]
    if sure := wording.certainty(document):
        lines += ["", escaped(sure)]
    if rounded := wording.precision(document["evaluation"].get("precision"), document["latency"]["total"]):
        lines += ["", escaped(rounded)]
    if early := wording.early_exit(document):
        lines += ["", escaped(early)]
    if why := wording.culprit(document):
        lines += ["", escaped(" ".join(filter(None, why)))]
    if worth := ablation_text(document):
        lines += ["", escaped(worth)]
    if document["warnings"]:
        lines += ["", *(f"- :warning: {escaped(row['text'])}" for row in document["warnings"])]
    if final is not None:
        cells = (
            wording.percent(ann, 2),
            wording.percent(final["accuracy"], 2),
            wording.fixed(final["drop"], 2),
            wording.percent(final["agreement"], 2),
            str(final["t"]),
            wording.count(final["spikes_per_image"]),
        )
        lines += ["", *table(("ANN", "SNN", "drop, points", "agreement", "T", "spikes per image"), [cells])]
    goals = [
        (escaped(goal), "not reached" if t is None else str(t), wording.percent(value), wording.count(spikes))
        for goal, t, value, spikes in wording.milestones(document)
    ]
    basis = document["milestones"]["basis"]
    if goals:
        lines += ["", *table(("goal, held up to the last step", "smallest T", basis, "spikes per image"), goals)]
    if both := anytime_text(document):
        lines += ["", escaped(both), "", *table(HEAD, anytime_rows(document))]
    if document["layers"]:
        rows = [
            (
                escaped(layer["origin"]),
                wording.short(layer["threshold"]["median"]),
                wording.fixed(layer["firing_rate"], 3),
                wording.count(layer["spikes_per_image"]),
                wording.short(wording.last_error(layer)),
                f"{max(point['ratio'] for point in layer['violations']):.1f}x" if layer["violations"] else "no",
            )
            for layer in document["layers"]
        ]
        head = (
            "layer",
            "threshold, median",
            "spikes per neuron and step",
            "spikes per image",
            "error K",
            "beyond bound",
        )
        lines += ["", "<details><summary>Layers</summary>", "", *table(head, rows), "", "</details>"]
    command = wording.clean(document["tool"]["command_line"]).replace("```", "'''")
    lines += ["", f"snnconvert {escaped(document['tool']['version'])}:", "", "```", command, "```"]
    return "\n".join(lines) + "\n"


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Lines of a table; numbers to the right."""
    rule = "|" + "|".join(["---", *["--:"] * (len(head) - 1)]) + "|"
    return ["| " + " | ".join(row) + " |" if row else rule for row in [head, (), *rows]]


def escaped(text: str) -> str:
    """Text that Markdown and HTML show as it is, on one line; mentions and links stay text."""
    text = re.sub(r"([\\`*_\[\]|~#@!$])", r"\\\1", wording.clean(text))
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # A zero-width space keeps user names and addresses from becoming mentions and links.
    return text.replace("\\@", "@\u200b").replace("://", ":\u200b//").replace("www.", "www\u200b.")
