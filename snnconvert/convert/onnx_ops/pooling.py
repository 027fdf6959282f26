"""Pooling and reductions."""

# ruff: noqa: N802, ARG001 (functions are named, and take inputs and attributes, as ONNX has it)

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from snnconvert.convert.lowering.flow import Flow, Value
from snnconvert.convert.lowering.moves import reduce
from snnconvert.convert.lowering.scope import moving
from snnconvert.convert.lowering.windows import Window, average_pool, max_pool
from snnconvert.convert.onnx_ops.layout import Integers
from snnconvert.convert.onnx_ops.scope import Scope, integers
from snnconvert.graph import kinds

_REDUCTIONS = {
    "ReduceMean": "mean",
    "ReduceSum": "sum",
    "ReduceMax": "max",
    "ReduceMin": "min",
    "ReduceL1": "l1",
    "ReduceL2": "l2",
    "ReduceSumSquare": "sum_square",
    "ReduceLogSumExp": "log_sum_exp",
}


def MaxPool(scope: Scope, x: Value, *, kernel_shape: tuple[int, ...], storage_order: int = 0, **sliding: Any) -> Flow:
    return max_pool(scope, moving(x), Window(tuple(kernel_shape), **sliding))


def AveragePool(
    scope: Scope, x: Value, *, kernel_shape: tuple[int, ...], count_include_pad: int = 0, **sliding: Any
) -> Flow:
    window = Window(tuple(kernel_shape), **sliding)
    return average_pool(scope, moving(x), window, count_include_pad=bool(count_include_pad))


def GlobalAveragePool(scope: Scope, x: Value) -> Flow:
    flow = moving(x).require_plain()
    return reduce(scope, flow, range(2, flow.rank), "mean", keep=True)


def GlobalMaxPool(scope: Scope, x: Value) -> Flow:
    flow = moving(x).require_plain()
    if flow.rank <= 4:
        return max_pool(scope, flow, Window(flow.dims[1:]))
    return reduce(scope, flow, range(2, flow.rank), "max", keep=True)


def _reduction(how: str) -> Callable[..., Value]:
    def operator(
        scope: Scope,
        x: Value,
        axes: Integers | None = None,
        *,
        keepdims: int = 1,
        noop_with_empty_axes: int = 0,
    ) -> Value:
        flow = moving(x)
        along = () if axes is None else integers(axes, "its axes")
        if not along and not noop_with_empty_axes:
            along = tuple(range(flow.rank))
        return reduce(scope, flow, along, how, keep=bool(keepdims))

    return operator


REDUCTIONS: dict[str, Callable[..., Value]] = {name: _reduction(how) for name, how in _REDUCTIONS.items()}


def LpNormalization(scope: Scope, x: Value, *, axis: int = -1, p: int = 2) -> Flow:
    flow = moving(x)
    return scope.joined(kinds.Divide(), flow, reduce(scope, flow, [axis], "l2" if p == 2 else "l1", keep=True))
