"""Accuracy of ImageNet networks with every neuron and budget: the product's own conversion, one JSON line each.

    python benchmarks/large.py squeezenet --neurons if --timesteps 32 64 --budgets 0 0.15
    python benchmarks/large.py mobilenet-v2 --neurons ternary --timesteps 32 --linear auto analog
    python benchmarks/large.py efficientnet-lite0 --neurons graded --levels 15 --timesteps 4
    python benchmarks/large.py table                                  # what is known, as Markdown

Networks are those of benchmarks/conversion_profile.py, calibrated on imagenet_calibration500 without labels and
judged on images of imagenet_val1300, evenly over the classes (efficientnet-lite0 needs two packages: see
wired_networks.py). One thread; seconds are processor time of everything. Lines go to benchmarks/results/large.jsonl;
what is there is not measured again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import time
from pathlib import Path
from typing import Any

from conversion_profile import CASES, DATA, Case
from wired_networks import EFFICIENTNET, efficientnet_lite0

import torch  # isort: skip

from snnconvert.allocator import keep_freed_memory
from snnconvert.api.convert import convert_model

RESULTS = Path(__file__).parent / "results" / "large.jsonl"
NETWORKS = {name: case for name, case in CASES.items() if case.data == "imagenet"}


def model_of(case: Case) -> Any:
    """A file of the data folder, or the network that is none."""
    return efficientnet_lite0() if case.file == EFFICIENTNET else str(DATA / "models" / case.file)


def converted(key: dict[str, Any]) -> dict[str, Any]:
    """One conversion, and what it cost."""
    case = NETWORKS[key["network"]]
    begun = time.process_time()
    options = {"levels": str(key["levels"])}
    if key["budget"]:
        options = {"budget": f"{key['budget']:.0%}", "budget_by": key["budget_by"]}
    made = convert_model(
        model_of(case),
        data=str(DATA / "imagenet_val1300"),
        calibration_data=str(DATA / "imagenet_calibration500"),
        limit=key["images"],
        calibration_samples=key["calibration_images"],
        schedule=key["schedule"],
        linear=key["linear"],
        **{
            **case.preprocessing,
            **case.options,
            **options,
            **key.get("options", {}),
            "neuron": key["neuron"],
            "timesteps": key["timesteps"],
        },
    )
    report = made.report
    curve, energy = report["fit_curve"], report["energy"]["operations"]
    return {
        **key,
        "calibration_used": report["calibration"]["images"],
        "judged": report["evaluation"]["samples"],
        "ann": report["ann"]["accuracy"],
        "snn": curve["accuracy"][-1],
        "interval": curve["accuracy_interval"][-1],
        "difference": report["analysis"]["drop_interval"],
        "agreement": curve["agreement"][-1],
        "spikes_per_image": curve["spikes_per_image"][-1],
        "operations": {name: value for name, value in energy.items() if isinstance(value, (int, float))},
        "units": [layer["units"] for layer in report["layers"]] if key["budget"] else [],
        "processor_seconds": round(time.process_time() - begun, 1),
        "memory_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


def table(results: list[dict[str, Any]]) -> str:
    """Markdown, a row for each conversion."""
    lines = [
        "| network | neuron | T | calibration images | images | ANN % | SNN % (95 %) | points lost | agreement % "
        "| million spikes | processor s | GiB |",
        "|---|---|--:|--:|--:|--:|---|--:|--:|--:|--:|--:|",
    ]
    for one in sorted(results, key=lambda one: [str(one[name]) for name in ("network", "neuron", "linear")]):
        neuron = one["neuron"] if one["levels"] == 1 else f"{one['neuron']}, {one['levels']} units"
        by_channel = " by channel" if one.get("budget_by") == "channel" else ""
        neuron += f", +{one['budget']:.0%} units{by_channel}" if one["budget"] else ""
        neuron += "".join(f", {name} {value}" for name, value in one.get("options", {}).items())
        neuron += {"analog": ", sums analog", "spiking": ", sums as spikes"}.get(one["linear"], "")
        low, high = one["interval"]
        lines.append(
            f"| {one['network']} | {neuron} | {one['timesteps']} | {one['calibration_used']} | {one['judged']:,} "
            f"| {one['ann']:.2f} | {one['snn']:.2f} ({low:.1f} to {high:.1f}) | {one['ann'] - one['snn']:.2f} "
            f"| {one['agreement']:.1f} | {one['spikes_per_image'] / 1e6:.2f} | {one['processor_seconds']:.0f} "
            f"| {one['memory_gib']:.1f} |"
        )
    return "\n".join(lines)


def _asked(one: dict[str, Any], part: str) -> Any:
    """A part of what was asked for a result; older ones do not name all."""
    return one.get(part, {"budget_by": "layer", "options": {}}.get(part))


def main() -> None:
    """Parse, convert what is not known yet, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=[*NETWORKS, "table"])
    parser.add_argument("--neurons", nargs="+", default=["ternary"])
    parser.add_argument("--levels", type=int, default=1, help="units per step (burst, graded)")
    parser.add_argument("--timesteps", nargs="+", type=int, default=[32])
    parser.add_argument("--schedule", default="streaming")
    parser.add_argument("--budgets", nargs="+", type=float, default=[0.0], help="shares of units that may be added")
    parser.add_argument("--budget-by", choices=["layer", "channel"], default="layer")
    parser.add_argument("--linear", nargs="+", default=["auto"], choices=["auto", "analog", "spiking"])
    parser.add_argument("--options", type=json.loads, default={}, help="of the calibration, as JSON")
    parser.add_argument("--images", type=int, default=1300)
    parser.add_argument("--calibration-images", type=int, default=256)
    args = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    known = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.is_file() else []
    if args.network != "table":
        for neuron, timesteps, budget, linear in itertools.product(
            args.neurons, args.timesteps, args.budgets, args.linear
        ):
            key = {"network": args.network, "neuron": neuron, "levels": args.levels, "timesteps": timesteps}
            key |= {"schedule": args.schedule, "budget": budget, "linear": linear, "images": args.images}
            key |= {"calibration_images": args.calibration_images}
            key |= {"budget_by": args.budget_by} if budget else {}
            key |= {"options": args.options} if args.options else {}
            if any(all(_asked(one, part) == key.get(part, {}) for part in (*key, "options")) for one in known):
                continue
            known.append(converted(key))
            print(known[-1], flush=True)
            with RESULTS.open("a") as file:
                file.write(json.dumps(known[-1]) + "\n")
    print(table(known if args.network == "table" else [one for one in known if one["network"] == args.network]))


if __name__ == "__main__":
    main()
