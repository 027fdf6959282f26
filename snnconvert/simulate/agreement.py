"""How a spiking network does at its task beside the original: the ranking figures of every search."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from snnconvert.graph.types import Snn
from snnconvert.simulate.chunks import chunk_size
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.tasks.scores import Scores, scores_of


def rank(snn: Snn, images: Tensor, reference: NDArray[Any]) -> tuple[Scores, float]:
    """Scores against the ANN's answers (`tasks.scores.answer_of`), and spikes per image."""
    engine, size, spikes, scores = LayerEngine(snn), chunk_size(snn), 0, scores_of(snn.task)
    for start in range(0, len(images), size):
        seen = engine.run(images[start : start + size])
        scores.add([sums.cpu().numpy() for sums in seen.outputs], reference[start : start + size], None)
        spikes += sum(int(counts.sum()) for counts in seen.spikes.values())
    return scores, spikes / max(len(images), 1)
