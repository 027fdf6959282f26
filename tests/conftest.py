"""Shared by all tests: where the optional data pack is, and small networks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

DATA = Path(os.environ.get("SNNCONVERT_DATA", Path(__file__).parents[1] / ".." / "shared" / "data")).resolve()

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data_pack() -> Path:
    """The folder of real data sets and pretrained models; tests that need it are skipped where it is absent."""
    if not (DATA / "README.md").is_file():
        pytest.skip(f"the data pack is not at {DATA} (set SNNCONVERT_DATA)")
    return DATA
