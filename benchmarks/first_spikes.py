"""Time to first spike on the labelled models of the data pack (zoo.toml): exact in continuous time, and on slots.

    python benchmarks/first_spikes.py exact                     # every model, all test images; 10 through sorted events
    python benchmarks/first_spikes.py exact --only 'resnet20' --skip 2000 --images 1000 --events 0
    python benchmarks/first_spikes.py slots --only 'resnet20' --bits 4 3
    python benchmarks/first_spikes.py rates --only 'resnet20'   # spikes of a neuron against rate code at equal accuracy

Appends JSON lines to results/first_spikes.jsonl; `python benchmarks/first_spikes.py table` prints the tables.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snnconvert.allocator import keep_freed_memory
from snnconvert.data.datasets import Dataset
from snnconvert.data.selection import select_inputs
from snnconvert.errors import SnnConvertError
from snnconvert.graph.dialect import neurons_of
from snnconvert.graph.types import Snn
from snnconvert.pipeline import Outcome, Request, run
from snnconvert.simulate.event_engine import EventEngine
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.zoo.manifest import load_manifest

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "first_spikes.jsonl"
ALL = 1_000_000
# float64 convolutions copy their windows, which have to stay in the processor's cache
AT_ONCE = 4
ADDED = ("images", "differing", "beyond", "beyond_differing", "events", "events_differing")


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
def exact(outcome: Outcome, data: Dataset, events: int) -> dict[str, Any]:
    """Decisions against the original network in float64, image by image; some images spike by spike as well.

    Where functions are written as spiking units, the network of these units is the original.
    """
    assert outcome.snn.calibrated is not None
    original, engine = outcome.snn.calibrated.network.graph.double(), LayerEngine(outcome.snn)
    differing = beyond_differing = 0
    largest, spikes, count = 0.0, 0, 0
    for images, _ in data.batches(AT_ONCE):
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
    return {
        "images": count,
        "differing": differing,
        "beyond": int(torch.cat(engine.beyond).sum()),
        "beyond_differing": beyond_differing,
        "error": largest,
        "spikes_per_neuron": spikes / count / neurons(outcome.snn),
        **by_events(outcome.snn, data.images(range(events))),
    }


def by_events(snn: Snn, images: Tensor) -> dict[str, Any]:
    """The closed form against spikes sorted by time: decisions, outputs, and how many spikes each sent."""
    if not len(images):
        return {"events": 0, "events_differing": 0}
    (made, *_), sent = EventEngine(snn).run(images)
    seen = LayerEngine(snn).run(images)
    flat, fast = torch.from_numpy(np.asarray(made)).flatten(1), seen.outputs[0][-1].flatten(1)
    sites = neurons_of(snn.graph)
    return {
        "events": len(images),
        "events_differing": int((flat.argmax(1) != fast.argmax(1)).sum()),
        "events_error": float((flat - fast).abs().max() / fast.abs().max()),
        "events_spikes": sum(len(one.times) for of in sent for one in of.values()),
        "closed_spikes": sum(int(seen.spikes[node.name].sum()) for node in sites),
        "most_spikes": max(int(np.bincount(one.neurons).max(initial=0)) for of in sent for one in of.values()),
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


def pieces_joined(rows: dict[tuple[Any, ...], dict[str, Any]]) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Rows of the same network and other images as one."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for key, row in rows.items():
        name, joined = (key[:-1] if row["kind"] == "exact" else key), dict(row)
        before = found.get(name)
        if before is not None:
            joined |= {one: before[one] + row[one] for one in ADDED}
            joined["error"] = max(before["error"], row["error"])
            per_neuron = [one["images"] * one["spikes_per_neuron"] for one in (before, row)]
            joined["spikes_per_neuron"] = sum(per_neuron) / joined["images"]
        found[name] = joined
    return found


def table() -> None:
    """The last row of each kind, model and number of bits, as Markdown."""
    rows = [json.loads(line) for line in RESULTS.read_text("utf-8").splitlines()]
    names = ("kind", "model", "bits", "timesteps", "calibration", "skip")
    last = {tuple(map(row.get, names)): row for row in rows}
    last = pieces_joined(last)
    print("| model | images | differ | beyond a window (differ) | error | spikes a neuron | events: images (differ) |")
    print("|---|---|---|---|---|---|---|")
    for (kind, model, *_), row in last.items():
        if kind == "exact":
            events = f"{row['events']} ({row['events_differing']})"
            print(
                f"| {model} | {row['images']:,} | {row['differing']} | {row['beyond']} ({row['beyond_differing']}) | "
                f"{row['error']:.0e} | {row['spikes_per_neuron']:.2f} | {events} |"
            )
    print("\n| model | code | T | calibration images | images | ANN | accuracy | spikes a neuron |")
    print("|---|---|---|---|---|---|---|---|")
    for (kind, model, *_), row in last.items():
        if kind in ("slots", "rate"):
            code = f"first spike, {2 ** row['bits']} slots" if kind == "slots" else "rate"
            print(
                f"| {model} | {code} | {row['timesteps']} | {row['calibration']:,} | {row['images']:,} | "
                f"{row['ann']:.2f} | {row['accuracy']:.2f} | {row['spikes_per_neuron']:.3f} |"
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
    parser.add_argument("--skip", type=int, default=0, help="exact: leave out the images before; tables add the pieces")
    parser.add_argument("--events", type=int, default=10)
    parser.add_argument("--bits", type=int, nargs="*", default=(4,))
    parser.add_argument("--calibration", type=int, help="calibration images, if not as many as zoo.toml says")
    given = parser.parse_args()
    only = tuple(given.only)
    keep_freed_memory()
    os.chdir(HERE)  # what the paths of a manifest start from
    if given.part == "table":
        table()
        return
    for bits in (None,) if given.part == "exact" else given.bits:
        start = time.perf_counter()
        asked = AT_ONCE if given.part == "exact" else given.images  # a conversion measures on float32; here is no need
        more = {} if given.calibration is None else {"calibration_samples": given.calibration}
        for name, found in outcomes(only, asked, time_bits=bits, **more):
            seconds = round(time.perf_counter() - start, 1)
            if isinstance(found, str):
                record({"kind": "refused", "model": name, "why": found})
            elif given.part == "exact":
                data = select_inputs(found.ann, replace(found.request, limit=None)).evaluation
                assert data is not None
                row = exact(found, data.subset(range(len(data))[given.skip :][: given.images]), given.events)
                row |= {"skip": given.skip, "seconds": round(time.perf_counter() - start, 1)}
                record({"kind": "exact", "model": name, **row})
            else:
                record({"kind": "slots", "model": name, "bits": bits, **figures(found), "seconds": seconds})
                for row in rate_codes(name, found, given.images) if given.part == "rates" else ():
                    record({"kind": "rate", "model": name, **row})
            start = time.perf_counter()


if __name__ == "__main__":
    main()
