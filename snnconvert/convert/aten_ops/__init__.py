"""Rules that turn ATen operators into the dialect, one function per operator.

A rule takes the Context, then the arguments of the operator under the names of its schema. To add an operator: write
the function in one of the modules below and put `@operator("name", ...)` above it.
`tests/convert/test_pytorch_operators.py` asks for a case.
"""

from __future__ import annotations

from snnconvert.convert.aten_ops import (  # noqa: F401 (importing a module registers its rules)
    attention,
    comparisons,
    makers,
    pointwise,
    pooling,
    weighted,
    wiring,
)
from snnconvert.convert.aten_ops.context import OPERATORS

__all__ = ["OPERATORS"]
