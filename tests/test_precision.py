"""--precision from the request to the report."""

from __future__ import annotations

import io

from rich.console import Console

from snnconvert.pipeline import Request, run
from snnconvert.report.blocks import Text
from snnconvert.report.from_run import document_of
from snnconvert.report.render_html import render_html
from snnconvert.report.render_markdown import render_markdown
from snnconvert.report.render_terminal import print_summary
from snnconvert.report.sections import precision


def test_report_shows_rounded_weights_beside_float32() -> None:
    request = Request(
        "zoo:digits-cnn", timesteps=8, schedule="streaming", calibration="percentile", limit=60, precision="int8"
    )
    document = document_of(run(request), command_line="")
    section = document["precision"]
    assert section["name"] == "int8"
    assert section["float32_accuracy"] == document["fit_curve"]["accuracy"][-1]
    assert section["same_answers"] >= 90
    assert section["spikes_per_image"] != section["float32_spikes_per_image"]
    console = Console(file=io.StringIO(), width=90)
    print_summary(document, console)
    told = f"accuracy {section['accuracy']:.2f} %, in float32 {section['float32_accuracy']:.2f} %."
    for said in (console.file.getvalue(), render_markdown(document), render_html(document)):  # type: ignore[attr-defined]
        assert told in " ".join(said.split())
    section["accuracy"] = None
    (said, *_) = precision.blocks(document)
    assert isinstance(said, Text)
    assert said.text.endswith("of the answers at T = 8 stay.")
    assert not precision.blocks({**document, "precision": None})
