"""The report of a conversion, and of a checkpoint measured again: both are what was measured of one network."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from snnconvert.cost.energy_constants import Constants, load_constants
from snnconvert.data.datasets import Dataset
from snnconvert.graph.dialect import class_count
from snnconvert.graph.types import Snn
from snnconvert.options import Usual
from snnconvert.progress import Progress, silent
from snnconvert.report.document import assemble, plain
from snnconvert.report.measured import Measured
from snnconvert.report.sections import SECTIONS, made
from snnconvert.simulate.measure import FitCurve
from snnconvert.stages import Outcome
from snnconvert.study.evaluate import Evaluation, Watchers, rerun
from snnconvert.tasks.intervals import wilson_interval
from snnconvert.tasks.scores import Curve
from snnconvert.train.finetune import Tuned

DIFFERS = "The same images gave other figures than when the network was converted."


def document_of(outcome: Outcome, *, command_line: str, next_commands: tuple[str, ...] = ()) -> dict[str, Any]:
    """The report of a conversion."""
    evaluation, inputs, request = outcome.evaluation, outcome.inputs, outcome.request
    own, steps = request.energy_constants, request.timesteps
    measured = Measured(
        snn=outcome.snn,
        network=outcome.ann,
        data=inputs.evaluation,
        classes=outcome.facts.classes,
        command_line=command_line,
        timings=outcome.timings,
        noun=inputs.noun,
        studies=outcome.studies,
        asked=steps if outcome.snn.schedule.limited or not isinstance(steps, Usual) else None,
        calibrated_for=request.calibrate_for,
        constants=None if own is None else load_constants(own),
        comparison=outcome.facts.comparison,
        notes=(*inputs.notes, *evaluation.curve.notes),
        next_commands=next_commands,
        **_evaluated(evaluation, inputs.evaluation_record),
    )
    return _document(measured)


def rebuilt_document(
    snn: Snn,
    data: Dataset,
    *,
    source: str,
    command_line: str,
    batch_size: int = 64,
    progress: Progress = silent,
    studies: Mapping[str, Any] | None = None,
    constants: Constants | None = None,
) -> dict[str, Any]:
    """Measure `snn` on `data` and report on it.

    On the images of its own conversion the ANN's accuracy and the agreement come from the checkpoint; on others they
    are null. Causes of error are taken against the network's own limit, because the ANN is not at hand.
    """
    start, watchers = time.perf_counter(), Watchers(snn, None)
    curve = rerun(snn, data, batch_size=batch_size, progress=progress, watchers=watchers.all)
    taken, fingerprint = round(time.perf_counter() - start, 3), data.fingerprint()
    recorded = snn.evaluation if fingerprint == snn.evaluation.get("fingerprint") else {}
    differs = {
        "code": "differs_from_conversion",
        "text": DIFFERS,
        "hint": "Check that the checkpoint and the data are unchanged.",
    }
    excluded = recorded.get("excluded_calibration")
    measured = Measured(
        snn=snn,
        network=snn,
        curve=curve,
        labelled=data.labels is not None,
        images={"source": source, "fingerprint": fingerprint, "excluded_calibration": excluded},
        data=data,
        classes=class_count(snn.graph),
        command_line=command_line,
        timings={"simulate": taken},
        metrics={**_recorded(snn, recorded), **curve.metrics()},
        ann=_recorded_ann(recorded),
        noun=data.noun,
        right={"snn": curve.scores.rows["correct"][-1]} if "correct" in curve.scores.rows else None,
        watched=watchers.studies(),
        studies=studies or {},
        constants=constants,
        notes=[note for note in (snn.provenance, *data.notes) if note],
        warnings=[differs] if as_converted(snn, curve, fingerprint) is False else [],
    )
    return _document(measured)


def tuned_document(tuned: Tuned, *, command_line: str) -> dict[str, Any]:
    """The report of a network that was trained on, with the one before beside it."""
    evaluation, data, snn = tuned.evaluation, tuned.data, tuned.snn
    measured = Measured(
        snn=snn,
        network=tuned.teacher,
        data=data,
        classes=class_count(snn.graph),
        command_line=command_line,
        timings={"train": tuned.record["seconds"]},
        noun=data.noun,
        studies={"training": tuned.record},
        notes=(*tuned.notes, *data.notes, *evaluation.curve.notes),
        **_evaluated(evaluation, snn.evaluation),
    )
    return _document(measured)


def _evaluated(evaluation: Evaluation, record: Mapping[str, Any]) -> dict[str, Any]:
    """What a network's own evaluation says, by fields of `Measured`; `record` is of its images."""
    right = evaluation.right
    return {
        "curve": evaluation.curve,
        "labelled": bool(record.get("labelled")),
        "images": {name: record.get(name) for name in ("source", "fingerprint", "excluded_calibration")},
        "metrics": evaluation.curve.metrics(),
        "ann": evaluation.ann_figures,
        "drop_interval": evaluation.drop_interval,
        "answers": evaluation.answers,
        "paired": evaluation.paired,
        "right": None if right is None else {"ann": right[0], "snn": right[1]},
        "watched": evaluation.studies,
    }


def _recorded(snn: Snn, recorded: Mapping[str, Any]) -> dict[str, Curve]:
    """The metrics that need the ANN, from the conversion's own evaluation."""
    if not recorded:
        return {}
    samples, agreed = recorded["samples"], recorded.get("agreed")
    if snn.task.row.counted and agreed is not None:
        bands = [None if one is None else [*wilson_interval(one, samples)] for one in agreed]
        return {"agreement": Curve([None if one is None else 100.0 * one / samples for one in agreed], bands)}
    return {name: Curve(**curve) for name, curve in recorded.get("metrics", {}).items()}


def _recorded_ann(recorded: Mapping[str, Any]) -> dict[str, float | None]:
    """The ANN's own figures, from the conversion's own evaluation."""
    right = recorded.get("ann_correct")
    return {"accuracy": 100.0 * right / recorded["samples"]} if right is not None else recorded.get("ann", {})


def _document(measured: Measured) -> dict[str, Any]:
    """The report, checked."""
    return assemble({key: value for section in SECTIONS.values() for key, value in section.compute(measured).items()})


def as_converted(snn: Snn, curve: FitCurve, fingerprint: str) -> bool | None:
    """Whether every figure that the checkpoint keeps came out again, to the last bit.

    None where it keeps none of these images, or was compiled again since.

    Args:
        snn: the network that was measured.
        curve: what was measured.
        fingerprint: of the images.
    """
    recorded = snn.evaluation
    if "spikes_per_image" not in recorded or recorded.get("fingerprint") != fingerprint:
        return None
    measured = {
        "samples": curve.samples,
        "correct": curve.correct,
        "spikes_per_image": curve.spikes,
        "early_exit": curve.early_exit,
    }
    kept = recorded.get("metrics", {})
    pairs = [(recorded[name], value) for name, value in measured.items() if name in recorded]
    pairs += [(kept[name], vars(value)) for name, value in curve.metrics().items() if name in kept]
    return all(before == plain(now) for before, now in pairs)


def rerun_document(
    snn: Snn, curve: FitCurve, data: Dataset, *, source: str, command_line: str, same: bool | None
) -> dict[str, Any]:
    """The figures of a checkpoint measured on its own, as `snnconvert run --json` prints them.

    Args:
        data: what was measured on, called `source`.
        same: as `as_converted` says.
    """
    known, unknown = curve.metrics(), [None] * len(curve.timesteps)
    timed = made.step_milliseconds(data)
    return {
        "schema": "snnconvert-run/1",
        "tool": made.tool(command_line),
        "model": snn.source.name,
        "task": {**snn.task.section(), **({"input": data.noun} if timed else {})},
        "evaluation": {"source": source, "samples": curve.samples, "labelled": data.labels is not None},
        "latency": {**snn.schedule.latency, **timed},
        "fit_curve": {
            "timesteps": curve.timesteps,
            "accuracy": unknown,
            **{name: one.values for name, one in known.items()},
            "spikes_per_image": curve.spikes,
        },
        "early_exit": curve.early_exit,
        "notes": list(curve.notes),
        "same_as_conversion": same,
    }
