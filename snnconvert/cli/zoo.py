"""The commands `zoo` and `gate`: parse, call one library function, print. torch is imported inside commands only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from snnconvert.cli.options import CHANGES, GATE_OPTIONS, gathered, make_changes, make_gates

if TYPE_CHECKING:
    from snnconvert.report.gate import Gates

zoo_app = typer.Typer(
    help="Convert many models listed in a manifest (zoo.toml), resumably, and judge the results.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

MANIFEST, WORK = "Manifest", "Work"
ManifestPath = Annotated[Path, typer.Argument(metavar="ZOO.toml", help="The manifest.")]
Only = Annotated[
    list[str] | None, typer.Option("--only", help="Models by name or pattern (repeatable).", rich_help_panel=MANIFEST)
]
Jobs = Annotated[
    int | None, typer.Option("--jobs", "-j", help="Models at a time (number of cores).", rich_help_panel=WORK)
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]


@zoo_app.command("init")
def init(
    folder: Annotated[Path, typer.Argument(help="Where the models are.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The manifest (FOLDER/zoo.toml).")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite it.")] = False,
) -> None:
    """Write a manifest for the models in FOLDER, and say what was guessed."""
    from snnconvert.zoo import commands

    commands.init(folder, output or folder / "zoo.toml", force=force)


@zoo_app.command("list")
def list_models(manifest: ManifestPath, only: Only = None) -> None:
    """Show the models of a manifest with what they inherit: data, steps, gates and other options."""
    from snnconvert.zoo import commands

    commands.list_models(manifest, tuple(only or ()))


@zoo_app.command("pull")
def pull(manifest: ManifestPath, only: Only = None, quiet: Quiet = False) -> None:
    """Download the models with URLs into the cache, verified; nothing else ever downloads."""
    from snnconvert.zoo import commands

    raise typer.Exit(commands.pull(manifest, tuple(only or ()), quiet=quiet))


@zoo_app.command("check")
def check(manifest: ManifestPath, only: Only = None) -> None:
    """Open every model and look for its data, without converting it; exit 4 if one cannot be converted."""
    from snnconvert.zoo import commands

    raise typer.Exit(commands.check(manifest, tuple(only or ())))


@zoo_app.command("run")
@gathered("changes", CHANGES, make_changes)
@gathered("gates", GATE_OPTIONS, make_gates)
def run(  # noqa: PLR0917
    manifest: ManifestPath,
    changes: dict[str, Any],
    gates: Gates,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for results; a later run continues there.")] = Path(
        "zoo-out"
    ),
    jobs: Jobs = None,
    only: Only = None,
    time_limit: Annotated[
        float | None, typer.Option(help="Seconds per model, instead of the manifest's.", rich_help_panel=WORK)
    ] = None,
    memory_limit: Annotated[
        str | None, typer.Option(help="Per model, e.g. 4GiB, instead of the manifest's.", rich_help_panel=WORK)
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try failed models again.", rich_help_panel=WORK)
    ] = False,
    threads: Annotated[
        int, typer.Option(help="Per model; more than 1 may change the last bits of results.", rich_help_panel=WORK)
    ] = 1,
    engine: Annotated[str, typer.Option(help="local, or ray (an optional extra).", rich_help_panel=WORK)] = "local",
    address: Annotated[
        str | None, typer.Option(help="Of a Ray cluster; without it one is started here.", rich_help_panel=WORK)
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Convert what has changed since the last run, judge everything, write zoo.html, zoo.json, zoo.csv, junit.xml.

    Exit codes: 0 good (or cannot tell, without --strict), 3 a gate failed, 4 a model was not converted.
    """
    from snnconvert.zoo import commands
    from snnconvert.zoo.batch import Settings
    from snnconvert.zoo.limits import check_seconds, parse_bytes

    settings = Settings(
        jobs=jobs,
        threads=threads,
        gates=gates,
        changes=changes,
        retry_failed=retry_failed,
        seconds=check_seconds("--time-limit", time_limit) if time_limit is not None else None,
        memory=parse_bytes(memory_limit) if memory_limit is not None else None,
        engine=commands.engine_named(engine, address),
    )
    raise typer.Exit(commands.run(manifest, tuple(only or ()), out, settings, quiet=quiet))


@gathered("gates", GATE_OPTIONS, make_gates)
def gate(  # noqa: PLR0917
    reports: Annotated[list[Path], typer.Argument(metavar="REPORT.json...", help="Reports of conversions.")],
    gates: Gates,
    baseline: Annotated[Path | None, typer.Option(help="An earlier report on the same images.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML here.")] = None,
    summary: Annotated[Path | None, typer.Option(help="Write a Markdown summary here.")] = None,
    quiet: Quiet = False,
) -> None:
    """Judge reports: exit 0 good (or cannot tell, without --strict), 3 a gate failed."""
    from snnconvert.zoo import commands

    raise typer.Exit(commands.gate(reports, baseline, gates, junit=junit, summary=summary, quiet=quiet))
