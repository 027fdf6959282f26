"""How fast the simulator is: against the same network's ANN times T, and against SpikingJelly where it is installed.

    python benchmarks/speed.py [--quick] [--json] [--threads 2] [--clock cpu] [--data ../shared/data]

Every ratio is the median over rounds in which all contestants run one after the other, so that a busy machine slows all
of them alike. Peers that are not installed are left out. The peers get the converted network itself: the same weights
and thresholds, thresholds folded into the weights, no gradients.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from snnconvert.calibrate import METHODS, Task
from snnconvert.calibrate.observe import in_canonical_order
from snnconvert.convert.doors import open_model
from snnconvert.convert.passes import canonicalize
from snnconvert.convert.spikify import NeuronChoice
from snnconvert.graph.dialect import arguments, calls, output_nodes
from snnconvert.graph.neuron_ops import Neuron
from snnconvert.graph.ops import Conv
from snnconvert.graph.schedule import Schedule, site_depths
from snnconvert.graph.types import Ann, Snn
from snnconvert.simulate.kernels import choose
from snnconvert.simulate.kernels.layout import dense_from, pack
from snnconvert.simulate.kernels.native import Convolution, Current, Membrane
from snnconvert.simulate.layer_engine import LayerEngine

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SHAPES = ((16, 16, 32, 3, 1), (32, 32, 16, 3, 1), (64, 64, 8, 3, 1), (64, 64, 28, 3, 1), (128, 128, 14, 3, 1),
          (128, 128, 20, 1, 1), (512, 512, 7, 1, 1), (64, 64, 40, 3, 64))  # fmt: skip
Row = dict[str, Any]
HIDDEN = ("snn", "images")


def cifar_images(data: Path, name: str, count: int) -> Tensor:
    """CIFAR-10 images normalised as the ResNets expect, (count, 3, 32, 32)."""
    with np.load(data / f"{name}.npz") as file:
        images = torch.tensor(file["x"][:count]).permute(0, 3, 1, 2) / 255
    return (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def blurred_noise(shape: tuple[int, ...], count: int) -> Tensor:
    """Stand-in for photographs where the data pack has none of the right preparation."""
    noise = torch.rand((count, *shape), generator=torch.Generator().manual_seed(0)) * 2 - 1
    return torch.nn.functional.avg_pool2d(noise, 5, 1, 2) * 3


def networks(data: Path, quick: bool) -> dict[str, tuple[Ann, Tensor]]:
    """Networks with images for them, by name."""
    models = data / "models"
    arch = f"{models / 'resnet_cifar.py'}:resnet20"
    weights = str(models / "resnet20-12fca82f.th")
    resnet = canonicalize(open_model(weights, arch=arch, input_shape=(3, 32, 32)))
    found = {"ResNet-20": (resnet, cifar_images(data, "cifar10_test", 64))}
    if not quick:
        mobile = canonicalize(open_model(str(models / "mobilenet_v1_0.5_160_quant.onnx")))
        found["MobileNetV1 0.5, 160 px"] = (mobile, blurred_noise(mobile.input_shape, 8))
    return found


def converted(ann: Ann, images: Tensor, timesteps: int, schedule: str = "streaming") -> Snn:
    """The spiking network, thresholds by the percentile method on the first 32 images."""
    depth = max(site_depths(ann.graph).values())
    task = Task(ann, in_canonical_order(images[:32]), Schedule(schedule, timesteps, depth), NeuronChoice())
    return task.spikify(METHODS["percentile"](task))


# --- contestants ----------------------------------------------------------------------------------


class PeerNetwork(nn.Module):
    """Our spiking graph with SpikingJelly's neurons, step by step (s) or all steps of a layer at once (m)."""

    def __init__(self, snn: Snn, timesteps: int, mode: str) -> None:
        super().__init__()
        from spikingjelly.activation_based import neuron

        self.nodes, self.timesteps, self.mode = list(snn.graph.graph.nodes), timesteps, mode
        self.output = output_nodes(snn.graph)[0]
        self.ops = dict(calls(snn.graph))
        self.cells = nn.ModuleDict()
        self.scales: dict[Any, Tensor] = {}
        for node, op in self.ops.items():
            if isinstance(op, Neuron):
                self.cells[node.name] = neuron.IFNode(v_threshold=1.0, v_reset=None, step_mode=mode)
                self.scales[node] = (1 / op.threshold).unsqueeze(0)

    def forward(self, x: Tensor) -> Tensor:
        from spikingjelly.activation_based import functional

        functional.reset_net(self)
        if self.mode == "m":
            steps = self._walk(x.repeat(self.timesteps, 1, 1, 1))
            return steps.view(self.timesteps, len(x), *steps.shape[1:]).sum(0)
        total = self._walk(x)
        for _ in range(self.timesteps - 1):
            total = total + self._walk(x)
        return total

    def _walk(self, x: Tensor) -> Tensor:
        values: dict[Any, Tensor] = {}
        for node in self.nodes:
            if node.op == "placeholder":
                values[node] = x
            elif node.op == "call_module":
                inputs = [values[source] for source in arguments(node)]
                values[node] = self._apply(node, inputs)
        return values[self.output]

    def _apply(self, node: Any, inputs: list[Tensor]) -> Tensor:
        op = self.ops[node]
        if not isinstance(op, Neuron):
            own = next(op.buffers(), None)
            return op(*(value if own is None else value.to(own.dtype) for value in inputs)).float()
        cell, current = self.cells[node.name], inputs[0] * self.scales[node]
        if self.mode == "m":
            spikes = cell(current.view(self.timesteps, -1, *current.shape[1:]))
            return spikes.flatten(0, 1)
        return cell(current)


def contestants(snn: Snn, ann: Ann, images: Tensor, timesteps: int) -> dict[str, Callable[[], Any]]:
    """What to time: one call simulates all images (or runs the ANN once on them)."""
    engine = LayerEngine(snn)
    dense = ann.graph.to(memory_format=torch.channels_last)
    batch = images.contiguous(memory_format=torch.channels_last)
    found: dict[str, Callable[[], Any]] = {"ours": lambda: engine.run(images), "torch ANN": lambda: dense(batch)}
    if importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("onnxscript"):
        session = onnxruntime_session(ann, images)
        name = session.get_inputs()[0].name
        found["onnxruntime ANN"] = lambda: session.run(None, {name: images.numpy()})
    if importlib.util.find_spec("spikingjelly"):
        several, single = PeerNetwork(snn, timesteps, "m").eval(), PeerNetwork(snn, timesteps, "s").eval()
        found["SpikingJelly multi-step"] = lambda: several(images)
        found["SpikingJelly single-step"] = lambda: single(images)
    return found


def onnxruntime_session(ann: Ann, images: Tensor) -> Any:
    """The ANN in onnxruntime with as many threads as torch uses."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "ann.onnx")
        torch.onnx.export(ann.graph, (images,), path, dynamo=True, verbose=False, external_data=False)
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


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
    seen = LayerEngine(snn).run(images)
    neurons = {node.name: int(np.prod(node.meta["shape"])) for node, op in calls(snn.graph) if isinstance(op, Neuron)}
    possible = sum(neurons.values()) * timesteps * len(images)
    row: Row = {"network": name, "T": timesteps, "batch": len(images)}
    row["density"] = sum(int(counts.sum()) for counts in seen.spikes.values()) / possible
    row["images_per_second"] = len(images) / statistics.median(seconds["ours"])
    for peer, times in seconds.items():
        if peer != "ours":
            factor = timesteps if peer.endswith("ANN") else 1
            ratios = [factor * theirs / ours for theirs, ours in zip(times, seconds["ours"], strict=True)]
            row[peer] = statistics.median(ratios)
    print(json.dumps(row), file=sys.stderr, flush=True)
    row["snn"], row["images"] = snn, images
    return row


# --- kernels --------------------------------------------------------------------------------------


def event_against_dense(rounds: int) -> list[Row]:
    """Time of the event path over the dense path (torch convolution, then the native neuron), by density."""
    native, rows = choose(), []
    if native is None:
        return []
    timesteps, batch = 16, 2
    for inputs, outputs, size, kernel, groups in SHAPES:
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
    """Shares of the time of one run: convolutions with shortcuts, neurons (update, emission, counts), all else."""
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
    runs = {"snn": lambda: LayerEngine(snn).run(images[:batch]), "ann": lambda: ann.graph(images[:batch])}
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
    for name, (ann, images) in networks(options.data, options.quick).items():
        batches = (1, 8) if options.quick or len(images) < 64 else (1, 8, 64)
        cases = [(32, batch) for batch in batches] + (
            [] if options.quick or name != "ResNet-20" else [(8, 8), (256, 8)]
        )
        rows += [compare(name, ann, images[:batch], timesteps, rounds) for timesteps, batch in cases]
    densities = event_against_dense(rounds)
    shares = [
        {"network": row["network"], "T": row["T"], "batch": row["batch"], **profile(row["snn"], row["images"])}
        for row in rows
        if row["T"] == 32
    ]
    print(f"{machine()}\n\nTime of each peer over ours (ANN: its time x T):\n\n{table(rows)}\n")
    print(f"Event path over dense path, by density of the input spikes:\n\n{table(densities)}\n")
    print(f"Shares of the time:\n\n{table(shares)}\n")
    peaks = {}
    if not options.quick:
        wanted = {"SNN T 32": ("snn", 32), "SNN T 256": ("snn", 256), "ANN": ("ann", 1)}
        peaks = {label: memory(options.data, kind, steps, 8) for label, (kind, steps) in wanted.items()}
        print(f"Peak resident memory, ResNet-20, batch 8, MB:\n\n{table([peaks])}\n")
    if options.json:
        kept = [{key: value for key, value in row.items() if key not in HIDDEN} for row in rows]
        print(json.dumps({"comparison": kept, "event_over_dense": densities, "shares": shares, "memory": peaks}))


if __name__ == "__main__":
    main()
