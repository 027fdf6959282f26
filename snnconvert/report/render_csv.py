"""The numbers of a report as CSV: the curve with its energy, one row a timestep; and the layers, one row a layer.

Cells are empty where there is no value. Units are in the column names or those of the report's JSON.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from snnconvert.printable import cell
from snnconvert.report import wording
from snnconvert.report.section import Document
from snnconvert.report.sections.layers import last_error
from snnconvert.tasks import METRICS

_CURVE = ("timestep", "accuracy", "accuracy_low", "accuracy_high", "agreement", "spikes_per_image")
_COUNTS = ("spikes", "snn_additions", "snn_multiplications", "neuron_updates")
_LAYER = ("name", "origin", "depth", "neurons", "channels", "firing_rate", "spikes_per_image", "dead_share")
_LAYER_END = ("saturated_share", "sin_share", "omega", "slope")
_FIRST = ("p10", "p50", "p90", "silent_share")
_ENERGY = ("ann_multiplications", "snn_additions", "snn_multiplications", "neuron_updates", "ratio",
           "spikes_per_synapse", "break_even")  # fmt: skip


def curve_csv(document: Document) -> str:
    """The fit curve; with what was spent up to each step where operations were counted.

    `counted_*` are cumulated per image; `pj_*` energy in picojoule and `ratio_*` SNN over ANN, one pair a comparison.
    """
    curve, spent = document["fit_curve"], (document["energy"] or {}).get("over_time")
    rows = spent["rows"] if spent else []
    names = [wording.slug(f"{row['baseline']} {row['scope']}") for row in rows]
    head = [*_CURVE, *(f"counted_{name}" for name in _COUNTS if spent)]
    head += [f"{kind}_{name}" for name in names for kind in ("pj", "ratio")]
    others = [name for name in METRICS if name in curve and name not in ("accuracy", "agreement")]
    head += [f"{name}{end}" for name in others for end in ("", "_low", "_high")]
    lines = []
    for index, t in enumerate(curve["timesteps"]):
        low, high = curve["accuracy_interval"][index] or (None, None)
        line = [t, curve["accuracy"][index], low, high, curve["agreement"][index], curve["spikes_per_image"][index]]
        if spent:
            line += [spent[name][index] for name in _COUNTS]
        for row in rows:
            line += [row["snn_pj"][index], row["ratio"][index]]
        for name in others:
            line += [curve[name][index], *(curve[METRICS[name].interval][index] or (None, None))]
        lines.append(line)
    return _text(head, lines)


def layers_csv(document: Document) -> str:
    """Every layer: thresholds, rates, shares, first spikes, the error at the last step, operations and energy."""
    counted = {row["name"]: row for row in (document["energy"] or {}).get("layers", [])}
    head = [*_LAYER, "threshold_min", "threshold_median", "threshold_max", *(f"first_spike_{key}" for key in _FIRST)]
    head += [*_LAYER_END, "k_last", *_ENERGY]
    lines = []
    for layer in document["layers"]:
        first, own = layer["first_spike"] or {}, counted.get(layer["name"], {})
        line = [layer[key] for key in _LAYER] + [layer["threshold"][key] for key in ("min", "median", "max")]
        line += [first.get(key) for key in _FIRST] + [layer[key] for key in _LAYER_END]
        lines.append([*line, last_error(layer), *(own.get(key) for key in _ENERGY)])
    return _text(head, lines)


def _text(head: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    for line in lines:
        writer.writerow([_cell(value) for value in line])
    return out.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else cell(value)
