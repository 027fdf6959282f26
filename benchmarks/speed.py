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
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from snnconvert.allocator import keep_freed_memory
from snnconvert.threads import wait_quietly

wait_quietly()  # before torch is loaded, as the command line does it

import numpy as np  # noqa: E402
import torch  # noqa: E402
from speed_contestants import MOBILE, RESNET, SQUEEZE, WINDOW, contestants, converted, network, simulation, spikes_sent  # noqa: E402
from speed_device import on_device  # noqa: E402
from speed_kernels import SHAPES, profile, spikes_against_dense  # noqa: E402
from speed_memory import probe, probed  # noqa: E402
from speed_timing import CLOCKS, Row, Stopwatch, over  # noqa: E402
from torch import Tensor  # noqa: E402

from snnconvert.graph.checkpoint import save_snn  # noqa: E402
from snnconvert.graph.dialect import calls  # noqa: E402
from snnconvert.graph.kinds import Neuron  # noqa: E402
from snnconvert.graph.types import Ann, Snn  # noqa: E402
from snnconvert.simulate.kernels import choose  # noqa: E402

NETWORKS = (RESNET, MOBILE, SQUEEZE)
BATCHES = (1, 8, 64)
# seconds for the rounds of one comparison
BUDGET = 12.0
# (T, batch) of the table of memory
CASES = ((8, 8), (16, 8), (32, 1), (32, 8), (32, 64), (64, 8), (128, 8), (256, 8))


def compare(watch: Stopwatch, name: str, ann: Ann, snn: Snn, images: Tensor, *, all_of_ours: bool) -> Row:
    """One row: images per second, and time of each peer over ours."""
    timesteps = snn.schedule.frames
    runs = contestants(snn, ann, images, timesteps)
    if not all_of_ours:
        runs = {peer: run for peer, run in runs.items() if not peer.startswith("ours,")}
    seconds = watch.paired(runs)
    neurons = sum(int(np.prod(node.meta["shape"])) for node, op in calls(snn.graph) if isinstance(op, Neuron))
    row: Row = {"network": name, "T": timesteps, "batch": len(images)}
    row["density"] = spikes_sent(snn, images[:8]) / (neurons * timesteps * len(images[:8]))
    row["images_per_second"] = len(images) / statistics.median(seconds["ours"])
    for peer in seconds:
        if peer != "ours":
            row[peer] = over(seconds, peer, "ours", 1 / timesteps if peer.endswith("ANN") else 1.0)
    anns = [seconds[peer] for peer in seconds if peer.endswith("ANN")]
    seconds["fastest"] = [min(times) for times in zip(*anns, strict=True)]
    row["time over T x fastest ANN"] = over(seconds, "ours", "fastest", timesteps)
    print(json.dumps(row), file=sys.stderr, flush=True)
    return row


def windows(watch: Stopwatch, name: str, ann: Ann, images: Tensor) -> Row:
    """A bistable network: time of one window over one pass of torch's ANN."""
    snn = converted(ann, images, 0, windows=8)
    dense = ann.graph.to(memory_format=torch.channels_last)
    batch = images.contiguous(memory_format=torch.channels_last)
    seconds = watch.paired({"ours": simulation(snn, images), "ann": lambda: dense(batch)})
    return {"network": name, "window": WINDOW, "windows": snn.schedule.frames, "batch": len(images),
            "window over torch ANN": over(seconds, "ours", "ann", snn.schedule.frames)}  # fmt: skip


def comparisons(watch: Stopwatch, data: Path, quick: bool) -> Iterator[tuple[str, Row]]:
    """Rows of three tables: comparison, bistable, shares."""
    for name in NETWORKS[:1] if quick else NETWORKS:
        ann, images = network(data, name)
        snn = converted(ann, images, 32)
        for batch in BATCHES[:2] if quick else BATCHES:
            several = images[:batch]
            yield "comparison", compare(watch, name, ann, snn, several, all_of_ours=batch < 64 or name == RESNET)
            if batch < 64:
                shares = profile(watch, snn, several)
                yield "shares", {"network": name, "T": 32, "batch": batch, **shares}
        if name == RESNET:
            for timesteps in () if quick else (8, 256):
                case = converted(ann, images, timesteps)
                yield "comparison", compare(watch, name, ann, case, images[:8], all_of_ours=False)
            yield "bistable", windows(watch, name, ann, images[:8])


def memory(data: Path, arguments: list[str], quick: bool) -> list[Row]:
    """Images per second and peak memory by network, T and batch."""
    rows: list[Row] = []
    for name in NETWORKS[:1] if quick else NETWORKS:
        ann, images = network(data, name)
        cases = [case for case in CASES if not quick or case in ((32, 8), (256, 8))]
        anns = {batch: probed(arguments, name, "ann", batch) for batch in sorted({batch for _, batch in cases})}
        for timesteps, batch in cases:
            with tempfile.TemporaryDirectory() as folder:
                path = str(Path(folder) / "network.snn")
                save_snn(converted(ann, images, timesteps), path)
                found = probed(arguments, name, "snn", batch, path)
            ratio = found["peak MB"] / anns[batch]["peak MB"] if anns[batch]["peak MB"] else 0.0
            row = {"network": name, "T": timesteps, "batch": batch, **found}
            row |= {"ANN's peak MB": anns[batch]["peak MB"], "peak over ANN's": ratio}
            print(json.dumps(row), file=sys.stderr, flush=True)
            rows.append(row)
    return rows


# --- report ---------------------------------------------------------------------------------------


def table(rows: list[Row]) -> str:
    """Rows as a Markdown table, columns in order of first appearance."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        cells = (row.get(column, "") for column in columns)
        lines.append(
            "| " + " | ".join(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in cells) + " |"
        )
    return "\n".join(lines)


def machine(device: str) -> str:
    """The processor and the kernels in use."""
    if device != "cpu":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    native, path = choose(), Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, " + (
        f"native kernels ({native.instructions})" if native else "torch kernels"
    )


TITLES = {
    "comparison": "Time of each peer over ours (ANN: its time x T)",
    "bistable": "Bistable, time of one window over one pass of the ANN",
    "lists_over_dense": "Lists of spikes over the dense path, by density of the input spikes",
    "tables_over_dense": "Tables of sums over the dense path",
    "engine_over_dense": "The engine's choice over the dense path",
    "shares": "Shares of the time",
    "device": "Images per second on a CUDA device",
    "memory": "Images per second and peak resident memory, each case in a process of its own",
}


def parsed() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="ResNet-20 only, few rounds")
    parser.add_argument("--json", action="store_true", help="print the ratios as one object on the last line")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--device", default="cpu", help="cpu, or a CUDA device: a table of its own, no other")
    default = os.environ.get("SNNCONVERT_DATA") or str(Path(__file__).parents[1] / "../shared/data")
    parser.add_argument("--data", type=Path, default=Path(default), help="folder of the data pack")
    parser.add_argument("--probe", help=argparse.SUPPRESS)
    parser.add_argument(
        "--clock", choices=sorted(CLOCKS), default="wall", help="cpu: processor time, for busy machines"
    )
    return parser.parse_args()


def why_not(device: str) -> str | None:
    """The reason for which nothing is measured on `device`, or None."""
    if device == "cpu" or (device.startswith("cuda") and torch.cuda.is_available()):
        return None
    return f"there is no device {device!r} here"


def _on_cpu(watch: Stopwatch, options: argparse.Namespace, found: dict[str, list[Row]]) -> None:
    for title, row in comparisons(watch, options.data, options.quick):
        found[title].append(row)
    shapes = SHAPES[:3] if options.quick else SHAPES
    found |= spikes_against_dense(watch, shapes)
    arguments = ["--threads", str(options.threads), "--clock", options.clock, "--data", str(options.data)]
    found["memory"] = memory(options.data, arguments, options.quick)


def main() -> None:
    keep_freed_memory()
    options = parsed()
    torch.set_num_threads(options.threads)
    reason = why_not(options.device)
    if reason is not None:
        print(f"skipped: {reason}")
        if options.json:
            print(json.dumps({"skipped": reason}))
        return
    if not (options.data / "models").is_dir():
        sys.exit(f"{options.data} holds no data pack; name one with --data or SNNCONVERT_DATA")
    watch = Stopwatch(options.clock, 3 if options.quick else 7, BUDGET)
    if options.probe:
        probe(watch, options.data, options.probe)
        return
    found: dict[str, list[Row]] = {title: [] for title in TITLES}
    if options.device != "cpu":
        found["device"] = list(
            on_device(watch, options.data, NETWORKS[:1] if options.quick else NETWORKS, options.device)
        )
    else:
        _on_cpu(watch, options, found)
    result: dict[str, Any] = {"machine": machine(options.device), **found}
    print(machine(options.device))
    for title, rows in found.items():
        if rows:
            print(f"\n{TITLES[title]}:\n\n{table(rows)}")
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
