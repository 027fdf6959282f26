"""What the commands `zoo` and `gate` do, between the parsed options and the printed result."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from snnconvert.console import Console
from snnconvert.data.arrange import show_shape
from snnconvert.data.bundled import MODELS
from snnconvert.errors import OptionError, OutputError, SnnConvertError
from snnconvert.files import write_atomically
from snnconvert.gates.junit import Case, figures, github_annotations, junit_xml, markdown
from snnconvert.gates.limits import Gates
from snnconvert.gates.verdicts import Status, check_document
from snnconvert.printable import say
from snnconvert.report.document import load_report, of_reports
from snnconvert.zoo.batch import Engine, Quiet, Settings, preflight, run_zoo
from snnconvert.zoo.fetch import is_cached
from snnconvert.zoo.fetch import pull as pull_file
from snnconvert.zoo.manifest import load_manifest
from snnconvert.zoo.matrix import cases
from snnconvert.zoo.processes import Pool
from snnconvert.zoo.rows import GATE_FAILED, NOT_CONVERTED, Result


def init(folder: Path, output: Path, given: Mapping[str, Any], *, force: bool) -> None:
    """Write a starter manifest and print what was guessed; `given` are fields of `Request`."""
    from snnconvert.zoo.starter import starter_manifest

    if output.exists() and not force:
        raise OutputError(f"{output} exists already", hint="choose another name with --output, or add --force")
    text, remarks = starter_manifest(folder, output.parent, given)
    write_atomically({output: text})
    for remark in remarks:
        say(remark)
    say(f"written: {output}; look through it, then: snnconvert zoo check {shlex.quote(str(output))}")


def list_bundled(only: tuple[str, ...]) -> None:
    """Print the models that come with the package."""
    known = [row for row in MODELS.values() if not only or any(fnmatchcase(row.name, one) for one in only)]
    if not known:
        raise OptionError(f"no bundled model is called {', '.join(only)}", hint=f"there are {', '.join(MODELS)}")
    table = Table()
    for title in ("model", "what it is", "input", "accuracy %", "its data"):
        table.add_column(title, overflow="fold")
    for row in known:
        cells = (
            f"zoo:{row.name}",
            row.description,
            show_shape(row.input_shape),
            f"{100 * row.accuracy:.1f}",
            row.dataset or "–",
        )
        table.add_row(*cells)
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    print(f"nothing has to be downloaded: snnconvert zoo:{known[0].name} --timesteps 32")


def list_models(path: Path, only: tuple[str, ...]) -> None:
    """Print the models with what they inherit."""
    from snnconvert.request import Request

    manifest = load_manifest(path).only(only)
    table = Table()
    for title in ("model", "source", "T", "data", "gates", "other options", "line"):
        table.add_column(title, overflow="fold")
    for entry in manifest.entries:
        source = entry.source
        if entry.is_url and entry.sha256:
            source += " (downloaded)" if is_cached(source, entry.sha256) else " (not downloaded)"
        gates = ", ".join(name for name, _ in entry.gates.conditions())
        steps = str(entry.options.get("timesteps", Request.timesteps))
        data = str(entry.options.get("data") or "")
        other = ", ".join(
            f"{name} {value}"
            for name, value in entry.options.items()
            if name not in {"timesteps", "data", "preprocessing"}
        )
        cells = (entry.name, source, steps, data, gates, other, entry.where.rpartition(" ")[2])
        table.add_row(*cells)
    # Logs need not be as narrow as a terminal.
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    say(f"{len(manifest.entries)} models")


def pull(path: Path, only: tuple[str, ...], *, quiet: bool) -> int:
    """Download what is missing; every failure is told, and the rest is still tried."""
    remote = [entry for entry in load_manifest(path).only(only).entries if entry.is_url]
    failures: list[SnnConvertError] = []
    for entry in remote:
        assert entry.sha256 is not None
        try:
            known = is_cached(entry.source, entry.sha256)
            place = pull_file(entry.source, entry.sha256, None if quiet else _download_progress(entry.name))
        except SnnConvertError as error:
            failures.append(error)
            say(error.render(), error=True)
            continue
        if not quiet:
            say(f"{entry.name}: {'there already' if known else 'downloaded'}: {place}")
    if not quiet:
        say(f"{len(remote) - len(failures)} of {len(remote)} models with a URL are in the cache")
    return NOT_CONVERTED if failures else 0


def _download_progress(name: str) -> Callable[[int, int | None], None] | None:
    if not sys.stderr.isatty():
        return None

    def show(done: int, total: int | None) -> None:
        share = f" of {total / 1e6:.1f}" if total else ""
        print(f"\r{name}: {done / 1e6:.1f}{share} MB ", end="", file=sys.stderr, flush=True)

    return show


def check(path: Path, only: tuple[str, ...]) -> int:
    """Open every model and print what is wrong."""
    manifest = load_manifest(path).only(only)
    failures = 0
    for entry in manifest.entries:
        error = preflight(entry, manifest.folder.resolve())
        failures += error is not None
        if error is None:
            unmeasured = entry.options.get("data") is None and not entry.source.startswith("zoo:")
            say(f"{entry.name}: good" + (", but no data: accuracy cannot be measured" if unmeasured else ""))
            continue
        say(f"{entry.name}: {type(error).__name__}: {error.message} ({entry.where})")
        for cause in error.causes[:20]:
            say(f"    {cause}")
        say(f"    hint: {error.hint}")
    total = len(manifest.entries)
    say(f"{total - failures} of {total} models can be converted")
    return NOT_CONVERTED if failures else 0


def engine_named(name: str, address: str | None) -> Callable[..., Engine]:
    """What --engine and --address mean."""
    if name == "local":
        if address is not None:
            raise OptionError("--address belongs to --engine ray", hint="add --engine ray, or leave --address out")
        return Pool
    from snnconvert.zoo.ray_engine import RayEngine

    return partial(RayEngine, address=address)


def run(path: Path, only: tuple[str, ...], out: Path, settings: Settings, *, quiet: bool) -> int:
    """Run a zoo with progress on stderr and a summary on stdout; returns the exit code."""
    manifest = load_manifest(path).only(only)
    with _Show(quiet) as show:
        try:
            outcome = run_zoo(manifest, out, settings, show)
        except KeyboardInterrupt:
            show.note(f"interrupted: finished models are kept in {out}; the same command continues")
            return 130
    found = cases(outcome.results)
    if not quiet:
        _summary(outcome.results, outcome.seconds)
        say(f"written: {out / 'zoo.html'}, zoo.json, zoo.csv, junit.xml, summary.md")
    _annotate(found)
    return outcome.exit_code


def _summary(results: Sequence[Result], seconds: float) -> None:
    for result in results:
        if not result.converted:
            say(f"{result.entry.name}: not converted: {result.row['kind']}: {result.row['reason']}")
        elif result.gate is not None and result.gate.status != Status.passed:
            for verdict in result.gate.verdicts:
                if verdict.status != Status.passed:
                    say(f"{result.entry.name}: {verdict.gate}: {verdict.status}: {verdict.text}")
            if not result.gate.ok:
                say(f"{result.entry.name}: worst layer: {result.gate.worst_layer}")
    converted, kept = sum(row.converted for row in results), sum(row.kept for row in results)
    missed = sum(row.converted and not row.passed for row in results)
    say(
        f"{converted} of {len(results)} models converted ({kept} of all rows from an earlier run), "
        f"{missed} below a gate, in {seconds:.1f} s"
    )


class _Show(Quiet):
    """Bars on a terminal, one line per finished model elsewhere."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        console = Console(stderr=True)
        what = TextColumn("{task.description}", markup=False)
        columns = (what, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.bars = Progress(*columns, console=console, transient=True)
        self.live = console.is_terminal and not quiet
        self.whole: TaskID | None = None
        self.each: dict[str, TaskID] = {}
        self.total = self.count = 0
        self.start = time.monotonic()

    def __enter__(self) -> _Show:
        if self.live:
            self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.bars.stop()

    def note(self, text: str) -> None:
        if self.live:
            self.bars.console.print(text)
        elif not self.quiet:
            say(text, error=True)

    def begin(self, total: int, kept: int) -> None:
        self.total, self.count = total, kept
        if kept:
            self.note(f"{kept} of {total} models are unchanged since an earlier run")
        if self.live:
            self.whole = self.bars.add_task("models", total=total, completed=kept)

    def progress(self, name: str, what: str, done: int, total: int) -> None:
        if not self.live:
            return
        if name not in self.each:
            self.each[name] = self.bars.add_task(name, total=total)
        self.bars.update(self.each[name], description=f"{name}: {what}", completed=done, total=total)

    def finished(self, result: Result) -> None:
        self.count += 1
        row = result.row
        said = row["figures"]["verdict"] if result.converted else f"{row['kind']}: {row['reason']}"
        seconds = f" ({row['seconds']:.1f} s)" if row["seconds"] else ""
        self.note(f"[{self.count}/{self.total}] {result.entry.name}: {said}{seconds}")
        if self.live:
            if result.entry.name in self.each:
                self.bars.remove_task(self.each.pop(result.entry.name))
            if self.whole is not None:
                self.bars.update(self.whole, completed=self.count)


def gate(
    reports: Sequence[Path],
    baseline: Path | None,
    gates: Gates,
    *,
    junit: Path | None,
    summary: Path | None,
    quiet: bool,
) -> int:
    """Judge reports; returns the exit code."""
    if not gates.conditions():
        raise OptionError("no gate was given", hint='for instance --max-drop 1.0, or --fail-if "accuracy_drop > 0.5"')
    before = load_report(baseline) if baseline is not None else None
    documents = [load_report(path) for path in reports]
    with of_reports([*reports, *([baseline] if baseline else [])]):
        results = [check_document(document, gates, before) for document in documents]
        told = {document["model"]["name"]: figures(document) for document in documents}
        then = None if before is None else dict.fromkeys(told, figures(before))
    found = [case for result in results for case in Case.of(result)]
    title = "Gates of spiking networks"
    texts = {junit: junit_xml("snnconvert gate", found), summary: markdown(title, found, told, then)}
    if wanted := {path: text for path, text in texts.items() if path is not None}:
        write_atomically(wanted)
    if not quiet:
        for result in results:
            for verdict in result.verdicts:
                say(f"{result.model}: {verdict.gate}: {verdict.status}: {verdict.text}")
            if result.status != Status.passed and result.worst_layer:
                say(f"{result.model}: worst layer: {result.worst_layer}")
    _annotate(found)
    return 0 if all(result.ok for result in results) else GATE_FAILED


def _annotate(found: Sequence[Case]) -> None:
    """Inside GitHub Actions, say it so that it shows up at the pull request."""
    if os.environ.get("GITHUB_ACTIONS") == "true":
        for line in github_annotations(found):
            say(line)
