"""Models of a zoo as Ray tasks: `--engine ray`, on this machine or on a cluster that shares its file system.

Workers read models and data from, and write results to, the shared paths themselves; only tasks and rows pass through
Ray. The bytes of checkpoints and reports are those of the local engine.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import snnconvert
from snnconvert.errors import OptionError, OutputError
from snnconvert.zoo.processes import ATTEMPTS, Task, Watcher
from snnconvert.zoo.rows import Row, failed_row, log_path

_LOOK_EVERY = 0.5


class RayEngine:
    """Runs at most `jobs` tasks at a time; a task whose worker or node dies is tried once more.

    Args:
        jobs: tasks in work at a time.
        threads: of each task, and the CPUs it asks for.
        folder: what relative paths of the manifest start from; has to be the same on every node.
        scratch: not used.
        watcher: told of every row.
        address: of a running cluster; None starts one on this machine.

    Raises:
        OptionError: Ray is not installed, or there is no cluster at the address.
    """

    def __init__(
        self, *, jobs: int, threads: int, folder: Path, scratch: Path, watcher: Watcher, address: str | None = None
    ) -> None:
        del scratch
        self.jobs, self.threads, self.folder, self.watcher, self.address = jobs, threads, folder, watcher, address

    def run(self, tasks: Sequence[Task]) -> None:
        """Work through all tasks; returns when each has its row."""
        ray = _ray()
        started = not ray.is_initialized()
        if started:
            self._connect(ray)
        try:
            self._work(ray, tasks)
        finally:
            if started:
                ray.shutdown()

    def _connect(self, ray: Any) -> None:
        options: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": "error"}
        if self.address is None:
            options["num_cpus"] = self.jobs * self.threads
        try:
            ray.init(address=self.address or "local", **options)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise OptionError(
                f"there is no Ray cluster at --address {self.address}: {error}",
                hint="start one (ray start --head), or leave --address out",
            ) from error

    def _work(self, ray: Any, tasks: Sequence[Task]) -> None:
        root = str(Path(snnconvert.__file__).resolve().parent.parent)
        path = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH", "")) if part)
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        variables = dict.fromkeys(names, str(self.threads)) | {"OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": path}
        remote = ray.remote(num_cpus=self.threads, max_retries=0, max_calls=100, runtime_env={"env_vars": variables})(
            convert_in
        )
        waiting = deque((task, 1) for task in tasks)
        flying: dict[Any, tuple[Task, int, float]] = {}
        while waiting or flying:
            while waiting and len(flying) < self.jobs:
                task, attempt = waiting.popleft()
                deadline = time.monotonic() + task["limits"]["seconds"]
                flying[remote.remote(dict(task), str(self.folder))] = (task, attempt, deadline)
            done, _ = ray.wait(list(flying), timeout=_LOOK_EVERY)
            for reference in done:
                task, attempt, _ = flying.pop(reference)
                try:
                    self.watcher.finished(task, ray.get(reference))
                except ray.exceptions.RayError as error:
                    if attempt < ATTEMPTS:
                        waiting.appendleft((task, attempt + 1))
                    else:
                        self.watcher.finished(task, _crashed(task, error))
            self._check_time(ray, flying)

    def _check_time(self, ray: Any, flying: dict[Any, tuple[Task, int, float]]) -> None:
        for reference, (task, _, deadline) in list(flying.items()):
            if time.monotonic() > deadline:
                ray.cancel(reference, force=True)
                del flying[reference]
                seconds = task["limits"]["seconds"]
                row = failed_row(task, "time", f"not done after {seconds:g} s", hint="raise limits.seconds")
                self.watcher.finished(task, {**row, "seconds": seconds})


def convert_in(task: dict[str, Any], folder: str) -> Row:
    """Convert one model with `folder` as the working directory; runs in a Ray worker."""
    from snnconvert.zoo.worker import convert_task

    log = log_path(Path(task["folder"]))
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        stream = log.open("w", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"this node cannot write {log}", hint="--out has to be on a shared file system") from error
    with contextlib.chdir(folder), stream, contextlib.redirect_stderr(stream), contextlib.redirect_stdout(stream):
        return convert_task(task)


def _crashed(task: Task, error: Exception) -> Row:
    return failed_row(
        task,
        "crash",
        f"its Ray worker was lost {ATTEMPTS} times: {type(error).__name__}",
        hint="see the logs of Ray; a worker that is killed often lacked memory",
        causes=tuple(str(error).splitlines()[:3]),
    )


def _ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise OptionError(
            "--engine ray needs Ray, which is not installed", hint="pip install 'snnconvert[ray]', or --engine local"
        ) from error
