"""The commands of `zoo`: their parameters. torch is imported inside commands only."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from snnconvert.cli.help import HELP_NAMES
from snnconvert.cli.options import command
from snnconvert.cli.terminal import Terminal
from snnconvert.gates.limits import Judging, gates_of
from snnconvert.options import option
from snnconvert.request import Request
from snnconvert.zoo.limits import Limits

zoo_app = typer.Typer(
    help="Convert many models listed in a manifest (zoo.toml), resumably, and judge the results.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings=HELP_NAMES,
)
ManifestPath = Annotated[Path, typer.Argument(metavar="ZOO.toml", help="The manifest.")]
Only = Annotated[list[str] | None, typer.Option("--only", help="Models by name or pattern (repeatable).")]
_work = partial(option, commands=("zoo run",), panel="Work")


@dataclass(frozen=True)
class Work:
    """How the work is shared out."""

    out: Path = option(
        Path("zoo-out"),
        "Folder for results; a later run continues there.",
        commands=("zoo run",),
        panel="Work",
        short="-o",
    )
    jobs: int | None = _work(None, "Models at a time.", short="-j", least=1, usual="number of cores")
    retry_failed: bool = _work(False, "Try failed models again.")
    threads: int = _work(1, "Per model; more than 1 may change the last bits of results.", least=1)
    engine: str = _work("local", "Processes here, or Ray (an optional extra).", choices=("local", "ray"))
    baseline: Path | None = option(
        None, "zoo.json of an earlier run: summary.md says what has changed.", commands=("zoo run",), panel="Work"
    )
    address: str | None = _work(None, "Of a Ray cluster; without it one is started here.")


@command(zoo_app, "zoo init")
def init(
    folder: Annotated[Path, typer.Argument(help="Where the models are.")],
    given: Annotated[dict[str, Any], Request, {"data": "found by name", "calibration_data": "found by name"}],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The manifest (FOLDER/zoo.toml).")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite it.")] = False,
) -> None:
    """Write a manifest for the models in FOLDER, and say what was guessed.

    What is given of data and preprocessing is written down as the defaults of all models, and not guessed.
    """
    from snnconvert.zoo import commands

    commands.init(folder, output or folder / "zoo.toml", given, force=force)


@command(zoo_app, "zoo list")
def list_models(
    manifest: Annotated[Path | None, typer.Argument(metavar="[ZOO.toml]", help="The manifest.")] = None,
    only: Only = None,
) -> None:
    """Show the models of a manifest with what they inherit: data, steps, gates and other options.

    Without a manifest: the models that come with the package.
    """
    from snnconvert.zoo import commands

    if manifest is None:
        commands.list_bundled(tuple(only or ()))
    else:
        commands.list_models(manifest, tuple(only or ()))


@command(zoo_app, "zoo pull")
def pull(manifest: ManifestPath, terminal: Terminal, only: Only = None) -> None:
    """Download the models with URLs into the cache, verified; nothing else ever downloads."""
    from snnconvert.zoo import commands

    raise typer.Exit(commands.pull(manifest, tuple(only or ()), quiet=terminal.quiet))


@command(zoo_app, "zoo check")
def check(manifest: ManifestPath, only: Only = None) -> None:
    """Open every model and look for its data, without converting it; exit 4 if one cannot be converted.

    Like `zoo run`, this runs the Python files that the manifest names (source or arch = "FILE.py:FACTORY"): check only
    manifests that you trust. ONNX, .pt2 and weight files run no code.
    """
    from snnconvert.zoo import commands

    raise typer.Exit(commands.check(manifest, tuple(only or ())))


@command(zoo_app, "zoo run")
def run(  # noqa: PLR0917
    manifest: ManifestPath,
    changes: Annotated[dict[str, Any], Request, "the manifest's"],
    gates: Annotated[dict[str, Any], Judging],
    limits: Limits,
    work: Work,
    terminal: Terminal,
    only: Only = None,
) -> None:
    """Convert what has changed since the last run, judge everything, write zoo.html, zoo.json, zoo.csv, junit.xml.

    Exit codes: 0 good (or cannot tell, without --strict), 3 a gate failed, 4 a model was not converted.
    """
    from snnconvert.zoo import commands
    from snnconvert.zoo.batch import Settings

    settings = Settings(
        jobs=work.jobs,
        threads=work.threads,
        gates=gates_of(gates),
        changes=changes,
        retry_failed=work.retry_failed,
        seconds=limits.seconds,
        memory=limits.memory,
        baseline=work.baseline,
        engine=commands.engine_named(work.engine, work.address),
    )
    raise typer.Exit(commands.run(manifest, tuple(only or ()), work.out, settings, quiet=terminal.quiet))
