"""The report of a checkpoint measured again, without the network that it was made from."""

from __future__ import annotations

import time
from typing import Any

from snnconvert.cost.energy_constants import Constants
from snnconvert.data.datasets import Dataset
from snnconvert.graph.dialect import calls, class_count, neurons_of
from snnconvert.graph.schedule.timing import plan
from snnconvert.graph.types import Snn
from snnconvert.progress import Progress, silent
from snnconvert.report.document import assemble
from snnconvert.report.from_run import (
    calibration_section,
    candidate_rows,
    curve_section,
    layer_row,
    study_sections,
    tool,
)
from snnconvert.report.outcomes import outcomes
from snnconvert.study.evaluate import Watchers, rerun


def neuron_section(snn: Snn) -> dict[str, Any]:
    """The models of a network's neurons, and the most units that one of them may send a step."""
    neurons = list(neurons_of(snn.graph).values())
    return {"model": ", ".join(sorted({op.model for op in neurons})), "levels": max(op.levels for op in neurons)}


def rebuilt_document(
    snn: Snn,
    data: Dataset,
    *,
    source: str,
    command_line: str,
    batch_size: int = 64,
    progress: Progress = silent,
    sections: dict[str, Any] | None = None,
    constants: Constants | None = None,
) -> dict[str, Any]:
    """Measure `snn` on `data` and put a report together.

    On the images of its own conversion the ANN's accuracy and the agreement come from the checkpoint; on others they
    are null. Causes of error are taken against the network's own limit, because the ANN is not at hand.
    """
    start, watchers = time.perf_counter(), Watchers(snn, None)
    curve = rerun(snn, data, batch_size=batch_size, progress=progress, watchers=watchers.all)
    taken = round(time.perf_counter() - start, 3)
    digests = data.digests()
    recorded, labels = snn.evaluation, data.labels
    fingerprint = data.fingerprint()
    same = fingerprint == recorded.get("fingerprint")
    section = curve_section(curve, labelled=labels is not None)
    section["agreement"] = [None] * len(curve.timesteps)
    if same and recorded.get("agreed"):
        section["agreement"] = [None if n is None else 100 * n / curve.samples for n in recorded["agreed"]]
    right = None if labels is None else curve.predictions == labels
    warnings = []
    if same and recorded.get("correct") != curve.correct:
        warnings.append(
            {
                "code": "differs_from_conversion",
                "text": "The same images gave other answers than when the network was converted.",
                "hint": "Check that the checkpoint and the data are unchanged.",
            }
        )
    neurons = list(neurons_of(snn.graph).values())
    return assemble(
        tool=tool(command_line),
        model={
            "name": snn.source.name,
            "location": snn.source.location,
            "sha256": snn.source.sha256,
            "format": snn.source.format,
            "input_shape": list(snn.input_shape),
            "sites": len(neurons),
            "parameters": sum(buffer.numel() for _, op in calls(snn.graph) for buffer in op.buffers()),
            "notes": list(snn.source.notes),
        },
        ann={"correct": recorded.get("ann_correct") if same else None},
        evaluation={
            "samples": curve.samples,
            "labelled": labels is not None,
            "source": source,
            "fingerprint": fingerprint,
            "excluded_calibration": recorded.get("excluded_calibration") if same else None,
            "classes": class_count(snn.graph),
            "outcomes": None if right is None else outcomes(digests, snn=right),
            "notes": [note for note in (snn.provenance, *data.notes) if note],
        },
        calibration=calibration_section(snn),
        preprocessing=snn.preprocessing,
        schedule=snn.schedule.to_dict(),
        neuron=neuron_section(snn),
        latency=snn.schedule.latency,
        fit_curve=section,
        layers=[layer_row(layer, "") for layer in curve.layers],
        candidates=candidate_rows(snn),
        plan=plan(snn) if snn.schedule.staggered else None,
        **study_sections(watchers.studies(), snn, data, constants),
        **(sections or {}),
        warnings=warnings,
        timings={"simulate": taken},
        next_commands=(),
    )
