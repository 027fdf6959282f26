"""docs/zoo.md from the matrices of one or two zoo runs over the same manifest.

snnconvert zoo run benchmarks/zoo.toml -o zoo-out -j 2
snnconvert zoo run benchmarks/zoo.toml -o zoo-rnl -j 2 --calibration rnl
python benchmarks/zoo_table.py zoo-out/zoo.json zoo-rnl/zoo.json -o docs/zoo.md
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

Row = dict[str, Any]
COMMANDS = (__doc__ or "").split("\n\n")[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("matrix", nargs="+", type=Path, help="zoo.json of a run; the first one decides the rows")
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/zoo.md"))
    arguments = parser.parse_args()
    if len(arguments.matrix) > 2:
        parser.error("give one or two matrices")
    runs = [json.loads(path.read_text("utf-8")) for path in arguments.matrix]
    arguments.output.write_text(table(runs), "utf-8")


def table(runs: list[dict[str, Any]]) -> str:
    """The page: both calibrations' accuracies side by side, then what each run cost."""
    by_name = [{row["name"]: row for row in run["rows"]} for run in runs]
    names = [method(run) for run in runs]
    lines = [
        "# A zoo of trained networks, converted",
        "",
        "Made by `benchmarks/zoo_table.py` from the runs of",
        "",
        "<!-- not run: needs the data pack, and half an hour -->",
        "```sh",
        *(line.strip() for line in COMMANDS.splitlines()),
        "```",
        "",
        "Top-1 accuracies in percent, drops in points below the original network (ANN) on the same images. T is the",
        "total number of steps, from the first input to the answer. Spikes are per image; energy: that of the spiking",
        "network over the original's in the least favourable comparison that decides. Neurons are binary unless the",
        "schedule names another. Seconds are of one process with one thread, two at a time on two cores.",
        "",
    ]
    heads = ["model", "data", "images", "T", "ANN %"]
    for name in names:
        heads += [f"{name}: SNN %", "drop", "schedule", "spikes", "energy", "seconds"]
    lines += [_line(heads), _line(["---"] * 2 + ["---:"] * (len(heads) - 2))]
    for name, first in by_name[0].items():
        rows = [first, *(found[name] for found in by_name[1:] if name in found)]
        known = next((row["figures"] for row in rows if row["figures"]), {})
        cells = [name, Path(known.get("data") or "").stem, _count(known.get("samples"))]
        cells += [str(known.get("timesteps", "")), _fixed(known.get("ann_accuracy"))]
        for found in by_name:
            cells += figures(found.get(name))
        lines.append(_line(cells))
    lines.append("")
    for run, name in zip(runs, names, strict=True):
        counts = run["counts"]
        clock, work = run["seconds"] / 60, sum(row["seconds"] for row in run["rows"]) / 60
        lines.append(
            f"{name}: {counts['converted']} of {counts['models']} models converted in {clock:.1f} minutes by the clock "
            f"({work:.1f} minutes of all models together).\n"
        )
    for run, name in zip(runs, names, strict=True):
        for row in run["rows"]:
            if row["status"] != "converted":
                lines.append(f"- {row['name']} ({name}): {row['kind']}: {row['reason']}")
    return "\n".join(lines) + "\n"


def method(run: dict[str, Any]) -> str:
    """The calibration method of a run."""
    return next((row["figures"]["method"] for row in run["rows"] if row["figures"]), "not converted")


def figures(row: Row | None) -> list[str]:
    """SNN %, drop, schedule, spikes, energy ratio and seconds."""
    if row is None or not row["figures"]:
        return ["-"] * 6
    found = row["figures"]
    ratio = found["energy_ratio"]
    neuron = "" if found["neuron"] == "if" or found["schedule"] == "bistable" else f", {found['neuron']}"
    return [
        _fixed(found["accuracy"]),
        _fixed(found["drop"]),
        found["schedule"] + neuron,
        _count(found["spikes_per_image"]),
        "" if ratio is None else f"{ratio:.2f}",
        _count(row["seconds"]),
    ]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _fixed(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _count(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


if __name__ == "__main__":
    main()
