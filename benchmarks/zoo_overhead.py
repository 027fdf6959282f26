"""What `zoo run` adds to the conversions themselves, on many tiny models; and whether memory stays flat.

python benchmarks/zoo_overhead.py --models 100 -j 2
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "zoo"))
from tiny_zoo import write_folder, write_manifest, write_onnx

from snnconvert.zoo.batch import Quiet, Result, Settings, run_zoo
from snnconvert.zoo.manifest import load_manifest


class Watch(Quiet):
    """Notes when results come and how large their processes were."""

    def __init__(self) -> None:
        self.moments: list[float] = []
        self.peaks: list[int] = []

    def finished(self, result: Result) -> None:
        self.moments.append(time.perf_counter())
        self.peaks.append(result.row["peak_memory"] or 0)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", type=int, default=100)
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
        whole = time.perf_counter() - start
        _report(outcome.results, watch, whole, arguments.jobs, start)
        start = time.perf_counter()
        run_zoo(load_manifest(path), folder / "out", Settings(jobs=arguments.jobs), Watch())
        print(f"second run, nothing to do: {time.perf_counter() - start:.2f} s")


def _report(results: tuple[Result, ...], watch: Watch, whole: float, jobs: int, start: float) -> None:
    seconds: list[Any] = [result.row["seconds"] for result in results]
    steady = watch.moments[-1] - watch.moments[jobs - 1]
    per_model = steady * jobs / (len(seconds) - jobs)
    working = sum(sorted(seconds)[:-jobs]) / (len(seconds) - jobs)
    print(f"{len(results)} models, {jobs} jobs: {whole:.1f} s, the first after {watch.moments[0] - start:.1f} s")
    print(f"per model and process: {per_model:.3f} s, of these outside the conversion {per_model - working:.3f} s")
    tenth = max(1, len(watch.peaks) // 10)
    early, late = max(watch.peaks[:tenth]), max(watch.peaks[-tenth:])
    print(f"peak memory: {early / 2**20:.0f} MiB in the first tenth, {late / 2**20:.0f} MiB in the last")


if __name__ == "__main__":
    main()
