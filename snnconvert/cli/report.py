"""The command `report`: of a checkpoint, of a report, or of several side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from snnconvert.cli.convert import show_report, write_all
from snnconvert.cli.options import Chip, Files
from snnconvert.cli.run import asked_of
from snnconvert.cli.terminal import Terminal
from snnconvert.console import Console
from snnconvert.cost.chip import Target, chip_section, load_target
from snnconvert.cost.energy_constants import load_constants
from snnconvert.data.selection import images_for
from snnconvert.errors import OptionError
from snnconvert.files import write_atomically
from snnconvert.graph.checkpoint import load_snn
from snnconvert.options import declared
from snnconvert.report.compare import compare
from snnconvert.report.document import load_report, of_reports
from snnconvert.report.figures import formats_of
from snnconvert.report.from_run import rebuilt_document
from snnconvert.report.render_comparison import print_comparison, render_comparison, render_comparison_html
from snnconvert.request import Request


def report(paths: Sequence[Path], given: Mapping[str, Any], chip: Chip, files: Files, terminal: Terminal) -> None:
    """Rebuild the report of a checkpoint, render one again, or compare several with paired tests."""
    kinds = {path.suffix for path in paths}
    formats_of(files.figures)
    if kinds == {".snn"} and len(paths) == 1:
        document = _measured(paths[0], given, chip, terminal)
        show_report(document, write_all(document, files.report or Path(f"{paths[0].stem}.html"), files), terminal)
        return
    measuring = [declared(Request)[name].flag for name in given]
    measuring += [f"--{name}" for name, value in vars(chip).items() if value != getattr(Chip(), name)]
    if measuring:
        raise OptionError(
            f"{' and '.join(measuring)} cannot change a finished report: it is for one checkpoint (.snn)",
            hint=f"leave {'it' if len(measuring) == 1 else 'them'} out, or measure again: snnconvert report FILE.snn "
            "--data DATA",
        )
    if kinds != {".json"}:
        raise OptionError(
            f"cannot report on {', '.join(map(str, paths))}", hint="give one .snn file, or one or more report .json"
        )
    if len(paths) > 1:
        if files.csv or files.figures:
            unused = "--csv" if files.csv else "--figures"
            raise OptionError(f"{unused} is for one report", hint="leave it out, or render one report at a time")
        _compare(paths, files, terminal)
        return
    document = load_report(paths[0])
    with of_reports(paths):
        show_report(document, write_all(document, files.report or paths[0].with_suffix(".html"), files), terminal)


def _measured(path: Path, given: Mapping[str, Any], chip: Chip, terminal: Terminal) -> dict[str, Any]:
    request, data = asked_of(path, given)
    limits = None if request.target is None else load_target(request.target)
    constants = None if request.energy_constants is None else load_constants(request.energy_constants)
    snn = load_snn(path)
    chosen = images_for(snn, data, request.limit, request.labels)
    with terminal.progress() as progress:
        section = None
        if limits is not None or chip.sweep:
            section = chip_section(
                snn,
                limits or Target("none"),
                chosen,
                batch_size=request.batch_size,
                sweep=chip.sweep,
                progress=progress,
            )
        return rebuilt_document(
            snn,
            chosen,
            source=data,
            command_line=terminal.command_line,
            batch_size=request.batch_size,
            progress=progress,
            studies={"chip": section},
            constants=constants,
        )


def _compare(paths: Sequence[Path], files: Files, terminal: Terminal) -> None:
    names = [path.stem for path in paths]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    # A file that is given twice still needs two names: rows, colours and tests go by them.
    names = [
        f"{name} ({names[: i + 1].count(name)})" if names.count(name) > 1 else name for i, name in enumerate(names)
    ]
    read = [(name, load_report(path)) for name, path in zip(names, paths, strict=True)]
    target = files.report or Path("comparison.html")
    if target.suffix != ".html":
        raise OptionError(f"--report {target} does not end in .html", hint=f"name it {target.with_suffix('.html')}")
    if target.with_suffix(".json").resolve() in [path.resolve() for path in paths]:
        raise OptionError(
            f"{target} would overwrite {target.with_suffix('.json')}, which is to be compared",
            hint="name another page with --report",
        )
    with of_reports(paths):
        comparison = compare(read)
        texts = {target.with_suffix(".json"): json.dumps(comparison, indent=1) + "\n"}
        texts[target] = render_comparison_html(comparison, static=files.static)
        if files.markdown:
            texts[target.with_suffix(".md")] = render_comparison(comparison)
    write_atomically(texts)
    if terminal.as_json:
        print(json.dumps(comparison, indent=1))
    elif not terminal.quiet:
        console = Console()
        print_comparison(comparison, console)
        console.print(f"written: {', '.join(map(str, texts))}", highlight=False)
