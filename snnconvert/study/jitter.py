"""Noise in the times of first spikes: each spike comes earlier or later by a normal share of its window.

Stanojevic et al. (Nature Communications 15:6793, 2024) study the same. A spike that would come before its window opens
comes as it opens, and one that would come after it closes never does. On a grid of slots a time is a slot again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snnconvert.graph.types import Snn
from snnconvert.simulate.chunks import chunk_size
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.simulate.measure import decisions
from snnconvert.study.converted import Converted, Means
from snnconvert.study.evaluate import read

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
    with torch.inference_mode():
        reference = converted.ann.graph(images)[0].flatten(1).argmax(1).numpy()
    rows = []
    for index, share in enumerate(SHARES):
        decided = np.concatenate(list(_decided(converted.snn, images, share)))
        rows.append(
            {
                "deviation": share,
                "accuracy": None if labels is None else 100 * float((decided == labels).mean()),
                "agreement": 100 * float((decided == reference).mean()),
            }
        )
        means.progress("jitter", index + 1, len(SHARES))
    return {"images": len(images), "seed": SEED, "rows": rows}


def _decided(snn: Snn, images: Tensor, share: float) -> Iterator[np.ndarray[Any, Any]]:
    whole = None if snn.schedule.continuous else snn.schedule.levels
    noise = Noise(share, whole, torch.Generator().manual_seed(SEED))
    engine, size = LayerEngine(snn, moved=noise), chunk_size(snn)
    for start in range(0, len(images), size):
        yield decisions(engine.run(images[start : start + size]).outputs[0])[-1]
