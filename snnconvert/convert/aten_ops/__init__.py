"""Rules that turn ATen operators into the dialect, one function per operator."""

from __future__ import annotations

from snnconvert.convert.aten_ops.canonicalise import OPERATORS, Canonicaliser, Program

__all__ = ["OPERATORS", "Canonicaliser", "Program"]
