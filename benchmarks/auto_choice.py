"""Whether auto takes the schedule whose answer holds earliest: every candidate calibrated fully, on test images.

    python benchmarks/auto_choice.py                              # all labelled models of the pack, smallest first
    python benchmarks/auto_choice.py lenet5 --images 500 --calibration-images 512

Models, data and preprocessing are those of benchmarks/zoo.toml, at T = 32 with binary neurons and `--schedule auto`.
For each model the conversion chooses as it always does, on calibration images, with stand-ins calibrated on few of
them. Then every candidate that fits is calibrated on all, and measured on test images with labels. Steps to hold:
those from which a candidate's agreement with the original network stays as good as the last one of the best candidate,
within the error of these images (`search.best_of`). Rivals are the candidates whose accuracy at the end is not below
the 95 % interval of the chosen one's. One JSON line a model goes to benchmarks/results/auto_choice.jsonl, and
what is there is not measured again; `--table` prints all of them as Markdown.
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
from snnconvert.calibrate.observe import answers, in_canonical_order
from snnconvert.compile.balance import with_identity_sites
from snnconvert.compile.network import compile_network
from snnconvert.convert.passes import canonicalize
from snnconvert.convert.passes.logits import keep_logits
from snnconvert.convert.units import with_units
from snnconvert.errors import SnnConvertError
from snnconvert.graph.schedule import Schedule
from snnconvert.graph.types import Ann, NeuronChoice, Snn
from snnconvert.search import Candidate, Trial, best_of, candidates, choose
from snnconvert.simulate.agreement import rank
from snnconvert.stages import DRAFT_IMAGES
from snnconvert.tasks.intervals import wilson_interval

RESULTS = Path(__file__).parent / "results" / "auto_choice.jsonl"
METHOD = "reconstruct"


def judged(row: dict[str, Any], *, timesteps: int, images: int, calibration_images: int) -> dict[str, Any]:
    """The choice for one model, and every candidate fully calibrated."""
    started = time.process_time()
    opened, calibration, tested, labels = labelled_model(row, calibration_images, images)
    calibration = in_canonical_order(calibration)
    _, network = with_units(keep_logits(canonicalize(opened)), calibration, way="auto")

    kept: dict[tuple[Schedule, int], Snn] = {}

    def make(part: Ann, schedule: Schedule, neuron: NeuronChoice, count: int) -> Snn:
        key = schedule, min(count, len(calibration))
        if key not in kept:
            kept[key] = compile_network(METHODS[METHOD](Task(part, calibration[:count], schedule, neuron, {})))
        return kept[key]

    def draft(part: Ann, schedule: Schedule, neuron: NeuronChoice) -> Snn:
        return make(part, schedule, neuron, DRAFT_IMAGES)

    found = candidates(network, timesteps)
    fitting = [one for one in found if one.schedule is not None]
    chosen = fitting[0].name
    if len(fitting) > 1:
        (best,) = [trial for trial in choose(network, found, draft, calibration) if trial.chosen]
        chosen = best.candidate.name
    reference, whole, right = answers(network, tested), list[Trial](), list[int]()
    for one in fitting:
        trial, correct = measured(one, make, network, calibration, tested, reference, labels)
        whole.append(trial)
        right.append(correct)
    trials = best_of(whole, network.task.headline)
    return {
        "timesteps": timesteps,
        "images": len(tested),
        "calibration_images": len(calibration),
        "ann": 100 * float((reference == labels).mean()),
        "chosen": chosen,
        "candidates": [
            {
                "name": trial.candidate.name,
                "accuracy": 100 * correct / len(tested),
                "agreement": trial.value,
                "holds_from": trial.holds_from,
                "spikes": trial.spikes,
                "answers": len(trial.steps),
                "steps": trial.steps[-1],
            }
            for trial, correct in zip(trials, right, strict=True)
        ],
        "seconds": round(time.process_time() - started),
    }


def measured(one: Candidate, make: Any, network: Ann, calibration: Any, *test: Any) -> tuple[Trial, int]:
    """A candidate after full calibration on test images, and how many of these it classifies rightly at the end."""
    tested, reference, labels = test
    assert one.schedule is not None
    snn = make(with_identity_sites(network, one.schedule), one.schedule, one.neuron, len(calibration))
    scores, spikes = rank(snn, tested, reference)
    correct = int((scores.rows["decided"][-1] == labels).sum())
    return Trial(one, scores=scores, spikes=spikes, steps=tuple(snn.schedule.answer_steps)), correct


def verdict(row: dict[str, Any]) -> dict[str, Any]:
    """The chosen one beside its rivals."""
    (chosen,) = [one for one in row["candidates"] if one["name"] == row["chosen"]]
    low, _ = wilson_interval(round(chosen["accuracy"] * row["images"] / 100), row["images"])
    rivals = [one for one in row["candidates"] if one is not chosen and one["accuracy"] >= low - 1e-9]
    holding = [one for one in rivals if one["holds_from"] is not None]
    earliest = min(holding, key=lambda one: one["holds_from"], default=None)
    mine = chosen["holds_from"]
    met = earliest is None or (mine is not None and mine <= earliest["holds_from"])
    return {"chosen": chosen, "rivals": len(rivals), "earliest": earliest, "met": met}


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown, one line a model."""
    lines = [
        "| model | ANN % | chosen | % | holds from | answers | rivals | earliest rival | holds from | met |",
        "|---|---:|---|---:|---:|---:|---:|---|---:|---|",
    ]
    for row in rows:
        found = verdict(row)
        chosen, earliest = found["chosen"], found["earliest"] or {"name": "–", "holds_from": "–"}
        cells = [row["model"], f"{row['ann']:.1f}", chosen["name"], f"{chosen['accuracy']:.1f}"]
        cells += [
            chosen["holds_from"] or "never",
            chosen["answers"],
            f"{found['rivals']} of {len(row['candidates']) - 1}",
        ]
        cells += [earliest["name"], earliest["holds_from"], "yes" if found["met"] else "**no**"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    met = sum(verdict(row)["met"] for row in rows)
    return "\n".join([*lines, "", f"{met} of {len(rows)} models: no rival holds earlier than the chosen one."])


def main() -> None:
    """Parse, measure what is not known yet, print."""
    keep_freed_memory()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="names of benchmarks/zoo.toml; without any all")
    parser.add_argument("--timesteps", type=int, default=32)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--calibration-images", type=int, default=256)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no further model after so many")
    parser.add_argument("--table", action="store_true", help="print what is known and stop")
    args = parser.parse_args()
    torch.set_num_threads(1)
    known = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.is_file() else []
    if args.table:
        print(table(known))
        return
    begun = time.monotonic()
    rows = [{"name": name.rpartition(".")[0], **row} for name, row in pack_rows().items() if "data" in row]
    rows.sort(key=lambda row: (row.get("set") == "imagenet", Path(row["source"]).stat().st_size))
    sizes = {"timesteps": args.timesteps, "images": args.images, "calibration_images": args.calibration_images}
    for row in rows:
        if (args.models and row["name"] not in args.models) or any(one["model"] == row["name"] for one in known):
            continue
        if time.monotonic() - begun > 60 * args.minutes:
            break
        try:
            found = {"model": row["name"], **judged(row, **sizes)}
        except SnnConvertError as error:
            print(row["name"], error.render().splitlines()[0], flush=True)
            continue
        known.append(found)
        RESULTS.parent.mkdir(exist_ok=True)
        with RESULTS.open("a") as file:
            file.write(json.dumps(found) + "\n")
        print(table([found]).splitlines()[2], found["seconds"], "s", flush=True)


if __name__ == "__main__":
    main()
