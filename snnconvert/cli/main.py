"""The command line: each command's parameters, and what a failure prints. torch is imported inside commands only.

`snnconvert MODEL [options]` is short for `snnconvert convert MODEL [options]`.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn, TextIO, cast

import typer

from snnconvert.allocator import keep_freed_memory
from snnconvert.cli import help
from snnconvert.cli.help import HELP_NAMES
from snnconvert.cli.hub import hub_app
from snnconvert.cli.options import Chip, Costing, Files, command
from snnconvert.cli.terminal import ClosableOutput, Terminal
from snnconvert.cli.zoo import zoo_app
from snnconvert.errors import SnnConvertError, UnexpectedError, UserError
from snnconvert.exporters import Export
from snnconvert.files import PLACED
from snnconvert.gates.limits import Judging, gates_of
from snnconvert.printable import say
from snnconvert.request import CHANGES, Request
from snnconvert.train.options import FineTuning

app = typer.Typer(
    name="snnconvert",
    help="Convert a trained neural network (ONNX, PyTorch) into a spiking neural network, and report what it costs.\n\n"
    "`snnconvert MODEL [options]` is short for `snnconvert convert MODEL [options]`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings=HELP_NAMES,
)
ROOT_OPTIONS = ("--help", "-h", "--version", "--install-completion", "--show-completion")
Asked = Annotated[dict[str, Any], Request]
Checkpoint = Annotated[Path, typer.Argument(metavar="FILE.snn", help="A converted network.")]


@app.callback()
def everything(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=help.version)
    ] = False,
) -> None:
    """What stands in front of a command."""


@command(app, "convert")
def convert(given: Asked, files: Files, gates: Annotated[dict[str, Any], Judging], terminal: Terminal) -> None:
    """Convert MODEL, measure it, and write the checkpoint and the report."""
    from snnconvert.cli.convert import convert

    convert(given, gates, files, terminal)


@command(app, "run")
def run(
    checkpoint: Checkpoint,
    given: Annotated[dict[str, Any], Request, {"data": "required", **dict.fromkeys(CHANGES, "as converted")}],
    files: Files,
    terminal: Terminal,
) -> None:
    """Run a converted network on data; on its own evaluation data the figures come out bit for bit.

    Its calibration can be compiled again for another schedule, number of steps or precision.
    """
    from snnconvert.cli.run import run

    run(checkpoint, given, files.output, terminal)


@command(app, "finetune")
def finetune(checkpoint: Checkpoint, asked: FineTuning, files: Files, terminal: Terminal) -> None:
    """Train a converted network on, with the original as its teacher; labels are not needed.

    What is written is an ordinary checkpoint, with a report that has before and after side by side. Repeat the command
    to go on after an interruption.
    """
    from snnconvert.cli.finetune import finetune

    finetune(checkpoint, asked, files, terminal)


@command(app, "info")
def info(checkpoint: Checkpoint, terminal: Terminal) -> None:
    """Print what a checkpoint holds."""
    from snnconvert.cli.run import info

    info(checkpoint, terminal)


@command(app, "check")
def check(
    given: Asked,
    terminal: Terminal,
    find: Annotated[
        bool, typer.Option("--find-preprocessing", help="Try the usual normalisations on 128 images of --data.")
    ] = False,
) -> None:
    """Say what a conversion would do with every node of MODEL, in seconds and without data."""
    from snnconvert.cli.check import check

    check(Request(**given), terminal, find=find)


@command(app, "gate")
def gate(  # noqa: PLR0917
    reports: Annotated[list[Path], typer.Argument(metavar="REPORT.json...", help="Reports of conversions.")],
    gates: Annotated[dict[str, Any], Judging],
    terminal: Terminal,
    baseline: Annotated[Path | None, typer.Option(help="An earlier report on the same images.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML here.")] = None,
    summary: Annotated[Path | None, typer.Option(help="Write a Markdown summary here.")] = None,
) -> None:
    """Judge reports: exit 0 good (or cannot tell, without --strict), 3 a gate failed."""
    from snnconvert.zoo import commands

    found = commands.gate(reports, baseline, gates_of(gates), junit=junit, summary=summary, quiet=terminal.quiet)
    raise typer.Exit(found)


@command(app, "report")
def report(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="A checkpoint (.snn, with --data), or reports (.json).")
    ],
    given: Asked,
    chip: Chip,
    written: Files,
    terminal: Terminal,
) -> None:
    """Rebuild the report of a checkpoint, render one again, or compare several with paired tests."""
    from snnconvert.cli.report import report

    report(files, given, chip, written, terminal)


@command(app, "debug")
def debug(
    checkpoint: Checkpoint,
    given: Annotated[dict[str, Any], Request, {"data": "required", "limit": "32"}],
    terminal: Terminal,
) -> None:
    """Say why spike rates differ from activations, layer by layer, and which option would help."""
    from snnconvert.cli.debug import debug

    debug(checkpoint, given, terminal)


@command(app, "export")
def export(checkpoint: Checkpoint, given: Annotated[dict[str, Any], Export], terminal: Terminal) -> None:
    """Write a converted network for another program, and prove that it means the same there."""
    from snnconvert.cli.export import export

    export(checkpoint, Export(**given), terminal)


@command(app, "cost")
def cost(
    checkpoint: Checkpoint,
    given: Annotated[dict[str, Any], Request, {"data": "required", "limit": "as many as a few seconds allow"}],
    asked: Costing,
    terminal: Terminal,
) -> None:
    """Say what a network costs on a machine: operations, bytes, cycles, time and energy, at its measured sparsity."""
    from snnconvert.cli.cost import cost

    cost(checkpoint, given, asked, terminal)


app.add_typer(zoo_app, name="zoo")
app.add_typer(hub_app, name="hub")


def commands() -> set[str]:
    """What may stand first instead of a model."""
    known = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    return known | {group.name for group in app.registered_groups if group.name}


def with_command(arguments: list[str]) -> list[str]:
    """Put `convert` in front where the user named a model first."""
    if not arguments or arguments[0] in commands() or arguments[0].split("=")[0] in ROOT_OPTIONS:
        return arguments
    return ["convert", *arguments]


def main() -> None:
    """Entry point: run a command, and turn every failure into a message and an exit code."""
    arguments = with_command(sys.argv[1:])
    help.complete_as_convert(os.environ, commands())
    keep_freed_memory()
    try:
        # A reader such as `head` may close the pipe early; what the command does and returns stays the same.
        with contextlib.redirect_stdout(cast(TextIO, ClosableOutput(sys.stdout))) as output:
            try:
                app(arguments, standalone_mode=True)
            finally:
                output.flush()
    except SnnConvertError as error:
        _fail(error)
    except SystemExit as stop:
        # A command that returns 130 by itself has said what it leaves behind.
        if isinstance(getattr(stop.__context__, "__cause__", None), KeyboardInterrupt):
            written = ", ".join(map(str, PLACED))
            say(f"\ninterrupted; written: {written or 'nothing, neither a checkpoint nor a report'}", error=True)
        raise
    except Exception as error:
        known = _known(error)
        if known is None and os.environ.get("SNNCONVERT_DEBUG"):
            raise
        _fail(known or UnexpectedError(f"{type(error).__name__}: {error}"))


def _fail(error: SnnConvertError) -> NoReturn:
    say(error.render(), error=True)
    sys.exit(error.exit_code)


def _known(error: Exception) -> UserError | None:
    """What the machine or its disks refused, where that is what failed."""
    if isinstance(error, MemoryError) or "allocate memory" in str(error):
        return UserError(
            "there is not enough memory for this many steps or images",
            hint="use fewer --timesteps, a smaller --calibration-samples, or a larger machine",
        )
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        return UserError(
            f"{place}{error.strerror}", hint="give a file that can be read, or a place that can be written, with room"
        )
    return None


if __name__ == "__main__":
    main()
