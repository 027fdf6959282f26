"""The command `cost`: what a converted network costs on a machine, modelled from its measured sparsity."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from snnconvert.cli.options import Costing
from snnconvert.cli.run import asked_of
from snnconvert.cli.terminal import Terminal
from snnconvert.console import Console
from snnconvert.cost.machine_report import RATIOS, machine_document
from snnconvert.cost.machines import load_machine
from snnconvert.cost.workload import workload
from snnconvert.data.selection import images_for
from snnconvert.errors import OptionError
from snnconvert.graph.checkpoint import load_snn
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.simulate.measure import watched_run
from snnconvert.study.backward import IMAGES, backward_activity
from snnconvert.study.operations import OperationCounter, operations


def cost(checkpoint: Path, given: Mapping[str, Any], asked: Costing, terminal: Terminal) -> None:
    """Count the network's operations on data, and print what they cost on the machine."""
    machine = load_machine(asked.machine)
    request, data = asked_of(checkpoint, given)
    snn = load_snn(checkpoint)
    counter = OperationCounter(snn)
    chosen = images_for(snn, data, request.limit)
    images = chosen.images(range(min(counter.left, len(chosen))))
    with terminal.progress() as progress:
        watched_run(LayerEngine(snn), images, [counter])
        progress("simulate", len(images), len(images))
        activity = backward_activity(snn, images[:IMAGES]) if asked.training else None
    counted = operations(counter)
    if counted is None:
        raise OptionError(f"{checkpoint} has no weighted operators", hint="there is nothing to be counted")
    layers = workload(counted, snn, activity)
    document = machine_document(machine, layers, training=asked.training, batch=asked.batch, images=counted.images)
    if terminal.as_json:
        print(json.dumps({**document, "model": snn.source.name}, indent=1))
    elif not terminal.quiet:
        _print(document, snn.source.name)


def _print(document: Mapping[str, Any], model: str) -> None:
    console, own = Console(), document["per_sample"]
    console.print(
        f"{model}, {document['phase']} of one sample in {document['batch']}, counted on {document['images']} images",
        highlight=False,
    )
    console.print(document["title"], highlight=False)
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for index, title in enumerate(("phase", "operations", "memory", "cycles", "time", "energy")):
        table.add_column(title, justify="right" if index else "left", no_wrap=True)
    for phase in own["phases"]:
        counted = "\n".join(f"{number:,.0f} {what}" for what, number in phase["operations"].items())
        table.add_row(phase["name"], counted, *_sizes(phase, phase["moved"]))
    if len(own["phases"]) > 1:
        table.add_row("all, at once" if own["pipelined"] else "all", "", *_sizes(own, own["bytes"]))
    console.print(table)
    if document["machine"] != document["reference"]["machine"]:
        parts = [f"{name} {document['ratios'][name]:.3g}" for name in RATIOS]
        console.print(f"against the {document['reference']['machine']}: {', '.join(parts)}", highlight=False)
    for row in document["published"]:
        span = f"{row['low']:g}" if row["low"] == row["high"] else f"{row['low']:g} to {row['high']:g}"
        console.print(f"published: {row['what']} {span} ({row['source']})", highlight=False)
    for note in document["notes"]:
        console.print(note, highlight=False)
    if document["unknown"]:
        console.print(
            f"a model, not a measurement; its authors do not state: {', '.join(document['unknown'])} "
            "(--json has every constant with its source; a TOML file as --machine changes them)",
            highlight=False,
        )


def _sizes(figures: Mapping[str, Any], moved: float) -> tuple[str, str, str, str]:
    cycles = "-" if figures["cycles"] is None else f"{figures['cycles']:,.0f}"
    return _scaled(moved, "B"), cycles, _scaled(figures["seconds"], "s"), _scaled(figures["joules"], "J")


def _scaled(value: float, unit: str) -> str:
    """A quantity with a prefix of thousands, three digits."""
    if not value:
        return "-"
    for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n")):
        if value >= factor:
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value / 1e-12:.3g} p{unit}"
