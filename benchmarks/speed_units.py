"""Time of neurons that send several units a step over ternary neurons', and of these units as neurons of their own.

    python benchmarks/speed_units.py resnet20 snntb --timesteps 8

One thread, 64 images, thresholds by least squares; the shortest processor time of seven runs in turn. A spike of up to
L units takes ceil(log2(L + 1)) planes of bits, each of which ternary spikes could be sent in.
"""

from __future__ import annotations

import argparse
import math
import time

import torch
from accuracy import MODELS, Bench

from snnconvert.allocator import keep_freed_memory
from snnconvert.calibrate import METHODS, Task
from snnconvert.calibrate.observe import in_canonical_order
from snnconvert.compile.added import with_added_neurons
from snnconvert.compile.network import compile_network
from snnconvert.graph.types import NeuronChoice
from snnconvert.simulate.layer_engine import LayerEngine

NEURONS = (("ternary", 1), ("burst", 3), ("graded", 2), ("graded", 3), ("graded", 7), ("graded", 15))
IMAGES, ROUNDS, MOST_ADDED = 64, 7, 3


def measured(name: str, timesteps: int) -> None:
    """Print the rows of one network."""
    bench = Bench(name, IMAGES)
    schedule = bench.schedule(timesteps, 0, 0)
    images = in_canonical_order(bench.calibration_inputs("own", 128, 0))
    engines = {}
    for model, levels in NEURONS:
        calibrated = METHODS["mse"](Task(bench.ann, images, schedule, NeuronChoice(model, levels), {}))
        engines[model, levels, False] = LayerEngine(compile_network(calibrated))
        if 1 < levels <= MOST_ADDED:
            engines[model, levels, True] = LayerEngine(compile_network(with_added_neurons(calibrated)))
    best = dict.fromkeys(engines, math.inf)
    for _ in range(ROUNDS):
        for key, engine in engines.items():
            begun = time.process_time()
            engine.run(bench.judged)
            best[key] = min(best[key], time.process_time() - begun)
    usual = best["ternary", 1, False]
    for (model, levels, added), seconds in best.items():
        planes = math.ceil(math.log2(levels + 1))
        units = f"{levels} units" if not added else f"{levels} neurons of one unit"
        print(
            f"| {name} | {model}, {units} | {seconds:.3f} | {seconds / usual:.2f} | {seconds / usual / planes:.2f} |",
            flush=True,
        )


def main() -> None:
    """Parse and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="+", choices=sorted(MODELS))
    parser.add_argument("--timesteps", type=int, default=8)
    args = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    print("| network | neuron | processor s | over ternary | the same by plane |\n|---|---|--:|--:|--:|")
    for name in args.networks:
        measured(name, args.timesteps)


if __name__ == "__main__":
    main()
