"""The constants of calibration and search, chosen on training images of several networks: what other values would do.

    python benchmarks/constants.py                        # every sweep, what is not known yet, and the tables
    python benchmarks/constants.py LATE_UP_TO rounds      # these only
    python benchmarks/constants.py --tables               # the tables of what is known

Images are training images without labels: 128 to calibrate on, and 800 others, which no network was calibrated on, to
judge by. What counts is how often the spiking network decides like the original one: that is what calibration is for,
and it has less noise than accuracy. Each value of a constant is compared with the one in use on the same network,
neuron, T and images. Of the differences the tables give the mean and standard error over networks, which says what to
expect of another network, and over all pairs of conversions.

All other constants have the value that stands first in their list here, whatever the code says by now. One JSON line
per conversion goes to results/constants.jsonl; what is there already is not measured again.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from accuracy import Bench

from snnconvert.allocator import keep_freed_memory

RESULTS = Path(__file__).parent / "results" / "constants.jsonl"
SEED, JUDGED, CALIBRATION = 2026, 800, 128
Case = dict[str, Any]


def cases(method: str, *runs: tuple[str, int], networks: tuple[str, ...]) -> list[Case]:
    """Streaming conversions: every network with every (neuron, T)."""
    return [
        {"network": network, "method": method, "neuron": neuron, "timesteps": timesteps}
        for network in networks
        for neuron, timesteps in runs
    ]


def windowed(method: str, *runs: tuple[int, int], networks: tuple[str, ...]) -> list[Case]:
    """Bistable conversions: every network with every (steps of a window, number of windows)."""
    return [
        {"network": network, "method": method, "window": window, "windows": count}
        for network in networks
        for window, count in runs
    ]


SMALL = ("fashion_cnn", "onepixel_lenet", "sri_resnet_a")
ALL = (*SMALL, "mlperf_tiny", "lenet5", "resnet20", "simpnet")
CLOSED_LOOP = [
    *cases("reconstruct", ("if", 4), ("ternary", 4), networks=SMALL),
    *cases("reconstruct", ("if", 16), networks=SMALL[:1]),
]
LONG = cases("reconstruct", ("if", 16), ("if", 32), networks=("onepixel_lenet", "mlperf_tiny", "resnet20", "simpnet"))
SIGNED = cases("reconstruct", ("ternary", 8), ("ternary", 16), networks=("mlperf_tiny", "resnet20", "simpnet"))
SITE, WALK = "snnconvert.calibrate.reconstruct_site", "snnconvert.calibrate.reconstruct"
MSE, BISTABLE = "snnconvert.calibrate.mse", "snnconvert.graph.schedule.bistable"


@dataclass(frozen=True)
class Sweep:
    """A constant and the values that are compared.

    Attributes:
        place: the module that it stands in; empty for an option of `--calibration reconstruct`.
        decides: what it is for.
        values: the one in use first.
        judged_on: the conversions.
    """

    place: str
    decides: str
    values: tuple[Any, ...]
    judged_on: list[Case]


SWEEPS = {
    "LATE_UP_TO": Sweep(
        WALK,
        "longest run whose read-out may leave out its first steps",
        (8, 0, 64),
        cases("reconstruct", ("if", 4), ("if", 8), ("if", 16), networks=ALL[:4]),
    ),
    "WORTH": Sweep(
        WALK,
        "how much less error a later first answer has to have",
        (1.02, 1.0, 1.1),
        cases("reconstruct", ("if", 4), ("if", 8), networks=ALL[:4]),
    ),
    "CROSS_VALIDATED": Sweep(
        WALK,
        "most inputs of a read-out judged by cross-validation instead of by held-out images",
        (512, 0),
        CLOSED_LOOP,
    ),
    "SHARE_OF_LEVELS": Sweep(
        MSE,
        "share of its levels that thresholds of a neuron without memory are fitted for",
        (0.5, 0.25, 0.35, 0.7, 1.0),
        [
            *cases("mse", ("if", 4), ("if", 8), ("if", 16), ("if", 32), networks=ALL[:5]),
            *cases("mse", ("if", 8), ("if", 32), networks=ALL[5:]),
            *(one | {"levels": 5} for one in cases("mse", ("burst", 4), ("burst", 8), ("burst", 16), networks=SMALL)),
        ],
    ),
    "REFINEMENT": Sweep(
        BISTABLE,
        "levels of a bistable neuron: those of a window times windows to the power of this",
        (0.5, 0.0, 0.25, 0.75, 1.0),
        windowed("mse", (2, 2), (2, 6), (3, 3), (4, 2), networks=ALL[:5]),
    ),
    "FACTORS": Sweep(
        SITE,
        "of the threshold with the least squared error, tried first",
        (
            (0.5, 0.6, 0.7, 0.8, 0.9, 1.15, 1.3),
            (),
            (0.6, 0.8, 1.25),
            (0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.07, 1.15, 1.22, 1.3, 1.5),
        ),
        CLOSED_LOOP + LONG + SIGNED,
    ),
    "STARTS": Sweep(SITE, "membrane starts tried", ((0.25, 0.75), ()), CLOSED_LOOP),
    "FEW_FRAMES": Sweep(SITE, "most frames for which starts of 0 and 1 are tried too", (4, 0, 64), CLOSED_LOOP),
    "FINE_FACTORS": Sweep(
        SITE,
        "of the threshold, after each correction",
        ((0.85, 0.93, 1.07, 1.15), (), (0.9, 1.1)),
        CLOSED_LOOP + LONG + SIGNED,
    ),
    "FINE_STARTS": Sweep(SITE, "steps of the membrane start, after each correction", ((-0.12, 0.12), ()), CLOSED_LOOP),
    "SHARES": Sweep(
        SITE,
        "of a correction of the weights, tried",
        ((1.0, 0.5, 1.5), (1.0,), (1.0, 0.5), (1.0, 0.5, 1.5, 2.0)),
        CLOSED_LOOP,
    ),
    "PENALTIES of a correction": Sweep(
        SITE,
        "ridge penalties tried for a correction",
        ((0.01, 0.03, 0.1, 0.3, 1.0), (0.1,), (0.01, 0.1, 1.0), (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)),
        CLOSED_LOOP,
    ),
    "PENALTIES of a solution": Sweep(
        WALK,
        "ridge penalties tried for an operator's first solution",
        ((0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0), (0.03,), (0.01, 0.1, 1.0)),
        CLOSED_LOOP,
    ),
    "rounds": Sweep("", "corrections of the weights", (2, 0, 1, 4), CLOSED_LOOP + LONG),
    "held_out": Sweep("", "share of the images that judge", (0.2, 0.1, 0.35), CLOSED_LOOP),
    "rows": Sweep(
        "",
        "output positions, all images together, of every least squares and search",
        (16_384, 8_192, 4_096, 32_768),
        CLOSED_LOOP + LONG,
    ),
    "NOISE": Sweep(
        "snnconvert.capacity",
        "what noise counts where units are given out, beside what brings outputs nearer",
        (0.25, 0.0, 1.0),
        [
            one | {"budget": 0.15}
            for one in (
                *cases("reconstruct", ("if", 4), ("ternary", 4), networks=("resnet20", "mlperf_tiny")),
                *cases("reconstruct", ("if", 16), ("ternary", 8), networks=("simpnet",)),
                *cases("reconstruct", ("if", 4), networks=("sri_resnet_a",)),
            )
        ],
    ),
    "headroom": Sweep("", "least bound, in largest activations seen", (0.0, 0.5, 1.0), CLOSED_LOOP),
    "rate_norm": Sweep("", "also start from the bounds of the Rate Norm Layer", (False, True), CLOSED_LOOP),
}


def settled(constant: str, value: Any, method: str) -> tuple[ExitStack, dict[str, Any]]:
    """Patches that give every constant its first value and `constant` this one, and the options of the method."""
    chosen = {name: sweep.values[0] for name, sweep in SWEEPS.items()} | ({constant: value} if constant else {})
    patches, options = ExitStack(), {}
    # rows are those of the sweep, however long a run is
    patches.enter_context(patch("snnconvert.calibrate.options.ALL_UP_TO", math.inf))
    for name, one in chosen.items():
        place = SWEEPS[name].place
        if place:
            patches.enter_context(patch.object(importlib.import_module(place), name.split()[0], one))
        elif method == "reconstruct":
            options[name] = one
    return patches, options


class Rows:
    """The results: those of earlier runs, and what is added."""

    def __init__(self, path: Path) -> None:
        self.path = path
        stored = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
        self.known = {key_of(row): row for row in stored if "constant" in row}

    def add(self, row: dict[str, Any]) -> None:
        """Keep a result."""
        self.known[key_of(row)] = row
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def key_of(row: dict[str, Any]) -> str:
    """What tells results apart."""
    return json.dumps([row[name] for name in ("constant", "value", "case", "draw")], sort_keys=True)


def jobs(names: list[str], networks: list[str], draws: list[int]) -> Iterator[tuple[str, Any, Case, int]]:
    """Constant, value (the one in use under no name, as all share it), conversion and draw, network by network."""
    found = [
        (name if place else "", value if place else None, case, draw)
        for name in names
        for draw in draws
        for place, value in enumerate(SWEEPS[name].values)
        for case in SWEEPS[name].judged_on
    ]
    for network in networks:
        yield from (job for job in found if job[2]["network"] == network)


def converted(bench: Bench, constant: str, value: Any, case: Case, draw: int) -> dict[str, Any]:
    """One conversion with one constant changed."""
    window = case.get("window", 0)
    steps = case["timesteps"] if not window else (bench.depth + case["windows"]) * window
    patches, options = settled(constant, value, case["method"])
    key = {
        "neuron": "if",
        "levels": 1,
        "budget": 0.0,
        "budget_by": "layer",
        "wait": 0,
        "window": window,
        **case,
        "timesteps": steps,
        "draw": draw,
    }
    with patches:
        row = bench.convert(key | {"calibration_images": CALIBRATION, "calibrate_on": "own", "options": options})
    figures = ("ann_correct", "correct", "agreed", "spikes_per_image", "read_from", "calibration_processor_seconds")
    found = {name: row[name] for name in figures}
    return {"constant": constant, "value": value, "case": case, "draw": draw, "judged": len(bench.judged), **found}


def shown(case: Case) -> str:
    """A conversion in few words."""
    if "window" in case:
        return f"{case['method']}, bistable, {case['windows']} windows of {case['window']}"
    added = f", +{case['budget']:.0%} units" if "budget" in case else ""
    return f"{case['method']}, {case['neuron']}, T = {case['timesteps']}{added}"


def spread(values: list[float]) -> tuple[float, float]:
    """Mean and its standard error."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, math.nan
    return mean, math.sqrt(sum((one - mean) ** 2 for one in values) / (len(values) - 1) / len(values))


def pairs(name: str, value: Any, rows: Rows) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Network, result with the value in use and with `value` (None: the same), of every conversion that has both."""
    for case in SWEEPS[name].judged_on:
        for draw in sorted({json.loads(key)[-1] for key in rows.known}):
            keys = [
                key_of({"constant": name if one is not None else "", "value": plain(one), "case": case, "draw": draw})
                for one in (None, value)
            ]
            if all(key in rows.known for key in keys):
                yield case["network"], rows.known[keys[0]], rows.known[keys[1]]


def table(name: str, rows: Rows) -> str:
    """Markdown: agreement of every network with the value in use, and what other values add to it."""
    sweep = SWEEPS[name]
    networks = list(dict.fromkeys(case["network"] for case in sweep.judged_on))
    head = f"| value | {' | '.join(networks)} | networks | pairs | number | calibration |"
    lines = [f"### {name}", "", f"{sweep.decides[0].upper()}{sweep.decides[1:]}.", "", head]
    lines.append("|---|" + "--:|" * (len(networks) + 4))
    for place, value in enumerate(sweep.values):
        found = list(pairs(name, value if place else None, rows))
        if not found:
            continue
        figures: dict[str, list[float]] = {}
        for network, before, after in found:
            change = after["agreed"] - (before["agreed"] if place else 0)
            figures.setdefault(network, []).append(100 * change / after["judged"])
        means = {network: spread(one)[0] for network, one in figures.items()}
        every = [one for own in figures.values() for one in own]
        shown = [f"{means[one]:{'+.1f' if place else '.1f'}}" if one in means else "" for one in networks]
        changes = ["{:+.2f} ± {:.2f}".format(*spread(one)) if place else "" for one in (list(means.values()), every)]
        before, after = (sum(row[which]["calibration_processor_seconds"] for row in found) for which in (1, 2))
        row = [plainly(value), *shown, *changes, str(len(found)), f"{after / before:.2f}"]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join([*lines, ""])


def plain(value: Any) -> Any:
    """As JSON gives it back."""
    return json.loads(json.dumps(value))


def plainly(value: Any) -> str:
    """As a table shows it."""
    return ", ".join(f"{one:g}" for one in value) or "none" if isinstance(value, tuple) else str(value)


def main() -> None:
    """Convert what is not known yet, print the tables."""
    keep_freed_memory()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("constants", nargs="*", choices=[[], *SWEEPS], default=[])
    parser.add_argument("--networks", nargs="+", choices=ALL, default=list(ALL))
    parser.add_argument("--draws", nargs="+", type=int, default=[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tables", action="store_true", help="convert nothing")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    names = args.constants or list(SWEEPS)
    rows, bench = Rows(RESULTS), None
    for constant, value, case, draw in () if args.tables else jobs(names, args.networks, args.draws):
        job = plain({"constant": constant, "value": value, "case": case, "draw": draw})
        if key_of(job) in rows.known:
            continue
        if bench is None or bench.name != case["network"]:
            bench = Bench(case["network"], JUDGED, held_out=SEED)
        rows.add(plain(converted(bench, constant, value, case, draw)))
    print("\n".join(table(name, rows) for name in names))


if __name__ == "__main__":
    main()
