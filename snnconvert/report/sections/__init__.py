"""The sections of the report, a file each; SECTIONS is their order on the page, in the terminal and in Markdown."""

from __future__ import annotations

from snnconvert.report.section import Section
from snnconvert.report.sections import (
    ablation,
    anytime,
    attribution,
    candidates,
    capacity,
    chip,
    curve,
    early_exit,
    energy,
    frontier,
    inside,
    jitter,
    layers,
    made,
    plan,
    precision,
    settling,
    shift,
    summary,
    training,
    warnings,
)

SECTIONS: dict[str, Section] = {
    "summary": summary.SECTION,
    "warnings": warnings.SECTION,
    "training": training.SECTION,
    "attribution": attribution.SECTION,
    "curve": curve.SECTION,
    "candidates": candidates.SECTION,
    "anytime": anytime.SECTION,
    "frontier": frontier.SECTION,
    "capacity": capacity.SECTION,
    "early exit": early_exit.SECTION,
    "precision": precision.SECTION,
    "layers": layers.SECTION,
    "settling": settling.SECTION,
    "energy": energy.SECTION,
    "inside": inside.SECTION,
    "plan": plan.SECTION,
    "ablation": ablation.SECTION,
    "jitter": jitter.SECTION,
    "chip": chip.SECTION,
    "shift": shift.SECTION,
    "made": made.SECTION,
}
