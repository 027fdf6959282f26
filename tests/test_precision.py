"""--precision from the request to the report."""

from __future__ import annotations

from snnconvert.pipeline import Request, run
from snnconvert.report.from_run import document_of


def test_report_shows_rounded_weights_beside_float32() -> None:
    request = Request(
        "zoo:digits-cnn", timesteps=8, schedule="streaming", calibration="percentile", limit=60, precision="int8"
    )
    document = document_of(run(request), command_line="")
    section = document["evaluation"]["precision"]
    assert section["name"] == "int8"
    assert section["float32_accuracy"] == document["fit_curve"]["accuracy"][-1]
    assert section["same_answers"] >= 90
    assert section["spikes_per_image"] != section["float32_spikes_per_image"]
    assert any("int8" in note for note in document["evaluation"]["notes"])
