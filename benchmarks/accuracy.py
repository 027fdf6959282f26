"""Accuracy at T of every calibration method, side by side, on the same images.

    python benchmarks/accuracy.py resnet20 --timesteps 4 8 16 32 --neurons if --draws 0 1 2
    python benchmarks/accuracy.py resnet20 --timesteps 4 8 16 --neurons ternary --draws 0 1 2
    python benchmarks/accuracy.py resnet20 --timesteps 4 8 16 32 --options '{"read_out": false}'
    python benchmarks/accuracy.py resnet20 --timesteps 2 --neurons graded --levels 15
    python benchmarks/accuracy.py resnet20 --timesteps 8 32 --methods robust-norm local-threshold-balancing \
        snn-calibration-light rnl mse reconstruct --images 2000
    python benchmarks/accuracy.py resnet20 --timesteps 2 4 8 --neurons if ternary --budgets 0 0.15 0.4
    python benchmarks/accuracy.py resnet20 --timesteps 4 --neurons ternary --budgets 0.15 --budget-by channel
    python benchmarks/accuracy.py resnet20 --timesteps 8 16 --calibration-images 128
    python benchmarks/accuracy.py resnet20 --timesteps 8 16 --calibrate-on cifar100
    python benchmarks/accuracy.py resnet20 --timesteps 8 16 --calibrate-on synthetic

Calibration images are drawn from the training images of the data folder by the seeds in `--draws`, without labels;
accuracy is measured on the first `--images` test images, with a 95 % Wilson interval of the draws taken together. One
JSON line per conversion goes to `--out`, so that a run can be taken up again; the table is printed as Markdown.
The data folder is SNNCONVERT_DATA or ../shared/data.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snnconvert.allocator import keep_freed_memory
from snnconvert.calibrate import DRAFT_IMAGES, METHODS, Task
from snnconvert.calibrate.observe import in_canonical_order, observed
from snnconvert.capacity import Budget, spent
from snnconvert.compile.balance import with_identity_sites
from snnconvert.compile.network import compile_network
from snnconvert.convert.doors import open_model
from snnconvert.convert.passes import canonicalize
from snnconvert.data.preprocessing import Preprocessing
from snnconvert.data.synthetic import synthetic_inputs
from snnconvert.graph.dialect import neurons_of
from snnconvert.graph.schedule import Bistable, Schedule, Streaming, Wait
from snnconvert.graph.schedule.timing import site_depths
from snnconvert.graph.types import Ann, NeuronChoice
from snnconvert.simulate.measure import Batch, measure

DATA = Path(os.environ.get("SNNCONVERT_DATA", Path(__file__).parents[2] / "shared" / "data"))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
KERAS = ((125.307 / 255, 122.95 / 255, 113.865 / 255), (62.993 / 255, 62.089 / 255, 66.705 / 255))
SRI = ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))
CIFAR100 = ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))
PIXELS = ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))
UNIT = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
GREY = ((0.0,), (1.0,))


@dataclass(frozen=True)
class Model:
    """A pretrained network of the data folder: file, the mean and deviation of its input, and its data set."""

    file: str
    scaling: tuple[tuple[float, ...], tuple[float, ...]]
    data: str = "cifar10"

    def open(self) -> Ann:
        """The network in the dialect."""
        path = DATA / "models" / self.file
        if path.suffix == ".onnx":
            return canonicalize(open_model(str(path)))
        if self.data == "fashion_mnist":
            factory = f"{Path(__file__).with_name('fashion_cnn.py')}:fashion_cnn"
            return canonicalize(open_model(str(path), arch=factory, input_shape=(1, 28, 28)))
        factory = f"{path.parent / 'resnet_cifar.py'}:{path.stem.split('-')[0]}"
        return canonicalize(open_model(str(path), arch=factory, input_shape=(3, 32, 32)))

    def images(self, part: str) -> tuple[Tensor, NDArray[np.int64]]:
        """Prepared inputs and labels of `test` or `train_small`."""
        stored = np.load(DATA / f"{self.data}_{part}.npz")
        mean, deviation = (torch.tensor(one).reshape(-1, 1, 1) for one in self.scaling)
        pixels = torch.from_numpy(stored["x"])
        inputs = (pixels.unsqueeze(1) if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)).float() / 255
        return ((inputs - mean) / deviation).contiguous(), stored["y"].astype(np.int64)


MODELS = {
    "resnet20": Model("resnet20-12fca82f.th", IMAGENET),
    "resnet32": Model("resnet32-d509ac18.th", IMAGENET),
    "resnet44": Model("resnet44-014dd654.th", IMAGENET),
    "onepixel_resnet32": Model("onepixel_resnet32.onnx", KERAS),
    "mlperf_tiny": Model("mlperf_tiny_pretrainedResnet.onnx", PIXELS),
    "sri_resnet_a": Model("sri_resnet_a.onnx", SRI),
    "snntb": Model("snntb_cifar10_83.62.onnx", UNIT),
    "simpnet": Model("simpnet_slim310k_cifar100.onnx", CIFAR100, "cifar100"),
    "onepixel_lenet": Model("onepixel_lenet.onnx", KERAS),
    "lenet5": Model("snntb_lenet5_98.96.onnx", GREY, "mnist"),
    "fashion_cnn": Model("convex_adversarial_fashion_mnist.pth", GREY, "fashion_mnist"),
}


def wilson(correct: int, count: int) -> tuple[float, float]:
    """95 % interval of a share, in per cent."""
    z, share = 1.96, correct / count
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z * (share * (1 - share) / count + z**2 / (4 * count**2)) ** 0.5 / (1 + z**2 / count)
    return 100 * (centre - half), 100 * (centre + half)


class Bench:
    """One network, the images it is judged on and what the ANN says about them, and images to calibrate on.

    Judged are the first test images; or as many training images, drawn by the seed `held_out`, and the others are there
    to calibrate on.
    """

    def __init__(self, name: str, images: int, held_out: int | None = None) -> None:
        self.name, self.model = name, MODELS[name]
        self.ann = self.model.open()
        self.train, labels = self.model.images("train_small")
        if held_out is None:
            inputs, labels = self.model.images("test")
            self.judged, self.labels = inputs[:images], labels[:images]
        else:
            order = np.random.default_rng(held_out).permutation(len(labels))
            self.judged, self.labels = self.train[order[:images]], labels[order[:images]]
            self.train = self.train[order[images:]]
        logits = [first.flatten(1) for first, *_ in observed(self.ann.graph, self.judged, "")]
        self.reference: NDArray[np.int64] = torch.cat(logits).argmax(1).numpy()
        self.depth = max(site_depths(self.ann.graph).values())

    def schedule(self, timesteps: int, wait: int, window: int) -> Schedule:
        """`timesteps` is the total."""
        if window:
            return Bistable(timesteps, self.depth, window=window)
        return Wait(timesteps, self.depth, wait=wait) if wait else Streaming(timesteps, self.depth)

    def calibration_inputs(self, source: str, count: int, draw: int) -> Tensor:
        """Training images of the network's own data set or of another one, or synthetic inputs."""
        if source == "synthetic":
            mean, deviation = self.model.scaling
            return synthetic_inputs(self.ann, count, draw, Preprocessing(mean=mean, std=deviation, scale=255.0))
        own = source in ("own", self.model.data)
        images = self.train if own else replace(self.model, data=source).images("train_small")[0]
        return images[torch.from_numpy(np.random.default_rng(draw).permutation(len(images))[:count])]

    def convert(self, key: dict[str, Any]) -> dict[str, Any]:
        """Calibrate and measure; `key` says how."""
        inputs = self.calibration_inputs(key["calibrate_on"], key["calibration_images"], key["draw"])
        schedule = self.schedule(key["timesteps"], key["wait"], key["window"])
        task = Task(
            with_identity_sites(self.ann, schedule),
            in_canonical_order(inputs),
            schedule,
            NeuronChoice(key["neuron"], key["levels"]),
            key["options"],
        )
        begun, used = time.perf_counter(), time.process_time()
        row = METHODS[key["method"]]
        if key["budget"]:
            quick = replace(task, images=task.images[:DRAFT_IMAGES], options={**task.options, **row.quick})
            budget = Budget(key["budget"], by_channel=key["budget_by"] == "channel")
            network, neuron = spent(task.ann, compile_network(row(quick)), task.images, budget)
            task = replace(task, ann=network, neuron=neuron)
        calibration = row(task)
        seconds, processor = time.perf_counter() - begun, time.process_time() - used
        snn = compile_network(calibration)
        curve = measure(snn, [Batch(self.judged, self.labels, self.reference)], total=len(self.judged))
        return {
            **key,
            "ann_correct": int((self.reference == self.labels).sum()),
            "correct": curve.correct[-1],
            "agreed": curve.agreed[-1],
            "spikes_per_image": curve.spikes[-1],
            "read_from": snn.schedule.read_from,
            "units": [op.levels for op in neurons_of(snn.graph).values()],
            "calibration_seconds": round(seconds, 1),
            "calibration_processor_seconds": round(processor, 1),
            "seconds": round(time.perf_counter() - begun, 1),
        }


def known(path: Path | None) -> list[dict[str, Any]]:
    """Results of earlier runs."""
    if path is None or not path.is_file():
        return []
    return [
        {"calibrate_on": "own", "budget": 0.0, "budget_by": "layer", **json.loads(line)}
        for line in path.read_text().splitlines()
    ]


def mean(group: list[dict[str, Any]], name: str) -> float:
    """The mean of a figure over results."""
    return float(sum(one[name] for one in group) / len(group))


def table(results: list[dict[str, Any]]) -> str:
    """Markdown, one row per setting, draws taken together."""
    lines = [
        "| network | method | neuron | schedule | T | images | draws | ANN % | SNN % (95 %) | drop | agreement % "
        "| spikes per image | calibration s |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    same = ("network", "method", "neuron", "levels", "wait", "window", "timesteps", "images", "budget", "budget_by")
    drawn = ("calibration_images", "calibrate_on")
    groups: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        groups.setdefault(json.dumps([result[name] for name in same + drawn] + [result["options"]]), []).append(result)
    for group in groups.values():
        first, count = group[0], sum(one["images"] for one in group)
        correct = sum(one["correct"] for one in group)
        low, high = wilson(correct, count)
        ann, snn = 100 * mean(group, "ann_correct") / first["images"], 100 * correct / count
        plan = f"wait {first['wait']}" if first["wait"] else "streaming"
        plan = f"bistable {first['window']}" if first["window"] else plan
        origin = "" if first.get("calibrate_on", "own") == "own" else f", {first['calibrate_on']}"
        left_out = sorted({one.get("read_from", 0) for one in group})
        plan += "" if left_out == [0] else f", leaves out {' or '.join(map(str, left_out))}"
        neuron = first["neuron"] if first["levels"] == 1 else f"{first['neuron']} ({first['levels']} levels)"
        by_channel = " by channel" if first["budget_by"] == "channel" else ""
        neuron += f", +{first['budget']:.0%}{by_channel}" if first["budget"] else ""
        lines.append(
            f"| {first['network']} | {first['method']} ({first['calibration_images']}{origin}) | {neuron} | {plan} "
            f"| {first['timesteps']} | {first['images']} | {len(group)} | {ann:.2f} "
            f"| {snn:.2f} ({low:.2f} to {high:.2f}) | {ann - snn:.2f} "
            f"| {100 * mean(group, 'agreed') / first['images']:.2f} | {mean(group, 'spikes_per_image'):,.0f} "
            f"| {mean(group, 'calibration_seconds'):.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Parse, convert what is not known yet, print."""
    keep_freed_memory()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="+", choices=sorted(MODELS))
    parser.add_argument("--timesteps", nargs="+", type=int, default=[4, 8, 16, 32])
    parser.add_argument("--neurons", nargs="+", default=["if"])
    parser.add_argument("--levels", type=int, default=1, help="units per step (burst, graded)")
    parser.add_argument("--budgets", nargs="+", type=float, default=[0.0], help="shares of units that may be added")
    parser.add_argument("--budget-by", choices=["layer", "channel"], default="layer")
    parser.add_argument("--methods", nargs="+", choices=sorted(METHODS), default=["reconstruct"])
    parser.add_argument("--wait", type=int, default=0)
    parser.add_argument("--window", type=int, default=0, help="steps per window: bistable")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--calibration-images", type=int, default=512)
    parser.add_argument("--calibrate-on", default="own", choices=["own", "cifar10", "cifar100", "synthetic"])
    parser.add_argument("--draws", nargs="+", type=int, default=[0])
    parser.add_argument("--options", type=json.loads, default={}, help="options of the method, as JSON")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="JSON lines; what is there already is not measured again")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    results = known(args.out)
    for name in args.networks:
        bench = Bench(name, args.images)
        asked = itertools.product(args.methods, args.neurons, args.timesteps, args.budgets, args.draws)
        for method, neuron, timesteps, budget, draw in asked:
            key = {"network": name, "method": method, "neuron": neuron, "levels": args.levels, "budget": budget}
            key["budget_by"] = args.budget_by if budget else "layer"
            key |= {"wait": args.wait, "window": args.window, "timesteps": timesteps, "draw": draw}
            key |= {"images": len(bench.judged), "calibration_images": args.calibration_images}
            key |= {"options": args.options, "calibrate_on": args.calibrate_on}
            if any(all(one[part] == key[part] for part in key) for one in results):
                continue
            results.append(bench.convert(key))
            if args.out is not None:
                with args.out.open("a") as file:
                    file.write(json.dumps(results[-1]) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
