"""The commands `run` and `info`, on a checkpoint."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from snnconvert.api.network import check_device
from snnconvert.cli.terminal import Terminal
from snnconvert.compile.network import difference
from snnconvert.console import Console
from snnconvert.cost.energy_constants import load_constants
from snnconvert.cost.estimate import estimate
from snnconvert.data.selection import images_for
from snnconvert.errors import OptionError, OutputError
from snnconvert.files import refuse_others
from snnconvert.graph.checkpoint import describe, load_snn, save_snn
from snnconvert.graph.dialect import calls, neurons_of
from snnconvert.graph.schedule import owners
from snnconvert.graph.schedule.timing import plan
from snnconvert.options import check
from snnconvert.recompile import Change, recompiled
from snnconvert.report.document import plain
from snnconvert.report.from_run import DIFFERS, as_converted, rerun_document
from snnconvert.report.sections import early_exit
from snnconvert.report.wording import flat, milliseconds, moment, spoken
from snnconvert.request import CHANGES, Request
from snnconvert.study.evaluate import rerun
from snnconvert.study.operations import OperationCounter, operations
from snnconvert.tasks import METRICS


def asked_of(checkpoint: Path, given: Mapping[str, Any]) -> tuple[Request, str]:
    """What is asked of a checkpoint, checked, and its data.

    Raises:
        OptionError: a value out of its range, or no data.
        ModelFileError: no data, and nothing that could be a checkpoint.
    """
    request = Request(model=str(checkpoint), **given)
    check(request)
    if request.data is None:
        refuse_others(checkpoint)
        raise OptionError("a checkpoint needs images to be measured on", hint="add --data, as for convert")
    return request, request.data


def run(checkpoint: Path, given: Mapping[str, Any], output: Path | None, terminal: Terminal) -> None:
    """Run a checkpoint on data and print its accuracy over time, and its energy where constants were given.

    What CHANGES asks for is compiled from the checkpoint's calibration first; `output` keeps the network that ran.
    """
    request, data = asked_of(checkpoint, given)
    changes = {name: given[name] for name in CHANGES if given.get(name) is not None}
    options = {option: changes.pop(option) for option in owners() if option in changes}
    change = Change(**changes, options=options)
    check_device(request.device)
    constants = None if request.energy_constants is None else load_constants(request.energy_constants)
    if output is not None:
        check_writable(output, ".snn")
    loaded = load_snn(checkpoint)
    chosen = images_for(loaded, data, request.limit, request.labels)
    fingerprint = chosen.fingerprint()
    own = fingerprint == loaded.evaluation.get("fingerprint")
    if not own:
        terminal.remark("note: these are not the images of the conversion's own evaluation")
    with terminal.progress() as progress:
        snn, notes = recompiled(loaded, change, progress)
        counters = [] if constants is None else [OperationCounter(snn)]
        curve = rerun(
            snn, chosen, batch_size=request.batch_size, progress=progress, watchers=counters, device=request.device
        )
    same = as_converted(snn, curve, fingerprint)
    if same is False:
        terminal.remark(f"warning: {DIFFERS} Its weights and description are as they were written.")
    document = rerun_document(snn, curve, chosen, source=data, command_line=terminal.command_line, same=same)
    document["precision"] = snn.precision
    document["notes"] = [*notes, *document["notes"]]
    counted = operations(counters[0]) if counters else None
    if counted is not None:
        document["energy"] = plain(estimate(counted, snn, constants))
    if terminal.as_json:
        print(json.dumps(document, indent=1))
    elif not terminal.quiet:
        print_run(document)
    if output is not None:
        if own:
            figures = {"samples": curve.samples, "correct": curve.correct, "spikes_per_image": curve.spikes}
            snn = replace(snn, evaluation={**snn.evaluation, **figures})
        save_snn(snn, output)
        terminal.remark(f"written: {output} ({size_of(output)})")


def print_run(document: dict[str, Any]) -> None:
    """What the task is judged by, as far as labels tell it without the original, and spikes, at a few steps."""
    curve = document["fit_curve"]
    known = [one for one in METRICS.values() if any(value is not None for value in curve.get(one.name, ()))]
    table = Table(title=spoken(document, f"{document['model']} on {document['evaluation']['samples']} images"))
    first = "step" if milliseconds(document) is None else "by"
    titles = [f"{metric.title} {metric.unit}".strip() for metric in known]
    for title in (first, *titles, spoken(document, "spikes per image")):
        table.add_column(title, justify="right")
    total = curve["timesteps"][-1]
    for step in sorted({2**power for power in range(20) if 2**power < total} | {total}):
        values = [(metric, curve[metric.name][step - 1]) for metric in known]
        table.add_row(
            moment(document, step, bare=True),
            *("-" if value is None else f"{value:.2f}" if metric.unit else f"{value:.4g}" for metric, value in values),
            f"{curve['spikes_per_image'][step - 1]:.0f}",
        )
    console = Console()
    console.print(table)
    if not known:
        console.print("spikes alone: without labels of this task nothing says how right the answers are")
    if early := early_exit.sentence(document):
        console.print(early, highlight=False)
    for note in document["notes"]:
        console.print(note, highlight=False)
    if document["precision"] != "float32":
        console.print(f"with weights in {document['precision']}")
    if document["same_as_conversion"]:
        console.print("equal to the conversion's own figures at every step")
    if "energy" in document:
        console.print(document["energy"]["verdict"]["text"], highlight=False)


def info(checkpoint: Path, terminal: Terminal) -> None:
    """Print what a checkpoint holds."""
    snn = load_snn(checkpoint)
    if terminal.as_json:
        print(json.dumps(describe(snn), indent=1))
        return
    console = Console()
    schedule, calibrated = snn.schedule, snn.calibrated
    console.print(
        f"{snn.source.name}, converted from {snn.source.location} (sha256 {snn.source.sha256[:12]})", highlight=False
    )
    kept = "the spiking network alone"
    if calibrated is not None:
        kept = "the spiking and the calibrated network" + ("" if calibrated.original is None else ", and the original")
    console.print(f"{size_of(checkpoint)}: {kept}; weights in {snn.precision}", highlight=False)
    for note in (snn.provenance, difference(snn)):
        if note:
            console.print(note, highlight=False)
    console.print(
        f"schedule {schedule.describe()}, {schedule.timesteps} steps, depth {schedule.depth}; first answer after step "
        f"{schedule.latency['first_output']}, the last after {schedule.latency['total']}",
        highlight=False,
    )
    for title, section, left_out in (
        ("calibration", snn.calibration, ("candidates", "schedules", "fingerprint")),
        ("preprocessing", snn.preprocessing, ()),
        ("evaluation", snn.evaluation, ("correct", "agreed", "spikes_per_image", "fingerprint")),
    ):
        figures = flat({name: value for name, value in section.items() if name not in left_out})
        console.print(f"{title}: {', '.join(f'{name} {value}' for name, value in figures)}", highlight=False)
    thresholds = {node.name: op.threshold for node, op in neurons_of(snn.graph).items()}
    shapes = {node.name: node.meta["shape"] for node, _ in calls(snn.graph)}
    table = Table(box=SIMPLE_HEAD, title="plan", title_justify="left")
    for title in ("layer", "depth", "neurons", "threshold", "integrates", "emits"):
        table.add_column(title, justify="left" if title == "layer" else "right", no_wrap=title != "layer")
    for row in plan(snn, windows=2):
        threshold = thresholds.get(row["site"])
        table.add_row(
            row["origin"] if row["kind"] != "read-out" else f"{row['origin']}, read-out",
            str(row["depth"]),
            f"{math.prod(shapes[row['site']]):,}",
            "" if threshold is None else f"{float(threshold.median()):.3g}",
            _steps(row["integrates"]),
            _steps(row["emits"]),
        )
    console.print(table)


def _steps(intervals: list[Any]) -> str:
    """Half-open intervals of steps in words."""
    return ", ".join(f"{first}..{last - 1}" for first, last in intervals)


def check_writable(path: Path, suffix: str) -> None:
    """Refuse an output that could not be written, or is not named as such files are, before any work."""
    if path.suffix != suffix:
        raise OptionError(f"{path} does not end in {suffix}", hint=f"name it {path.with_suffix(suffix)}")
    folder = path.parent
    if not folder.is_dir():
        raise OutputError(f"the folder {folder} of {path} does not exist", hint=f"create it: mkdir -p {folder}")
    if path.is_dir():
        raise OutputError(f"{path} is a folder", hint="name a file")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"the folder {folder} cannot be written", hint="choose another with --output and --report")


def size_of(path: Path) -> str:
    """The size of a file, for instance 1.2 MB."""
    return f"{path.stat().st_size / 1e6:.1f} MB"
