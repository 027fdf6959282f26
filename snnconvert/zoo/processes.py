"""Worker processes for many models: one model at a time each, replaced when it dies, hangs or has grown."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import snnconvert
from snnconvert.errors import InternalError
from snnconvert.zoo.rows import Row, failed_row, log_path

Task = Mapping[str, Any]
ATTEMPTS = 2
_GROWTH = 1 << 30
_START_LIMIT = 300.0


@dataclass(frozen=True)
class Watcher:
    """Who is told: `finished` gets every row once, `progress` (model, what, done, total) as it comes."""

    finished: Callable[[Task, Row], None]
    progress: Callable[[str, str, int, int], None]


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    log: Path
    buffer: bytes = b""
    ready: bool = False
    task: Task | None = None
    attempt: int = 0
    deadline: float = 0.0
    stage: str = "start"

    @property
    def pipe(self) -> IO[bytes]:
        assert self.process.stdout is not None
        return self.process.stdout

    def give(self, task: Task, attempt: int) -> None:
        self.task, self.attempt, self.stage = task, attempt, "start"
        self.deadline = time.monotonic() + task["limits"]["seconds"]
        assert self.process.stdin is not None
        # A worker that has just died is noticed by its closed pipe.
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(task).encode() + b"\n")
            self.process.stdin.flush()

    def end(self) -> int:
        """Kill the process and return what it ended with."""
        self.process.kill()
        code = self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        return code


@dataclass
class Pool:
    """Runs tasks on `jobs` processes of `threads` threads each, started in `folder`."""

    jobs: int
    threads: int
    folder: Path
    scratch: Path
    watcher: Watcher
    waiting: deque[tuple[Task, int]] = field(default_factory=deque)
    workers: list[_Worker] = field(default_factory=list)
    started: int = 0
    lost_starts: int = 0

    def run(self, tasks: Sequence[Task]) -> None:
        """Work through all tasks; returns when each has its row.

        Raises:
            InternalError: workers do not start at all.
        """
        self.waiting.extend((task, 1) for task in tasks)
        with selectors.DefaultSelector() as self._selector:
            try:
                while self.waiting or any(worker.task for worker in self.workers):
                    self._staff()
                    for key, _ in self._selector.select(timeout=self._patience()):
                        self._read(key.data)
                    self._check_time()
            finally:
                for worker in list(self.workers):
                    self._dismiss(worker)

    def _staff(self) -> None:
        """Give every idle worker a task, and hire while there is more to do than hands."""
        for worker in self.workers:
            if self.waiting and worker.ready and worker.task is None:
                worker.give(*self.waiting.popleft())
        coming = sum(not worker.ready for worker in self.workers)
        while len(self.workers) < self.jobs and coming < len(self.waiting):
            self._hire()
            coming += 1

    def _hire(self) -> None:
        self.started += 1
        log = self.scratch / f"worker-{self.started}.txt"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                # -P: the folder of the manifest must not shadow any module.
                [sys.executable, "-P", "-m", "snnconvert.zoo.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                cwd=self.folder,
                env={**os.environ, **worker_environment(self.threads)},
            )
        worker = _Worker(process, log, deadline=time.monotonic() + _START_LIMIT)
        os.set_blocking(worker.pipe.fileno(), False)
        self._selector.register(worker.pipe, selectors.EVENT_READ, worker)
        self.workers.append(worker)

    def _dismiss(self, worker: _Worker) -> int:
        self.workers.remove(worker)
        self._selector.unregister(worker.pipe)
        return worker.end()

    def _patience(self) -> float:
        """Seconds until the next deadline."""
        now = time.monotonic()
        return max(0.0, min((worker.deadline - now for worker in self._timed()), default=1.0))

    def _timed(self) -> list[_Worker]:
        return [worker for worker in self.workers if worker.task is not None or not worker.ready]

    def _read(self, worker: _Worker) -> None:
        data = worker.pipe.read()
        if data is None:
            return
        if not data:
            self._died(worker)
            return
        *lines, worker.buffer = (worker.buffer + data).split(b"\n")
        for line in lines:
            self._event(worker, json.loads(line))

    def _event(self, worker: _Worker, event: Mapping[str, Any]) -> None:
        if "ready" in event:
            worker.ready = True
            self.lost_starts = 0
        elif "progress" in event and worker.task is not None:
            what, done, total = event["progress"]
            worker.stage = f"{what} {done}/{total}"
            self.watcher.progress(worker.task["name"], what, done, total)
        elif "row" in event and worker.task is not None:
            task, worker.task = worker.task, None
            self.watcher.finished(task, event["row"])
            # After a failed allocation, or with memory in pieces that large tensors do not fit into, which the next
            # model's limit would count, a fresh process is safer.
            if event["row"]["kind"] == "memory" or event["grown"] > _GROWTH:
                self._dismiss(worker)

    def _died(self, worker: _Worker) -> None:
        code = self._dismiss(worker)
        task = worker.task
        if task is None:
            self.lost_starts += not worker.ready
            # One may have been killed from outside; if none comes up at all, something is wrong.
            if self.lost_starts >= ATTEMPTS * self.jobs:
                raise InternalError(
                    f"worker processes end with {_ending(code)} before their first model", causes=_tail(worker.log)
                )
            return
        if worker.attempt < ATTEMPTS:
            self.waiting.appendleft((task, worker.attempt + 1))
            return
        tail = _tail(log_path(Path(task["folder"])))
        memory = any("bad_alloc" in line or "allocate" in line for line in tail)
        row = failed_row(
            task,
            "memory" if memory else "crash",
            f"its worker process ended with {_ending(code)}, {ATTEMPTS} times, last during {worker.stage}",
            hint="see its log; a process that is killed often lacked memory: fewer jobs (-j) or a lower batch_size",
            causes=tail,
        )
        self.watcher.finished(task, row)

    def _check_time(self) -> None:
        now = time.monotonic()
        for worker in self._timed():
            if worker.deadline > now:
                continue
            self._dismiss(worker)
            if worker.task is None:
                raise InternalError(f"a worker process did not start within {_START_LIMIT:.0f} s")
            self.watcher.finished(worker.task, late_row(worker.task, f"; it was at {worker.stage}"))


def worker_environment(threads: int) -> dict[str, str]:
    """The variables of a process that converts with so many threads and imports the package from where it lies now."""
    root = str(Path(snnconvert.__file__).resolve().parent.parent)
    path = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH", "")) if part)
    counts = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    # Waiting threads must not spin: other workers need the cores.
    return counts | {"OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": path}


def late_row(task: Task, place: str = "") -> Row:
    """The row of a model that took longer than it may; `place` says where it was."""
    seconds = task["limits"]["seconds"]
    reason = f"not done after {seconds:g} s{place}"
    return failed_row(task, "time", reason, hint="raise limits.seconds, or lower limit or timesteps") | {
        "seconds": seconds
    }


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"


def _tail(log: Path, lines: int = 5) -> tuple[str, ...]:
    try:
        text = log.read_text("utf-8", "replace")
    except OSError:
        return ()
    return tuple(line[:300] for line in text.splitlines()[-lines:])
