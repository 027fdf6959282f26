"""Shared by all tests: where the optional data pack is, and small networks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from snnconvert.calibrate import METHODS
from snnconvert.data.bundled import dataset_for
from snnconvert.neurons import NEURONS

DATA = Path(os.environ.get("SNNCONVERT_DATA", Path(__file__).parents[1] / ".." / "shared" / "data")).resolve()

torch.set_num_threads(1)
# programs that tests start keep what they compile of the package, whatever the machine's habit: a second of each
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.fixture(scope="session")
def data_pack() -> Path:
    """The folder of real data sets and pretrained models; tests that need it are skipped where it is absent."""
    if not (DATA / "README.md").is_file():
        pytest.skip(f"the data pack is not at {DATA} (set SNNCONVERT_DATA)")
    return DATA


@pytest.fixture(scope="session")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Raw test images (n, 8, 8) uint8 with values 0 to 16, and labels."""
    stored = np.load(dataset_for("digits-cnn")[1])
    return stored["x"][:160], stored["y"][:160]


@pytest.fixture
def tables() -> Iterator[None]:
    """What a test registers is gone afterwards."""
    neurons, methods = dict(NEURONS), dict(METHODS)
    yield
    for table, before in ((NEURONS, neurons), (METHODS, methods)):
        table.clear()
        table.update(before)  # type: ignore[arg-type]
