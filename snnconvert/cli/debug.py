"""The command `debug`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from snnconvert.cli.run import asked_of
from snnconvert.cli.terminal import Terminal
from snnconvert.console import Console
from snnconvert.data.selection import images_for
from snnconvert.graph.checkpoint import load_snn
from snnconvert.report import wording
from snnconvert.report.sections.attribution import CAUSES, culprit
from snnconvert.report.sections.made import neuron_of
from snnconvert.simulate.chunks import chunk_size
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.simulate.measure import watched_run
from snnconvert.study.attribution import Attribution

IMAGES = 32


def debug(checkpoint: Path, given: Mapping[str, Any], terminal: Terminal) -> None:
    """Print why spike rates differ from activations, layer by layer, on at most IMAGES images by default."""
    request, data = asked_of(checkpoint, {"limit": IMAGES, **given})
    snn = load_snn(checkpoint)
    images = images_for(snn, data, request.limit).images()
    found, engine, size = Attribution(snn, None, len(images)), LayerEngine(snn), chunk_size(snn)
    with terminal.progress() as progress:
        for start in range(0, len(images), size):
            watched_run(engine, images[start : start + size], [found])
            progress("simulate", min(start + size, len(images)), len(images))
    section = found.document()
    assert section is not None
    if terminal.as_json:
        print(json.dumps({"schema": "snnconvert-debug/1", "model": snn.source.name, **section}, indent=1))
    elif not terminal.quiet:
        known = {"schedule": snn.schedule.to_dict(), "neuron": neuron_of(snn), "attribution": section}
        _print_causes({**known, "analysis": {"final": {"drop": _recorded_drop(snn.evaluation)}}})


def _recorded_drop(evaluation: dict[str, Any]) -> float | None:
    """Points of accuracy that the conversion lost on its own evaluation images; None where it had no labels."""
    before, after = evaluation.get("ann_correct"), (evaluation.get("correct") or [None])[-1]
    return None if before is None or after is None else 100.0 * (before - after) / max(1, evaluation["samples"])


def _print_causes(document: dict[str, Any]) -> None:
    console = Console()
    section = document["attribution"]
    for line in filter(None, culprit(document) or ("No layer adds much error of its own.",)):
        console.print(Text(wording.clean(line)))
    console.print(
        Text(
            f"Each cause in percent of the size of the layer's activations, on {section['images']} images, against the "
            "network's own limit for ever more timesteps, not against the original network.",
            style="dim",
        )
    )
    table = Table(box=None, pad_edge=False, header_style="dim")
    for index, title in enumerate(("layer", "whole error", *CAUSES)):
        table.add_column(title, justify="right" if index else "left")
    for row in section["layers"]:
        sizes = (row["error"], *(row["causes"][cause] for cause in CAUSES))
        table.add_row(Text(wording.clean(row["origin"])), *(wording.share(size, 2) for size in sizes))
    console.print(table)
