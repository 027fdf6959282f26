"""Rounding weights so that every order of summation gives the same result.

A float32 sum of integers times multiples of a power of two g is exact in any order as long as no partial sum exceeds
2^24 g. Rounding a layer's folded weights and biases to such a grid makes engine, batch size, thread count and number of
workers unable to change a spike. Where the input of a layer is not an integer the product is taken in float64, with
inputs and weights on grids of 26 bits each, so that the same argument holds with 2^53.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from snnconvert.graph.ops import Conv, ConvTranspose, Linear

FLOAT32_BITS = 24
FLOAT32_PEAK = 2**12
FLOAT64_BITS = 52
INPUT_BITS = 26

Weighted = Conv | ConvTranspose | Linear


def power_of_two_above(value: float) -> float:
    """The smallest power of two that is at least `value` (1 for 0)."""
    return 2.0 ** math.ceil(math.log2(value)) if value > 0 else 1.0


def fan_in_sums(op: Weighted) -> tuple[Tensor, Tensor]:
    """Sums of the positive and of the negated negative weights that reach each output channel, float64."""
    weight = op.weight.double()
    if isinstance(op, ConvTranspose):
        grouped = weight.reshape(op.groups, weight.shape[0] // op.groups, weight.shape[1], -1)
        rows = grouped.permute(0, 2, 1, 3).reshape(op.groups * weight.shape[1], -1)
    else:
        rows = weight.reshape(weight.shape[0], -1)
    return rows.clamp(min=0).sum(1), (-rows).clamp(min=0).sum(1)


def largest_sum(op: Weighted, peak: float, *, signed: bool) -> float:
    """The largest absolute value that any partial sum of the layer can reach for inputs up to `peak`."""
    positive, negative = fan_in_sums(op)
    reach = positive + negative if signed else torch.maximum(positive, negative)
    bias = 0.0 if op.bias is None else op.bias.double().abs()
    return float((reach * peak + bias).max())


def round_to(tensor: Tensor, grid: float) -> Tensor:
    """`tensor` rounded to multiples of `grid`, in float64."""
    return torch.round(tensor.double() / grid) * grid


def on_grid(op: Weighted, peak: float, *, signed: bool) -> tuple[Weighted, float]:
    """`op` rounded so that it is exact on integer inputs up to `peak`; and the bound of its output.

    In float32, unless the integers are so large that too few bits would be left for the weights.
    """
    bound = largest_sum(op, peak, signed=signed)
    bits = FLOAT32_BITS if peak < FLOAT32_PEAK else FLOAT64_BITS
    grid = power_of_two_above(bound * (1 + 2.0**-10)) / 2.0**bits
    rounded = _rounded(op, grid)
    return (rounded.float() if peak < FLOAT32_PEAK else rounded), bound


def on_double_grid(op: Weighted, input_bound: float) -> tuple[Weighted, float, float]:
    """`op` in float64 for real inputs; the grid its input has to be rounded to; and the bound of its output."""
    bound = largest_sum(op, input_bound, signed=True)
    input_grid = power_of_two_above(input_bound) / 2.0**INPUT_BITS
    reach = float(torch.stack(fan_in_sums(op)).sum(0).max())
    weight_grid = power_of_two_above(max(reach, 1e-30)) / 2.0**INPUT_BITS
    return _rounded(op, weight_grid, bias_grid=input_grid * weight_grid), input_grid, bound


def _rounded(op: Weighted, grid: float, bias_grid: float | None = None) -> Weighted:
    bias = None if op.bias is None else round_to(op.bias, bias_grid or grid)
    return op.double().rebuilt(weight=round_to(op.weight, grid), bias=bias)
