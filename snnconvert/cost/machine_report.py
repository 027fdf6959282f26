"""A machine's cost for a network as a document, beside the reference machine and the published figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from snnconvert.cost.engines import Cost, cost
from snnconvert.cost.machines import REFERENCE, UNKNOWN, Machine, load_machine
from snnconvert.cost.workload import LayerWork

RATIOS = ("speed-up", "energy saving", "area saving", "area-time saving")


def ratios(one: Cost, reference: Cost) -> dict[str, float]:
    """How many times less time, energy, area, and area times time `one` takes than `reference`; by RATIOS."""
    pairs = (
        (reference.seconds, one.seconds),
        (reference.joules, one.joules),
        (reference.area, one.area),
        (reference.area_time, one.area_time),
    )
    return {name: whole / part for name, (whole, part) in zip(RATIOS, pairs, strict=True)}


def machine_document(
    machine: Machine, layers: Sequence[LayerWork], *, training: bool, batch: int, images: int
) -> dict[str, Any]:
    """What `snnconvert cost` says of one machine.

    Args:
        images: on which the operations were counted.
    """
    own = cost(machine, layers, training=training, batch=batch)
    reference = cost(load_machine(REFERENCE), layers, training=training, batch=batch)
    return {
        "schema": "snnconvert-cost/1",
        "machine": machine.name,
        "title": machine.title,
        "phase": "training" if training else "inference",
        "batch": batch,
        "images": images,
        "per_sample": _figures(own),
        "reference": {"machine": REFERENCE, **_figures(reference)},
        "ratios": ratios(own, reference),
        "published": [dict(row) for row in machine.published] if training else [],
        "constants": [dict(row) for row in machine.rows],
        "unknown": [row["name"] for row in machine.rows if row.get("provenance") == UNKNOWN],
        "layers": [_layer(one) for one in layers],
        "notes": list(own.notes),
    }


def _figures(found: Cost) -> dict[str, Any]:
    phases = [asdict(phase) for phase in found.phases]
    cycles = None if found.clock is None else found.seconds * found.clock
    for phase in phases:
        phase["cycles"] = None if found.clock is None else phase["seconds"] * found.clock
    return {
        "phases": phases,
        "pipelined": found.pipelined,
        "seconds": found.seconds,
        "cycles": cycles,
        "joules": found.joules,
        "bytes": sum(phase.moved for phase in found.phases),
        "area_mm2": found.area,
        "area_time_mm2_s": found.area_time,
    }


def _layer(one: LayerWork) -> Mapping[str, Any]:
    return {**asdict(one), "density": one.density}
