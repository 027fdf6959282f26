"""What a report costs beside the simulation that it describes, in CPU seconds of one process.

    python benchmarks/report_cost.py resnet20.snn --data cifar10_test.npz --limit 1000

Measured in one pass: whatever watches the simulation (fit, operations, causes, single neurons), then putting the
document together, and rendering and writing the page. The rest of the pass is the simulation.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from snnconvert.data.selection import images_for
from snnconvert.graph.checkpoint import load_snn
from snnconvert.report.document import write_report
from snnconvert.report.from_run import rebuilt_document
from snnconvert.simulate import measure
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.simulate.measure import Watcher
from snnconvert.simulate.result import Simulation

spent = {"watching": 0.0, "simulation": 0.0}


def timed_run(engine: LayerEngine, images: Tensor, watchers: Sequence[Watcher]) -> Simulation:
    """As `measure.watched_run`, with a clock around everything that watches."""
    start = time.process_time()
    watching = 0.0
    looking = [(watcher, probe) for watcher in watchers if (probe := watcher.begin(images)) is not None]
    watching += time.process_time() - start

    def each(name: str, by_frame: Tensor) -> None:
        nonlocal watching
        began = time.process_time()
        for _, probe in looking:
            probe(name, by_frame)
        watching += time.process_time() - began

    seen = engine.run(images, each if looking else None)
    ended = time.process_time()
    for watcher, _ in looking:
        watcher.end(seen)
    done = time.process_time()
    watching += done - ended
    spent["watching"] += watching
    spent["simulation"] += done - start - watching
    return seen


def main() -> None:
    """Measure one checkpoint and print a row of a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--limit", type=int)
    args = parser.parse_args()
    torch.set_num_threads(1)
    measure.watched_run = timed_run
    snn = load_snn(args.checkpoint)
    data = images_for(snn, args.data, args.limit)
    with tempfile.TemporaryDirectory() as folder:
        # A first page loads the libraries of charts and templates, as any process does once.
        start = time.process_time()
        document = rebuilt_document(snn, data, source=args.data, command_line="benchmark")
        assembled = time.process_time()
        write_report(document, Path(folder) / "report.html")
        written = time.process_time()
    putting = assembled - start - spent["watching"] - spent["simulation"]
    whole = spent["watching"] + putting + written - assembled
    cells = (
        args.checkpoint.stem,
        f"{len(data):,}",
        str(snn.schedule.timesteps),
        f"{spent['simulation']:.1f}",
        f"{spent['watching']:.1f}",
        f"{putting:.1f}",
        f"{written - assembled:.1f}",
        f"{whole:.1f} ({100 * whole / spent['simulation']:.0f} %)",
    )
    print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
