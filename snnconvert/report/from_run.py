"""Put the report of a conversion together from what the main path left behind."""

from __future__ import annotations

import platform
from dataclasses import asdict
from importlib import metadata
from typing import Any

import torch

from snnconvert.cost.energy import LayerOperations, energy, layer_rows
from snnconvert.cost.energy_constants import Constants, load_constants
from snnconvert.cost.energy_over_time import over_time
from snnconvert.data.datasets import Dataset
from snnconvert.graph.dialect import calls, neurons_of, sites
from snnconvert.graph.schedule.timing import plan
from snnconvert.graph.types import Ann, Snn
from snnconvert.report import wording
from snnconvert.report.document import assemble
from snnconvert.report.outcomes import outcomes
from snnconvert.report.sections import inside_section
from snnconvert.report.statistics import wilson_interval
from snnconvert.simulate.measure import FitCurve
from snnconvert.stages import Outcome
from snnconvert.study.evaluate import Evaluation, Studies
from snnconvert.study.operations import Operations
from snnconvert.study.variants import NetworkForT


def document_of(outcome: Outcome, *, command_line: str, next_commands: tuple[str, ...] = ()) -> dict[str, Any]:
    """The report of a conversion, checked against its schema."""
    curve, snn, inputs = outcome.evaluation.curve, outcome.snn, outcome.inputs
    labelled = bool(inputs.evaluation_record.get("labelled"))
    record = calibration_section(snn)
    if outcome.studies["shift"] is not None:
        record["shift"] = asdict(outcome.studies["shift"])
    notes = [*inputs.notes, *curve.notes]
    used, given = record.get("images"), record["samples"]
    if used is not None and used < given:
        memory = record["options"].get("memory")
        room = "memory" if memory is None else f"{memory:g} GiB (option memory of {record['method']})"
        notes.append(
            f"{used} of the {given} calibration images were used for weights and thresholds: "
            f"more do not fit into {room}"
        )
    precision = precision_section(outcome, labelled=labelled)
    if rounding := wording.precision(precision, snn.schedule.timesteps):
        notes.append(rounding)
    own = outcome.request.energy_constants
    constants = None if own is None else load_constants(own)
    return assemble(
        tool=tool(command_line),
        model=model_section(outcome.ann),
        ann={"correct": outcome.evaluation.ann_correct},
        evaluation={
            "samples": curve.samples,
            "labelled": labelled,
            "source": inputs.evaluation_record["source"],
            "fingerprint": inputs.evaluation_record.get("fingerprint"),
            "excluded_calibration": inputs.evaluation_record.get("excluded_calibration"),
            "classes": outcome.facts.classes,
            "outcomes": outcomes_section(outcome.evaluation, inputs.evaluation),
            "notes": notes,
            **({} if precision is None else {"precision": precision}),
        },
        calibration=record,
        preprocessing=snn.preprocessing,
        schedule=snn.schedule.to_dict(),
        neuron={
            "model": outcome.request.neuron,
            "levels": outcome.request.units,
            "input": outcome.request.input_encoder,
        },
        latency=snn.schedule.latency,
        fit_curve=curve_section(curve, labelled=labelled),
        layers=[layer_row(layer, outcome.request.neuron) for layer in curve.layers],
        candidates=candidate_rows(snn),
        plan=plan(snn) if snn.schedule.staggered else None,
        comparison=outcome.facts.comparison,
        paired=outcome.evaluation.paired,
        early_exit=curve.early_exit,
        ablation=outcome.studies.get("ablation"),
        anytime=anytime_section(outcome, labelled=labelled),
        **study_sections(outcome.evaluation.studies, snn, inputs.evaluation, constants),
        warnings=[],
        timings=outcome.timings,
        next_commands=next_commands,
    )


def anytime_section(outcome: Outcome, *, labelled: bool) -> dict[str, Any] | None:
    """This network read after some steps beside networks for so many steps alone; None where none were made.

    The last row is that of the last step, where a network that serves no other steps is its own.
    """
    networks: tuple[NetworkForT, ...] = outcome.studies.get("networks per T", ())
    if not networks:
        return None
    whole, request = outcome.evaluation.curve, outcome.request
    rows = [
        {
            "t": own.schedule.timesteps,
            "this": point_row(whole, own.schedule.timesteps, labelled=labelled),
            "own": {**point_row(own.curve, own.schedule.timesteps, labelled=labelled), "same": False}
            | {"read_from": own.schedule.read_from},
        }
        for own in networks
    ]
    if rows[-1]["t"] != request.timesteps:
        last = point_row(whole, request.timesteps, labelled=labelled)
        read_from = outcome.snn.schedule.read_from
        rows.append({"t": request.timesteps, "this": last, "own": {**last, "same": True, "read_from": read_from}})
    return {"calibrated_for": sorted({*request.calibrate_for, request.timesteps}), "rows": rows}


def point_row(curve: FitCurve, step: int, *, labelled: bool) -> dict[str, Any]:
    """A curve's figures at `step`, None before its first answer."""
    samples, right, agreed = (
        max(curve.samples, 1),
        curve.correct[step - 1] if labelled else None,
        curve.agreed[step - 1],
    )
    return {
        "accuracy": None if right is None else 100 * right / samples,
        "accuracy_interval": None if right is None else list(wilson_interval(right, samples)),
        "agreement": None if agreed is None else 100 * agreed / samples,
        "spikes_per_image": curve.spikes[step - 1],
    }


def precision_section(outcome: Outcome, *, labelled: bool) -> dict[str, Any] | None:
    """Last answers with rounded weights beside those in float32; None if everything is float32."""
    curve, found = outcome.evaluation.curve, outcome.studies.get("precision")
    if found is None:
        return None
    rounded: FitCurve = found.curve
    samples = max(curve.samples, 1)

    def accuracy(of: FitCurve) -> float | None:
        right = of.correct[-1] if labelled else None
        return None if right is None else 100 * right / samples

    return {
        "name": found.precision,
        "accuracy": accuracy(rounded),
        "float32_accuracy": accuracy(curve),
        "same_answers": 100 * float((rounded.predictions == curve.predictions).sum()) / samples,
        "spikes_per_image": rounded.spikes[-1],
        "float32_spikes_per_image": curve.spikes[-1],
    }


def outcomes_section(evaluation: Evaluation, images: Dataset | None) -> dict[str, Any] | None:
    """Right and wrong image by image; None without labels."""
    if evaluation.right is None or images is None:
        return None
    return outcomes(images.digests(), ann=evaluation.right[0], snn=evaluation.right[1])


def study_sections(
    studies: Studies | None, snn: Snn, images: Dataset | None, constants: Constants | None = None
) -> dict[str, Any]:
    """The sections that come from watching the first images."""
    if studies is None:
        return {}
    found = energy_section(studies.operations, snn, constants) if studies.operations is not None else None
    labels, classes = (None, None) if images is None else (images.labels, images.classes)
    inside = inside_section(studies.inside, labels, classes)
    return {"energy": found, "attribution": studies.attribution, "inside": inside}


def energy_section(counted: Operations, snn: Snn, constants: Constants | None = None) -> dict[str, Any]:
    """The estimate of energy from counted operations, layer by layer and step by step."""
    schedule = snn.schedule
    rows = [
        LayerOperations(
            macs=row.synapses,
            accumulates=row.accumulates,
            multiplies=row.multiplies,
            neurons=row.neurons,
            updates=row.updates,
            spikes=row.spikes,
            weights=row.weights,
            weight_reads=row.weight_reads,
            payload_bits=row.payload_bits,
            padded=row.padded,
        )
        for row in counted.layers
    ]
    largest = max((op.levels for op in neurons_of(snn.graph).values()), default=1)
    section = energy(rows, timesteps=schedule.timesteps, levels=schedule.frames * largest, own=constants)
    answers = [schedule.answer_step(frame) for frame in range(schedule.frames)]
    levels = [largest * max(1, sum(step <= t for step in answers)) for t in range(1, schedule.timesteps + 1)]
    spent = over_time(rows, [count.over_time for count in counted.layers], levels=levels, own=constants)
    layers = [
        {
            "name": count.name,
            "origin": count.origin,
            "ann_multiplications": count.synapses,
            "ann_multiplications_with_padding": count.padded,
            "snn_additions": count.accumulates,
            "snn_multiplications": count.multiplies,
            "neuron_updates": count.updates,
            "spikes": count.spikes,
            **against,
        }
        for count, against in zip(
            counted.layers, layer_rows(rows, timesteps=schedule.timesteps, own=constants), strict=True
        )
    ]
    return {
        **section,
        "images": counted.images,
        "layers": layers,
        "over_time": spent,
        "neurobench": counted.neurobench,
    }


def tool(command_line: str) -> dict[str, Any]:
    """Versions and the command line."""
    return {
        "version": metadata.version("snnconvert"),
        "command_line": command_line,
        "python": platform.python_version(),
        "torch": torch.__version__.split("+")[0],
    }


def model_section(ann: Ann) -> dict[str, Any]:
    """Where the model comes from and how large it is."""
    return {
        "name": ann.source.name,
        "location": ann.source.location,
        "sha256": ann.source.sha256,
        "format": ann.source.format,
        "input_shape": list(ann.input_shape),
        "sites": len(sites(ann.graph)),
        "parameters": sum(buffer.numel() for _, op in calls(ann.graph) for buffer in op.buffers()),
        "notes": list(ann.source.notes),
    }


def calibration_section(snn: Snn) -> dict[str, Any]:
    """How the thresholds were found, without what was tried (see `candidate_rows`)."""
    account = {name: value for name, value in snn.calibration.items() if name not in ("candidates", "schedules")}
    return account if snn.early_exit is None else {**account, "early_exit": asdict(snn.early_exit)}


def candidate_rows(snn: Snn) -> list[dict[str, Any]]:
    """Everything that was tried: schedules, also those that do not fit and why, then the method's own settings."""
    schedules = snn.calibration.get("schedules", [])
    rows = [schedule_row(row) for row in schedules] if len(schedules) > 1 else []
    timesteps = snn.schedule.timesteps
    return rows + [candidate_row(row, timesteps) for row in snn.calibration.get("candidates", [])]


def schedule_row(row: dict[str, Any]) -> dict[str, Any]:
    """A schedule that was tried, or why it could not be."""
    told = {name: row[name] for name in ("window", "first_output", "interval") if row.get(name) is not None}
    return {
        "name": row["name"],
        "eligible": row["eligible"],
        "reason": row.get("reason"),
        "agreement": row.get("agreement"),
        "timesteps": row.get("total"),
        "spikes_per_image": row.get("spikes"),
        "chosen": row["chosen"],
        "options": told,
    }


def candidate_row(row: dict[str, Any], timesteps: int) -> dict[str, Any]:
    """A tried setting: what the report has columns for, and the rest as its options."""
    own = ("name", "eligible", "reason", "agreement", "timesteps", "spikes_per_image", "chosen")
    kept = {name: row[name] for name in own if name in row}
    options = {name: value for name, value in row.items() if name not in own}
    return {"eligible": True, "timesteps": timesteps, "options": options, **kept}


def curve_section(curve: FitCurve, *, labelled: bool) -> dict[str, Any]:
    """The curve in the report's own terms."""
    samples = max(curve.samples, 1)
    section: dict[str, Any] = {
        "timesteps": curve.timesteps,
        "agreement": [None if value is None else 100 * value / samples for value in curve.agreed],
        "spikes_per_image": curve.spikes,
    }
    if labelled:
        section["correct"] = curve.correct
    else:
        section["accuracy"] = [None] * len(curve.timesteps)
    return section


def layer_row(layer: dict[str, Any], neuron: str) -> dict[str, Any]:
    """One layer's row; the bound on K holds for rate codes only."""
    origin = layer["origin"]
    kept = {name: value for name, value in layer.items() if name not in ("origin", "units_per_image")}
    del neuron
    return {**kept, "origin": f"{origin['name']} ({origin['operator']})"}


def rerun_document(snn: Snn, curve: FitCurve, *, source: str, labelled: bool, command_line: str) -> dict[str, Any]:
    """The figures of a checkpoint measured on its own, as `snnconvert run --json` prints them."""
    samples = max(curve.samples, 1)
    recorded = snn.evaluation.get("correct")
    return {
        "schema": "snnconvert-run/1",
        "tool": tool(command_line),
        "model": snn.source.name,
        "evaluation": {"source": source, "samples": curve.samples, "labelled": labelled},
        "latency": snn.schedule.latency,
        "fit_curve": {
            "timesteps": curve.timesteps,
            "accuracy": [None if value is None else 100 * value / samples for value in curve.correct],
            "spikes_per_image": curve.spikes,
        },
        "early_exit": curve.early_exit,
        "notes": list(curve.notes),
        "same_as_conversion": None if recorded is None else bool(recorded == curve.correct),
    }
