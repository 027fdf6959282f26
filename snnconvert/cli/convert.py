"""The command `convert`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from snnconvert.cli.options import Files, gates_of
from snnconvert.cli.run import check_device, check_writable, size_of
from snnconvert.cli.terminal import Terminal
from snnconvert.console import Console
from snnconvert.cost.energy_constants import load_constants
from snnconvert.errors import BudgetError, GateError, OptionError
from snnconvert.files import together
from snnconvert.gates.limits import Gates
from snnconvert.gates.verdicts import GateResult, Status, check_document, worst_layer
from snnconvert.graph.checkpoint import save_snn
from snnconvert.graph.types import Snn
from snnconvert.neurons import cheapest_first
from snnconvert.options import AUTO
from snnconvert.pipeline import Request
from snnconvert.pipeline import run as run_pipeline
from snnconvert.report.document import dumps, write_report
from snnconvert.report.figures import write_beside
from snnconvert.report.from_run import document_of
from snnconvert.report.render_terminal import print_next, print_summary
from snnconvert.report.sections import attribution
from snnconvert.simulate.kernels import missing
from snnconvert.target import Attempt, best_of, beyond_the_original, smallest, unreachable


@dataclass(frozen=True)
class Conversion:
    """What is to be converted and judged."""

    request: Request
    output: Path
    gates: Gates
    terminal: Terminal


@dataclass(frozen=True)
class Made:
    """A finished conversion: its network and report, what a failed gate says (empty if none failed), and what helps."""

    snn: Snn
    document: dict[str, Any]
    failed: str = ""
    hint: str = ""


def convert(given: Mapping[str, Any], asked: Mapping[str, Any], files: Files, terminal: Terminal) -> None:
    """Convert, measure, write the checkpoint and the report, print a summary, and judge the gates.

    Args:
        given: fields of `Request`; timesteps may be "auto".
        asked: options of `Judging`.
        files: what to write.
        terminal: what to say.

    Raises:
        GateError: if a gate failed; everything has been written then.
    """
    logging.getLogger("torch").setLevel(logging.ERROR)
    wanted = given.get("timesteps") == AUTO
    request = Request(**{name: value for name, value in given.items() if value != AUTO or name != "timesteps"})
    check_device(request.device)
    if request.energy_constants is not None:
        load_constants(request.energy_constants)
    output = files.output or Path(f"{Path(request.model.rsplit(':', maxsplit=1)[-1]).stem}.snn")
    page = files.report or output.with_suffix(".html")
    for path, suffix in ((output, ".snn"), (page, ".html")):
        check_writable(path, suffix)
    if missing():
        terminal.remark(
            "note: torch stands in for the native kernels, which takes several times as long; they are built when "
            "snnconvert is installed where there is a C++ compiler (SNNCONVERT_KERNELS=torch: as intended)"
        )
    conversion = Conversion(request, output, gates_of(asked), terminal)
    made = _smallest(conversion) if wanted else _convert(conversion)
    with together():
        save_snn(made.snn, output, original=not files.without_original)
        written = write_all(made.document, page, files)
    show_report(made.document, [f"{output} ({size_of(output)})", *written], terminal)
    if made.failed:
        raise GateError(made.failed, hint=made.hint)


def write_all(document: dict[str, Any], page: Path, files: Files) -> list[Path]:
    """Write a report with what is asked for beside it; all of it, or nothing."""
    with together():
        written = write_report(document, page)
        return written + write_beside(document, page, csv=files.csv, markdown=files.markdown, figures=files.figures)


def show_report(document: dict[str, Any], written: Sequence[Path | str], terminal: Terminal) -> None:
    """Print a report, and which files it left."""
    if terminal.as_json:
        sys.stdout.write(dumps(document))
    elif not terminal.quiet:
        console = Console()
        print_summary(document, console)
        console.print(f"\nwritten: {', '.join(map(str, written))}")
        print_next(document, console)


def _convert(conversion: Conversion) -> Made:
    output, gates, terminal = conversion.output, conversion.gates, conversion.terminal
    with terminal.progress() as progress:
        outcome = run_pipeline(conversion.request, progress)
    data = outcome.request.data
    follow = f"snnconvert run {output} --data {data}" if data else ""
    document = document_of(
        outcome,
        command_line=terminal.command_line,
        next_commands=tuple(line for line in (follow, f"snnconvert info {output}") if line),
    )
    if not gates.conditions():
        return Made(outcome.snn, document)
    result = check_document(document, gates)
    document["gates"] = result.section()
    if result.ok:
        return Made(outcome.snn, document)
    cause, advice = _advice(document, gates, result)
    text = "; ".join(verdict.text for verdict in result.verdicts)
    return Made(outcome.snn, document, f"gate failed: {text}" + (f" ({cause})" if cause else ""), advice)


def _advice(document: dict[str, Any], gates: Gates, result: GateResult) -> tuple[str, str]:
    """Why a gate failed, as far as that is known, and what to do."""
    if not document["evaluation"]["labelled"] and (gates.max_drop, gates.min_accuracy) != (None, None):
        return "", "give --data with labels"
    if result.status == Status.cannot_tell:
        return "", "evaluate on more images (--limit, --data), or leave --strict out"
    if beyond := beyond_the_original(document, gates):
        return beyond, "ask for less, or convert a more accurate network"
    known = (attribution.culprit(document) or ("", ""))[1]
    return result.worst_layer or "", known or "ask for less, or give more timesteps"


def _smallest(conversion: Conversion) -> Made:
    request, terminal = conversion.request, conversion.terminal
    if not conversion.gates.conditions():
        raise OptionError("--timesteps auto has no target", hint="add --max-drop 1.0 or --min-accuracy 90")
    unlabelled = OptionError(
        "--timesteps auto needs labelled images to judge by"
        + (f", and {request.data} holds no labels" if request.data else ""),
        hint="give --data with labels",
    )
    if request.data is None and not request.model.startswith("zoo:"):
        raise unlabelled
    for option in ("calibrate_for", "compare_at"):
        if getattr(request, option):
            raise OptionError(
                f"--{option.replace('_', '-')} does not fit --timesteps auto",
                hint="find T first, then convert once more with -T and this option",
            )
    wanted = replace(conversion.gates, uncertain="measured")
    kept: dict[int, Made] = {}

    def attempt(timesteps: int) -> Attempt | None:
        try:
            made = _convert(replace(conversion, request=replace(request, timesteps=timesteps), gates=wanted))
        except BudgetError:
            return None
        if not made.document["evaluation"]["labelled"]:
            raise unlabelled
        if made.failed and (beyond := beyond_the_original(made.document, wanted)):
            raise GateError(f"unreachable: {beyond}", hint=made.hint)
        kept[timesteps] = made
        final = made.document["analysis"]["final"] or {}
        terminal.remark(
            f"T = {timesteps}: accuracy {final.get('accuracy')}, {'holds' if not made.failed else 'misses'}"
        )
        return Attempt(timesteps, not made.failed, made.document)

    best, tried = smallest(attempt)
    if best is None:
        nearest = best_of(tried) if tried else None
        finer = " or ".join(model.name for model in cheapest_first() if model.memory)
        advice = "allow a larger drop" + (f", or try --neuron {finer}" if request.neuron == Request.neuron else "")
        raise GateError(unreachable(nearest, worst_layer(nearest.document) if nearest else None), hint=advice)
    made = kept[best.timesteps]
    rows = [{**one.row(), "chosen": one is best} for one in sorted(tried, key=lambda one: one.timesteps)]
    made.document["candidates"] = rows + made.document["candidates"]
    return made
