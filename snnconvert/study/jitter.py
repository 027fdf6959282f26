"""Noise in the times of first spikes: each spike comes earlier or later by a normal share of its window.

Stanojevic et al. (Nature Communications 15:6793, 2024) study the same. A spike that would come before its window opens
comes as it opens, and one that would come after it closes never does. On a grid of slots a time is a slot again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from snnconvert.calibrate.observe import answers
from snnconvert.graph.types import Snn
from snnconvert.simulate.chunks import chunk_size
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.study.converted import Converted, Means
from snnconvert.study.evaluate import read
from snnconvert.tasks.scores import Scores, scores_of

SHARES = (0.0, 0.01, 0.02, 0.05, 0.1)
MOST_IMAGES = 256
SEED = 0


@dataclass
class Noise:
    """Moves spikes by normal noise.

    Attributes:
        deviation: standard deviation, as a share of a window.
        whole: units that a full window is worth; None in continuous time.
        generator: of the noise.
    """

    deviation: float
    whole: int | None
    generator: torch.Generator

    def __call__(self, sent: Tensor) -> Tensor:
        """What spikes are worth, (batch, *sample), when they arrive at other times; silent neurons stay silent."""
        whole = 1.0 if self.whole is None else float(self.whole)
        noise = torch.randn(sent.shape, generator=self.generator, dtype=sent.dtype) * self.deviation * whole
        worth = sent.abs() + noise
        worth = (worth if self.whole is None else worth.round()).clamp(0.0, whole)
        return worth * sent.sign()


def jitter_of(converted: Converted, means: Means) -> dict[str, Any]:
    """Accuracy and agreement with the original network for each of SHARES, on the first of the evaluation images."""
    images, labels = next(iter(read(converted.inputs.measured, MOST_IMAGES)))
    reference, headline = answers(converted.ann, images), converted.snn.task.headline.name
    rows = []
    for index, share in enumerate(SHARES):
        scores = _scored(converted.snn, images, share, reference, labels)
        known = {name: curve.values[-1] for name, curve in scores.curves().items()}
        found = {"accuracy": known.get("accuracy"), "agreement": known.get("agreement"), "value": known[headline]}
        rows.append({"deviation": share, **found})
        means.progress("jitter", index + 1, len(SHARES))
    return {"images": len(images), "seed": SEED, "rows": rows}


def _scored(snn: Snn, images: Tensor, share: float, reference: NDArray[Any], labels: NDArray[Any] | None) -> Scores:
    whole = None if snn.schedule.continuous else snn.schedule.levels
    noise = Noise(share, whole, torch.Generator().manual_seed(SEED))
    engine, size, scores = LayerEngine(snn, moved=noise), chunk_size(snn), scores_of(snn.task)
    for start in range(0, len(images), size):
        part = slice(start, start + size)
        sums = [each.cpu().numpy() for each in engine.run(images[part]).outputs]
        scores.add(sums, reference[part], None if labels is None else labels[part])
    return scores
