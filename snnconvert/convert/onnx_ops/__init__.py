"""ONNX operators, one function per operator, named as the operator and with its attributes as keyword arguments.

A function takes the Scope, then the inputs (numpy arrays where constant, Flows where activations, None where left
out), and returns one value or a tuple of them. To add an operator: write the function in one of the modules below; a
function with a capital initial is an operator. `tests/convert/test_onnx_operators.py` asks for a case. Nodes whose
inputs are all constant never reach these functions (see folding.py).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

from snnconvert.convert.onnx_ops import (
    activations,
    arithmetic,
    layout,
    normalisation,
    pooling,
    quantised,
    resizing,
    weighted,
)

__all__ = ["OPERATORS"]


def _operators(module: ModuleType) -> dict[str, Callable[..., Any]]:
    functions = inspect.getmembers(module, inspect.isfunction)
    own = [(name, function) for name, function in functions if function.__module__ == module.__name__]
    return {name: function for name, function in own if name[0].isupper()}


OPERATORS: dict[str, Callable[..., Any]] = {
    **activations.SIMPLE,
    **arithmetic.SAME,
    **normalisation.TABLE,
    **pooling.REDUCTIONS,
    **quantised.TABLE,
}
for _module in (activations, arithmetic, layout, normalisation, pooling, quantised, resizing, weighted):
    OPERATORS |= _operators(_module)
