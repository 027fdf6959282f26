"""The ablation in a whole conversion."""

from __future__ import annotations

from snnconvert.pipeline import run
from snnconvert.report.from_run import document_of
from snnconvert.request import Request


def test_it_belongs_to_bistable_runs_and_does_not_depend_on_batches() -> None:
    request = Request("zoo:digits-resnet", calibration="mse", calibration_samples=64, limit=24, timesteps=30)
    found = []
    for size in (64, 7):
        bistable = Request(**{**vars(request), "schedule": "bistable", "window": 3, "batch_size": size})
        found.append(document_of(run(bistable), command_line=""))
    document = found[0]
    assert document["ablation"] == found[1]["ablation"]
    first, last = document["ablation"]["arms"][0], document["analysis"]["final"]
    assert document["ablation"]["images"] == document["evaluation"]["samples"] == 24
    for figure in ("accuracy", "agreement", "spikes_per_image"):
        assert first[figure] == last[figure], figure
    assert document_of(run(Request(**{**vars(request), "schedule": "streaming"})), command_line="")["ablation"] is None
