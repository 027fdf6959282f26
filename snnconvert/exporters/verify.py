"""Proving an export: it is run in the program that reads it, and compared with this package's engine spike by spike."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snnconvert.exporters.task import Reader, Recording
from snnconvert.graph.types import Snn
from snnconvert.progress import Progress, silent
from snnconvert.simulate.chunks import chunk_size
from snnconvert.simulate.layer_engine import LayerEngine

# images at once: recordings hold every neuron in every step
MOST_AT_ONCE = 16
# of outputs, relative to the largest: what float32 loses where a reader adds in another order
ROUNDING = 1e-5


@dataclass
class Comparison:
    """Two runs of the same images.

    Attributes:
        images: how many.
        spikes: units that the first sent, of either sign.
        differing: places (image, neuron, step) at which the two sent different numbers of units, by site. Where one
            shows sums only, of an image and neuron or of an image, these are compared.
        compared: places that were compared.
        logits: the largest absolute difference of an output, divided by the number of frames read.
        largest: the largest absolute output of the first, likewise.
        agreed: images on which both decide alike.
        right: images that the first, and the second, classifies rightly; None without labels.
        seconds: that each took.
    """

    images: int = 0
    spikes: int = 0
    differing: dict[str, int] = field(default_factory=dict)
    compared: int = 0
    logits: float = 0.0
    largest: float = 0.0
    agreed: int = 0
    right: tuple[int, int] | None = None
    seconds: tuple[float, float] = (0.0, 0.0)

    @property
    def total(self) -> int:
        """Differing places of all sites."""
        return sum(self.differing.values())

    @property
    def equal(self) -> bool:
        """Whether not one spike differs, all decisions are the same, and outputs to the rounding of float32."""
        return self.total == 0 and self.agreed == self.images and self.logits <= ROUNDING * self.largest

    def document(self) -> dict[str, Any]:
        """JSON-able."""
        found = {name: count for name, count in self.differing.items() if count}
        right = None if self.right is None else {"engine": self.right[0], "reader": self.right[1]}
        return {
            "images": self.images,
            "spikes": self.spikes,
            "compared": self.compared,
            "differing": self.total,
            "differing_by_site": found,
            "logits": self.logits,
            "agreed": self.agreed,
            "right": right,
            "seconds": {"engine": self.seconds[0], "reader": self.seconds[1]},
            "equal": self.equal,
        }


def engine_of(snn: Snn) -> Reader:
    """This package's engine as something that runs a network."""
    engine = LayerEngine(snn)

    def run(batch: Tensor) -> Recording:
        spikes: dict[str, Tensor] = {}

        def keep(name: str, by_frame: Tensor) -> None:
            spikes[name] = by_frame.to(torch.int16)

        outputs = engine.run(batch, keep).outputs[0]
        if snn.schedule.once:  # one frame, however often it is looked at while it arrives
            outputs = outputs[-1:] / len(outputs)
        return Recording(spikes, outputs)

    return run


def compare(
    snn: Snn,
    reader: Reader,
    images: Tensor,
    labels: NDArray[np.int64] | None = None,
    *,
    engine: Reader | None = None,
    progress: Progress = silent,
) -> Comparison:
    """Run `images` in this package's engine and in `reader`.

    Args:
        snn: what the engine runs.
        reader: what is compared with it.
        images: (images, *sample).
        labels: of the images; None where there are none.
        engine: what runs `snn`, if not the layer engine.
    """
    engine, found = engine or engine_of(snn), Comparison()
    size = max(1, min(MOST_AT_ONCE, chunk_size(snn)))
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        before = time.perf_counter()
        ours = engine(batch)
        between = time.perf_counter()
        theirs = reader(batch)
        after = time.perf_counter()
        found.seconds = found.seconds[0] + between - before, found.seconds[1] + after - between
        _count_spikes(found, ours.spikes, theirs.spikes)
        _compare_outputs(found, ours.outputs, theirs.outputs, None if labels is None else labels[start : start + size])
        found.images += len(batch)
        progress("verify", found.images, len(images))
    return found


def _count_spikes(found: Comparison, ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    for name, sent in ours.items():
        found.spikes += int(sent.abs().sum(dtype=torch.int64))
        if name not in theirs:
            continue
        mine, other = sent.to(torch.int64).flatten(2), theirs[name].to(torch.int64)
        if other.ndim == 2:
            mine, other = mine.abs().sum(2, keepdim=True), other.unsqueeze(2)
        if len(other) < len(mine):
            mine = mine.sum(0, keepdim=True)
        other = other.flatten(2)
        found.compared += other.numel()
        found.differing[name] = found.differing.get(name, 0) + int((mine != other).sum())


def _compare_outputs(found: Comparison, ours: Tensor, theirs: Tensor, labels: NDArray[np.int64] | None) -> None:
    frames = len(ours)
    if len(theirs) == 1:
        ours = ours[-1:]
    mine, other = ours.double().flatten(2), theirs.double().flatten(2)
    found.logits = max(found.logits, float((mine - other).abs().max()) / frames)
    found.largest = max(found.largest, float(mine.abs().max()) / frames)
    first, second = mine[-1].argmax(1), other[-1].argmax(1)
    found.agreed += int((first == second).sum())
    if labels is not None:
        truth = torch.from_numpy(np.asarray(labels))
        before = found.right or (0, 0)
        found.right = before[0] + int((first == truth).sum()), before[1] + int((second == truth).sum())
