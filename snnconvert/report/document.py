"""The report as one plain dict, `snnconvert-report/1`: put together, checked, saved and read back.

Every rendering (HTML, terminal, Markdown, CSV) reads this dict and nothing else. `schema.json` is its schema.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from snnconvert.errors import DataError, InternalError, OutputError
from snnconvert.files import write_atomically
from snnconvert.report import statistics
from snnconvert.report.findings import warnings_for

SCHEMA = "snnconvert-report/1"
_MILESTONES = {"within_0.5": 0.5, "within_1": 1.0, "within_2": 2.0}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "model": {"notes": []},
    "ann": {"accuracy": None, "correct": None},
    "evaluation": {"fingerprint": None, "excluded_calibration": None, "classes": None, "outcomes": None, "notes": []},
    "calibration": {"fingerprint": None, "synthetic": False, "options": {}},
    "layer": dict.fromkeys(
        (
            "depth",
            "firing_rate",
            "spikes_per_image",
            "dead_share",
            "saturated_share",
            "sin_share",
            "omega",
            "first_spike",
        )
    )
    | {"fit": []},
}


def assemble(
    *,
    tool: Mapping[str, Any],
    model: Mapping[str, Any],
    ann: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    calibration: Mapping[str, Any],
    preprocessing: Mapping[str, Any],
    schedule: Mapping[str, Any],
    neuron: Mapping[str, Any] | str,
    latency: Mapping[str, Any],
    fit_curve: Mapping[str, Any],
    layers: Sequence[Mapping[str, Any]],
    candidates: Sequence[Mapping[str, Any]] = (),
    comparison: Mapping[str, Any] | None = None,
    energy: Mapping[str, Any] | None = None,
    attribution: Mapping[str, Any] | None = None,
    inside: Mapping[str, Any] | None = None,
    chip: Mapping[str, Any] | None = None,
    early_exit: Mapping[str, Any] | None = None,
    ablation: Mapping[str, Any] | None = None,
    anytime: Mapping[str, Any] | None = None,
    gates: Mapping[str, Any] | None = None,
    plan: Sequence[Mapping[str, Any]] | None = None,
    paired: tuple[int, int] | None = None,
    warnings: Sequence[Mapping[str, str]] = (),
    timings: Mapping[str, float] | None = None,
    next_commands: Sequence[str] = (),
) -> dict[str, Any]:
    """Put a report together and check it.

    Numbers may be Python, NumPy or torch scalars; NaN and infinity become null. What can be derived is derived:
    intervals, milestones, analysis, each layer's bound 2 Omega / t, its violations and slope, and the warnings.

    Args:
        fit_curve: `timesteps` (1..T) with `accuracy` (percent; or `correct`, counts of right answers), `agreement`
            (percent) and `spikes_per_image` (cumulated up to t). None where there is no answer yet.
        paired: images only the ANN, and images only the SNN, classifies correctly at the last step.
        warnings: {code, text} of earlier stages; they come first.

    Raises:
        InternalError: the parts do not make a report; every fault is listed.
    """
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "tool": tool,
        "model": _filled("model", model),
        "ann": _filled("ann", ann),
        "evaluation": _filled("evaluation", evaluation),
        "calibration": _filled("calibration", calibration),
        "preprocessing": preprocessing,
        "schedule": schedule,
        "neuron": neuron,
        "latency": latency,
        "fit_curve": fit_curve,
        "layers": [_filled("layer", layer) for layer in layers],
        "candidates": [{"reason": None, "options": {}, **row} for row in candidates],
        "comparison": comparison,
        "energy": energy,
        "attribution": attribution,
        "inside": inside,
        "chip": chip,
        "early_exit": early_exit,
        "ablation": ablation,
        "anytime": anytime,
        "gates": gates,
        "plan": None if plan is None else [dict(row) for row in plan],
        "timings": timings or {},
        "next_commands": list(next_commands),
    }
    document = plain(document)
    samples = document["evaluation"]["samples"]
    _complete_ann(document["ann"], samples)
    document["fit_curve"] = _complete_curve(document["fit_curve"], document["evaluation"])
    document["layers"] = [_complete_layer(layer) for layer in document["layers"]]
    document |= analyse(document, paired)
    given = plain(list(warnings))
    document["warnings"] = given + [row for row in warnings_for(document) if row not in given]
    check(document)
    return document


def _filled(section: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """What was given, then the defaults of what was not: readers see the caller's order."""
    return {**given, **{key: value for key, value in _DEFAULTS[section].items() if key not in given}}


def analyse(document: Mapping[str, Any], paired: tuple[int, int] | None = None) -> dict[str, Any]:
    """The derived sections `milestones` and `analysis` of a document that has its curve and its ANN accuracy."""
    curve, ann, samples = document["fit_curve"], document["ann"]["accuracy"], document["evaluation"]["samples"]
    times = curve["timesteps"]
    agreement_known = any(value is not None for value in curve["agreement"])
    # A checkpoint measured on new images knows its accuracy, but nothing of the ANN.
    by_accuracy = (ann is not None or not agreement_known) and any(value is not None for value in curve["accuracy"])
    basis = "accuracy" if by_accuracy else "agreement"
    values, target = curve[basis], ann if by_accuracy else 100.0
    milestones: dict[str, Any] = {
        name: None if target is None else statistics.smallest_holding(times, values, target - drop)
        for name, drop in _MILESTONES.items()
    }
    settled = statistics.plateau(times, values)
    fall = statistics.rise_then_fall(times, values, samples)
    known = [index for index, value in enumerate(values) if value is not None]
    best = max(known, key=lambda index: values[index], default=None)
    pair = None
    if paired is not None and samples:
        low, high = statistics.paired_drop_interval(*paired, samples)
        p_value = statistics.mcnemar_exact(*paired)
        pair = {"ann_only": paired[0], "snn_only": paired[1], "p_value": p_value, "drop_interval": [low, high]}
    analysis = {
        "final": _point(curve, ann, known[-1]) if known else None,
        "best": _point(curve, ann, best) if best is not None else None,
        "knee": statistics.knee(times, values),
        "plateau": {"value": settled.value, "reached": settled.reached, "error": settled.error} if settled else None,
        "fall": {"peak_t": fall.peak_t, "peak": fall.peak, "final": fall.final} if fall else None,
        "paired": pair,
    }
    return {"milestones": {**milestones, "basis": basis}, "analysis": plain(analysis)}


def _point(curve: Mapping[str, Any], ann: float | None, index: int) -> dict[str, Any]:
    accuracy = curve["accuracy"][index]
    return {
        "t": curve["timesteps"][index],
        "accuracy": accuracy,
        "agreement": curve["agreement"][index],
        "drop": ann - accuracy if ann is not None and accuracy is not None else None,
        "spikes_per_image": curve["spikes_per_image"][index],
    }


def _complete_ann(ann: dict[str, Any], samples: int) -> None:
    if ann["accuracy"] is None and ann["correct"] is not None and samples:
        ann["accuracy"] = 100.0 * ann["correct"] / samples
    if ann["correct"] is None and ann["accuracy"] is not None:
        ann["correct"] = round(ann["accuracy"] * samples / 100.0)


def _complete_curve(curve: dict[str, Any], evaluation: Mapping[str, Any]) -> dict[str, Any]:
    steps, samples = curve.get("timesteps", []), evaluation["samples"]
    empty: list[Any] = [None] * len(steps)
    correct = curve.pop("correct", None)
    if correct is not None and "accuracy" not in curve and samples:
        curve["accuracy"] = [None if count is None else 100.0 * count / samples for count in correct]
    completed = {"accuracy": empty, "agreement": empty, "spikes_per_image": empty, **curve}
    if "accuracy_interval" not in completed:
        counts = [None if value is None else round(value * samples / 100.0) for value in completed["accuracy"]]
        completed["accuracy_interval"] = [
            None
            if count is None or not 0 <= count <= samples or not samples
            else list(statistics.wilson_interval(count, samples))
            for count in counts
        ]
    return completed


def _complete_layer(layer: dict[str, Any]) -> dict[str, Any]:
    fit, omega = layer["fit"], layer["omega"]
    times = [point["t"] for point in fit]
    if layer.get("bound") is None:
        layer["bound"] = [] if omega is None else [{"t": t, "value": 2.0 * omega / t} for t in times]
    if layer.get("violations") is None:
        bound = {point["t"]: point["value"] for point in layer["bound"]}
        pairs = [(point["t"], point["k"], bound.get(point["t"], 0.0)) for point in fit]
        layer["violations"] = [{"t": t, "ratio": k / b} for t, k, b in pairs if b > 0 and k > b * (1 + 1e-6)]
    if layer.get("slope") is None:
        layer["slope"] = statistics.log_slope(times, [point["k"] for point in fit]) if fit else None
    return layer


def plain(value: Any) -> Any:
    """JSON-able copy: mappings and sequences to dict and list, scalars of NumPy and torch to Python, NaN to None."""
    result: Any = str(value)
    if isinstance(value, Mapping):
        result = {str(key): plain(item) for key, item in value.items()}
    elif value is None or isinstance(value, str | bool):
        result = value
    elif isinstance(value, int | float):
        # Subclasses (IntEnum, numpy.float64) become the plain type.
        result = int(value) if isinstance(value, int) else float(value) if math.isfinite(value) else None
    elif hasattr(value, "tolist"):
        result = plain(value.tolist())
    elif isinstance(value, Sequence | set | frozenset):
        result = [plain(item) for item in value]
    return result


@cache
def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a report."""
    text = resources.files("snnconvert.report").joinpath("schema.json").read_text("utf-8")
    parsed: dict[str, Any] = json.loads(text)
    return parsed


def faults(document: Any) -> list[str]:
    """Everything that keeps `document` from being a report, one line each; empty when it is one."""
    import jsonschema  # type: ignore[import-untyped]

    found = [
        f"{'/'.join(str(step) for step in error.absolute_path) or 'report'}: {error.message[:300]}"
        for error in jsonschema.Draft202012Validator(schema()).iter_errors(document)
    ]
    if found:
        return sorted(found)
    curve, total = document["fit_curve"], document["latency"]["total"]
    length = len(curve["timesteps"])
    if curve["timesteps"] != sorted(set(curve["timesteps"])):
        found.append("fit_curve/timesteps: must increase")
    found += [
        f"fit_curve/{key}: {len(row)} values for {length} timesteps" for key, row in curve.items() if len(row) != length
    ]
    if curve["timesteps"][-1] > total:
        found.append(f"fit_curve/timesteps: ends at {curve['timesteps'][-1]}, after latency/total {total}")
    pair, final = document["analysis"]["paired"], document["analysis"]["final"]
    if pair and final and final["drop"] is not None:
        counted = 100.0 * (pair["ann_only"] - pair["snn_only"]) / document["evaluation"]["samples"]
        if abs(counted - final["drop"]) > 0.01:
            found.append(f"analysis/paired: counts say {counted:.3f} points, the accuracies {final['drop']:.3f}")
    names = [layer["name"] for layer in document["layers"]]
    found += [f"layers: two rows are called {name!r}" for name in sorted({n for n in names if names.count(n) > 1})]
    return found


def check(document: Any) -> None:
    """Raise InternalError, listing every fault, unless `document` is a report."""
    if found := faults(document):
        raise InternalError(f"this is no {SCHEMA} document", causes=tuple(found[:20]))


def dumps(document: Mapping[str, Any]) -> str:
    """The JSON text of a report; equal documents give equal text."""
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def load_report(path: Path) -> dict[str, Any]:
    """Read a report's JSON file.

    Raises:
        DataError: the file is missing, no JSON, or not of this schema.
    """
    hint = f"give the .json file that `snnconvert` wrote beside its HTML report ({SCHEMA})"
    try:
        document = json.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"cannot read the report {path}: {error}", hint=hint) from error
    if found := faults(document):
        raise DataError(f"{path} is no {SCHEMA} document", hint=hint, causes=tuple(found[:5]))
    # Keys that version 1 of the schema has gained are missing in older files.
    result: dict[str, Any] = {
        **dict.fromkeys(("attribution", "inside", "chip", "gates", "plan", "ablation", "anytime")),
        **document,
    }
    result["layers"] = [_filled("layer", layer) for layer in result["layers"]]
    return result


def write_report(document: Mapping[str, Any], html_path: Path) -> list[Path]:
    """Write STEM.html and STEM.json side by side, each whole or not at all; returns both paths.

    Raises:
        OutputError: the folder or one of the files cannot be written; nothing new is left behind.
    """
    from snnconvert.report.render_html import render_html

    html_path = Path(html_path)
    json_path = html_path.with_suffix(".json")
    if json_path == html_path:
        raise OutputError(
            f"the report {html_path} would overwrite its own data", hint="choose a name that ends in .html"
        )
    write_atomically({json_path: dumps(document), html_path: render_html(document)})
    return [html_path, json_path]
