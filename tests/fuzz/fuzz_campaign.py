"""Mutations through every door, in watched processes: `python tests/fuzz/fuzz_campaign.py --mutations 10000`.

What counts as a fault: a traceback or exit code 1; more than 10 s of processor time, twice (the machine may be loaded);
more than 1 GiB of memory above the start; a file written outside the working folder; a process started; code or a
pickle of the file that ran.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from fuzz_doors import DOORS, mutated
from fuzz_seeds import write_seeds

HERE = Path(__file__).parent
SECONDS, BLOCKED, STARTING = 10.0, 60.0, 300.0
MEMORY = 2**30
EXITS = (0, 2, 3, 4)
Row = dict[str, Any]


class Watched:
    """A worker process; a new one where it hung or died."""

    def __init__(self, good: Path) -> None:
        self.good, self.scratch = good, good.parent / "scratch"
        self.scratch.mkdir(exist_ok=True)
        self.process: subprocess.Popen[str] | None = None
        self.log = tempfile.NamedTemporaryFile(suffix=".log")  # noqa: SIM115 (it lives as long as this object)

    def start(self) -> subprocess.Popen[str]:
        paths = [str(HERE / "children"), str(HERE.parents[1])]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "120",
            "TMPDIR": str(self.scratch),
            "TORCHINDUCTOR_CACHE_DIR": str(self.scratch),
        }
        process = subprocess.Popen(
            [sys.executable, str(HERE / "fuzz_worker.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self.log, text=True, env=environment, start_new_session=True,
        )  # fmt: skip
        self.process = process
        with tempfile.TemporaryDirectory() as folder:
            for warm in self._warming():
                self._ask({"folder": folder, "arguments": warm}, STARTING)
            self._ask({"limit": True}, STARTING)
        return process

    def _warming(self) -> Iterator[list[str]]:
        """Commands after which everything is imported that belongs to the base."""
        data = str(self.good / "data.npz")
        yield ["convert", str(self.good / "net.onnx"), "--data", data, "-T", "2", "--calibration", "percentile",
               "--calibration-samples", "4", "-o", "warm.snn", "--quiet"]  # fmt: skip
        yield ["check", str(self.good / "dynamic.pt2")]
        yield [
            "check",
            str(self.good / "weights.pt"),
            "--arch",
            f"{self.good / 'arch.py'}:net",
            "--input-shape",
            "1,8,8",
        ]
        yield ["check", str(self.good / "folded.onnx")]
        yield ["report", str(self.good / "model.json"), str(self.good / "windows.json"), "--report", "a.html"]

    def run(self, folder: Path, arguments: list[str]) -> dict[str, Any]:
        if self.process is None:
            self.start()
        return self._ask({"folder": str(folder), "arguments": arguments}, BLOCKED)

    def _ask(self, task: dict[str, Any], wall: float) -> dict[str, Any]:
        process = self.process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(task) + "\n")
        process.stdin.flush()
        start, before = time.monotonic(), _seconds(process.pid)
        limit = 3 * SECONDS if "zoo" in task.get("arguments", ()) or wall == STARTING else SECONDS
        while not select.select([process.stdout], [], [], 0.5)[0]:
            if _seconds(process.pid) - before > limit or time.monotonic() - start > wall:
                self.stop()
                return {"exit": None, "faults": ["hangs"], "text": "", "memory": 0, "seconds": limit}
        line = process.stdout.readline()
        if not line:
            self.stop()
            said = Path(self.log.name).read_text(errors="replace")[-1500:]
            return {"exit": None, "faults": ["the process died"], "text": said, "memory": 0, "seconds": 0}
        answer: dict[str, Any] = json.loads(line)
        return answer

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def _seconds(pid: int) -> float:
    """Processor time of a process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass
class Result:
    """What a campaign found.

    Attributes:
        record: a file to which every answer is added, so that an interrupted campaign goes on where it was.
    """

    counts: Counter[str] = field(default_factory=Counter)
    exits: Counter[str] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)
    faults: list[Row] = field(default_factory=list)
    slowest: float = 0.0
    largest: int = 0
    record: Path | None = None

    def resume(self) -> set[tuple[str, int]]:
        """Count what is on record; the mutations that are."""
        lines = self.record.read_text().splitlines() if self.record and self.record.exists() else []
        rows = [json.loads(line) for line in lines]
        for row in rows:
            self.count(row)
        return {(row["door"], row["number"]) for row in rows}

    def add(self, row: Row) -> None:
        """Count one mutation, and put it on record."""
        self.count(row)
        if self.record is not None:
            with self.record.open("a") as file:
                file.write(json.dumps(row) + "\n")

    def count(self, row: Row) -> None:
        self.counts[row["door"]] += 1
        self.exits[str(row["exit"])] += 1
        self.seconds[row["door"]] += row["seconds"]
        self.slowest, self.largest = max(self.slowest, row["seconds"]), max(self.largest, row["memory"])
        if row["faults"]:
            self.faults.append(row)


def judged(door: str, number: int, arguments: list[str], answer: dict[str, Any]) -> Row:
    """What came of one mutation; its text where it is a fault."""
    faults, text = list(answer["faults"]), answer["text"]
    if answer["exit"] not in EXITS:
        faults.append(f"exit {answer['exit']}")
    if "Traceback (most recent call last)" in text:
        faults.append("traceback")
    if answer["memory"] > MEMORY:
        faults.append(f"memory {answer['memory'] / 2**30:.1f} GiB")
    if "not enough memory" in text:
        faults.append("not enough memory")
    if answer["seconds"] > SECONDS and "zoo" not in arguments:
        faults.append(f"{answer['seconds']} seconds")
    if any(sign in text for sign in ("\x1b[2J", "\x1b[31m")):
        faults.append("escape sequences on the terminal")
    row = {"door": door, "number": number, "exit": answer["exit"], "faults": faults}
    row |= {"seconds": answer["seconds"], "memory": answer["memory"]}
    return {**row, "arguments": arguments, "text": text} if faults else row


def _slow(fault: str) -> bool:
    return fault == "hangs" or fault.endswith(" seconds")


def campaign(
    tasks: list[tuple[str, int]], processes: int, keep: Path | None = None, record: Path | None = None
) -> Result:
    """Run these mutations, given as (door, number); the files of faults are kept in `keep`."""
    result, waiting = Result(record=record), SimpleQueue[tuple[str, int] | None]()
    done = result.resume()
    for task in tasks:
        if task not in done:
            waiting.put(task)
    with tempfile.TemporaryDirectory(prefix="snnconvert-fuzz-") as made, ThreadPoolExecutor(processes) as threads:
        good = Path(made) / "good"
        write_seeds(good)
        for _ in range(processes):
            waiting.put(None)
        running = [threads.submit(_work, waiting, good, Path(made), result, keep) for _ in range(processes)]
        for one in running:
            one.result()
    return result


def _work(
    waiting: SimpleQueue[tuple[str, int] | None], good: Path, made: Path, result: Result, keep: Path | None
) -> None:
    worker = Watched(good)
    try:
        while (task := waiting.get()) is not None:
            door, number = task
            folder = Path(tempfile.mkdtemp(dir=made))
            arguments = mutated(door, number, folder, good)
            row = judged(door, number, arguments, worker.run(folder, arguments))
            if row["faults"] and all(_slow(fault) for fault in row["faults"]):
                worker.stop()
                row = judged(door, number, arguments, worker.run(folder, arguments))
            result.add(row)
            if row["faults"] and keep is not None:
                target = keep / f"{door.replace(' ', '-')}-{number}"
                shutil.rmtree(target, ignore_errors=True)
                shutil.copytree(folder, target, symlinks=True)
            shutil.rmtree(folder)
            if keep is not None and (total := sum(result.counts.values())) % 200 == 0:
                print(f"{total} mutations, {len(result.faults)} faults", file=sys.stderr, flush=True)
    finally:
        worker.stop()


def shared(mutations: int, first: int, only: list[str]) -> list[tuple[str, int]]:
    """So many (door, number), each door its share of them, mixed."""
    doors = {name: row for name, row in DOORS.items() if not only or name in only}
    total = sum(row.share for row in doors.values())
    numbers = {name: max(1, round(mutations * row.share / total)) for name, row in doors.items()}
    return sorted(
        ((name, first + place) for name, count in numbers.items() for place in range(count)),
        key=lambda task: ((task[1] - first + 0.5) / numbers[task[0]], task[0]),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="the first number: others give other mutations")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--only", action="append", default=[], choices=list(DOORS))
    parser.add_argument("--keep", type=Path, default=Path("fuzz-faults"), help="where files of faults are kept")
    parser.add_argument("--record", type=Path, help="a file of answers; what is in it is not run again")
    given = parser.parse_args()
    start = time.monotonic()
    result = campaign(shared(given.mutations, given.first, given.only), given.processes, given.keep, given.record)
    for row in result.faults:
        last = row["text"].strip().splitlines()[-1:] or [""]
        cause = [line for line in row["text"].splitlines() if "caused by" in line or "Error" in line][-1:] or last
        print(f"{row['door']} {row['number']}: {', '.join(row['faults'])} | {' '.join(row['arguments'])[:150]!r}")
        print(f"    {cause[0][:240]!r}")
    print(json.dumps({
        "mutations": dict(result.counts), "total": sum(result.counts.values()), "exits": dict(result.exits),
        "faults": len(result.faults), "slowest seconds": result.slowest,
        "largest memory above the start, MiB": round(result.largest / 2**20),
        "processor seconds by door": {door: round(seconds, 1) for door, seconds in result.seconds.items()},
        "seconds": round(time.monotonic() - start),
    }, indent=1))  # fmt: skip
    return 1 if result.faults else 0


if __name__ == "__main__":
    sys.exit(main())
