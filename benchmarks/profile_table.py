"""The last profile that was kept of every network, side by side, as Markdown.

    python benchmarks/conversion_profile.py squeezenet --calibration-samples 256 --limit 300 --keep
    python benchmarks/profile_table.py

A cell has processor seconds and, in brackets, how many values were computed, over those of one pass of the ANN over the
calibration images. Nothing that calibrates on spikes with these kernels falls below the limit: what neurons send on the
calibration images once, the evaluation, and the ANN twice (the largest activations, and what layers are solved for).
"""

from __future__ import annotations

import json
from typing import Any

from conversion_profile import RESULTS

# stages that take less of every network are one row
LEAST = 0.01


def limit(one: dict[str, Any]) -> float:
    """Processor seconds of what cannot be left out."""
    stages = one["stages"]
    return float(stages["neurons that send"][0] + stages["evaluation"][0] + 2 * one["one_pass"])


def table(networks: list[dict[str, Any]]) -> str:
    """A column for each network."""
    totals = [sum(spent for spent, *_ in one["stages"].values()) for one in networks]
    shares = {
        stage: max(one["stages"].get(stage, (0,))[0] / total for one, total in zip(networks, totals, strict=True))
        for one in networks
        for stage in one["stages"]
    }
    shown = [stage for stage, share in sorted(shares.items(), key=lambda row: -row[1]) if share >= LEAST]
    rows: list[tuple[str, list[str]]] = [
        ("neuron, T", [f"{one['neuron']}, {one['timesteps']}" for one in networks]),
        ("calibration, evaluation images", [f"{one['calibration']}, {one['evaluation']:,}" for one in networks]),
    ]
    for stage in shown:
        found = [one["stages"].get(stage, (0.0, 0.0, 0.0)) for one in networks]
        rows.append((stage, [f"{spent:.1f}" + (f" ({made:.1f})" if made >= 0.05 else "") for spent, made, _ in found]))
    rest = [sum(row[0] for stage, row in one["stages"].items() if stage not in shown) for one in networks]
    rows.append((f"what takes less than {LEAST:.0%} everywhere", [f"{one:.1f}" for one in rest]))
    limits = [limit(one) for one in networks]
    rows += [
        ("all", [f"{one:.0f}" for one in totals]),
        ("limit", [f"{one:.0f}" for one in limits]),
        ("all over the limit", [f"{one / least:.1f}" for one, least in zip(totals, limits, strict=True)]),
        ("one pass of the ANN", [f"{one['one_pass']:.2f}" for one in networks]),
        ("values written, GB", [f"{sum(row[2] for row in one['stages'].values()) / 1e9:.0f}" for one in networks]),
        ("at most resident, GiB", [f"{one['gib']:.2f}" for one in networks]),
    ]
    lines = [f"| stage | {' | '.join(one['network'] for one in networks)} |", "|---" + "|--:" * len(networks) + "|"]
    return "\n".join([*lines, *(f"| {name} | {' | '.join(cells)} |" for name, cells in rows)])


def main() -> None:
    """Print the table."""
    known = {one["network"]: one for one in map(json.loads, RESULTS.read_text().splitlines())}
    print(table(list(known.values())))


if __name__ == "__main__":
    main()
