"""The commands `report` and `debug`: parse, call library functions, print. torch is imported inside commands only."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from snnconvert.errors import OptionError

if TYPE_CHECKING:
    from snnconvert.cli.commands import Talk

CHECKPOINT, FILES = "Checkpoint", "Files written"
Data = Annotated[str | None, typer.Option(help="Data to measure on, as for convert.", rich_help_panel=CHECKPOINT)]
Limit = Annotated[int | None, typer.Option(help="A class-balanced sample of N images.", rich_help_panel=CHECKPOINT)]
BatchSize = Annotated[int, typer.Option(help="Images read at once.", rich_help_panel=CHECKPOINT)]
Target = Annotated[
    str | None,
    typer.Option(
        metavar="FILE.toml",
        help="Limits of a chip: list everything that violates them, and simulate within them.",
        rich_help_panel=CHECKPOINT,
    ),
]
Sweep = Annotated[
    bool,
    typer.Option("--sweep", help="Accuracy over T, weight bits and membrane bits (slow).", rich_help_panel=CHECKPOINT),
]
EnergyConstants = Annotated[
    str | None,
    typer.Option(
        "--energy-constants",
        metavar="FILE.toml",
        help="Energies of your own hardware, each with its source; they decide, the default ones stand beside them.",
        rich_help_panel=FILES,
    ),
]
Out = Annotated[
    Path | None, typer.Option("--report", help="Page to write (STEM.html; .json beside it).", rich_help_panel=FILES)
]
Csv = Annotated[
    bool, typer.Option("--csv", help="Also STEM.csv, the curve, and STEM-layers.csv.", rich_help_panel=FILES)
]
Markdown = Annotated[bool, typer.Option("--markdown", help="Also STEM.md, for a pull request.", rich_help_panel=FILES)]
Figures = Annotated[
    str | None,
    typer.Option(metavar="svg|png|svg,png", help="Also every figure, in STEM-figures/.", rich_help_panel=FILES),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Json = Annotated[bool, typer.Option("--json", help="The result on stdout, and nothing else there.")]


def report(  # noqa: PLR0917
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="A checkpoint (.snn, with --data), or reports (.json).")
    ],
    data: Data = None,
    limit: Limit = None,
    batch_size: BatchSize = 64,
    target: Target = None,
    sweep: Sweep = False,
    energy_constants: EnergyConstants = None,
    out: Out = None,
    csv: Csv = False,
    markdown: Markdown = False,
    figures: Figures = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Rebuild the report of a checkpoint, render one again, or compare several with paired tests."""
    from snnconvert.report.document import load_report

    talk = _talk(quiet, as_json)
    kinds = {path.suffix for path in files}
    if kinds == {".snn"} and len(files) == 1:
        if data is None:
            raise OptionError("a checkpoint needs images to be measured on", hint="add --data, as for convert")
        document = _measured(files[0], data, limit, batch_size, target, sweep, energy_constants, talk)
        _write(document, out or Path(f"{files[0].stem}.html"), csv, markdown, figures, talk)
        return
    if data is not None or target is not None or sweep or energy_constants is not None:
        raise OptionError(
            "--data, --target, --sweep and --energy-constants are for one checkpoint (.snn)", hint="leave them out"
        )
    if kinds != {".json"}:
        raise OptionError(
            f"cannot report on {', '.join(map(str, files))}", hint="give one .snn file, or one or more report .json"
        )
    if len(files) > 1:
        _compare(files, out, markdown, talk)
        return
    _write(load_report(files[0]), out or files[0].with_suffix(".html"), csv, markdown, figures, talk)


def debug(
    checkpoint: Annotated[Path, typer.Argument(metavar="FILE.snn", help="A converted network.")],
    data: Annotated[str, typer.Option(help="Data to look at, as for convert; labels are not needed.")],
    limit: Annotated[int, typer.Option(help="Images to look at.")] = 32,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Say why spike rates differ from activations, layer by layer, and which option would help."""
    from snnconvert.data.selection import images_for
    from snnconvert.graph.checkpoint import load_snn
    from snnconvert.report.rebuild import neuron_section
    from snnconvert.simulate.chunks import chunk_size
    from snnconvert.simulate.layer_engine import LayerEngine
    from snnconvert.simulate.measure import watched_run
    from snnconvert.study.attribution import Attribution

    talk = _talk(quiet, as_json)
    snn = load_snn(checkpoint)
    images = images_for(snn, data, _at_least_one("--limit", limit)).images()
    found, engine, size = Attribution(snn, None, len(images)), LayerEngine(snn), chunk_size(snn)
    with talk.progress() as progress:
        for start in range(0, len(images), size):
            watched_run(engine, images[start : start + size], [found])
            progress("simulate", min(start + size, len(images)), len(images))
    section = found.document()
    assert section is not None
    if as_json:
        print(json.dumps({"schema": "snnconvert-debug/1", "model": snn.source.name, **section}, indent=1))
    elif not quiet:
        known = {"schedule": snn.schedule.to_dict(), "neuron": neuron_section(snn), "attribution": section}
        _print_causes({**known, "analysis": {"final": {"drop": _recorded_drop(snn.evaluation)}}})


def _recorded_drop(evaluation: dict[str, Any]) -> float | None:
    """Points of accuracy that the conversion lost on its own evaluation images; None where it had no labels."""
    before, after = evaluation.get("ann_correct"), (evaluation.get("correct") or [None])[-1]
    return None if before is None or after is None else 100.0 * (before - after) / max(1, evaluation["samples"])


def _talk(quiet: bool, as_json: bool) -> Talk:
    from snnconvert.cli.commands import Talk
    from snnconvert.cli.main import command_line

    return Talk(quiet=quiet, as_json=as_json, command_line=command_line())


def _at_least_one(option: str, value: int) -> int:
    if value < 1:
        raise OptionError(f"{option} {value} is below 1", hint=f"give {option} a whole number of at least 1")
    return value


def _measured(  # noqa: PLR0917
    path: Path,
    data: str,
    limit: int | None,
    batch_size: int,
    target: str | None,
    sweep: bool,
    energy_constants: str | None,
    talk: Talk,
) -> dict[str, Any]:
    from snnconvert.cost.chip import Target, chip_section, load_target
    from snnconvert.cost.energy_constants import load_constants
    from snnconvert.data.selection import images_for
    from snnconvert.graph.checkpoint import load_snn
    from snnconvert.report.rebuild import rebuilt_document

    limits = None if target is None else load_target(target)
    constants = None if energy_constants is None else load_constants(energy_constants)
    snn = load_snn(path)
    _at_least_one("--batch-size", batch_size)
    chosen = images_for(snn, data, limit if limit is None else _at_least_one("--limit", limit))
    with talk.progress() as progress:
        chip = None
        if limits is not None or sweep:
            chip = chip_section(
                snn, limits or Target("none"), chosen, batch_size=batch_size, sweep=sweep, progress=progress
            )
        return rebuilt_document(
            snn,
            chosen,
            source=data,
            command_line=talk.command_line,
            batch_size=batch_size,
            progress=progress,
            sections={"chip": chip},
            constants=constants,
        )


def _write(  # noqa: PLR0917
    document: dict[str, Any], page: Path, csv: bool, markdown: bool, figures: str | None, talk: Talk
) -> None:
    from rich.console import Console

    from snnconvert.report.document import dumps, write_report
    from snnconvert.report.figures import write_beside
    from snnconvert.report.render_terminal import print_summary

    written = write_report(document, page)
    written += write_beside(document, page, csv=csv, markdown=markdown, figures=figures)
    if talk.as_json:
        sys.stdout.write(dumps(document))
    elif not talk.quiet:
        print_summary(document, Console())
        Console().print(f"written: {', '.join(map(str, written))}", highlight=False)


def _compare(files: list[Path], out: Path | None, markdown: bool, talk: Talk) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from snnconvert.files import write_atomically
    from snnconvert.report.compare import HEAD, TEST_HEAD, cells, compare, render_comparison
    from snnconvert.report.document import load_report
    from snnconvert.report.render_comparison import headline, render_comparison_html
    from snnconvert.report.wording import clean

    names = [path.stem for path in files]
    if len(set(names)) < len(names):
        names = [str(path) for path in files]
    # A file that is given twice still needs two names: rows, colours and tests go by them.
    names = [
        f"{name} ({names[: i + 1].count(name)})" if names.count(name) > 1 else name for i, name in enumerate(names)
    ]
    comparison = compare([(name, load_report(path)) for name, path in zip(names, files, strict=True)])
    target = out or Path("comparison.html")
    if target.suffix != ".html":
        raise OptionError(f"--report {target} does not end in .html", hint=f"name it {target.with_suffix('.html')}")
    if target.with_suffix(".json").resolve() in [path.resolve() for path in files]:
        raise OptionError(
            f"{target} would overwrite {target.with_suffix('.json')}, which is to be compared",
            hint="name another page with --report",
        )
    texts = {target.with_suffix(".json"): json.dumps(comparison, indent=1) + "\n"}
    texts[target] = render_comparison_html(comparison)
    if markdown:
        texts[target.with_suffix(".md")] = render_comparison(comparison)
    write_atomically(texts)
    if talk.as_json:
        print(json.dumps(comparison, indent=1))
    elif not talk.quiet:
        console = Console()
        console.print(Text(headline(comparison), style="bold"))
        for note in comparison["notes"]:
            console.print(Text(f"note: {clean(note)}", style="dim"))
        for head, rows in zip((HEAD, TEST_HEAD), cells(comparison), strict=True):
            table = Table(box=None, pad_edge=False, header_style="dim")
            for index, title in enumerate(head):
                table.add_column(title, justify="right" if index else "left", overflow="fold")
            for row in rows:
                table.add_row(*map(Text, row))
            console.print(table)
            console.print()
        console.print(f"written: {', '.join(map(str, texts))}", highlight=False)


def _print_causes(document: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from snnconvert.report import wording

    console = Console()
    section = document["attribution"]
    for line in filter(None, wording.culprit(document) or ("No layer adds much error of its own.",)):
        console.print(Text(line))
    console.print(
        Text(
            f"Each cause in percent of the size of the layer's activations, on {section['images']} images, against the "
            "network's own limit for ever more timesteps (the original network is not in a checkpoint).",
            style="dim",
        )
    )
    table = Table(box=None, pad_edge=False, header_style="dim")
    for index, title in enumerate(("layer", "whole error", *wording.CAUSES)):
        table.add_column(title, justify="right" if index else "left")
    for row in section["layers"]:
        sizes = (row["error"], *(row["causes"][cause] for cause in wording.CAUSES))
        table.add_row(Text(wording.clean(row["origin"])), *(wording.share(size, 2) for size in sizes))
    console.print(table)
