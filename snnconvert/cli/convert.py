"""The command `convert`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from snnconvert.api.conversion import Order, converted, converted_in_fewest_steps, missed
from snnconvert.api.network import check_device
from snnconvert.cli.options import Files
from snnconvert.cli.run import check_writable, size_of
from snnconvert.cli.terminal import Terminal
from snnconvert.console import Console
from snnconvert.cost.chip import load_target
from snnconvert.cost.energy_constants import load_constants
from snnconvert.files import together
from snnconvert.gates.limits import gates_of
from snnconvert.graph.checkpoint import save_snn
from snnconvert.options import AUTO
from snnconvert.report.document import dumps, write_report
from snnconvert.report.figures import formats_of, write_beside
from snnconvert.report.render_terminal import print_next, print_summary
from snnconvert.request import Request
from snnconvert.simulate.kernels import missing


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
    formats_of(files.figures)
    if request.energy_constants is not None:
        load_constants(request.energy_constants)
    if request.target is not None:
        load_target(request.target)
    output = files.output or Path(f"{Path(request.model.rsplit(':', maxsplit=1)[-1]).stem or 'model'}.snn")
    page = files.report or output.with_suffix(".html")
    for path, suffix in ((output, ".snn"), (page, ".html")):
        check_writable(path, suffix)
    if missing():
        terminal.remark(
            "note: torch stands in for the native kernels, which takes several times as long; they are built when "
            "snnconvert is installed where there is a C++ compiler (SNNCONVERT_KERNELS=torch: as intended)"
        )
    order = Order(
        request,
        gates_of(asked),
        command_line=terminal.command_line,
        checkpoint=output,
        progress=terminal.progress,
        say=terminal.remark,
    )
    made = converted_in_fewest_steps(order) if wanted else converted(order)
    with together():
        save_snn(made.snn, output, original=not files.without_original)
        written = write_all(made.report, page, files)
    show_report(made.report, [f"{output} ({size_of(output)})", *written], terminal)
    if made.failed:
        raise missed(made)


def write_all(document: dict[str, Any], page: Path, files: Files) -> list[Path]:
    """Write a report with what is asked for beside it; all of it, or nothing."""
    with together():
        written = write_report(document, page, static=files.static)
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
