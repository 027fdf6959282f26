"""What a network has spent up to each step: events, operations, and the energy by each of the comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snnconvert.cost.energy import NETWORK, LayerOperations, activation_bits, compared
from snnconvert.cost.energy_constants import Constants, default_constants

MATCHED = "ANN of equal capacity"
_COUNTS = {
    "spikes": "spikes",
    "snn_additions": "accumulates",
    "snn_multiplications": "multiplies",
    "neuron_updates": "updates",
}


def over_time(
    rows: Sequence[LayerOperations],
    series: Sequence[Mapping[str, Sequence[float]]],
    *,
    levels: Sequence[int],
    own: Constants | None = None,
) -> dict[str, Any]:
    """The field `energy.over_time` of a report.

    Args:
        rows: the layers' operations over all steps.
        series: for each layer accumulates, weight_reads, multiplies, updates and spikes of each step alone, (T,).
        levels: values that an answer after each step can take; decides the width of the ANN of equal capacity.
        own: the user's constants, which then take the place of the default ones.

    Returns:
        `timesteps`, cumulated counts per image, and `rows` of baseline, scope, snn_pj, ann_pj and ratio, each a value
        a step.
    """
    steps = len(levels)
    cumulated = [{name: np.cumsum(values) for name, values in layer.items()} for layer in series]
    lines: dict[tuple[str, str], dict[str, Any]] = {}
    for index in range(steps):
        now = [_until(row, layer, index) for row, layer in zip(rows, cumulated, strict=True)]
        bits = activation_bits(levels[index])
        for found in compared(now, own or default_constants(), index + 1, bits):
            if found["scope"] == NETWORK:
                continue
            eight = found["baseline"].startswith(("fp32", "INT8"))
            names = [found["baseline"]] if eight else [MATCHED]
            # At 8 bits the INT8 ANN is the ANN of equal capacity.
            names += [MATCHED] if bits == 8 and found["baseline"].startswith("INT8") else []
            for name in names:
                line = lines.setdefault((name, found["scope"]), {"snn_pj": [], "ann_pj": [], "ratio": []})
                for key, values in line.items():
                    values.append(found[key])
    return {
        "timesteps": list(range(1, steps + 1)),
        **{name: sum(layer[own_name] for layer in cumulated).tolist() for name, own_name in _COUNTS.items()},  # type: ignore[union-attr]
        "rows": [{"baseline": name, "scope": scope, **line} for (name, scope), line in lines.items()],
    }


def _until(row: LayerOperations, layer: Mapping[str, NDArray[np.float64]], index: int) -> LayerOperations:
    """What a layer has done up to and including step `index`."""
    done: dict[str, Any] = {name: float(values[index]) for name, values in layer.items()}
    return replace(row, **done)
