"""Models of a zoo as Ray tasks: `--engine ray`, on this machine or on a cluster that shares its file system.

With more hands than models, the evaluation images of each model are spread over further tasks. Workers read models and
data from, and write results to, the shared paths themselves; only tasks, counts and rows pass through Ray. The bytes of
checkpoints and reports are those of the local engine.
"""

from __future__ import annotations

import contextlib
import importlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snnconvert.allocator import keep_freed_memory
from snnconvert.errors import InternalError, LostError, OptionError, OutputError, SnnConvertError
from snnconvert.progress import silent
from snnconvert.zoo.processes import ATTEMPTS, Task, Watcher, late_row, worker_environment
from snnconvert.zoo.rows import Row, failed_row, log_path

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from snnconvert.data.datasets import Dataset
    from snnconvert.graph.types import Snn
    from snnconvert.simulate.measure import Tally

_LOOK_EVERY = 0.5
# Tasks that a worker process does before it is replaced.
_CALLS = 100


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
        environment = {"env_vars": worker_environment(self.threads)}
        settings = {"num_cpus": self.threads, "max_calls": _CALLS, "runtime_env": environment}
        remote = ray.remote(max_retries=0, **settings)(convert_in)
        shards = self.jobs // len(tasks)
        waiting = deque((task, 1) for task in tasks)
        flying: dict[Any, tuple[Task, int, float]] = {}
        while waiting or flying:
            while waiting and len(flying) < self.jobs:
                task, attempt = waiting.popleft()
                deadline = time.monotonic() + task["limits"]["seconds"]
                flying[remote.remote(dict(task), str(self.folder), shards, self.threads)] = (task, attempt, deadline)
            done, _ = ray.wait(list(flying), timeout=_LOOK_EVERY)
            for reference in done:
                task, attempt, _ = flying.pop(reference)
                try:
                    self.watcher.finished(task, ray.get(reference))
                except ray.exceptions.RayTaskError as error:
                    self.watcher.finished(task, _refused(task, error.cause))
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
                self.watcher.finished(task, late_row(task))


def convert_in(task: dict[str, Any], folder: str, shards: int, threads: int) -> Row:
    """Convert one model with `folder` as the working directory; runs in a Ray worker."""
    from snnconvert.zoo.worker import convert_task

    keep_freed_memory()
    log = log_path(Path(task["folder"]))
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        stream = log.open("w", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"this node cannot write {log}", hint="--out has to be on a shared file system") from error
    spread = RaySpread(shards, threads, task) if shards > 1 else None
    with contextlib.chdir(folder), stream, contextlib.redirect_stderr(stream), contextlib.redirect_stdout(stream):
        try:
            return convert_task(task, spread=spread)
        finally:
            if spread is not None:
                spread.checkpoint.unlink(missing_ok=True)


class RaySpread:
    """Parts of one model's evaluation set as Ray tasks, each tried twice.

    The network goes to the shards as a checkpoint beside the model's results; each reads its own images.

    Args:
        shards: into how many parts to cut.
        threads: of each part.
        task: of the model.
    """

    def __init__(self, shards: int, threads: int, task: Task) -> None:
        self.shards, self.threads, self.memory = shards, threads, task["limits"]["memory"]
        # Hidden, so that what a killed worker leaves goes when the folder is tidied up.
        self.checkpoint = Path(task["folder"]) / f".{task['name']}.shards.snn"
        self.saved = False

    def submit(self, snn: Snn, part: Dataset, reference: NDArray[np.int64]) -> Callable[[], Tally]:
        """Start a task; the result waits for it.

        Raises:
            LostError: its worker was lost twice (when asked for the result).
        """
        from snnconvert.graph.checkpoint import save_snn

        ray = _ray()
        if not self.saved:
            save_snn(replace(snn, calibrated=None), self.checkpoint)  # others simulate it only
            self.saved = True
        # It takes the environment of the task that it belongs to.
        remote = ray.remote(max_retries=ATTEMPTS - 1, num_cpus=self.threads, max_calls=_CALLS)(simulate_in)
        given = (part.name, part.preprocessing, part.sample_shape, part.positions, part.labels)
        promise = remote.remote(str(Path.cwd()), str(self.checkpoint), given, reference, self.memory)

        def result() -> Tally:
            try:
                counted: Tally = ray.get(promise)
            except ray.exceptions.RayTaskError as error:
                raise error.cause if isinstance(error.cause, SnnConvertError) else error from None
            except ray.exceptions.RayError as error:
                raise LostError(
                    f"a Ray worker with {len(part)} of the images was lost {ATTEMPTS} times: {type(error).__name__}",
                    hint="see the logs of Ray; a worker that is killed often lacked memory: lower batch_size",
                ) from error
            return counted

        return result


def simulate_in(
    folder: str, checkpoint: str, part: tuple[Any, ...], reference: NDArray[np.int64], memory: int | None
) -> Tally:
    """Simulate a part of an evaluation set; runs in a Ray worker."""
    from snnconvert.data.datasets import load_dataset
    from snnconvert.graph.checkpoint import load_snn
    from snnconvert.study.evaluate import simulate_part
    from snnconvert.zoo.worker import memory_limit

    keep_freed_memory()
    name, preprocessing, shape, positions, labels = part
    with contextlib.chdir(folder), memory_limit(memory, silent) as progress:
        snn = load_snn(checkpoint)
        whole = load_dataset(name, preprocessing=preprocessing, input_shape=shape)
        return simulate_part(
            snn, replace(whole.subset(positions), labels=labels), reference, batch_size=64, progress=progress
        )


def _refused(task: Task, error: BaseException) -> Row:
    known = error if isinstance(error, SnnConvertError) else InternalError(f"{type(error).__name__}: {error}")
    return failed_row(task, type(known).__name__, known.message, hint=known.hint, causes=known.causes)


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
