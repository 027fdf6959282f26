"""How many images to simulate at once: as many as keep the widest layer's frames in a fixed amount of memory."""

from __future__ import annotations

import math

from snnconvert.graph.types import Snn

TARGET_BYTES = 16 * 2**20


def chunk_size(snn: Snn, target_bytes: int = TARGET_BYTES) -> int:
    """Images per chunk, at least 1; the result of a simulation does not depend on it."""
    widest: int = max(math.prod(node.meta["shape"]) for node in snn.graph.graph.nodes if "shape" in node.meta)
    return max(1, min(256, target_bytes // (4 * widest * snn.schedule.frames)))
