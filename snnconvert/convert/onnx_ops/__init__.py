"""ONNX operators, one function per operator, named as the operator and with its attributes as keyword arguments.

A function takes the Scope, then the inputs (numpy arrays where constant, Flows where activations, None where left
out), and returns one value or a tuple of them. To add an operator: write the function, and add a case to
`tests/convert/test_onnx_operators.py`, which asks for one. Nodes whose inputs are all constant never reach these
functions (see folding.py).
"""

from __future__ import annotations

from collections.abc import Callable
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

_FUNCTIONS: tuple[Callable[..., Any], ...] = (
    weighted.Conv,
    weighted.ConvTranspose,
    weighted.Gemm,
    weighted.MatMul,
    weighted.Einsum,
    normalisation.BatchNormalization,
    normalisation.LayerNormalization,
    normalisation.RMSNormalization,
    normalisation.InstanceNormalization,
    normalisation.GroupNormalization,
    activations.Relu,
    activations.Clip,
    activations.LeakyRelu,
    activations.PRelu,
    activations.ThresholdedRelu,
    activations.Elu,
    activations.Selu,
    activations.Celu,
    activations.Gelu,
    activations.Swish,
    activations.HardSigmoid,
    activations.Ceil,
    activations.Neg,
    activations.Softmax,
    activations.LogSoftmax,
    arithmetic.Add,
    arithmetic.Sub,
    arithmetic.Mul,
    arithmetic.Div,
    arithmetic.Pow,
    arithmetic.Sum,
    arithmetic.Mean,
    arithmetic.Max,
    arithmetic.Min,
    arithmetic.Where,
    arithmetic.Identity,
    arithmetic.Dropout,
    arithmetic.Cast,
    arithmetic.CastLike,
    arithmetic.ArgMax,
    arithmetic.LRN,
    layout.Shape,
    layout.Size,
    layout.Reshape,
    layout.Flatten,
    layout.Squeeze,
    layout.Unsqueeze,
    layout.Transpose,
    layout.Slice,
    layout.Split,
    layout.Gather,
    layout.GatherND,
    layout.Concat,
    layout.Expand,
    layout.Tile,
    layout.Pad,
    layout.DepthToSpace,
    layout.SpaceToDepth,
    pooling.MaxPool,
    pooling.AveragePool,
    pooling.GlobalAveragePool,
    pooling.GlobalMaxPool,
    pooling.LpNormalization,
    resizing.Resize,
    resizing.Upsample,
    quantised.QuantizeLinear,
    quantised.DequantizeLinear,
    quantised.QLinearConv,
    quantised.QLinearMatMul,
)

_MICROSOFT: tuple[Callable[..., Any], ...] = (
    quantised.QLinearAdd,
    quantised.QLinearMul,
    quantised.QLinearGlobalAveragePool,
    quantised.QLinearAveragePool,
    quantised.QLinearConcat,
    quantised.QLinearLeakyRelu,
    quantised.QLinearSoftmax,
    quantised.QLinearSigmoid,
    quantised.QGemm,
)

OPERATORS: dict[str, Callable[..., Any]] = {
    **{function.__name__: function for function in _FUNCTIONS},
    **activations.SIMPLE,
    **pooling.REDUCTIONS,
    **{f"com.microsoft.{function.__name__}": function for function in _MICROSOFT},
}
