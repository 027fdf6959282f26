"""When the neurons of a layer speak up: the step of their first spike, over neurons and images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from snnconvert.graph.schedule import Schedule

PERCENTILES = (10, 50, 90)
# first spikes are looked for on so many images; dead neurons on all
FIRST_IMAGES = 32


class FirstSpikes:
    """Counts, for one layer, in which frame each neuron sends its first spike; one count per neuron and image.

    Args:
        frames: how many frames there are.
        images: look for first spikes on so many images.
    """

    def __init__(self, frames: int, images: int = FIRST_IMAGES) -> None:
        self.left = images
        self.counts = torch.zeros(frames, dtype=torch.int64)
        self.observed = 0
        self.ever: Tensor | None = None

    def add(self, by_frame: Tensor) -> None:
        """Take in the spikes of some images, shape (frames, batch, *sample)."""
        ever = by_frame.any(0).any(0).cpu()
        self.ever = ever if self.ever is None else self.ever | ever
        by_frame = by_frame[:, : self.left]
        self.left -= by_frame.shape[1]
        fired = torch.zeros(by_frame.shape[1:], dtype=torch.bool, device=by_frame.device)
        before = 0
        for frame, sent in enumerate(by_frame if fired.numel() else ()):
            fired |= sent != 0
            now = int(fired.count_nonzero())
            self.counts[frame] += now - before
            before = now
        self.observed += fired.numel()

    @property
    def dead_share(self) -> float | None:
        """Share of neurons that sent no spike for any of the images; None before any image."""
        return None if self.ever is None else int((~self.ever).count_nonzero()) / self.ever.numel()

    def record(self, schedule: Schedule, depth: int) -> dict[str, Any] | None:
        """JSON-able: the steps (from the first input, 1 being the first) by which 10, 50 and 90 % of those that fire at
        all have fired, and `silent_share`, the share that never fires; None before any image.

        Where spikes are sent in windows, the step is the first one of the window.
        """
        if not self.observed:
            return None
        reached, total = self.counts.cumsum(0), int(self.counts.sum())
        steps: dict[str, int | None] = {}
        for percent in PERCENTILES:
            frame = int((reached * 100 >= percent * total).int().argmax()) if total else None
            steps[f"p{percent}"] = None if frame is None else schedule.emission_step(depth, frame) + 1
        return {**steps, "silent_share": 1.0 - total / self.observed}
