"""Time to first spike on the labelled models of the data pack (zoo.toml): exact in continuous time, and on slots.

    python benchmarks/first_spikes.py exact                     # every model, all test images; 10 through sorted events
    python benchmarks/first_spikes.py exact --only 'resnet20' --images 1000 --events 2
    python benchmarks/first_spikes.py slots --only 'resnet20' --bits 4 3
    python benchmarks/first_spikes.py rates --only 'resnet20'   # spikes of a neuron against rate code at equal accuracy

Appends JSON lines to results/first_spikes.jsonl; `python benchmarks/first_spikes.py table` prints the tables.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from snnconvert.errors import SnnConvertError
from snnconvert.graph.dialect import neurons_of
from snnconvert.graph.types import Snn
from snnconvert.pipeline import Outcome, Request, run
from snnconvert.simulate.event_engine import EventEngine
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.zoo.manifest import load_manifest

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "first_spikes.jsonl"
ALL = 1_000_000


def outcomes(only: tuple[str, ...], images: int, **changes: Any) -> Iterator[tuple[str, Outcome | str]]:
    """Each model converted, or why it cannot be."""
    for entry in load_manifest(HERE / "zoo.toml").only(only).entries:
        options = {**entry.options, "schedule": "ttfs", "limit": images, "neuron": "if", **changes}
        options.pop("timesteps", None)
        if "timesteps" in changes:
            options["timesteps"] = changes["timesteps"]
        try:
            yield entry.name, run(Request(model=entry.source, **options))
        except SnnConvertError as error:
            yield entry.name, " ".join((error.message, *map(str, error.causes)))


def neurons(snn: Snn) -> int:
    """How many there are; a value of either sign takes two."""
    return sum(math.prod(node.meta["shape"]) * (1 + op.row.negative) for node, op in neurons_of(snn.graph).items())


@torch.inference_mode()
def exact(outcome: Outcome, events: int) -> dict[str, Any]:
    """Decisions against the original network in float64, image by image; some images spike by spike as well."""
    original, engine = outcome.ann.graph.double(), LayerEngine(outcome.snn)
    differing = beyond_differing = 0
    largest, spikes, count = 0.0, 0, 0
    data = outcome.inputs.evaluation
    assert data is not None
    for images, _ in data.batches(16):
        expected = original(images.double())[0].flatten(1)
        seen = engine.run(images)
        made = seen.outputs[0][-1].flatten(1)
        other = made.argmax(1) != expected.argmax(1)
        beyond = engine.beyond[-1]
        differing += int((other & ~beyond).sum())
        beyond_differing += int((other & beyond).sum())
        inside = ~beyond
        if inside.any():
            largest = max(largest, float((made - expected)[inside].abs().max() / expected.abs().max()))
        spikes += sum(int(counts.sum()) for counts in seen.spikes.values())
        count += len(images)
    oracle = {"events": 0, "events_differing": 0, "events_error": 0.0}
    if events:
        images = data.images(range(events))
        (made_by_events, *_), _ = EventEngine(outcome.snn).run(images)
        flat = torch.from_numpy(np.asarray(made_by_events)).flatten(1)
        fast = LayerEngine(outcome.snn).run(images).outputs[0][-1].flatten(1)
        oracle = {
            "events": events,
            "events_differing": int((flat.argmax(1) != fast.argmax(1)).sum()),
            "events_error": float((flat - fast).abs().max() / fast.abs().max()),
        }
    return {
        "images": count,
        "differing": differing,
        "beyond": int(torch.cat(engine.beyond).sum()),
        "beyond_differing": beyond_differing,
        "error": largest,
        "spikes_per_neuron": spikes / count / neurons(outcome.snn),
        **oracle,
    }


def figures(outcome: Outcome) -> dict[str, Any]:
    """Accuracy of both networks and spikes of a neuron, over all images."""
    curve, right = outcome.evaluation.curve, outcome.evaluation.ann_correct
    assert right is not None and curve.correct[-1] is not None
    snn = outcome.snn
    return {
        "images": curve.samples,
        "ann": 100 * right / curve.samples,
        "accuracy": 100 * curve.correct[-1] / curve.samples,
        "timesteps": snn.schedule.timesteps,
        "spikes_per_neuron": curve.spikes[-1] / neurons(snn),
        "calibration": len(outcome.inputs.calibration),
    }


def rate_codes(name: str, slots: Outcome, images: int) -> Iterator[dict[str, Any]]:
    """Binary rate code of growing T until it is as accurate as the first spikes of `slots`."""
    goal = figures(slots)["accuracy"]
    for steps in (4, 8, 16, 24, 32, 48, 64):
        changes = {"schedule": "streaming", "timesteps": steps}
        for _, found in outcomes((name,), images, **changes):
            if isinstance(found, str):
                return
            row = figures(found)
            yield row
            if row["accuracy"] >= goal:
                return


def record(row: Mapping[str, Any]) -> None:
    """Keep a row."""
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print(row, flush=True)


def table() -> None:
    """The last row of each kind, model and number of bits, as Markdown."""
    rows = [json.loads(line) for line in RESULTS.read_text("utf-8").splitlines()]
    last = {(row["kind"], row["model"], row.get("bits"), row.get("timesteps")): row for row in rows}
    print("| model | images | differ | beyond a window (differ) | error | spikes a neuron | events: images (differ) |")
    print("|---|---|---|---|---|---|---|")
    for (kind, model, *_), row in last.items():
        if kind == "exact":
            events = f"{row['events']} ({row['events_differing']})"
            print(
                f"| {model} | {row['images']:,} | {row['differing']} | {row['beyond']} ({row['beyond_differing']}) | "
                f"{row['error']:.0e} | {row['spikes_per_neuron']:.2f} | {events} |"
            )
    print("\n| model | code | T | images | ANN | accuracy | spikes a neuron |")
    print("|---|---|---|---|---|---|---|")
    for (kind, model, *_), row in last.items():
        if kind in ("slots", "rate"):
            code = f"first spike, {2 ** row['bits']} slots" if kind == "slots" else "rate"
            print(
                f"| {model} | {code} | {row['timesteps']} | {row['images']:,} | {row['ann']:.2f} | "
                f"{row['accuracy']:.2f} | {row['spikes_per_neuron']:.3f} |"
            )
    for (kind, model, *_), row in last.items():
        if kind == "refused":
            print(f"\n{model}: {row['why']}")


def main() -> None:
    """One of the parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("exact", "slots", "rates", "table"))
    parser.add_argument("--only", nargs="*", default=())
    parser.add_argument("--images", type=int, default=ALL)
    parser.add_argument("--events", type=int, default=10)
    parser.add_argument("--bits", type=int, nargs="*", default=(4,))
    given = parser.parse_args()
    only = tuple(given.only)
    if given.part == "table":
        table()
        return
    for bits in (None,) if given.part == "exact" else given.bits:
        start = time.perf_counter()
        for name, found in outcomes(only, given.images, time_bits=bits):
            seconds = round(time.perf_counter() - start, 1)
            if isinstance(found, str):
                record({"kind": "refused", "model": name, "why": found})
            elif given.part == "exact":
                record({"kind": "exact", "model": name, **exact(found, given.events), "seconds": seconds})
            else:
                record({"kind": "slots", "model": name, "bits": bits, **figures(found), "seconds": seconds})
                for row in rate_codes(name, found, given.images) if given.part == "rates" else ():
                    record({"kind": "rate", "model": name, **row})
            start = time.perf_counter()


if __name__ == "__main__":
    main()
