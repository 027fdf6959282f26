"""What each command does, between the parsed options and the printed result."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from snnconvert import progress as reporting
from snnconvert.compile.network import difference
from snnconvert.cost.energy_constants import load_constants
from snnconvert.data.selection import images_for
from snnconvert.errors import BudgetError, GateError, OptionError, OutputError
from snnconvert.graph.checkpoint import describe, load_snn, save_snn
from snnconvert.graph.dialect import calls, neurons_of
from snnconvert.graph.schedule.timing import plan
from snnconvert.graph.types import Snn
from snnconvert.pipeline import Request
from snnconvert.pipeline import run as run_pipeline
from snnconvert.recompile import Change, recompiled
from snnconvert.report import wording
from snnconvert.report.document import dumps, plain, write_report
from snnconvert.report.figures import write_beside
from snnconvert.report.from_run import document_of, energy_section, rerun_document
from snnconvert.report.gate import Gates, Status, check_document, worst_layer
from snnconvert.report.render_terminal import print_summary
from snnconvert.report.wording import flat
from snnconvert.simulate.kernels import missing
from snnconvert.study.evaluate import rerun as rerun_checkpoint
from snnconvert.study.operations import OperationCounter, operations
from snnconvert.target import Attempt, best_of, beyond_the_original, smallest, unreachable


@dataclass(frozen=True)
class Talk:
    """How much to say: progress and remarks go to stderr, results to stdout."""

    quiet: bool
    as_json: bool
    command_line: str

    @contextmanager
    def progress(self) -> Iterator[reporting.Progress]:
        """A progress callback; a bar on a terminal, nothing elsewhere."""
        console = Console(stderr=True)
        if self.quiet or not console.is_terminal:
            yield reporting.silent
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as bars:
            tasks: dict[str, TaskID] = {}

            def show(what: str, done: int, total: int) -> None:
                if what not in tasks:
                    tasks[what] = bars.add_task(what, total=total)
                bars.update(tasks[what], completed=done, total=total)

            yield show

    def remark(self, text: str) -> None:
        """A line on stderr."""
        if not self.quiet:
            print(text, file=sys.stderr)


def convert(
    options: dict[str, Any],
    *,
    output: Path | None,
    report: Path | None,
    beside: dict[str, Any],
    gates: Gates | None,
    original: bool,
    talk: Talk,
) -> None:
    """Convert, measure, write the checkpoint and the report, print a summary, and judge the gates.

    Raises:
        GateError: if a gate failed; everything has been written then.
    """
    logging.getLogger("torch").setLevel(logging.ERROR)
    check_device(options["device"])
    if options["energy_constants"] is not None:
        load_constants(options["energy_constants"])
    output = output or Path(f"{stem_of(options['model'])}.snn")
    report = report or output.with_suffix(".html")
    for path, suffix in ((output, ".snn"), (report, ".html")):
        check_writable(path, suffix)
    if missing():
        talk.remark(
            "note: torch stands in for the native kernels, which takes several times as long; they are built when "
            "snnconvert is installed where there is a C++ compiler (SNNCONVERT_KERNELS=torch: as intended)"
        )
    if options["timesteps"] is None:
        made = _smallest(options, output, gates, talk)
    else:
        made = _convert(options, output, gates, talk)
    save_snn(made.snn, output, original=original)
    document = made.document
    written = [*write_report(document, report), *write_beside(document, report, **beside)]
    if talk.as_json:
        sys.stdout.write(dumps(document))
    elif not talk.quiet:
        print_summary(document, Console())
        paths = ", ".join([f"{output} ({size_of(output)})", *map(str, written)])
        Console().print(f"written: {paths}", highlight=False)
    if made.failed:
        raise GateError(made.failed, hint=made.hint)


@dataclass(frozen=True)
class Made:
    """A finished conversion: its network and report, what a failed gate says (empty if none failed), and what helps."""

    snn: Snn
    document: dict[str, Any]
    failed: str = ""
    hint: str = ""


def _convert(options: dict[str, Any], output: Path, gates: Gates | None, talk: Talk) -> Made:
    with talk.progress() as progress:
        outcome = run_pipeline(Request(**options), progress)
    data = outcome.request.data
    follow = f"snnconvert run {output} --data {data}" if data else ""
    document = document_of(
        outcome,
        command_line=talk.command_line,
        next_commands=tuple(line for line in (f"snnconvert info {output}", follow) if line),
    )
    if gates is None:
        return Made(outcome.snn, document)
    result = check_document(document, gates)
    document["gates"] = result.section()
    if result.ok:
        return Made(outcome.snn, document)
    cause, advice = "", "ask for less, or give more timesteps"
    if not document["evaluation"]["labelled"] and (gates.max_drop, gates.min_accuracy) != (None, None):
        advice = "give --data with labels"
    elif result.status == Status.cannot_tell:
        advice = "evaluate on more images (--limit, --data), or leave --strict out"
    elif beyond := beyond_the_original(document, gates):
        cause, advice = beyond, "ask for less, or convert a more accurate network"
    else:
        cause = result.worst_layer or ""
        advice = (wording.culprit(document) or ("", ""))[1] or advice
    text = "; ".join(verdict.text for verdict in result.verdicts)
    return Made(outcome.snn, document, f"gate failed: {text}" + (f" ({cause})" if cause else ""), advice)


def _smallest(options: dict[str, Any], output: Path, gates: Gates | None, talk: Talk) -> Made:
    if gates is None:
        raise OptionError("--timesteps auto has no target", hint="add --max-drop 1.0 or --min-accuracy 90")
    unlabelled = OptionError(
        "--timesteps auto needs labelled images to judge by"
        + (f", and {options['data']} holds no labels" if options["data"] else ""),
        hint="give --data with labels",
    )
    if options["data"] is None and not options["model"].startswith("zoo:"):
        raise unlabelled
    for option in ("calibrate_for", "compare_at"):
        if options[option]:
            raise OptionError(
                f"--{option.replace('_', '-')} does not fit --timesteps auto",
                hint="find T first, then convert once more with -T and this option",
            )
    wanted = replace(gates, uncertain="measured")
    kept: dict[int, Made] = {}

    def attempt(timesteps: int) -> Attempt | None:
        try:
            made = _convert({**options, "timesteps": timesteps}, output, wanted, talk)
        except BudgetError:
            return None
        if not made.document["evaluation"]["labelled"]:
            raise unlabelled
        if made.failed and (beyond := beyond_the_original(made.document, wanted)):
            raise GateError(f"unreachable: {beyond}", hint=made.hint)
        kept[timesteps] = made
        final = made.document["analysis"]["final"] or {}
        talk.remark(f"T = {timesteps}: accuracy {final.get('accuracy')}, {'holds' if not made.failed else 'misses'}")
        return Attempt(timesteps, not made.failed, made.document)

    best, tried = smallest(attempt)
    if best is None:
        nearest = best_of(tried) if tried else None
        advice = "allow a larger drop" + (", or try --neuron ternary or graded" if options["neuron"] == "if" else "")
        raise GateError(unreachable(nearest, worst_layer(nearest.document) if nearest else None), hint=advice)
    made = kept[best.timesteps]
    rows = [{**one.row(), "chosen": one is best} for one in sorted(tried, key=lambda one: one.timesteps)]
    made.document["candidates"] = rows + made.document["candidates"]
    return made


def rerun(
    checkpoint: Path,
    data: str,
    *,
    limit: int | None,
    batch_size: int,
    energy_constants: str | None,
    device: str,
    change: Change,
    output: Path | None,
    talk: Talk,
) -> None:
    """Run a checkpoint on data and print its accuracy over time, and its energy where constants were given.

    What `change` asks for is compiled from the checkpoint's calibration first; `output` keeps the network that ran.
    """
    check_device(device)
    constants = None if energy_constants is None else load_constants(energy_constants)
    if output is not None:
        check_writable(output, ".snn")
    loaded = load_snn(checkpoint)
    if batch_size < 1 or (limit is not None and limit < 1):
        raise OptionError("--batch-size and --limit have to be at least 1", hint="leave them out, or give e.g. 64")
    chosen = images_for(loaded, data, limit)
    own = chosen.fingerprint() == loaded.evaluation.get("fingerprint")
    if not own:
        talk.remark("note: these are not the images of the conversion's own evaluation")
    with talk.progress() as progress:
        snn, notes = recompiled(loaded, change, progress)
        counters = [] if constants is None else [OperationCounter(snn)]
        curve = rerun_checkpoint(
            snn, chosen, batch_size=batch_size, progress=progress, watchers=counters, device=device
        )
    labelled = chosen.labels is not None
    document = rerun_document(snn, curve, source=data, labelled=labelled, command_line=talk.command_line)
    document["precision"] = snn.precision
    document["notes"] = [*notes, *document["notes"]]
    counted = operations(counters[0]) if counters else None
    if counted is not None:
        document["energy"] = plain(energy_section(counted, snn, constants))
    if talk.as_json:
        print(json.dumps(document, indent=1))
    elif not talk.quiet:
        print_run(document)
    if output is not None:
        if own:
            figures = {"samples": curve.samples, "correct": curve.correct, "spikes_per_image": curve.spikes}
            snn = replace(snn, evaluation={**snn.evaluation, **figures})
        save_snn(snn, output)
        talk.remark(f"written: {output} ({size_of(output)})")


def print_run(document: dict[str, Any]) -> None:
    """Accuracy and spikes at a few steps."""
    curve = document["fit_curve"]
    table = Table(title=f"{document['model']} on {document['evaluation']['samples']} images")
    for title in ("step", "accuracy %", "spikes per image"):
        table.add_column(title, justify="right")
    total = curve["timesteps"][-1]
    for step in sorted({2**power for power in range(20) if 2**power < total} | {total}):
        accuracy = curve["accuracy"][step - 1]
        table.add_row(
            str(step), "-" if accuracy is None else f"{accuracy:.2f}", f"{curve['spikes_per_image'][step - 1]:.0f}"
        )
    console = Console()
    console.print(table)
    if early := wording.early_exit(document):
        console.print(early, highlight=False)
    for note in document["notes"]:
        console.print(note, highlight=False)
    if document["precision"] != "float32":
        console.print(f"with weights in {document['precision']}")
    if document["same_as_conversion"]:
        console.print("equal to the conversion's own figures at every step")
    if "energy" in document:
        console.print(document["energy"]["verdict"]["text"], highlight=False)


def info(checkpoint: Path, talk: Talk) -> None:
    """Print what a checkpoint holds."""
    snn = load_snn(checkpoint)
    if talk.as_json:
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
        told = flat({name: value for name, value in section.items() if name not in left_out})
        console.print(f"{title}: {', '.join(f'{name} {value}' for name, value in told)}", highlight=False)
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
            steps(row["integrates"]),
            steps(row["emits"]),
        )
    console.print(table)


def steps(intervals: list[Any]) -> str:
    """Half-open intervals of steps in words."""
    return ", ".join(f"{first}..{last - 1}" for first, last in intervals)


def size_of(path: Path) -> str:
    """The size of a file, for instance 1.2 MB."""
    return f"{path.stat().st_size / 1e6:.1f} MB"


def stem_of(model: str) -> str:
    """Where results go by default: the model's name, in the current folder."""
    return Path(model.rsplit(":", maxsplit=1)[-1]).stem


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


def check_device(device: str) -> None:
    """Refuse a device that is not there."""
    if device == "cpu":
        return
    if not (device.startswith("cuda") and torch.cuda.is_available()):
        raise OptionError(f"--device {device!r} is not available here", hint="use --device cpu")
