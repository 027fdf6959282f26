"""How often a spiking network decides like a given reference: the ranking figure of every search."""

from __future__ import annotations

from torch import Tensor

from snnconvert.graph.types import Snn
from snnconvert.simulate.chunks import chunk_size
from snnconvert.simulate.layer_engine import LayerEngine


def agreement_at_end(snn: Snn, images: Tensor, reference: Tensor) -> float:
    """Share of `images` on which the SNN's last answer is `reference` (class indices)."""
    engine, size, agreed = LayerEngine(snn), chunk_size(snn), 0
    for start in range(0, len(images), size):
        logits = engine.run(images[start : start + size]).outputs[0][-1].flatten(1)
        agreed += int((logits.argmax(1) == reference[start : start + size]).sum())
    return agreed / max(len(images), 1)
