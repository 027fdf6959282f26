"""How fast the simulator is: against the same network's ANN times T, and against SpikingJelly where it is installed.

    python benchmarks/speed.py [--quick] [--json] [--threads 2] [--clock cpu] [--data ../shared/data]

Every ratio is the median over rounds in which all contestants run one after the other, so that a busy machine slows all
of them alike. Peers that are not installed are left out. The peers get the converted network itself: the same weights
and thresholds, thresholds folded into the weights, no gradients.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from speed_contestants import WINDOW, contestants, converted, networks, simulation
from torch import Tensor

from snnconvert.allocator import keep_freed_memory
from snnconvert.graph.dialect import calls
from snnconvert.graph.neuron_ops import Neuron
from snnconvert.graph.ops import Conv
from snnconvert.graph.types import Ann, Snn
from snnconvert.simulate.kernels import choose
from snnconvert.simulate.kernels.layout import dense_from, pack
from snnconvert.simulate.kernels.native import Convolution, Current, Membrane
from snnconvert.simulate.layer_engine import LayerEngine

SHAPES = ((16, 16, 32, 3, 1), (32, 32, 16, 3, 1), (64, 64, 8, 3, 1), (64, 64, 28, 3, 1), (128, 128, 14, 3, 1),
          (128, 128, 20, 1, 1), (512, 512, 7, 1, 1), (64, 64, 40, 3, 64))  # fmt: skip
Row = dict[str, Any]
HIDDEN = ("snn", "images")


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
clock = CLOCKS["wall"]


def paired(runs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every contestant in every round."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    with torch.inference_mode():
        for _ in range(rounds + 1):  # the first round warms up
            for name, run in runs.items():
                start = clock()
                run()
                seconds[name].append(clock() - start)
    return {name: values[1:] for name, values in seconds.items()}


def compare(name: str, ann: Ann, images: Tensor, timesteps: int, rounds: int) -> Row:
    """One row: images per second, and time of each peer over ours."""
    snn = converted(ann, images, timesteps)
    seconds = paired(contestants(snn, ann, images, timesteps), rounds)
    seen = simulation(snn, images)()
    neurons = {node.name: int(np.prod(node.meta["shape"])) for node, op in calls(snn.graph) if isinstance(op, Neuron)}
    possible = sum(neurons.values()) * timesteps * len(images)
    row: Row = {"network": name, "T": timesteps, "batch": len(images)}
    row["density"] = sum(int(counts.sum()) for part in seen for counts in part.spikes.values()) / possible
    row["images_per_second"] = len(images) / statistics.median(seconds["ours"])
    for peer, times in seconds.items():
        if peer != "ours":
            factor = timesteps if peer.endswith("ANN") else 1
            ratios = [factor * theirs / ours for theirs, ours in zip(times, seconds["ours"], strict=True)]
            row[peer] = statistics.median(ratios)
    fastest = [min(times) for times in zip(*(seconds[peer] for peer in seconds if peer.endswith("ANN")), strict=True)]
    row["time over T x fastest ANN"] = statistics.median(
        ours / (timesteps * ann_once) for ours, ann_once in zip(seconds["ours"], fastest, strict=True)
    )
    print(json.dumps(row), file=sys.stderr, flush=True)
    row["snn"], row["images"] = snn, images
    return row


def windows(name: str, ann: Ann, images: Tensor, rounds: int) -> Row:
    """A bistable network: time of one window over one pass of torch's ANN."""
    count = 8
    snn = converted(ann, images, 0, windows=count)
    dense = ann.graph.to(memory_format=torch.channels_last)
    batch = images.contiguous(memory_format=torch.channels_last)
    seconds = paired({"ours": simulation(snn, images), "ann": lambda: dense(batch)}, rounds)
    ratios = [ours / (snn.schedule.frames * once) for ours, once in zip(seconds["ours"], seconds["ann"], strict=True)]
    return {"network": name, "window": WINDOW, "windows": snn.schedule.frames, "batch": len(images),
            "window over torch ANN": statistics.median(ratios)}  # fmt: skip


# --- kernels --------------------------------------------------------------------------------------


def event_against_dense(rounds: int, shapes: tuple[tuple[int, ...], ...]) -> list[Row]:
    """Time of the event path over the dense path (torch convolution, then the native neuron), by density."""
    native, rows = choose(), []
    if native is None:
        return []
    timesteps, batch = 16, 2
    for inputs, outputs, size, kernel, groups in shapes:
        weight = (torch.randn(outputs, inputs // groups, kernel, kernel) * 64).round() / 64
        pad = (kernel // 2,) * 2
        op = Conv(weight, torch.zeros(outputs), stride=(1, 1), padding=pad, dilation=(1, 1), groups=groups)
        packed, threshold = pack(op), torch.full((1, outputs), 5.0)
        assert packed is not None
        membrane, shape = Membrane("if", 1, 0, threshold, threshold / 2), (outputs, size, size)
        row: Row = {
            "shape": f"{inputs}->{outputs}, {kernel}x{kernel}, {size} px" + (", depthwise" if groups > 1 else "")
        }
        row["dense_from"] = dense_from(packed)
        for density in (0.01, 0.05, 0.1, 0.2, 0.5):
            spikes = (torch.rand(timesteps * batch, inputs, size, size) < density).to(torch.int8)
            spikes = spikes.contiguous(memory_format=torch.channels_last)

            def event(s: Tensor = spikes, p: Any = packed, m: Membrane = membrane, shape: Any = shape) -> None:
                native.neurons([Convolution(s, p, True)], m, timesteps, batch, shape)

            def dense(s: Tensor = spikes, op: Conv = op, m: Membrane = membrane, shape: Any = shape) -> None:
                native.neurons([Current(op(s.float()), False)], m, timesteps, batch, shape)

            seconds = paired({"event": event, "dense": dense}, rounds)
            ratios = [e / d for e, d in zip(seconds["event"], seconds["dense"], strict=True)]
            row[f"{density:g}"] = statistics.median(ratios)
        rows.append(row)
    return rows


def profile(snn: Snn, images: Tensor) -> dict[str, float]:
    """Shares of the time of one run: convolutions with shortcuts, neurons (update, emission, counts), all else.

    The neurons' share is the time of the same layer with nothing but a constant current: an upper bound where the
    update is fused with the convolution.
    """
    engine = LayerEngine(snn)
    if engine.native is None:
        return {}
    native, spent = engine.native, {"layers": 0.0, "neurons": 0.0}
    plain = native.neurons

    def timed(terms: Any, membrane: Membrane, frames: int, batch: int, shape: tuple[int, ...]) -> Any:
        start = clock()
        result = plain(terms, membrane, frames, batch, shape)
        middle = clock()
        plain([Current(torch.zeros(batch, *shape), True)], membrane, frames, batch, shape)
        spent["layers"] += middle - start
        spent["neurons"] += clock() - middle
        return result

    engine.run(images)
    native.neurons = timed  # type: ignore[method-assign]
    start = clock()
    engine.run(images)
    total = clock() - start - spent["neurons"]
    native.neurons = plain  # type: ignore[method-assign]
    rest = total - spent["layers"]
    return {
        "weights and shortcuts": (spent["layers"] - spent["neurons"]) / total,
        "neurons": spent["neurons"] / total,
        "first layer, wiring, read-out": rest / total,
    }


# --- memory ---------------------------------------------------------------------------------------


def memory_probe(data: Path, kind: str, timesteps: int, batch: int) -> None:
    """Run in a process of its own: prints what one run adds to the peak resident memory, in MB."""
    ann, images = networks(data, quick=True)["ResNet-20"]
    snn = converted(ann, images, timesteps)
    runs = {"snn": simulation(snn, images[:batch]), "ann": lambda: ann.graph(images[:batch])}
    with torch.inference_mode():
        ann.graph(images[:1])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        runs[kind]()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, before / 1024)


def memory(data: Path, kind: str, timesteps: int, batch: int) -> float:
    """Peak resident memory of a process that simulates one batch, in MB."""
    command = [sys.executable, __file__, "--data", str(data), "--probe", f"{kind},{timesteps},{batch}"]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-2])


# --- report ---------------------------------------------------------------------------------------


def table(rows: list[Row]) -> str:
    """Rows as a Markdown table, columns in order of first appearance."""
    columns = list(dict.fromkeys(key for row in rows for key in row if key not in HIDDEN))
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        cells = (row.get(column, "") for column in columns)
        lines.append(
            "| " + " | ".join(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in cells) + " |"
        )
    return "\n".join(lines)


def machine() -> str:
    """The processor and the kernels in use."""
    native = choose()
    name = next(
        (line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")), platform.machine()
    )
    return f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, " + (
        f"native kernels ({native.instructions})" if native else "torch kernels"
    )


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def main() -> None:
    keep_freed_memory()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="ResNet-20 only, few rounds")
    parser.add_argument("--json", action="store_true", help="print the ratios as one object on the last line")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    default = os.environ.get("SNNCONVERT_DATA") or str(Path(__file__).parents[1] / "../shared/data")
    parser.add_argument("--data", type=Path, default=Path(default), help="folder of the data pack")
    parser.add_argument("--probe", help=argparse.SUPPRESS)
    parser.add_argument(
        "--clock", choices=sorted(CLOCKS), default="wall", help="cpu: processor time, for busy machines"
    )
    options = parser.parse_args()
    global clock  # noqa: PLW0603
    clock = CLOCKS[options.clock]
    torch.set_num_threads(options.threads)
    if not (options.data / "models").is_dir():
        sys.exit(f"{options.data} holds no data pack; name one with --data or SNNCONVERT_DATA")
    if options.probe:
        kind, timesteps, batch = options.probe.split(",")
        memory_probe(options.data, kind, int(timesteps), int(batch))
        return
    rounds = 3 if options.quick else 7
    rows = []
    windowed = []
    for name, (ann, images) in networks(options.data, options.quick).items():
        largest = 8 if options.quick else 64
        batches = [batch for batch in (1, 8, 64) if batch <= min(largest, len(images))]
        cases = [(32, batch) for batch in batches] + (
            [] if options.quick or name != "ResNet-20" else [(8, 8), (256, 8)]
        )
        rows += [compare(name, ann, images[:batch], timesteps, rounds) for timesteps, batch in cases]
        if name == "ResNet-20":
            windowed.append(windows(name, ann, images[:8], rounds))
    densities = event_against_dense(rounds, SHAPES[:3] if options.quick else SHAPES)
    shares = [
        {"network": row["network"], "T": row["T"], "batch": row["batch"], **profile(row["snn"], row["images"])}
        for row in rows
        if row["T"] == 32
    ]
    print(f"{machine()}\n\nTime of each peer over ours (ANN: its time x T):\n\n{table(rows)}\n")
    print(f"Bistable, time of one window over one pass of the ANN:\n\n{table(windowed)}\n")
    print(f"Event path over dense path, by density of the input spikes:\n\n{table(densities)}\n")
    print(f"Shares of the time:\n\n{table(shares)}\n")
    wanted = {"SNN T 32": ("snn", 32), "SNN T 256": ("snn", 256), "ANN": ("ann", 1)}
    peaks = {label: memory(options.data, kind, steps, 8) for label, (kind, steps) in wanted.items()}
    print(f"Peak resident memory, ResNet-20, batch 8, MB:\n\n{table([peaks])}\n")
    if options.json:
        kept = [{key: value for key, value in row.items() if key not in HIDDEN} for row in rows]
        print(
            json.dumps(
                {
                    "comparison": kept,
                    "bistable": windowed,
                    "event_over_dense": densities,
                    "shares": shares,
                    "memory": peaks,
                }
            )
        )


if __name__ == "__main__":
    main()
