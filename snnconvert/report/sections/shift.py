"""Whether the evaluation images drive the network further than the calibration images did."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

from snnconvert.report.section import Document, Section, Share, means

if TYPE_CHECKING:
    from snnconvert.report.measured import Measured
    from snnconvert.study.shift import Shift


class Cut(TypedDict):
    name: str
    origin: str
    calibration: Share
    evaluation: Share


class Keys(TypedDict):
    shift: Annotated[
        Cut | None,
        means(
            "the first layer whose neurons cut off much more of the evaluation images' activations than of the "
            "calibration images' (root of the squares' sum); null where there is none"
        ),
    ]


def compute(measured: Measured) -> dict[str, Any]:
    found: Shift | None = measured.studies.get("shift")
    return {"shift": None if found is None else asdict(found)}


def warning(document: Document) -> dict[str, str] | None:
    """What the reader is warned of."""
    found: Cut | None = document["shift"]
    if not found:
        return None
    return {
        "text": "The evaluation images drive the network further than the calibration images did: at "
        f"{found['origin']} its neurons cut off {100 * found['evaluation']:.0f} % of the activations (root of the "
        f"squares' sum), and {100 * found['calibration']:.0f} % on the calibration images. No number of steps makes "
        "up for that.",
        "hint": "Calibrate on more images, cropped, resized and sharpened as those that the network will see; where "
        "there are none, --headroom 1 (with --calibration reconstruct or mse) cuts off less.",
    }


SECTION = Section(Keys, compute)
