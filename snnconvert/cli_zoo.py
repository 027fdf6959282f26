"""The commands `zoo` and `gate`: parse, call one library function, print. torch is imported inside commands only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from snnconvert.errors import OptionError

if TYPE_CHECKING:
    from snnconvert.report.gate import Gates

zoo_app = typer.Typer(
    help="Convert many models listed in a manifest (zoo.toml), resumably, and judge the results.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

MANIFEST, GATES, WORK = "Manifest", "Gates", "Work"
ManifestPath = Annotated[Path, typer.Argument(metavar="ZOO.toml", help="The manifest.")]
Only = Annotated[
    list[str] | None, typer.Option("--only", help="Models by name or pattern (repeatable).", rich_help_panel=MANIFEST)
]
MaxDrop = Annotated[
    float | None, typer.Option(help="Points of accuracy below the original network.", rich_help_panel=GATES)
]
MinAccuracy = Annotated[float | None, typer.Option(help="Of the spiking network, percent.", rich_help_panel=GATES)]
MinAnnAccuracy = Annotated[
    float | None,
    typer.Option(help="Of the original network, percent: less means wrong preprocessing.", rich_help_panel=GATES),
]
MaxSpikes = Annotated[float | None, typer.Option(help="Per image.", rich_help_panel=GATES)]
MaxEnergyRatio = Annotated[
    float | None, typer.Option(help="Energy over that of the original network.", rich_help_panel=GATES)
]
FailIf = Annotated[
    list[str] | None,
    typer.Option(help='A condition that must not hold, e.g. "accuracy_drop > 0.5".', rich_help_panel=GATES),
]
At = Annotated[int | None, typer.Option(help="Judge at this step (the last).", rich_help_panel=GATES)]
Uncertain = Annotated[
    str | None,
    typer.Option(
        metavar="[pass|fail|measured]",
        help="What a result inside the sampling error counts as (pass); measured judges by the bare number.",
        rich_help_panel=GATES,
    ),
]
Strict = Annotated[bool, typer.Option("--strict", help="Short for --uncertain fail.", rich_help_panel=GATES)]
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
    """Show the models of a manifest with all they inherit."""
    from snnconvert.zoo import commands

    commands.list_models(manifest, tuple(only or ()))


@zoo_app.command("pull")
def pull(manifest: ManifestPath, only: Only = None, quiet: Quiet = False) -> None:
    """Download the models with URLs into the cache, verified; nothing else ever downloads."""
    from snnconvert.zoo import commands

    raise typer.Exit(commands.pull(manifest, tuple(only or ()), quiet=quiet))


@zoo_app.command("check")
def check(manifest: ManifestPath, only: Only = None) -> None:
    """Open every model without converting it; exit 4 if one cannot be converted."""
    from snnconvert.zoo import commands

    raise typer.Exit(commands.check(manifest, tuple(only or ())))


@zoo_app.command("run")
def run(  # noqa: PLR0917
    manifest: ManifestPath,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for results; a later run continues there.")] = Path(
        "zoo-out"
    ),
    jobs: Jobs = None,
    only: Only = None,
    max_drop: MaxDrop = None,
    min_accuracy: MinAccuracy = None,
    min_ann_accuracy: MinAnnAccuracy = None,
    max_spikes: MaxSpikes = None,
    max_energy_ratio: MaxEnergyRatio = None,
    fail_if: FailIf = None,
    at: At = None,
    uncertain: Uncertain = None,
    strict: Strict = False,
    time_limit: Annotated[
        float | None, typer.Option(help="Seconds per model, instead of the manifest's.", rich_help_panel=WORK)
    ] = None,
    memory_limit: Annotated[
        str | None, typer.Option(help="Per model, e.g. 4GiB, instead of the manifest's.", rich_help_panel=WORK)
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Images read at once; never changes results.", rich_help_panel=WORK)
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
    from snnconvert.report.gate import Gates
    from snnconvert.zoo import commands
    from snnconvert.zoo.batch import Settings
    from snnconvert.zoo.manifest import parse_bytes

    gates = Gates(
        max_drop=max_drop,
        min_accuracy=min_accuracy,
        min_ann_accuracy=min_ann_accuracy,
        max_spikes=max_spikes,
        max_energy_ratio=max_energy_ratio,
        fail_if=tuple(fail_if or ()),
        at=at,
        uncertain=_uncertain(uncertain, strict),
    )
    for name, value in (("--time-limit", time_limit), ("--batch-size", batch_size)):
        if value is not None and value <= 0:
            raise OptionError(f"{name} {value} is not above 0", hint=f"leave {name} out, or give a larger number")
    settings = Settings(
        jobs=jobs,
        threads=threads,
        gates=gates,
        retry_failed=retry_failed,
        batch_size=batch_size,
        seconds=time_limit,
        memory=parse_bytes(memory_limit) if memory_limit is not None else None,
        engine=commands.engine_named(engine, address),
    )
    raise typer.Exit(commands.run(manifest, tuple(only or ()), out, settings, quiet=quiet))


def gate(  # noqa: PLR0917
    reports: Annotated[list[Path], typer.Argument(metavar="REPORT.json...", help="Reports of conversions.")],
    baseline: Annotated[Path | None, typer.Option(help="An earlier report on the same images.")] = None,
    max_drop: MaxDrop = None,
    min_accuracy: MinAccuracy = None,
    min_ann_accuracy: MinAnnAccuracy = None,
    max_spikes: MaxSpikes = None,
    max_energy_ratio: MaxEnergyRatio = None,
    fail_if: FailIf = None,
    at: At = None,
    uncertain: Uncertain = None,
    strict: Strict = False,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML here.")] = None,
    summary: Annotated[Path | None, typer.Option(help="Write a Markdown summary here.")] = None,
    quiet: Quiet = False,
) -> None:
    """Judge reports: exit 0 good (or cannot tell, without --strict), 3 a gate failed."""
    from snnconvert.report.gate import Gates
    from snnconvert.zoo import commands

    gates = Gates(
        max_drop=max_drop,
        min_accuracy=min_accuracy,
        min_ann_accuracy=min_ann_accuracy,
        max_spikes=max_spikes,
        max_energy_ratio=max_energy_ratio,
        fail_if=tuple(fail_if or ()),
        at=at,
        uncertain=_uncertain(uncertain, strict),
    )
    raise typer.Exit(commands.gate(reports, baseline, gates, junit=junit, summary=summary, quiet=quiet))


def _uncertain(given: str | None, strict: bool) -> str:
    if strict and given not in (None, "fail"):
        raise OptionError(f"--strict and --uncertain {given} contradict each other", hint="give one of the two")
    return "fail" if strict else given or "pass"


def gates_of(max_drop: float | None, min_accuracy: float | None, *, at: int | None, strict: bool) -> Gates | None:
    """The gates of a single `convert`; None where nothing is asked."""
    from snnconvert.report.gate import Gates

    if max_drop is None and min_accuracy is None:
        return None
    for option, value in (("--max-drop", max_drop), ("--min-accuracy", min_accuracy)):
        if value is not None and not 0 <= value <= 100:
            raise OptionError(f"{option} {value} is outside 0 to 100", hint=f"give for instance {option} 1.0")
    return Gates(max_drop=max_drop, min_accuracy=min_accuracy, at=at, uncertain=_uncertain(None, strict))
