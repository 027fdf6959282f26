"""How often a spiking network decides like a given reference: the ranking figure of every search."""

from __future__ import annotations

from torch import Tensor

from snnconvert.graph.types import Snn
from snnconvert.simulate.chunks import chunk_size
from snnconvert.simulate.layer_engine import LayerEngine


def rank(snn: Snn, images: Tensor, reference: Tensor) -> tuple[float, float]:
    """Share of images on which the last answer is `reference` (class indices), and spikes per image."""
    engine, size, agreed, spikes = LayerEngine(snn), chunk_size(snn), 0, 0
    for start in range(0, len(images), size):
        seen = engine.run(images[start : start + size])
        decided = seen.outputs[0][-1].flatten(1).argmax(1).cpu()
        agreed += int((decided == reference[start : start + size]).sum())
        spikes += sum(int(counts.sum()) for counts in seen.spikes.values())
    return agreed / max(len(images), 1), spikes / max(len(images), 1)
