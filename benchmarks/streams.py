"""A stream of frames: does the next decision gain from the membranes that the last one left?

    python benchmarks/streams.py resnet20 --neurons if ternary --timesteps 2 4 8 --images 500

A frame is a crop of a test image, mirrored at its borders, that moves by one pixel a frame. Each is shown for T steps;
the answer is the mean output of these steps, once from a fresh start and once with the state carried over
(`simulate(x, state=...)`, after the idea of reusing potentials between inputs: CRPI). Networks are calibrated on
training images and read from the first step. Prints a Markdown table; accuracy with a 95 % Wilson interval.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
import torch
from accuracy import MODELS, Bench, wilson
from torch.nn import functional as F

import snnconvert
from snnconvert.calibrate import METHODS, Task
from snnconvert.calibrate.observe import in_canonical_order
from snnconvert.compile.network import compile_network
from snnconvert.graph.types import NeuronChoice

SHIFT = 4


def main() -> None:
    """Parse, simulate, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="+", choices=sorted(MODELS))
    parser.add_argument("--neurons", nargs="+", default=["if", "ternary"])
    parser.add_argument("--timesteps", nargs="+", type=int, default=[2, 4, 8])
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--calibration-images", type=int, default=256)
    args = parser.parse_args()
    print("| network | neuron | T a frame | ANN % | fresh % | carried % | spikes a frame, fresh | carried |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for name in args.networks:
        bench = Bench(name, args.images)
        side = bench.judged.shape[-1]
        wide = F.pad(bench.judged, (SHIFT, SHIFT, 0, 0), mode="reflect")
        crops = [wide[..., at : at + side] for at in np.arange(args.frames) % (2 * SHIFT + 1)]
        with torch.inference_mode():
            known = [bench.ann.graph(crop)[0].argmax(1).numpy() for crop in crops]
        ann = 100 * float(np.mean([(one == bench.labels).mean() for one in known]))
        for neuron in args.neurons:
            for steps in args.timesteps:
                inputs = in_canonical_order(bench.calibration_inputs("own", args.calibration_images, 0))
                plan = bench.schedule(steps, 0, 0)
                task = Task(bench.ann, inputs, plan, NeuronChoice(neuron), {"read_out": False})
                made = compile_network(METHODS["reconstruct"](task))
                snn = snnconvert.SpikingNetwork(**vars(replace(made, calibrated=None)))
                rows = []
                for carried in (False, True):
                    state, right, spikes = None, 0, 0.0
                    for crop in crops:
                        seen = snn.simulate(crop, state=(state or True) if carried else None)
                        state = seen if carried else None
                        right += int((seen.outputs[-1].argmax(1).numpy() == bench.labels).sum())
                        spikes += float(sum(float(by_step.sum()) for by_step in seen.spikes.values()))
                    count = len(crops) * len(bench.labels)
                    low, high = wilson(right, count)
                    rows.append((f"{100 * right / count:.2f} ({low:.2f} to {high:.2f})", spikes / len(crops)))
                (fresh, few), (kept, more) = rows
                print(
                    f"| {name} | {neuron} | {steps} | {ann:.2f} | {fresh} | {kept} | {few:,.0f} | {more:,.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
