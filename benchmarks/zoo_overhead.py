"""What `zoo run` adds to the conversions themselves, on many tiny models; and whether memory stays flat.

    python benchmarks/zoo_overhead.py --models 500 -j 2

The networks are so small that converting and measuring them takes no time worth mentioning: all of it is overhead
(reading, checking, reports, bookkeeping). CPU time is that of the driver and its workers, their start left out.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "zoo"))
from tiny_zoo import write_folder, write_manifest, write_onnx

from snnconvert.zoo.batch import Quiet, Settings, run_zoo
from snnconvert.zoo.manifest import load_manifest
from snnconvert.zoo.rows import Outcome, Result

FIRST, MIB = 50, 2**20


@dataclass(frozen=True)
class Moment:
    """State after a model: seconds on the clock, CPU seconds and bytes of memory by process."""

    clock: float
    processor: dict[int, float]
    memory: dict[int, int]


class Watch(Quiet):
    """Looks at the driver and its workers whenever a model is finished."""

    def __init__(self) -> None:
        self.moments: list[Moment] = []

    def finished(self, result: Result) -> None:  # noqa: ARG002 (a listener is told)
        own = os.getpid()
        children = Path(f"/proc/{own}/task/{own}/children").read_text("ascii").split()
        pids = [own, *map(int, children)]
        self.moments.append(
            Moment(time.perf_counter(), {pid: cpu_seconds(pid) for pid in pids}, {pid: resident(pid) for pid in pids})
        )


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> int:
    """Resident memory of a process in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", type=int, default=500)
    parser.add_argument("-j", "--jobs", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_folder(folder)
        for index in range(arguments.models):
            write_onnx(folder / f"m{index:03}.onnx", seed=index)
        path = write_manifest(folder, '[[model]]\nglob = "*.onnx"\n')
        watch = Watch()
        start = time.perf_counter()
        outcome = run_zoo(load_manifest(path), folder / "out", Settings(jobs=arguments.jobs), watch)
        _report(outcome, watch.moments, time.perf_counter() - start, arguments.jobs)
        start = time.perf_counter()
        run_zoo(load_manifest(path), folder / "out", Settings(jobs=arguments.jobs), Quiet())
        print(f"second run, nothing to do: {time.perf_counter() - start:.2f} s")


def _report(outcome: Outcome, moments: list[Moment], whole: float, jobs: int) -> None:
    load, cores = os.getloadavg()[0], os.cpu_count()
    print(
        f"{len(outcome.results)} models, exit code {outcome.exit_code}, {jobs} jobs on {cores} cores, load {load:.1f}"
    )
    first, last = moments[min(FIRST, len(moments) // 2)], moments[-1]
    models = len(moments) - 1 - moments.index(first)
    clock = (last.clock - first.clock) / models
    processor = sum(last.processor[pid] - first.processor.get(pid, 0.0) for pid in last.processor) / models
    driver = (last.processor[os.getpid()] - first.processor[os.getpid()]) / models
    print(f"whole run {whole:.1f} s; a model takes {clock * jobs:.3f} s of one worker's clock")
    print(f"CPU time per model {processor:.3f} s, of these in the driver {driver:.4f} s")
    for name, moment in ((f"model {moments.index(first)}", first), (f"model {len(moments)}", last)):
        workers = [size for pid, size in moment.memory.items() if pid != os.getpid()]
        shown = ", ".join(f"{size / MIB:.0f}" for size in workers)
        print(f"resident memory at {name}: driver {moment.memory[os.getpid()] / MIB:.0f} MiB, workers {shown} MiB")


if __name__ == "__main__":
    main()
