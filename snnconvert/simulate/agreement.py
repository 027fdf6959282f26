"""How often a spiking network decides like a given reference: the ranking figure of every search."""

from __future__ import annotations

import torch
from torch import Tensor

from snnconvert.graph.types import Snn
from snnconvert.simulate.chunks import chunk_size
from snnconvert.simulate.layer_engine import LayerEngine


def rank(snn: Snn, images: Tensor, reference: Tensor) -> tuple[list[float], float]:
    """Share of images on which each answer is `reference` (class indices), and spikes per image."""
    engine, size, spikes = LayerEngine(snn), chunk_size(snn), 0
    agreed = torch.zeros(len(snn.schedule.answer_steps), dtype=torch.int64)
    for start in range(0, len(images), size):
        seen = engine.run(images[start : start + size])
        decided = seen.outputs[0].flatten(2).argmax(2).cpu()
        agreed += (decided == reference[start : start + size]).sum(1)
        spikes += sum(int(counts.sum()) for counts in seen.spikes.values())
    count = max(len(images), 1)
    return [value / count for value in agreed.tolist()], spikes / count
