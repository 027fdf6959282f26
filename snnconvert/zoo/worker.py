"""A process that converts one model after another: `python -m snnconvert.zoo.worker`.

Tasks come as lines of JSON on stdin, events go as lines of JSON to stdout: {"ready"}, {"progress": [what, done,
total]}, {"row": ..., "grown": bytes}. Everything that a conversion prints goes to the model's log. The process ends
at once when stdin is closed, so it never outlives whoever started it.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import logging
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snnconvert.allocator import hand_back_memory, keep_freed_memory, kept_memory, machine_memory, resident
from snnconvert.budget import said
from snnconvert.errors import GateError, InternalError, OutputError, SnnConvertError, UserError
from snnconvert.files import together, writing_to
from snnconvert.progress import Progress, silent
from snnconvert.zoo.fetch import check_file, needed
from snnconvert.zoo.rows import (
    CHARTS,
    CONVERTED,
    Row,
    clear,
    converted_row,
    failed_row,
    judged,
    log_path,
    row_path,
    write_row,
)

if TYPE_CHECKING:
    from snnconvert.graph.types import Snn
    from snnconvert.stages import Outcome
    from snnconvert.study.evaluate import Spread

_REPORT_EVERY = 0.2
# seconds between looks at how much memory is resident
LOOK_SECONDS = 0.1
# what says nothing of the model: no room, a broken or read-only disk, too many open files, a lost network share
_PLACE = {
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EIO", "EROFS", "EMFILE", "ENFILE", "ESTALE", "ETIMEDOUT", "EHOSTDOWN", "ENOMEM")
    if hasattr(errno, name)
}
_MEMORY_SIGNS = ("can't allocate memory", "bad_alloc", "bad allocation", "failed to allocate", "cannot allocate memory")


def convert_task(task: Mapping[str, Any], progress: Progress = silent, spread: Spread | None = None) -> Row:
    """Convert one model into its folder; every failure becomes a row.

    Args:
        task: what `batch` makes of an entry.
        progress: told how far the conversion is.
        spread: simulates a part of the images elsewhere.
    """
    folder = Path(task["folder"])
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
    # Without its row the folder counts as unfinished, so old and new files are never taken for one result.
    with writing_to(row_path(folder)):
        row_path(folder).unlink(missing_ok=True)
    start = time.perf_counter()
    _reset_peak()
    try:
        with memory_limit(task["limits"]["memory"], progress) as checked:
            row = _convert(task, folder, checked, spread)
    except SnnConvertError as error:
        print(error.render(), file=sys.stderr)
        row = _failure(task, error, type(error).__name__)
    except Exception as error:
        traceback.print_exc()
        wrapped = InternalError(f"{type(error).__name__}: {error}")
        wrapped.__cause__ = error
        row = _failure(task, wrapped, "InternalError")
    if row["status"] != CONVERTED:
        clear(folder)
    row["seconds"] = round(time.perf_counter() - start, 3)
    row["peak_memory"] = _status_bytes("VmHWM")
    write_row(folder, row)
    return row


def _convert(task: Mapping[str, Any], folder: Path, progress: Progress, spread: Spread | None) -> Row:
    from snnconvert.cost.energy_constants import load_constants
    from snnconvert.data.preprocessing import Preprocessing
    from snnconvert.gates.limits import Gates
    from snnconvert.graph.checkpoint import save_snn
    from snnconvert.pipeline import run
    from snnconvert.report.document import write_report
    from snnconvert.report.from_run import document_of
    from snnconvert.request import Request

    name, model = task["name"], task["model"]
    if task["url"] is not None:
        needed(task["url"], task["sha256"])
    check_file(Path(model), task["sha256"])
    options: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in task["options"].items()
    }
    options["preprocessing"] = Preprocessing.from_dict(options.get("preprocessing") or {})
    if options.get("energy_constants") is not None:
        load_constants(options["energy_constants"])
    outcome = run(Request(model=model, **options), progress, spread=spread)
    checkpoint, snn = folder / f"{name}.snn", outcome.snn
    document = document_of(
        outcome, command_line=task["command_line"], next_commands=(f"snnconvert info {checkpoint.name}",)
    )
    if task["finetune"] is not None:
        snn, document = _finetuned(task, outcome, progress)
    progress("write", 0, 1)
    result = judged(name, document, Gates.from_dict(task["gates"]))
    document["gates"] = None if result is None else result.section()
    with together():
        save_snn(snn, checkpoint)
        written = write_report(document, folder / f"{name}.html", library=CHARTS)
    return converted_row(task, document, [checkpoint, *written, *_export(task, snn, folder, progress)])


def _finetuned(task: Mapping[str, Any], outcome: Outcome, progress: Progress) -> tuple[Snn, dict[str, Any]]:
    """The converted network trained on as the manifest wants it, and its report."""
    from snnconvert.report.from_run import tuned_document
    from snnconvert.train.finetune import tune
    from snnconvert.train.options import FineTuning

    given = {name: value for name, value in task["finetune"].items() if value is not None}
    asked = FineTuning(**{"data": f"{task['model']}/train", **given})
    evaluation = outcome.inputs.evaluation if asked.evaluation_data is None else None
    tuned = tune(outcome.snn, asked, evaluation_data=evaluation, progress=progress)
    return tuned.snn, tuned_document(tuned, command_line=task["command_line"])


def _export(task: Mapping[str, Any], snn: Snn, folder: Path, progress: Progress) -> list[Path]:
    """What the manifest wants exported; one that differs in its reader fails the model."""
    from snnconvert.exporters import EXPORTERS, Export
    from snnconvert.exporters.export import run_export

    written: list[Path] = []
    for given in task["exports"]:
        asked = Export(**given)
        parts = (task["name"], asked.to, *([asked.form] if asked.form else []))
        place = folder / f"{'-'.join(parts)}{EXPORTERS[asked.to].suffix}"
        data = (task["options"].get("data") or task["model"]) if asked.verify else None
        made = run_export(snn, replace(asked, output=place, data=data), progress)
        if made.verified is not None and not made.verified.equal:
            raise GateError(
                f"exported as {made.form} it differs: {made.verified.total:,} of {made.verified.spikes:,} spikes",
                hint="see which layers with snnconvert export --verify",
            )
        written += made.files
    return written


def _failure(task: Mapping[str, Any], error: SnnConvertError, kind: str) -> Row:
    if _out_of_memory(error):
        allowed = task["limits"]["memory"]
        given = f"more than the allowed {said(allowed)}" if allowed else "more memory than there is"
        return failed_row(
            task,
            "memory",
            f"the conversion needs {given}",
            hint="raise limits.memory, or lower batch_size",
            causes=(error.message[:300],),
        )
    if (fault := _fault_of_the_place(error)) is not None:
        text = error.message if isinstance(error, UserError) else str(fault)
        return failed_row(task, "place", text, hint="make room, or mend the disk; the next run tries it again")
    return failed_row(task, kind, error.message, hint=error.hint, causes=error.causes)


def _fault_of_the_place(error: BaseException) -> OSError | None:
    """What the disk or the system refused, where a conversion failed for that and not for its model."""
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno in _PLACE:
            return cause
        if isinstance(cause, OutputError):  # safetensors, for instance, passes on the text alone
            return OSError(cause.message)
    return None


def _out_of_memory(error: BaseException) -> bool:
    return any(
        isinstance(cause, MemoryError) or any(sign in str(cause).lower() for sign in _MEMORY_SIGNS)
        for cause in _causes(error)
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what led to it, the nearest first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@contextlib.contextmanager
def memory_limit(allowed: int | None, progress: Progress) -> Iterator[Progress]:
    """Let this process grow by at most `allowed` bytes of memory. Linux only.

    What is resident is looked at several times a second, and whenever progress is told. The progress that is handed
    over raises MemoryError once it has been too much, and so does the end. What the process asks the system for may
    grow by as much as the machine has besides, since freed pieces that no large tensor fits into count there for good;
    beyond that, allocations fail at once.
    """
    used, machine = _status_bytes("VmData"), machine_memory()
    if allowed is None or used is None or machine is None:
        yield progress
        return
    import resource

    hand_back_memory()  # what was free before is not to be grown into
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    fence, most = used - kept_memory() + allowed + machine, resident() + allowed
    resource.setrlimit(resource.RLIMIT_DATA, (fence if hard == resource.RLIM_INFINITY else min(fence, hard), hard))

    beyond: list[int] = []  # what was resident when it was too much
    over = threading.Event()

    def look() -> None:
        if resident() > most:
            hand_back_memory()
            if (held := resident()) > most:
                beyond.append(held)

    def keep_looking() -> None:
        while not beyond and not over.wait(LOOK_SECONDS):
            look()

    def check() -> None:
        look()
        if beyond:
            raise MemoryError(f"{said(beyond[0])} are resident")

    def checked(what: str, done: int, total: int) -> None:
        check()
        progress(what, done, total)

    watch = threading.Thread(target=keep_looking, daemon=True)
    watch.start()
    try:
        yield checked
        check()
    finally:
        over.set()
        watch.join()
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _status_bytes(field: str) -> int | None:
    """A size from /proc/self/status, or None where there is none."""
    try:
        for line in Path("/proc/self/status").read_text("ascii").splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def _reset_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", "ascii")


class _Reporter:
    """Progress as events, a few per second."""

    def __init__(self) -> None:
        self._stream = os.fdopen(os.dup(1), "w", encoding="utf-8", newline="\n")
        self._last = ("", 0.0)

    def send(self, event: Mapping[str, Any]) -> None:
        self._stream.write(json.dumps(event) + "\n")
        self._stream.flush()

    def progress(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if what != self._last[0] or now - self._last[1] >= _REPORT_EVERY:
            self._last = (what, now)
            self.send({"progress": [what, done, total]})


def redirect_to(path: Path) -> None:
    """Send this process's stdout and stderr, those of native code included, to a new file."""
    sys.stdout.flush()
    sys.stderr.flush()
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def _read_tasks(tasks: queue.Queue[dict[str, Any]]) -> None:
    for line in sys.stdin:
        tasks.put(json.loads(line))
    os._exit(0)


def prepare() -> None:
    """Load what every conversion needs, so that no model pays for it."""
    from snnconvert import pipeline
    from snnconvert.report import document, from_run, render_html

    del pipeline, from_run
    logging.getLogger("torch").setLevel(logging.ERROR)
    document.schema()
    render_html.compiled("page.html")
    # What is loaded now stays, and need not be looked at each time when memory is tidied up.
    gc.collect()
    gc.freeze()


def main() -> None:
    """Serve tasks until stdin is closed."""
    reporter = _Reporter()
    os.dup2(2, 1)
    keep_freed_memory()
    tasks: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_read_tasks, args=(tasks,), daemon=True).start()
    prepare()
    empty = _status_bytes("VmData") or 0
    reporter.send({"ready": os.getpid()})
    while True:
        task = tasks.get()
        redirect_to(log_path(Path(task["folder"])))
        row = convert_task(task, reporter.progress)
        gc.collect()
        hand_back_memory()
        # what was handed back in pieces still counts, as it does for `memory_limit`
        reporter.send({"row": row, "grown": (_status_bytes("VmData") or 0) - empty})


if __name__ == "__main__":
    main()
