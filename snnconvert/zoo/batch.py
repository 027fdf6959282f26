"""Convert every model of a manifest: resumable, one failure never costs another model, the exit code is the truth.

    OUT/zoo.html, zoo.json, zoo.csv         the matrix, rewritten as models finish
    OUT/charts.js                           what the charts of all reports need
    OUT/summary.md, junit.xml               for continuous integration, written at the end
    OUT/models/NAME/NAME.snn, .html, .json  checkpoint and report
    OUT/models/NAME/row.json, log.txt       result (written last) and what was printed

Exit codes: 0 all good, 3 a gate failed, 4 a model was not converted (which outranks 3).
"""

from __future__ import annotations

import contextlib
import os
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from snnconvert.allocator import machine_memory
from snnconvert.errors import DataError, OptionError, OutputError, SnnConvertError
from snnconvert.files import writing_to
from snnconvert.gates.limits import Gates
from snnconvert.zoo.digests import WITHOUT_EFFECT, Digests, key_of
from snnconvert.zoo.fetch import cached_path
from snnconvert.zoo.manifest import Entry, Manifest, check_step
from snnconvert.zoo.matrix import baseline, write_matrix, write_summaries
from snnconvert.zoo.processes import Pool, Task, Watcher
from snnconvert.zoo.rows import CONVERTED, FAILED, Outcome, Result, Row, clear, judged_again, read_row, write_row

_SECONDS = 3600.0
_MEMORY_SHARE = 0.9
_REWRITE_EVERY = 3.0
# These come from outside the model: another run may have better luck.
PASSING = ("crash", "place", "LostError")


class Engine(Protocol):
    """Something that works through tasks and reports each row once."""

    def run(self, tasks: Sequence[Task]) -> None: ...


@dataclass(frozen=True)
class Settings:
    """How to run a zoo.

    Attributes:
        jobs: models at a time; None for the number of cores.
        threads: of each model's process. One by default, not a share of the cores: sums in floating point depend on
            the number of threads in their last bits, and results must not depend on `jobs`.
        gates: from the command line; they take the place of the manifest's where set.
        retry_failed: try models again that failed with the same inputs before.
        changes: fields of `Request` for all models, instead of their own.
        baseline: zoo.json of an earlier run, which summary.md compares with.
        engine: given jobs, threads, folder, scratch folder and watcher, makes what runs the tasks.
    """

    jobs: int | None = None
    threads: int = 1
    gates: Gates = field(default_factory=Gates)
    retry_failed: bool = False
    changes: Mapping[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    memory: int | None = None
    baseline: Path | None = None
    engine: Callable[..., Engine] = Pool


class Quiet:
    """Hears how a run goes on, and shows nothing."""

    def begin(self, total: int, kept: int) -> None: ...
    def progress(self, name: str, what: str, done: int, total: int) -> None: ...
    def finished(self, result: Result) -> None: ...


def run_zoo(manifest: Manifest, out: Path, settings: Settings, listener: Quiet | None = None) -> Outcome:
    """Convert what has no fitting result in `out` yet, judge everything, and write the matrix.

    Raises:
        OutputError: `out` cannot be written, or another run is writing to it.
        OptionError: gates that judge at a step which a model does not have.
    """
    listener, manifest = listener or Quiet(), manifest.changed(settings.changes)
    start = time.perf_counter()
    before = None if settings.baseline is None else baseline(settings.baseline)
    jobs = settings.jobs if settings.jobs is not None else cores()
    for entry in manifest.entries:
        try:
            check_step(settings.gates.over(entry.gates), entry.options)
        except OptionError as error:
            raise OptionError(f"{entry.name} ({entry.where}): {error.message}", hint=error.hint) from error
    out = out.resolve()
    with _locked(out):
        digests = Digests(out / ".digests.json")
        make = _TaskMaker(manifest, out, digests, settings, jobs)
        tasks = {entry.name: make.task(entry) for entry in manifest.entries}
        digests.save()
        book = _Book(manifest, out, settings, listener, tasks)
        todo = [tasks[entry.name] for entry in manifest.entries if entry.name not in book.results]
        todo.sort(key=partial(_size, manifest.folder), reverse=True)
        listener.begin(len(tasks), len(tasks) - len(todo))
        with _scratch(out) as scratch:
            if todo:
                watcher = Watcher(book.finish, listener.progress)
                workers = min(jobs, len(todo))
                engine = settings.engine(
                    jobs=workers,
                    threads=settings.threads,
                    folder=manifest.folder.resolve(),
                    scratch=scratch,
                    watcher=watcher,
                )
                try:
                    engine.run(todo)
                finally:
                    book.write(time.perf_counter() - start)
        outcome = Outcome(tuple(book.results[entry.name] for entry in manifest.entries), time.perf_counter() - start)
        book.write(outcome.seconds)
        write_summaries(out, manifest.path.name, outcome, before)
        return outcome


@dataclass
class _Book:
    """The results so far, and the matrix on disk."""

    manifest: Manifest
    out: Path
    settings: Settings
    listener: Quiet
    tasks: Mapping[str, Task]
    results: dict[str, Result] = field(default_factory=dict)
    written: float = 0.0
    start: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.entries = {entry.name: entry for entry in self.manifest.entries}
        for name, task in self.tasks.items():
            folder = Path(task["folder"])
            row = read_row(folder, task["key"])
            if row is not None and self._still_good(row, task):
                for path in folder.glob(".*"):
                    with contextlib.suppress(OSError):
                        path.unlink(missing_ok=True)
                self.results[name] = self._result(row, kept=True)
            elif folder.is_dir():
                clear(folder)

    def _still_good(self, row: Row, task: Task) -> bool:
        if row["status"] == CONVERTED:
            return True
        retry = self.settings.retry_failed or row["kind"] in PASSING
        limited = row["kind"] in ("time", "memory") and row["limits"] != task["limits"]
        return not retry and not limited

    def finish(self, task: Task, row: Row) -> None:
        """Take a row from an engine."""
        folder = Path(task["folder"])
        if row["status"] == FAILED:
            # Of a process that was killed, the worker could write no row.
            with writing_to(folder):
                folder.mkdir(parents=True, exist_ok=True)
            clear(folder)
            write_row(folder, row)
        result = self._result(row, kept=False)
        self.results[row["name"]] = result
        self.listener.finished(result)
        if time.monotonic() - self.written > _REWRITE_EVERY:
            self.write(time.monotonic() - self.start)

    def _result(self, row: Row, *, kept: bool) -> Result:
        entry = self.entries[row["name"]]
        gate = None
        if row["status"] == CONVERTED:
            gates = self.settings.gates.over(entry.gates)
            row, gate = judged_again(Path(self.tasks[entry.name]["folder"]), row, gates)
        return Result(entry, row, gate, kept)

    def write(self, seconds: float) -> None:
        """Put the matrix on disk; models that are not done yet have no row in it."""
        results = [self.results[name] for name in self.entries if name in self.results]
        write_matrix(
            self.out,
            self.manifest.path.name,
            results,
            changes=self.settings.changes,
            total=len(self.entries),
            seconds=seconds,
        )
        self.written = time.monotonic()


@dataclass(frozen=True)
class _TaskMaker:
    manifest: Manifest
    out: Path
    digests: Digests
    settings: Settings
    jobs: int

    def task(self, entry: Entry) -> dict[str, Any]:
        """All that a worker needs to convert one model, JSON-able."""
        settings = self.settings
        options = dict(entry.options)
        options["preprocessing"] = options["preprocessing"].to_dict() if "preprocessing" in options else {}
        cached = str(cached_path(entry.source, entry.sha256)) if entry.is_url and entry.sha256 else None
        return {
            "name": entry.name,
            "model": cached or entry.source,
            "url": entry.source if entry.is_url else None,
            "sha256": entry.sha256,
            "options": options,
            "gates": asdict(settings.gates.over(entry.gates)),
            "exports": [dict(one) for one in entry.exports],
            "finetune": None if entry.finetune is None else dict(entry.finetune),
            "folder": str(self.out / "models" / entry.name),
            "key": key_of(entry, self.manifest.folder, self.digests),
            "limits": {
                "seconds": settings.seconds or entry.limits.seconds or _SECONDS,
                "memory": settings.memory or entry.limits.memory or _memory_share(self.jobs),
            },
            "command_line": shlex.join(
                ["snnconvert", "zoo", "run", self.manifest.path.name, "--only", entry.name, *_given(settings.changes)]
            ),
        }


def _given(changes: Mapping[str, Any]) -> list[str]:
    """As options of the command line, without those that change no result."""
    kept = {name: value for name, value in changes.items() if name not in WITHOUT_EFFECT}
    return [part for name, value in kept.items() for part in (f"--{name.replace('_', '-')}", str(value))]


def _size(folder: Path, task: Mapping[str, Any]) -> int:
    """Bytes of a task's file: large networks take longest, and begun last they would end on one core alone."""
    file: Path = folder / task["model"]
    try:
        return file.stat().st_size
    except OSError:
        return 0


def cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def _memory_share(jobs: int) -> int | None:
    """A fair part of this machine's memory, in whole GiB so that it seldom changes."""
    total = machine_memory()
    return None if total is None else max(1, int(total * _MEMORY_SHARE / jobs) >> 30) << 30


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Keep a second run away from the folder; the lock ends with the process, however that ends."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = (out / ".lock").open("w")
    except OSError as error:
        raise OutputError(
            f"cannot write to {out}: {error.strerror}", hint="choose another folder with --out"
        ) from error
    with lock:
        try:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:
            pass
        except OSError as error:
            raise OutputError(
                f"another run is writing to {out}", hint="wait for it, or choose another folder with --out"
            ) from error
        yield


@contextlib.contextmanager
def _scratch(out: Path) -> Iterator[Path]:
    """A folder for the workers' own output; what an interrupted run has left there is removed first."""
    folder = out / ".workers"
    with writing_to(folder):
        _empty(folder)
        folder.mkdir(exist_ok=True)
    yield folder
    with contextlib.suppress(OSError):  # the next run removes it
        _empty(folder)
        folder.rmdir()


def _empty(folder: Path) -> None:
    if folder.is_dir():
        for path in folder.iterdir():
            path.unlink(missing_ok=True)


def preflight(entry: Entry, folder: Path) -> SnnConvertError | None:
    """What would keep a model from being converted, found by opening it; its data are looked for, not read.

    Args:
        entry: a model of a manifest.
        folder: what its relative paths start from; made the working directory meanwhile.
    """
    from snnconvert.cost.energy_constants import load_constants
    from snnconvert.data.bundled import data_path
    from snnconvert.data.preprocessing import Preprocessing
    from snnconvert.request import Request
    from snnconvert.stages import for_task, open_ann, with_bundled_data
    from snnconvert.zoo.fetch import check_file, needed

    try:
        with contextlib.chdir(folder):
            model = needed(entry.source, entry.sha256) if entry.is_url and entry.sha256 else entry.source
            check_file(Path(model), entry.sha256)
            options = {"preprocessing": Preprocessing(), **entry.options}
            request = with_bundled_data(Request(model=str(model), **options))
            for path in (request.data, request.calibration_data):
                if path is not None and not data_path(path).exists():
                    raise DataError(f"the data set {path} does not exist", hint=f"correct it in {entry.where}")
            if request.energy_constants is not None:
                load_constants(request.energy_constants)
            for_task(request, open_ann(request)[0])
    except SnnConvertError as error:
        return error
    return None
