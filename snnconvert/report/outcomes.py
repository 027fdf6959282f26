"""Which images were classified rightly, as a compact field of a report, so that runs can be compared pair by pair.

The images are ordered by the sha256 of their raw bytes, so the order does not depend on how they were drawn; the
report's `evaluation.fingerprint` is made of the same digests and says whether two reports saw the same images. Bit k
(the most significant bit of the first byte is bit 0) belongs to the k-th image: 1 where it was classified rightly.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

ORDER = "sha256 of the raw image, ascending"


def outcomes(
    digests: Sequence[bytes], *, snn: NDArray[np.bool_], ann: NDArray[np.bool_] | None = None
) -> dict[str, Any]:
    """The field `evaluation.outcomes`: right or wrong for each image, for the SNN and, where known, the ANN."""
    order = sorted(range(len(digests)), key=lambda index: digests[index])
    return {"order": ORDER, "snn": pack(snn[order]), "ann": None if ann is None else pack(ann[order])}


def pack(bits: NDArray[np.bool_]) -> str:
    """Base64 of the bits, eight to a byte."""
    return base64.b64encode(np.packbits(bits).tobytes()).decode("ascii")


def unpack(text: str, samples: int) -> NDArray[np.bool_] | None:
    """The first `samples` bits, or None if the text does not hold them."""
    try:
        raw = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
    except ValueError:
        return None
    return np.unpackbits(raw)[:samples].astype(bool) if len(raw) == (samples + 7) // 8 else None


def of_document(document: Mapping[str, Any], network: str = "snn") -> NDArray[np.bool_] | None:
    """The outcomes of a report, or None if it does not hold any."""
    held = document["evaluation"].get("outcomes")
    text = held.get(network) if held else None
    return unpack(text, document["evaluation"]["samples"]) if text else None
