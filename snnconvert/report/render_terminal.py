"""The report in a terminal: a table, a small curve in plain text, the warnings, and what to type next."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from snnconvert.report import wording
from snnconvert.report.anytime_text import anytime_text

if TYPE_CHECKING:
    from rich.console import Console

_WIDTH = 64


def print_summary(document: Mapping[str, Any], console: Console) -> None:
    """Print what was found. Colours and width are the console's, so NO_COLOR and pipes are respected.

    Names from the model are printed as plain text: neither markup nor control characters in them take effect.
    """
    from rich.table import Table
    from rich.text import Text

    console.print(Text(wording.headline(document), style="bold"))
    latency, schedule, row = document["latency"], document["schedule"], wording.schedule(document)
    kind = wording.clean(row.title(schedule) if row else schedule["kind"])
    neurons = "" if row and row.own_neuron else f", {wording.clean(wording.neuron(document))} neurons"
    late = f", the read-out leaves out the first {left_out}" if (left_out := schedule.get("read_from")) else ""
    answers = f"first answer at step {latency['first_output']}, {latency['total']} steps in all"
    console.print(Text(f"Schedule: {kind}{neurons}{late}; {answers}."))
    sentences = {wording.certainty(document): "dim", wording.early_exit(document): ""}
    sentences[" ".join(filter(None, wording.culprit(document) or ()))] = ""
    sentences[wording.precision(document["evaluation"].get("precision"), latency["total"])] = ""
    sentences[anytime_text(document)] = ""
    for sentence, style in sentences.items():
        if sentence:
            console.print(Text(sentence, style=style))
    ascii_only = not (console.encoding or "").lower().startswith("utf")
    notes = [
        Text(_ascii(f"note: {wording.clean(note)}", ascii_only), style="dim") for note in document["model"]["notes"]
    ]
    for line in (*(text for row in document["warnings"] for text in _warning(row)), *notes):
        console.print(line)
    if curve := plot(document, width=max(16, min(_WIDTH, console.width - 8)), ascii_only=ascii_only):
        console.print()
        for line in curve:
            console.print(Text(line), no_wrap=True, overflow="crop")
    console.print()
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name, justify in (
        ("goal, held up to the last step", "left"),
        ("T", "right"),
        ("", "right"),
        ("spikes", "right"),
    ):
        table.add_column(name or document["milestones"]["basis"], justify=justify)  # type: ignore[arg-type]
    for goal, t, value, spikes in wording.milestones(document):
        cells = (goal, "not reached" if t is None else str(t), wording.percent(value), wording.count(spikes))
        table.add_row(*(Text(_ascii(cell, ascii_only)) for cell in cells))
    if table.row_count:
        console.print(table)
    for line in wording.chip_lines(document):
        console.print(Text(_ascii(line, ascii_only)))
    if document["layers"]:
        console.print()
        console.print(_layers(document["layers"], ascii_only))
    if document["next_commands"]:
        console.print()
        console.print(Text("next:"))
        for command in document["next_commands"]:
            # A command that is broken by the printer cannot be copied.
            console.print(Text(f"  {wording.clean(command)}", style="bold"), soft_wrap=True)


def _warning(row: Mapping[str, str]) -> list[Any]:
    from rich.text import Text

    lines = [Text.assemble(("warning: ", "yellow"), wording.clean(row["text"]))]
    return [*lines, Text.assemble("  hint: ", wording.clean(row["hint"]))] if row.get("hint") else lines


def _layers(layers: Sequence[Mapping[str, Any]], ascii_only: bool, most: int = 6) -> Any:
    """The layers that spike most, as a table."""
    from rich.table import Table
    from rich.text import Text

    busy = sorted(layers, key=lambda layer: layer["spikes_per_image"] or 0.0, reverse=True)[:most]
    title = "layers" if len(layers) <= most else f"the {most} of {len(layers)} layers with the most spikes"
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(title, overflow="ellipsis", no_wrap=True, ratio=1)
    for name in ("threshold", "rate", "spikes", "error K"):
        table.add_column(name, justify="right", no_wrap=True)
    for layer in (layer for layer in layers if layer in busy):
        cells = (
            wording.clean(layer["origin"]),
            wording.short(layer["threshold"]["median"]),
            wording.fixed(layer["firing_rate"], 3),
            wording.count(layer["spikes_per_image"]),
            wording.short(wording.last_error(layer)),
        )
        table.add_row(*(Text(_ascii(cell, ascii_only)) for cell in cells))
    return table


def plot(document: Mapping[str, Any], *, width: int = _WIDTH, ascii_only: bool = False) -> list[str]:
    """The accuracy (or agreement) curve as lines of text, with values on both axes; empty without values.

    Args:
        width: columns of the plot, axis labels excluded.
        ascii_only: draw with ASCII characters.
    """
    curve, basis = document["fit_curve"], document["milestones"]["basis"]
    times, values = curve["timesteps"], curve[basis]
    known = [value for value in values if value is not None]
    if not known:
        return []
    ann = document["ann"]["accuracy"] if basis == "accuracy" else None
    low = min(10 * int(min(known) // 10), 90)
    high = min(100, 10 * math.ceil(max([*known, ann or 0.0, low + 10.0]) / 10))
    step = next(size for size in (1, 2, 5, 10) if (high - low) / size <= 10)
    height = (high - low) // step + 1
    # One column a step where there is room; else each column shows the last step that falls into it.
    spread = max(1, width // len(times))
    columns = min(width, len(times) * spread)
    shown = (
        {index * spread: value for index, value in enumerate(values)}
        if len(times) <= width
        else {column: values[(column + 1) * len(times) // columns - 1] for column in range(columns)}
    )
    point, rule, axis, corner, tick = ("*", "-", "|", "+", "-") if ascii_only else ("●", "┄", "│", "└", "─")
    grid = [[" "] * columns for _ in range(height)]
    if ann is not None and ann >= low:
        grid[round((ann - low) / step)] = [rule] * columns
    for column, value in shown.items():
        if value is not None:
            grid[round((value - low) / step)][column] = point
    lines = [f"{basis} (%)" + (f", ANN {ann:.1f} {rule * 3}" if ann is not None else "")]
    for number in reversed(range(height)):
        label = f"{low + step * number:5d}" if number % 2 == 0 or height < 9 else " " * 5
        lines.append(f"{label} {axis}{''.join(grid[number]).rstrip()}")
    lines.append(" " * 6 + corner + tick * columns)
    first, last = str(times[0]), f"{times[-1]}"
    lines.append(" " * 7 + first + f"T={last}".rjust(max(len(last) + 3, columns - len(first))))
    return lines


def _ascii(text: str, ascii_only: bool) -> str:
    return text.replace(wording.DASH, "-").encode("ascii", "replace").decode() if ascii_only else text
