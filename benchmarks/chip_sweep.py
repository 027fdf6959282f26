"""Accuracy of a checkpoint as a chip's bits shrink: a table over weight bits, membrane bits and T, and a figure.

    python benchmarks/chip_sweep.py resnet20.snn --data cifar10_test.npz --limit 200 \
        --weights 3 4 5 6 8 --states 6 8 10 12 16 --figure docs/chip_sweep.svg

Weights shrink with the widest membranes, and membranes with the widest weights; `snnconvert report --sweep` has the
whole grid. The first row is the network itself, in the fast engine.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snnconvert.compile.integers import SCALES
from snnconvert.cost.chip import pareto, rows_of
from snnconvert.data.selection import images_for
from snnconvert.graph.checkpoint import load_snn
from snnconvert.report.figures import on_paper
from snnconvert.report.sections.chip import sweep_chart
from snnconvert.simulate.integer import IntegerCurve, integer_curve
from snnconvert.study.evaluate import rerun
from snnconvert.tasks.intervals import wilson_interval


def main() -> None:
    """Run the sweep and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--weights", type=int, nargs="+", default=[3, 4, 5, 6, 8])
    parser.add_argument("--states", type=int, nargs="+", default=[6, 8, 10, 12, 16])
    parser.add_argument("--scale-per", choices=SCALES, default=SCALES[0])
    parser.add_argument("--figure", type=Path, help="write the accuracy over T as .svg")
    parser.add_argument("--out", type=Path, help="write every row as JSON")
    args = parser.parse_args()
    torch.set_num_threads(1)
    snn = load_snn(args.checkpoint)
    data = images_for(snn, args.data, args.limit)

    def batches() -> Iterator[tuple[Tensor, NDArray[np.int64]]]:
        for images, labels in data.batches(64):
            assert labels is not None, "labels are needed"
            yield images, np.asarray(labels, np.int64)

    widest = max(args.weights), max(args.states)
    wanted = [widest] + [(bits, widest[1]) for bits in sorted(args.weights)[-2::-1]]
    wanted += [(widest[0], bits) for bits in sorted(args.states)[-2::-1]]
    itself = rerun(snn, data, batch_size=64)
    print("| weight bits | membrane bits | T | right, % | 95 % | spikes per image | saturations per image | shortcut |")
    print("|---|---|--:|--:|--:|--:|--:|--:|")
    last = len(itself.timesteps)
    print(f"| the network itself | | {last} | {share(itself.correct[-1], len(data))} | {itself.spikes[-1]:,.0f} | | |")
    runs: list[dict[str, Any]] = []
    for weight_bits, state_bits in wanted:
        curve = integer_curve(snn, batches(), weight_bits=weight_bits, state_bits=state_bits, scale_per=args.scale_per)
        runs += rows_of(curve)
        print(row(curve, last), flush=True)
        if args.out:
            args.out.write_text(json.dumps(runs, indent=1), "utf-8")
    if args.figure:
        import vl_convert

        spec = sweep_chart(pareto(runs))
        assert spec is not None
        args.figure.write_text(vl_convert.vegalite_to_svg(on_paper(spec)), "utf-8")


def share(correct: int | None, samples: int) -> str:
    """Two cells: percent and its interval."""
    low, high = wilson_interval(correct or 0, samples)
    return f"{100 * (correct or 0) / samples:.1f} | {low:.1f} to {high:.1f}"


def row(curve: IntegerCurve, t: int) -> str:
    """One row; `shortcut`: synapses side by side that the largest factor of an identity shortcut takes."""
    bits = f"{curve.weight_bits} | {curve.state_bits} | {t}"
    right = share(curve.correct[-1], curve.samples)
    return f"| {bits} | {right} | {curve.spikes:,.0f} | {curve.saturations:,.0f} | {curve.shortcut_synapses} |"


if __name__ == "__main__":
    main()
