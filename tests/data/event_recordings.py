"""Recordings of a camera of 8 x 8 places, of four classes, for tests."""

from __future__ import annotations

import numpy as np

from snnconvert.data.recordings import EVENT

SIZE, MILLISECONDS = 8, 40


def recording(label: int, seed: int, milliseconds: int = MILLISECONDS) -> np.ndarray:
    """Events in the left or the right half, in one polarity more than in the other."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(250, 350)) * milliseconds // MILLISECONDS
    events = np.empty(count, EVENT)
    events["t"] = 5000 + np.sort(rng.integers(0, 1000 * milliseconds, count))
    events["x"] = rng.integers(0, SIZE // 2, count) + SIZE // 2 * ((rng.random(count) < 0.8) == (label % 2))
    events["y"] = rng.integers(0, SIZE, count)
    events["p"] = rng.random(count) < (0.3 if label < 2 else 0.7)
    return events


def recordings(count: int, seed: int = 0) -> tuple[list[np.ndarray], np.ndarray]:
    labels = np.arange(count) % 4
    return [recording(int(label), seed + 1000 + index) for index, label in enumerate(labels)], labels
