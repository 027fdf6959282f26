"""A folder for the Hugging Face hub: the checkpoint, a model card with its figures, and the curve as a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snnconvert.data.selection import images_for
from snnconvert.exporters.task import Task, Written
from snnconvert.files import atomic, write_atomically
from snnconvert.graph.checkpoint import save_snn
from snnconvert.graph.dialect import neurons_of
from snnconvert.graph.inputs import events_of
from snnconvert.graph.types import Snn
from snnconvert.report.figures import on_paper
from snnconvert.report.from_run import rebuilt_document

CHECKPOINT, CARD, CURVE = "network.snn", "README.md", "curve.png"

TEXT = """# {name} as a spiking neural network

{schedule}, T = {timesteps} steps, {neurons:,} {model} neurons in {layers} layers, weights in {precision}. Converted
from `{source}` with [snnconvert](https://pypi.org/project/snnconvert/).

{figures}

## How to load it

```
pip install "snnconvert[hub]"
snnconvert hub pull USER/NAME
```

```python
import snnconvert

snn = snnconvert.load("hf:USER/NAME")
{call}
```

{prepared} are prepared as the original network's: `{preprocessing}`. `snnconvert info {checkpoint}` says what the file
holds, {further}.

## How it was made

{calibration}
"""

IMAGES = {
    "inputs": "images",
    "prepared": "Images",
    "call": "answers = snn(images)  # (batch, {shape})",
    "further": f"`snnconvert export {CHECKPOINT} --to onnx` (or torch, and others) writes it for another program",
}
RECORDINGS = {
    "inputs": "recordings",
    "prepared": "Recordings of events",
    "call": "seen = snn.simulate(snn.prepare(recordings))  # arrays with fields x, y, t (microseconds), p; {shape}\n"
    "answers = seen.outputs[-1]  # what stands at the end; seen.outputs has every step's",
    "further": f"`snnconvert run {CHECKPOINT} --data RECORDINGS` replays others",
}


@dataclass(frozen=True)
class _Figures:
    """What was measured: on `images` images or recordings of `source`; accuracies in per cent, None without labels."""

    images: int
    source: str
    steps: Sequence[int]
    accuracy: Sequence[float | None]
    spikes: float | None
    ann: float | None
    energy: str = ""


def write_folder(task: Task) -> Written:
    """Write the folder (see `Exporter.write`); with data the figures are measured anew, energy included."""
    snn, data = task.snn, task.options.get("data")
    figures = _recorded(snn) if data is None else _measured(snn, data, task.options.get("limit"))
    files = [task.path / CHECKPOINT, task.path / CARD]
    save_snn(snn, files[0])
    if any(value is not None for value in figures.accuracy):
        files.append(task.path / CURVE)
        _draw(files[-1], figures)
    write_atomically({files[1]: card(snn, figures)})
    energy = () if figures.energy else ("the card says nothing of energy: add --data to have it measured",)
    return Written(tuple(files), snn, (f"put it on the hub: snnconvert hub push {task.path} USER/NAME", *energy))


def _recorded(snn: Snn) -> _Figures:
    """The figures of the conversion, as the checkpoint keeps them."""
    kept = snn.evaluation
    images, correct = int(kept.get("samples") or 0), kept.get("correct") or []
    accuracy = [None if right is None or not images else 100.0 * right / images for right in correct]
    spikes, ann = kept.get("spikes_per_image") or [None], kept.get("ann_correct")
    return _Figures(
        images,
        str(kept.get("source") or ""),
        range(1, len(accuracy) + 1),
        accuracy,
        spikes[-1],
        None if ann is None or not images else 100.0 * ann / images,
    )


def _measured(snn: Snn, data: str, limit: int | None) -> _Figures:
    images = images_for(snn, data, limit)
    document: dict[str, Any] = rebuilt_document(snn, images, source=data, command_line="snnconvert export")
    curve, energy = document["fit_curve"], document.get("energy")
    return _Figures(
        document["evaluation"]["samples"],
        Path(data).name if data.startswith((".", "/")) else data,
        curve["timesteps"],
        curve["accuracy"],
        curve["spikes_per_image"][-1],
        _recorded(snn).ann,
        "" if energy is None else energy["verdict"]["text"],
    )


def card(snn: Snn, figures: _Figures) -> str:
    """The model card: metadata that the hub reads (YAML, of which JSON is a part), and text for people."""
    neurons, words = neurons_of(snn.graph), _words(snn)
    head = "".join(f"{key}: {json.dumps(value)}\n" for key, value in _metadata(snn, figures).items())
    text = TEXT.format(
        name=_plain(snn.source.name),
        schedule=snn.schedule.describe(),
        timesteps=snn.schedule.timesteps,
        neurons=sum(_size(node.meta["shape"]) for node in neurons),
        model=" and ".join(sorted({op.row.title or op.row.name for op in neurons.values()})),
        layers=len(neurons),
        precision=snn.precision,
        source=_plain(Path(snn.source.location).name),
        figures=_said(figures, words["inputs"]),
        call=words["call"].format(shape=", ".join(map(str, snn.input_shape))),
        prepared=words["prepared"],
        further=words["further"],
        preprocessing=_plain(json.dumps(snn.preprocessing)),
        checkpoint=CHECKPOINT,
        calibration=_calibration(snn.calibration, words["inputs"]),
    )
    return f"---\n{head}---\n\n{text}"


def _words(snn: Snn) -> dict[str, str]:
    """What the card calls what comes in, and how it is given."""
    return IMAGES if events_of(snn.graph) is None else RECORDINGS


def _metadata(snn: Snn, figures: _Figures) -> dict[str, Any]:
    found: dict[str, Any] = {
        "library_name": "snnconvert",
        "tags": ["spiking-neural-network", "neuromorphic", snn.schedule.kind, snn.neuron.model],
    }
    if len(snn.input_shape) == 3 and _words(snn) is IMAGES:
        found["pipeline_tag"] = "image-classification"
    last = next((value for value in reversed(figures.accuracy) if value is not None), None)
    if last is not None:
        task = {"type": found.get("pipeline_tag", "other")}
        metric = {
            "type": "accuracy",
            "value": round(last / 100, 6),
            "name": f"accuracy at T = {snn.schedule.timesteps}",
        }
        data = {"name": figures.source or "evaluation", "type": figures.source or "evaluation"}
        found["model-index"] = [
            {"name": snn.source.name, "results": [{"task": task, "dataset": data, "metrics": [metric]}]}
        ]
    return found


def _said(figures: _Figures, inputs: str) -> str:
    last = next((value for value in reversed(figures.accuracy) if value is not None), None)
    if last is None:
        return "Nothing was measured of it on labelled data."
    before = "" if figures.ann is None else f" (the original network {figures.ann:.2f} %)"
    lines = [
        f"![Accuracy over time steps]({CURVE})",
        "",
        f"- Accuracy: {last:.2f} %{before} on {figures.images:,} {inputs}"
        + (f" of {_plain(figures.source)}." if figures.source else "."),
    ]
    if figures.spikes is not None:
        lines.append(f"- Spikes: {figures.spikes:,.0f} per {inputs[:-1]}.")
    if figures.energy:
        lines.append(f"- Energy: {figures.energy}")
    return "\n".join(lines)


def _calibration(record: Mapping[str, Any], inputs: str) -> str:
    known = {name: record[name] for name in ("method", "samples", "synthetic") if name in record}
    if not known:
        return "The checkpoint does not say."
    method = _plain(str(known.get("method", "")))
    inputs = "synthetic inputs" if known.get("synthetic") else inputs
    return f"Thresholds by `{method}` on {known.get('samples', 0):,} {inputs}; nothing was trained."


def _plain(text: str) -> str:
    """On one line, and without what Markdown would take for its own."""
    return " ".join(text.split()).replace("`", "'")


def _size(shape: tuple[int, ...]) -> int:
    found = 1
    for side in shape:
        found *= side
    return found


def _draw(path: Path, figures: _Figures) -> None:
    """Accuracy over time steps, the original network as a line."""
    import vl_convert

    points = [
        {"step": step, "accuracy": value}
        for step, value in zip(figures.steps, figures.accuracy, strict=True)
        if value is not None
    ]
    layers: list[dict[str, Any]] = [
        {
            "data": {"values": points},
            "mark": {"type": "line", "point": True, "color": "#1f5fbf"},
            "encoding": {
                "x": {"field": "step", "type": "quantitative", "title": "time step", "axis": {"tickMinStep": 1}},
                "y": {"field": "accuracy", "type": "quantitative", "title": "accuracy, %"},
            },
        }
    ]
    if figures.ann is not None:
        values = [{"accuracy": figures.ann}]
        encoding = {"y": {"field": "accuracy", "type": "quantitative"}}
        layers.append(
            {"data": {"values": values}, "mark": {"type": "rule", "strokeDash": [6, 4]}, "encoding": encoding}
        )
    spec = {"$schema": "https://vega.github.io/schema/vega-lite/v5.json", "height": 260, "config": {}, "layer": layers}
    with atomic(path) as temporary:
        temporary.write_bytes(vl_convert.vegalite_to_png(on_paper(spec), scale=2))
