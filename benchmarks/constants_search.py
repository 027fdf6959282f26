"""Searches over neurons and schedules, on training images of several networks: ENOUGH, and DRAFT_IMAGES.

    python benchmarks/constants_search.py                 # what is not known yet, and the tables
    python benchmarks/constants_search.py --tables

Every candidate of a search is calibrated (`reconstruct`, training images without labels), ranked on calibration images
as a search does it, and judged on 800 training images that it was not calibrated on, by how often it decides like the
original network. From these rows follows what a search would have chosen had it calibrated its candidates on fewer or
more images, or stopped at another share. Results are kept with those of `constants.py`.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accuracy import Bench
from constants import JUDGED, RESULTS, SEED, spread

from snnconvert.allocator import keep_freed_memory
from snnconvert.calibrate import METHODS, Task
from snnconvert.calibrate.observe import in_canonical_order
from snnconvert.compile.network import compile_network
from snnconvert.graph.schedule import SCHEDULES, Schedule
from snnconvert.graph.types import Ann, NeuronChoice, Snn
from snnconvert.neurons import NEURONS, cheapest_first
from snnconvert.search import candidates, tried
from snnconvert.simulate.measure import Batch, measure

SEARCHES = (
    ("fashion_cnn", 4),
    ("fashion_cnn", 16),
    ("sri_resnet_a", 8),
    ("lenet5", 4),
    ("lenet5", 16),
)
NEURON_NAMES = tuple(model.name for model in cheapest_first())
DRAFTS, FULL, ENOUGHS = (32, 64, 128, 256), 512, (0.95, 0.97, 0.98, 0.99, 0.995, 1.01)


def searched(bench: Bench, steps: int, neurons: tuple[str, ...], count: int) -> Iterator[dict[str, Any]]:
    """Every candidate within `steps`, calibrated on `count` of the images; ranked on calibration images, and judged."""
    images = in_canonical_order(bench.calibration_inputs("own", FULL, 0))
    spent = [0.0]

    def make(network: Ann, schedule: Schedule, neuron: NeuronChoice) -> Snn:
        begun = time.process_time()
        task = Task(network, images[:count], schedule, neuron)
        snn = compile_network(METHODS["reconstruct"](task))
        spent[0] = time.process_time() - begun
        return snn

    choices = tuple(NeuronChoice(neuron, NEURONS[neuron].levels) for neuron in neurons)
    kinds = tuple(SCHEDULES) if neurons == ("if",) else ("streaming", "wait")  # bistable brings its own neuron
    found = candidates(bench.ann, steps, neurons=choices, schedules=kinds)
    for trial in tried(bench.ann, found, make, images):
        if trial.snn is None:
            continue
        curve = measure(trial.snn, [Batch(bench.judged, bench.labels, bench.reference)], total=len(bench.judged))
        yield {
            "candidate": trial.candidate.name if len(neurons) > 1 else f"{neurons[0]}, {trial.candidate.name}",
            "neuron": trial.candidate.neuron.model,
            "ranked": None if trial.value is None else trial.value / 100,
            "steps": trial.snn.schedule.latency["total"],
            "spikes": trial.spikes,
            "agreed": curve.agreed[-1] / len(bench.judged),
            "seconds": round(spent[0], 1),
        }


def search(path: Path, networks: list[str]) -> None:
    """Candidates of every search: binary ones on every number of images, the other neurons on the usual number."""
    known = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    for network, steps in SEARCHES:
        jobs = [(("if",), count) for count in (*DRAFTS, FULL)] + [((neuron,), 128) for neuron in NEURON_NAMES[1:]]
        for neurons, count in jobs:
            key = {"search": network, "timesteps": steps, "neurons": neurons[0], "count": count}
            if network in networks and not any(all(row.get(name) == key[name] for name in key) for row in known):
                bench = Bench(network, JUDGED, held_out=SEED)
                rows = [json.dumps(key | row) + "\n" for row in searched(bench, steps, neurons, count)]
                with path.open("a") as file:
                    file.writelines(rows)


def merit(row: dict[str, Any]) -> tuple[float, float, float]:
    """What a search by last answers alone goes by."""
    return row["ranked"], -row["steps"], -row["spikes"]


def search_tables(path: Path) -> str:
    """What other numbers of draft images and other shares that end a search over neurons would choose."""
    rows = [row for row in map(json.loads, path.read_text().splitlines()) if "search" in row]
    groups = [[row for row in rows if (row["search"], row["timesteps"]) == one] for one in SEARCHES]
    groups = [group for group in groups if {row["count"] for row in group} >= {FULL, *DRAFTS}]
    lines = ["### DRAFT_IMAGES", "", "| images | agreement of the chosen, % | lost to the best | processor s |"]
    lines.append("|--:|--:|--:|--:|")
    for count in (*DRAFTS, FULL):
        chosen, lost, seconds = [], [], 0.0
        for group in groups:
            full = {row["candidate"]: 100 * row["agreed"] for row in group if row["count"] == FULL}
            drafts = [row for row in group if row["count"] == count and row["neuron"] == "if"]
            chosen.append(full[max(drafts, key=merit)["candidate"]])
            lost.append(max(full.values()) - chosen[-1])
            seconds += sum(row["seconds"] for row in drafts)
        lines.append(f"| {count} | {sum(chosen) / len(chosen):.2f} | {spread(lost)[0]:.2f} | {seconds:.0f} |")
    lines += ["", "### ENOUGH", "", "| share | agreement of the chosen, % | spikes per image | candidates | neurons |"]
    lines.append("|--:|--:|--:|--:|---|")
    for enough in ENOUGHS:
        agreed, spikes, tries, models = [], [], 0, []
        for group in groups:
            best: dict[str, Any] | None = None
            for neuron in NEURON_NAMES:
                own = [row for row in group if row["count"] == 128 and row["neuron"] == neuron]
                tries += len(own)
                best = max([*own, *([best] if best else [])], key=merit)
                if best["ranked"] >= enough:
                    break
            assert best is not None
            agreed.append(100 * best["agreed"])
            spikes.append(best["spikes"])
            models.append(best["neuron"])
        named = ", ".join(f"{models.count(one)} {one}" for one in NEURON_NAMES if one in models)
        mean = math.exp(sum(map(math.log, spikes)) / len(spikes))
        lines.append(f"| {enough:g} | {sum(agreed) / len(agreed):.2f} | {mean:,.0f} | {tries} | {named} |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Calibrate the candidates that are not known yet, print the tables."""
    keep_freed_memory()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=[network for network, _ in SEARCHES])
    parser.add_argument("--tables", action="store_true", help="calibrate nothing")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if not args.tables:
        search(RESULTS, args.networks)
    print(search_tables(RESULTS))


if __name__ == "__main__":
    main()
