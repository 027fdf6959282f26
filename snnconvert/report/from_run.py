"""The report of a conversion, and of a checkpoint measured again: both are what was measured of one network."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from snnconvert.cost.energy_constants import Constants, load_constants
from snnconvert.data.datasets import Dataset
from snnconvert.graph.dialect import calls, class_count, sites
from snnconvert.graph.types import Ann, Snn
from snnconvert.progress import Progress, silent
from snnconvert.report.document import assemble
from snnconvert.report.sections import SECTIONS, made
from snnconvert.simulate.measure import FitCurve
from snnconvert.stages import Outcome
from snnconvert.study.evaluate import Studies, Watchers, rerun


@dataclass(frozen=True)
class Measured:
    """What sections are computed from.

    Attributes:
        snn: the spiking network.
        network: what the report names as its origin: the ANN, or the checkpoint's network where there is none.
        curve: the network over time.
        labelled: whether the images have labels.
        images: source, fingerprint and excluded_calibration of the images.
        data: the images; None without a data set.
        classes: outputs of the network.
        command_line: what the user typed.
        timings: seconds of each stage.
        ann_correct: images that the ANN classifies correctly; None where not known.
        agreed: for each step the images with the ANN's answer; None where not known.
        paired: images that only the ANN, and only the SNN, classifies correctly at the end.
        right: by "ann" and "snn", whether each image is classified correctly at the end.
        watched: what was seen on the first images.
        studies: results of studies by name, and of "chip".
        calibrated_for: steps besides the last that the network was calibrated for.
        constants: the user's own energies.
        comparison: how far the import is from its reference.
        notes: remarks on the images and the measurement.
        warnings: {code, text, hint} of earlier stages.
        next_commands: what to type next.
    """

    snn: Snn
    network: Ann | Snn
    curve: FitCurve
    labelled: bool
    images: Mapping[str, Any]
    data: Dataset | None
    classes: int
    command_line: str
    timings: Mapping[str, float]
    ann_correct: int | None = None
    agreed: Sequence[int | None] | None = None
    paired: tuple[int, int] | None = None
    right: Mapping[str, NDArray[Any]] | None = None
    watched: Studies | None = None
    studies: Mapping[str, Any] = field(default_factory=dict)
    calibrated_for: tuple[int, ...] = ()
    constants: Constants | None = None
    comparison: Mapping[str, Any] | None = None
    notes: Sequence[str] = ()
    warnings: Sequence[Mapping[str, str]] = ()
    next_commands: Sequence[str] = ()

    @property
    def sites(self) -> int:
        """Activations that became neurons."""
        return len(sites(self.network.graph))

    @property
    def parameters(self) -> int:
        """Numbers in the network's tensors."""
        return sum(buffer.numel() for _, op in calls(self.network.graph) for buffer in op.buffers())

    def document(self) -> dict[str, Any]:
        """The report, checked."""
        return assemble({key: value for section in SECTIONS.values() for key, value in section.compute(self).items()})


def document_of(outcome: Outcome, *, command_line: str, next_commands: tuple[str, ...] = ()) -> dict[str, Any]:
    """The report of a conversion."""
    evaluation, inputs, request = outcome.evaluation, outcome.inputs, outcome.request
    record, right = inputs.evaluation_record, evaluation.right
    own = request.energy_constants
    return Measured(
        snn=outcome.snn,
        network=outcome.ann,
        curve=evaluation.curve,
        labelled=bool(record.get("labelled")),
        images={name: record.get(name) for name in ("source", "fingerprint", "excluded_calibration")},
        data=inputs.evaluation,
        classes=outcome.facts.classes,
        command_line=command_line,
        timings=outcome.timings,
        ann_correct=evaluation.ann_correct,
        agreed=evaluation.curve.agreed,
        paired=evaluation.paired,
        right=None if right is None else {"ann": right[0], "snn": right[1]},
        watched=evaluation.studies,
        studies=outcome.studies,
        calibrated_for=request.calibrate_for,
        constants=None if own is None else load_constants(own),
        comparison=outcome.facts.comparison,
        notes=(*inputs.notes, *evaluation.curve.notes),
        next_commands=next_commands,
    ).document()


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
        "text": "The same images gave other answers than when the network was converted.",
        "hint": "Check that the checkpoint and the data are unchanged.",
    }
    excluded = recorded.get("excluded_calibration")
    return Measured(
        snn=snn,
        network=snn,
        curve=curve,
        labelled=data.labels is not None,
        images={"source": source, "fingerprint": fingerprint, "excluded_calibration": excluded},
        data=data,
        classes=class_count(snn.graph),
        command_line=command_line,
        timings={"simulate": taken},
        ann_correct=recorded.get("ann_correct"),
        agreed=recorded.get("agreed"),
        right=None if data.labels is None else {"snn": curve.predictions == data.labels},
        watched=watchers.studies(),
        studies=studies or {},
        constants=constants,
        notes=[note for note in (snn.provenance, *data.notes) if note],
        warnings=[differs] if recorded and recorded.get("correct") != curve.correct else [],
    ).document()


def rerun_document(snn: Snn, curve: FitCurve, *, source: str, labelled: bool, command_line: str) -> dict[str, Any]:
    """The figures of a checkpoint measured on its own, as `snnconvert run --json` prints them."""
    samples = max(curve.samples, 1)
    recorded = snn.evaluation.get("correct")
    return {
        "schema": "snnconvert-run/1",
        "tool": made.tool(command_line),
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
