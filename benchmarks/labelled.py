"""Accuracy of the labelled models of the data pack, ANN against SNN; docs/coverage.md shows the results.

    python benchmarks/labelled.py small --neurons ternary if --timesteps 64 --images 1000
    python benchmarks/labelled.py depthwise --window 3 4 5 6 7 8 --images 1300 --calibration-images 500
    python benchmarks/labelled.py depthwise --method reconstruct --window 6 --windows 2 --calibration-images 500
    python benchmarks/labelled.py depthwise --method reconstruct --neurons ternary if --timesteps 32 64 --images 200
    python benchmarks/labelled.py onepixel_resnet32.onnx --method reconstruct --neurons if --timesteps 64

Models, their data and preprocessing are those of benchmarks/zoo.toml. Calibration images are drawn from the training
images (ImageNet: imagenet_calibration500) without labels; measured are images of the test set, evenly over the classes
(--images 1300: all of imagenet_val1300). T is the total number of steps. Seconds of calibration are
processor time, and wall time as well. One JSON line per conversion goes to
benchmarks/results/labelled.jsonl; what is there is not measured again. Then run benchmarks/coverage.py for the page.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from coverage import labelled_model, pack_rows

from snnconvert.allocator import keep_freed_memory
from snnconvert.calibrate import METHODS, Task
from snnconvert.calibrate.observe import in_canonical_order, observed
from snnconvert.compile.balance import balance, with_identity_sites
from snnconvert.compile.network import compile_network
from snnconvert.convert.passes import canonicalize
from snnconvert.convert.passes.logits import keep_logits
from snnconvert.convert.units import with_units
from snnconvert.errors import SnnConvertError
from snnconvert.graph.schedule import Bistable, Streaming, Wait
from snnconvert.graph.schedule.timing import site_depths
from snnconvert.graph.types import NeuronChoice
from snnconvert.simulate.measure import Batch, measure

RESULTS = Path(__file__).parent / "results" / "labelled.jsonl"
DEPTHWISE = (
    "mobilenet_v1_0.25_128_quant.onnx",
    "mobilenet_v1_0.5_160_quant.onnx",
    "tfjs_mobilenet_v1_0.75_224.onnx",
    "mobilenet_v2_1.0_224_quant.onnx",
)
# what rows that were measured before the option existed leave out
DEFAULTS = {"windows": 1, "threads": 1}


def known() -> list[dict[str, Any]]:
    """Results of earlier runs."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.is_file() else []


class Bench:
    """A model with its calibration images, its test images, and what the ANN says about them."""

    def __init__(self, row: dict[str, Any], images: int, calibration_images: int) -> None:
        opened, calibration, self.images, labels = labelled_model(row, calibration_images, images)
        self.calibration = in_canonical_order(calibration)
        canonical = keep_logits(canonicalize(opened))
        self.ann, self.network = with_units(canonical, self.calibration, way="auto")
        self.labels = labels
        logits = [first.flatten(1) for first, *_ in observed(self.ann.graph, self.images, "")]
        self.reference = torch.cat(logits).argmax(1).numpy()

    def convert(self, key: dict[str, Any]) -> dict[str, Any]:
        """Calibrate and measure; `key` says how."""
        network = self.network
        if key["window"]:
            schedule = Bistable(10**6, 1, window=key["window"])
            network = with_identity_sites(network, schedule)
            depth = max(site_depths(balance(network.graph, schedule)).values())
            total = (depth + 2 * key["windows"] - 1) * key["window"]
            schedule = Bistable(total, depth, window=key["window"])
        else:
            depth, wait = max(site_depths(network.graph).values()), key["wait"]
            schedule = Wait(key["timesteps"], depth, wait=wait) if wait else Streaming(key["timesteps"], depth)
        begun, started = time.process_time(), time.monotonic()
        task = Task(network, self.calibration, schedule, NeuronChoice(key["neuron"], key["levels"]), key["options"])
        calibration = METHODS[key["method"]](task)
        snn = compile_network(calibration)
        calibrated, wall = time.process_time(), time.monotonic() - started
        curve = measure(snn, [Batch(self.images, self.labels, self.reference)], total=len(self.images))
        return {
            **key,
            "calibration_used": calibration.record.get("images", len(self.calibration)),
            "total": schedule.timesteps,
            "ann_correct": int((self.reference == self.labels).sum()),
            "correct": curve.correct[-1],
            "correct_at": {t: curve.correct[t - 1] for t in (8, 16, 32, 64) if t < len(curve.correct)},
            "agreed": curve.agreed[-1],
            "spikes_per_image": round(curve.spikes[-1]),
            "calibration_seconds": round(calibrated - begun, 1),
            "calibration_wall": round(wall, 1),
            "simulation_seconds": round(time.process_time() - calibrated, 1),
        }


def main() -> None:
    """Parse, convert what is not known yet, print."""
    keep_freed_memory()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="files; small: ONNX, not ImageNet; depthwise: the MobileNets")
    parser.add_argument("--neurons", nargs="+", default=["ternary"])
    parser.add_argument("--levels", type=int, default=1, help="units per step (burst, graded)")
    parser.add_argument("--timesteps", nargs="+", type=int, default=[64])
    parser.add_argument("--wait", type=int, default=0, help="steps that each layer waits for the one before")
    parser.add_argument("--window", nargs="+", type=int, default=[], help="bistable, windows of so many steps")
    parser.add_argument("--windows", type=int, default=1, help="windows that every layer sends (bistable)")
    parser.add_argument("--method", choices=sorted(METHODS), default="mse")
    parser.add_argument("--options", type=json.loads, default={}, help="options of the method, as JSON")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--calibration-images", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = {name: row for name, row in pack_rows().items() if "data" in row}
    groups = {
        "small": [name for name, row in rows.items() if row.get("set") != "imagenet" and name.endswith(".onnx")],
        "depthwise": list(DEPTHWISE),
    }
    results = known()
    plans: list[tuple[str, int, int]] = [("if", 0, window) for window in args.window]
    if not args.window:
        plans = [(neuron, timesteps, 0) for neuron in args.neurons for timesteps in args.timesteps]
    for name in [name for one in args.models for name in groups.get(one, [one])]:
        bench: Bench | None = None
        for neuron, timesteps, window in plans:
            key = {"model": name, "method": args.method, "neuron": neuron, "levels": args.levels, "window": window}
            key |= {"timesteps": timesteps, "images": args.images, "calibration_images": args.calibration_images}
            key |= {"options": args.options, "wait": args.wait, "windows": args.windows}
            key |= {"threads": args.threads}
            if any(all(one.get(part, DEFAULTS.get(part, 0)) == key[part] for part in key) for one in results):
                continue
            try:
                bench = bench or Bench(rows[name], args.images, args.calibration_images)
                results.append(bench.convert(key))
            except SnnConvertError as error:
                print(name, error.render().splitlines()[0], flush=True)
                continue
            print(results[-1], flush=True)
            RESULTS.parent.mkdir(exist_ok=True)
            with RESULTS.open("a") as file:
                file.write(json.dumps(results[-1]) + "\n")


if __name__ == "__main__":
    main()
