"""Images per second and peak memory, each case in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch
from speed_contestants import network, simulation
from speed_timing import Row, Stopwatch

from snnconvert.allocator import hand_back_memory
from snnconvert.graph.checkpoint import load_snn


def resident(what: str) -> float:
    """VmRSS (now) or VmHWM (the peak since the process began or `forget_peak`), in MB; 0 where there is no /proc."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{what}:")), 0.0)


def forget_peak() -> None:
    """Count the peak from what is resident now."""
    hand_back_memory()
    path = Path("/proc/self/clear_refs")
    if path.exists():
        path.write_text("5")


def probe(watch: Stopwatch, data: Path, case: str) -> None:
    """Prints images per second of the second run and the peak over both, of the SNN in a checkpoint or of the ANN."""
    name, kind, batch, checkpoint = json.loads(case)
    ann, images = network(data, name)
    images = images[:batch].clone()
    if kind == "snn":
        snn = load_snn(checkpoint)
        del ann
        run = simulation(snn, images)
    else:
        dense = ann.graph.to(memory_format=torch.channels_last)
        run = lambda: dense(images.contiguous(memory_format=torch.channels_last))  # noqa: E731
    with torch.inference_mode():
        forget_peak()
        before = resident("VmRSS")
        run()
        seconds = watch.seconds(run)
    print(json.dumps({"images_per_second": batch / seconds, "peak MB": resident("VmHWM"), "before MB": before}))


def probed(arguments: list[str], name: str, kind: str, batch: int, checkpoint: str = "") -> Row:
    """What `probe` prints, by a process that is started with these options of the benchmark."""
    case = json.dumps([name, kind, batch, checkpoint])
    command = [sys.executable, str(Path(__file__).with_name("speed.py")), *arguments, "--probe", case]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: Row = json.loads(done.stdout.splitlines()[-1])
    return found
