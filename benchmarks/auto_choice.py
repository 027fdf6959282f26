"""Whether auto takes the schedule whose answer holds earliest: every candidate calibrated fully, on test images.

    python benchmarks/auto_choice.py                              # all labelled models of the pack, smallest first
    python benchmarks/auto_choice.py snntb_lenet5_98.96 --images 500 --pool 512 --calibration-images 512
    python benchmarks/auto_choice.py --choose-again               # after a change of the rule; calibrates nothing

Models, data and preprocessing are those of benchmarks/zoo.toml, at T = 32 with binary neurons and `--schedule auto`.
For each model the conversion chooses as it always does, on a pool of calibration images, with stand-ins calibrated on
the first of them and compared on the last. Then every candidate that fits is calibrated on more of the pool, and
measured on test images with labels. Steps to hold: those from which a candidate's agreement with the original network
stays as good as the last one of the best candidate, within the error of these images (`search.best_of`). Rivals are the
candidates whose accuracy at the end is not below the 95 % interval of the chosen one's. One JSON line a model goes to
benchmarks/results/auto_choice.jsonl, and what is there is not measured again; answers of stand-ins and networks to
every image are kept in --keep, from which --choose-again makes the choice of another rule. `--table` prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import pickle
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from coverage import labelled_model, pack_rows

from snnconvert.allocator import keep_freed_memory
from snnconvert.calibrate import DRAFT_IMAGES, METHODS, Task
from snnconvert.calibrate.observe import answers, in_canonical_order
from snnconvert.compile.balance import with_identity_sites
from snnconvert.compile.network import compile_network
from snnconvert.convert.passes import canonicalize
from snnconvert.convert.passes.logits import keep_logits
from snnconvert.convert.units import with_units
from snnconvert.errors import SnnConvertError
from snnconvert.graph.types import Snn
from snnconvert.search import JUDGED_BY, RANKING_IMAGES, Trial, best_of, candidates
from snnconvert.simulate.agreement import rank
from snnconvert.tasks import TASKS
from snnconvert.tasks.intervals import paired_drop_interval, wilson_interval
from snnconvert.tasks.scores import scores_of

RESULTS = Path(__file__).parent / "results" / "auto_choice.jsonl"
METHOD = "reconstruct"
METRIC = TASKS["classification"].headline


def judged(row: dict[str, Any], sizes: dict[str, int]) -> dict[str, Any]:
    """Stand-ins as the conversion compares them, and every candidate fully calibrated; nothing is chosen yet."""
    started, pool = time.process_time(), sizes["pool"]
    opened, training, tested, labels = labelled_model(row, pool + sizes["training_images"], sizes["images"])
    training = in_canonical_order(training)
    calibration, further = training[:pool], training[pool:]
    _, network = with_units(keep_logits(canonicalize(opened)), calibration, way="auto")
    found = [one for one in candidates(network, sizes["timesteps"]) if one.schedule is not None]
    count = min(sizes["calibration_images"], len(calibration))
    drafted = min(DRAFT_IMAGES, count)
    seen = torch.cat([calibration[drafted if count < len(calibration) else 0 :], further])
    sets = {"stand-in": seen, "network": tested} | ({"training": further} if len(further) else {})
    references = {name: answers(network, images) for name, images in sets.items()}
    trials: dict[str, list[Trial]] = {name: [] for name in sets}
    correct = []
    for one in found:
        assert one.schedule is not None
        part, made = with_identity_sites(network, one.schedule), dict[int, Snn]()
        for name, images in sets.items():
            number = drafted if name == "stand-in" else count
            if number not in made:
                task = Task(part, calibration[:number], one.schedule, one.neuron, {})
                made[number] = compile_network(METHODS[METHOD](task))
            scores, spikes = rank(made[number], images, references[name])
            steps = tuple(made[number].schedule.answer_steps)
            trials[name].append(Trial(one, scores=scores, spikes=spikes, steps=steps))
            if name == "network":
                correct.append(int((scores.rows["decided"][-1] == labels).sum()))
    return {
        **sizes,
        "images": len(tested),
        "pool": len(calibration),
        "calibration_images": count,
        "training_images": len(further),
        "ann": 100 * float((references["network"] == labels).mean()),
        "candidates": [
            {
                "name": trial.candidate.name,
                "accuracy": 100 * right / len(tested),
                "agreement": trial.value,
                "spikes": trial.spikes,
                "answers": len(trial.steps),
                "steps": trial.steps[-1],
            }
            for trial, right in zip(trials["network"], correct, strict=True)
        ],
        "seconds": round(time.process_time() - started),
        "trials": trials,
    }


def keep(folder: Path, name: str, trials: dict[str, list[Trial]]) -> None:
    """Which images were answered as by the original, at every answer, of all candidates."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.pickle").open("wb") as file:
        pickle.dump(trials, file)


def on_images(trials: list[Trial], part: Any) -> list[Trial]:
    """The same, judged by some of the images."""
    found = []
    for trial in trials:
        assert trial.scores is not None
        scores = scores_of(trial.scores.task)
        scores.rows = {name: values[..., part] for name, values in trial.scores.rows.items()}
        found.append(replace(trial, scores=scores))
    return found


def beside(chosen: Trial, rival: Trial) -> list[float] | None:
    """Points by which the chosen one answers worse at the step from which its rival holds: the 95 % interval.

    None if it has no answer by then.
    """
    assert chosen.scores is not None and rival.scores is not None and rival.holds_from is not None
    given = [index for index, step in enumerate(chosen.steps) if step <= rival.holds_from]
    if not given:
        return None
    own = chosen.scores.rows["agreed"][given[-1]].astype(bool)
    other = rival.scores.rows["agreed"][rival.steps.index(rival.holds_from)].astype(bool)
    return [*paired_drop_interval(int((other & ~own).sum()), int((own & ~other).sum()), len(own))]


def rules(folder: Path, draws: int = 10) -> str:
    """How choices by the error of more images fare on twice as many others: training images alone."""
    lines = [f"{'times':>5}  never holds  steps after the first that holds"]
    loaded = [pickle.loads(path.read_bytes())["stand-in"] for path in sorted(folder.glob("*.pickle"))]
    for times in (0.5, 1.0, 2.0, 4.0):
        draw, late = np.random.default_rng(0), []
        for trials in [one for one in loaded if len(one) > 1] * draws:
            order = draw.permutation(trials[0].scores.inputs)
            few, many = np.split(order, [len(order) // 3])
            (index,) = [i for i, one in enumerate(best_of(on_images(trials, few), METRIC, times)) if one.chosen]
            judged = [one.holds_from for one in best_of(on_images(trials, many), METRIC)]
            late.append((judged[index] or np.inf) - min(step for step in judged if step))
        found = np.array(late)
        lines.append(f"{times:5g}  {np.isinf(found).mean():11.1%}  {found[np.isfinite(found)].mean():.1f}")
    return "\n".join([f"{len(loaded)} models, {draws} draws each", *lines])


def choose_again(folder: Path, known: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with the choice that today's rule makes among the stand-ins, where these were kept."""
    for row in known:
        path = folder / f"{row['model']}.pickle"
        if not path.is_file():
            continue
        with path.open("rb") as file:
            trials = pickle.load(file)
        ranked = len(trials["stand-in"][0].scores.rows["agreed"][0]) - row["training_images"]
        trials["stand-in"] = on_images(trials["stand-in"], slice(max(0, ranked - RANKING_IMAGES), ranked))
        for kind, field, times in (("stand-in", "drafted_from", JUDGED_BY), ("network", "holds_from", 1.0)):
            for entry, trial in zip(row["candidates"], best_of(trials[kind], METRIC, times), strict=True):
                entry[field] = trial.holds_from
                row["chosen"] = trial.candidate.name if kind == "stand-in" and trial.chosen else row.get("chosen")
        found, named = verdict(row), {one.candidate.name: one for one in best_of(trials["network"], METRIC)}
        rival = found["earliest"]
        row["behind"] = beside(named[row["chosen"]], named[rival["name"]]) if rival and not found["met"] else None
    return known


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
        behind = "no answer by then" if row.get("behind") is None else "{:.1f} to {:.1f}".format(*row["behind"])
        cells += [earliest["name"], earliest["holds_from"], "yes" if found["met"] else f"no: {behind}"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    met = [verdict(row)["met"] for row in rows]
    near = sum(
        not one and row.get("behind") is not None and row["behind"][0] <= 0 for one, row in zip(met, rows, strict=True)
    )
    told = (
        f"{sum(met)} of {len(rows)} models: no rival holds earlier than the chosen one; {near} more: at the step from "
    )
    return "\n".join(
        [*lines, "", told + "which the earliest rival holds the chosen one answers as well, within the error."]
    )


def main() -> None:
    """Parse, measure what is not known yet, print."""
    keep_freed_memory()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="names of benchmarks/zoo.toml; without any all")
    parser.add_argument("--timesteps", type=int, default=32)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--pool", type=int, default=512, help="training images that the choice may use")
    parser.add_argument("--calibration-images", type=int, default=256, help="of these, for the networks measured")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no further model after so many")
    parser.add_argument("--training-images", type=int, default=0, help="further ones, to compare rules on")
    parser.add_argument("--keep", type=Path, default=Path("build/auto_choice"), help="folder of all answers")
    parser.add_argument("--choose-again", action="store_true", help="by today's rule, from what was kept")
    parser.add_argument("--rules", action="store_true", help="compare rules on what was kept of training images")
    parser.add_argument("--table", action="store_true", help="print what is known and stop")
    args = parser.parse_args()
    torch.set_num_threads(1)
    known = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.is_file() else []
    if args.choose_again:
        known = choose_again(args.keep, known)
        RESULTS.write_text("".join(json.dumps(row) + "\n" for row in known))
    if args.rules:
        print(rules(args.keep))
        return
    if args.table or args.choose_again:
        print(table(known))
        return
    begun = time.monotonic()
    rows = [{"name": name.rpartition(".")[0], **row} for name, row in pack_rows().items() if "data" in row]
    rows.sort(key=lambda row: (row.get("set") == "imagenet", Path(row["source"]).stat().st_size))
    sizes = {"timesteps": args.timesteps, "images": args.images, "pool": args.pool}
    sizes |= {"calibration_images": args.calibration_images, "training_images": args.training_images}
    for row in rows:
        if (args.models and row["name"] not in args.models) or any(one["model"] == row["name"] for one in known):
            continue
        if time.monotonic() - begun > 60 * args.minutes:
            break
        try:
            found = {"model": row["name"], **judged(row, sizes)}
        except SnnConvertError as error:
            print(row["name"], error.render().splitlines()[0], flush=True)
            continue
        keep(args.keep, row["name"], found.pop("trials"))
        (found,) = choose_again(args.keep, [found])
        known.append(found)
        RESULTS.parent.mkdir(exist_ok=True)
        with RESULTS.open("a") as file:
            file.write(json.dumps(found) + "\n")
        print(table([found]).splitlines()[2], found["seconds"], "s", flush=True)


if __name__ == "__main__":
    main()
