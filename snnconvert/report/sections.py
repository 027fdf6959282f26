"""The section of a report that shows single neurons and images."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snnconvert.study.look_inside import Example, LookInside

LARGEST_PICTURE = 96
MOST_POINTS = 64


def inside_section(
    seen: LookInside, labels: NDArray[np.int64] | None, classes: Sequence[str] | None
) -> dict[str, Any] | None:
    """What `seen` has to show; examples need labels. None if nothing was watched."""
    if not seen.histograms:
        return None
    examples = [] if labels is None else [_example(row, labels, classes, seen) for row in seen.examples(labels)]
    # A bistable network of one or two windows has no course over frames to look at.
    moving = seen.snn.schedule.frames > 2
    return {
        "neurons": seen.neurons() if moving else [],
        "raster": seen.raster() if moving else [],
        "rates": seen.rates(),
        "examples": examples if moving else [],
    }


def _example(row: Example, labels: NDArray[np.int64], names: Sequence[str] | None, seen: LookInside) -> dict[str, Any]:
    schedule, truth = seen.snn.schedule, int(labels[row.index])
    frames = len(row.probabilities)
    shown = sorted({round(float(k)) for k in torch.linspace(0, frames - 1, min(frames, MOST_POINTS))})
    best = row.probabilities[-1].argsort(descending=True)[:3].tolist()
    rival = row.probabilities.mean(0).argsort(descending=True)[:3].tolist()
    wanted = list(dict.fromkeys([truth, *best, *rival]))[:4]

    def name(index: int) -> str:
        return str(names[index]) if names is not None and index < len(names) else f"class {index}"

    return {
        "kind": row.kind,
        "image": picture(row.image),
        "truth": name(truth),
        "decision": name(int(best[0])),
        "settled": None if row.settled is None else schedule.answer_steps[row.settled],
        "steps": [schedule.answer_steps[k] for k in shown],
        "classes": [
            {"name": name(index), "probabilities": [round(float(row.probabilities[k, index]), 4) for k in shown]}
            for index in wanted
        ],
    }


def picture(image: Tensor) -> str | None:
    """A prepared image as a small PNG in a data URL, its values stretched to black and white; None if it is none."""
    if image.ndim != 3 or not (image.shape[0] in (1, 3) or image.shape[-1] in (1, 3)):
        return None
    from PIL import Image

    array = image if image.shape[0] in (1, 3) else image.permute(2, 0, 1)
    low, high = float(array.min()), float(array.max())
    values = ((array - low) / max(high - low, 1e-12) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    drawn = Image.fromarray(values[..., 0] if values.shape[2] == 1 else values)
    drawn.thumbnail((LARGEST_PICTURE, LARGEST_PICTURE))
    out = io.BytesIO()
    drawn.save(out, "PNG")
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode('ascii')}"
