"""kill -9 of the driver and of workers: what is on disk is whole, and the next run ends as if nothing had happened."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_zoo import factory, write_folder, write_manifest

import snnconvert
from snnconvert.files import sha256_of
from snnconvert.graph.checkpoint import load_snn
from snnconvert.report.document import load_report

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="children are found in /proc")


def start(folder: Path, out: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(Path(snnconvert.__file__).parents[1])}
    command = [
        sys.executable,
        "-P",
        "-m",
        "snnconvert.cli.main",
        "zoo",
        "run",
        str(folder / "zoo.toml"),
        "-j",
        "2",
        "-q",
    ]
    return subprocess.Popen([*command, "--out", str(folder / out)], env=environment, stderr=subprocess.PIPE)


def children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(part) for part in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def results(out: Path) -> dict[str, bytes]:
    found = {}
    for path in sorted((out / "models").rglob("*")):
        if path.suffix == ".snn":
            found[path.name] = path.read_bytes()
        elif path.suffix == ".json" and path.name != "row.json":
            found[path.name] = json.dumps({**json.loads(path.read_text()), "timings": None}).encode()
    return found


def check_whole(out: Path) -> int:
    """Every visible file is complete, and every row vouches for what is there; returns the number of rows."""
    rows = 0
    for path in out.rglob("*"):
        if path.name.startswith(".") or ".workers" in path.parts or path.is_dir():
            continue
        if path.suffix == ".snn":
            load_snn(path)
        elif path.name == "row.json":
            row = json.loads(path.read_text())
            rows += 1
            assert all(sha256_of(path.parent / name) == digest for name, digest in row["files"].items())
        elif path.suffix == ".json" and path.parent != out:
            load_report(path)
        elif path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".html":
            assert path.read_text().endswith("</html>\n")
    return rows


def test_killed_at_random_moments(tmp_path: Path) -> None:
    write_folder(tmp_path)
    models = "".join(factory(name) for name in ("good", "other", "third"))
    write_manifest(tmp_path, models + factory("slow"))
    clock = time.monotonic()
    assert start(tmp_path, "whole").wait() == 0
    usual = time.monotonic() - clock
    wanted = results(tmp_path / "whole")
    assert len(wanted) == 8
    generator = random.Random(int(os.environ.get("SNNCONVERT_KILL_SEED", "1")))
    for number in range(int(os.environ.get("SNNCONVERT_KILLS", "1"))):
        out = tmp_path / f"killed{number}"
        driver = start(tmp_path, out.name)
        time.sleep(generator.uniform(0.3, 1.0) * usual)
        workers = children(driver.pid)
        victim = driver.pid if number % 2 == 0 or not workers else generator.choice(workers)
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
        code = driver.wait()
        if victim == driver.pid:
            # Workers notice that their driver is gone and leave.
            patience = time.monotonic() + 30
            while any(Path(f"/proc/{pid}/stat").exists() for pid in workers) and time.monotonic() < patience:
                time.sleep(0.05)
            assert not any(b"zoo.worker" in command(pid) for pid in workers)
        else:
            assert code == 0, "a worker killed once costs nothing"
        check_whole(out)
        assert start(tmp_path, out.name).wait() == 0
        assert check_whole(out) == 4
        assert results(out) == wanted
        assert not list((out / "models").rglob(".*"))


def command(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""
