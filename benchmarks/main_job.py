"""The main job on real pretrained networks: ANN and SNN accuracy of every model in TABLE, all test images.

    python benchmarks/main_job.py                      # every row; about half an hour on two cores
    python benchmarks/main_job.py resnet20 --limit 500 # one row, a sample
    python benchmarks/main_job.py --converge           # logits against the clipped ANN as T grows

Needs the data pack (SNNCONVERT_DATA). Appends a JSON line per run to benchmarks/results/main_job.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import torch

from snnconvert.data.preprocessing import Preprocessing
from snnconvert.pipeline import Request, run

DATA = Path(os.environ.get("SNNCONVERT_DATA", Path(__file__).parents[2] / "shared" / "data"))
RESULTS = Path(__file__).parent / "results" / "main_job.jsonl"
IMAGENET = {"mean": "0.485,0.456,0.406", "std": "0.229,0.224,0.225", "scale": "255"}
CIFAR_STD = {"mean": "0.4914,0.4822,0.4465", "std": "0.2471,0.2435,0.2616", "scale": "255"}
CIFAR100 = {"mean": "0.5071,0.4867,0.4408", "std": "0.2675,0.2565,0.2761", "scale": "255"}

# name: (file, data set, preprocessing, ANN accuracy stated by the data pack)
TABLE: dict[str, tuple[str, str, dict[str, str], float]] = {
    "resnet20": ("resnet20-12fca82f.th", "cifar10", IMAGENET, 91.69),
    "snntb_cifar10": ("snntb_cifar10_83.62.onnx", "cifar10", {"scale": "255"}, 83.62),
    "mlperf_tiny_resnet": ("mlperf_tiny_pretrainedResnet.onnx", "cifar10", {"scale": "1"}, 87.22),
    "sri_resnet_a": ("sri_resnet_a.onnx", "cifar10", CIFAR_STD, 79.90),
    "snntb_lenet5": ("snntb_lenet5_98.96.onnx", "mnist", {"scale": "255"}, 98.96),
    "simpnet_cifar100": ("simpnet_slim310k_cifar100.onnx", "cifar100", CIFAR100, 64.00),
}


def request(name: str, **options: object) -> Request:
    """The conversion of one row."""
    file, data, preprocessing, _ = TABLE[name]
    arch = f"{DATA / 'models' / 'resnet_cifar.py'}:{name}" if file.endswith(".th") else None
    return Request(
        model=str(DATA / "models" / file),
        arch=arch,
        data=str(DATA / f"{data}_test.npz"),
        calibration_data=str(DATA / f"{data}_train_small.npz"),
        preprocessing=Preprocessing.from_dict(preprocessing),
        **options,  # type: ignore[arg-type]
    )


def record(name: str, method: str, timesteps: int, limit: int | None, neuron: str) -> dict[str, object]:
    """Convert and measure; a JSON-able row."""
    start = time.perf_counter()
    options = {"calibration": method, "timesteps": timesteps, "limit": limit, "neuron": neuron, "schedule": "streaming"}
    outcome = run(request(name, **options))
    curve, n = outcome.evaluation.curve, outcome.evaluation.curve.samples
    steps = [t for t in (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128) if t <= timesteps]
    correct = outcome.evaluation.ann_correct
    return {
        "model": name,
        **options,
        "samples": n,
        "ann": 100 * correct / n if correct is not None else None,
        "stated": TABLE[name][3],
        "snn": {t: 100 * (curve.correct[t - 1] or 0) / n for t in steps},
        "agreement": 100 * (curve.agreed[-1] or 0) / n,
        "spikes_per_image": curve.spikes[-1],
        "timings": outcome.timings,
        "seconds": round(time.perf_counter() - start, 1),
    }


def converge(limit: int = 200) -> dict[str, object]:
    """Relative error of ResNet-20's mean logits against its clipped ANN, for T up to 1024."""
    from snnconvert.calibrate.rate_norm import clipped
    from snnconvert.convert.passes import canonicalize
    from snnconvert.graph.dialect import sites
    from snnconvert.simulate.layer_engine import LayerEngine

    errors = {}
    for timesteps in (32, 64, 128, 256, 512, 1024):
        outcome = run(
            request(
                "resnet20",
                timesteps=timesteps,
                limit=limit,
                schedule="streaming",
                calibration="rnl",
                options={"p": 0.7},
            )
        )
        snn, ann = outcome.snn, canonicalize(outcome.ann)
        assert outcome.inputs.evaluation is not None
        images = outcome.inputs.evaluation.images()
        bounds = {node.name: snn.graph.get_submodule(node.name).threshold for node, _ in sites(ann.graph)}
        with torch.inference_mode():
            limit_logits = clipped(ann.graph, bounds)(images)[0]
        engine, total = LayerEngine(snn), []
        for start in range(0, len(images), 4):
            total.append(engine.run(images[start : start + 4]).outputs[0][-1] / timesteps)
        error = float((torch.cat(total) - limit_logits).norm() / limit_logits.norm())
        errors[timesteps] = error
        print(f"T = {timesteps:5d}   relative error {error:.5f}   error x T {error * timesteps:.2f}", flush=True)
    return {"model": "resnet20", "converge": errors, "samples": limit}


def main() -> None:
    """Run the rows that were named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*TABLE, []], default=[])
    parser.add_argument("--methods", default="rnl,mse")
    parser.add_argument("--neuron", default="if")
    parser.add_argument("--timesteps", type=int, default=32)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--converge", action="store_true")
    wanted = parser.parse_args()
    RESULTS.parent.mkdir(exist_ok=True)
    rows = [converge()] if wanted.converge else []
    for name in [] if wanted.converge else (wanted.names or TABLE):
        for method in wanted.methods.split(","):
            rows.append(record(name, method, wanted.timesteps, wanted.limit, wanted.neuron))
            print(json.dumps(rows[-1]), flush=True)
    with RESULTS.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


if __name__ == "__main__":
    main()
