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

from snnconvert.graph.kinds import Weighted

FLOAT32_BITS = 24
FLOAT64_BITS = 52
# rounding noise above which float64 is taken: 50 random layers amplify it tenfold and more (ResNet-50: 1e-4 to 1e-2)
COARSEST = 2.0**-13
# of a window's code: a third of what the code's own rounding adds where it has 8 bits, and float64 costs sixfold
COARSEST_WINDOWED = 2.0**-9
INPUT_BITS = 26


def power_of_two_above(value: float) -> float:
    """The smallest power of two that is at least `value` (1 for 0)."""
    return 2.0 ** math.ceil(math.log2(value)) if value > 0 else 1.0


def fan_in_sums(op: Weighted) -> tuple[Tensor, Tensor]:
    """Sums of the positive and of the negated negative weights that reach each output channel, float64."""
    rows = op.by_rows(op.weight.double())
    return rows.clamp(min=0).sum(1), (-rows).clamp(min=0).sum(1)


def largest_sums(op: Weighted, peak: float, *, signed: bool) -> Tensor:
    """The largest absolute value that any partial sum can reach for inputs up to `peak`, per output channel."""
    positive, negative = fan_in_sums(op)
    reach = positive + negative if signed else torch.maximum(positive, negative)
    return reach * peak + (0.0 if op.bias is None else op.bias.double().abs())


def finest_grids(rows: Tensor) -> Tensor:
    """For each row the largest power of two of which all its values are multiples; infinite where all are 0."""
    mantissa, exponent = torch.frexp(rows.double())
    bits = (mantissa * 2.0**53).to(torch.int64)
    lowest = 2.0 ** (torch.log2((bits & -bits).double()) + exponent - 53)
    return torch.where(bits == 0, math.inf, lowest).amin(1)


def round_to(tensor: Tensor, grid: float | Tensor) -> Tensor:
    """`tensor` rounded to multiples of `grid`, in float64."""
    return torch.round(tensor.double() / grid) * grid


def on_grid(op: Weighted, peak: float, *, signed: bool, windowed: bool) -> tuple[Weighted, float]:
    """`op` rounded so that it is exact on integer inputs up to `peak`; and the bound of its output.

    Every output channel has a grid of its own. In float32, unless so few bits would be left for the weights that their
    rounding counts: where the integers are large or many (graded spikes, a window's codes, average pooling).
    """
    sums = largest_sums(op, peak, signed=signed)
    grids = _powers_above(sums * (1 + 2.0**-10)) / 2.0**FLOAT32_BITS
    single = rounding_noise(op, grids) <= (COARSEST_WINDOWED if windowed else COARSEST)
    if not single:
        grids = grids / 2.0 ** (FLOAT64_BITS - FLOAT32_BITS)
        in_parts = _in_parts_on_grid(op, peak, grids)
        if in_parts is not None:
            return in_parts, float(sums.max())
    rounded = _rounded(op, op.by_output(grids), grids)
    return (rounded.float() if single else rounded), float(sums.max())


def _in_parts_on_grid(op: Weighted, peak: float, grids: Tensor) -> Weighted | None:
    """`op` on `grids`, one for each output, as scales of its parts times the weights of one part.

    The scales have a grid on which sums of the parts are exact in float32; so are sums of everything in float64, in
    whatever order. None for operators that are not in parts, and where the scales have too few bits.
    """
    step = power_of_two_above(op.parts * peak) / 2.0**FLOAT32_BITS
    if not op.in_parts or step > COARSEST:
        return None
    scales, weight = op.part()
    weight, bias = round_to(weight, op.by_output(grids / step)), None if op.bias is None else round_to(op.bias, grids)
    return op.of_part(weight, bias, round_to(scales, step))


def rounding_noise(op: Weighted, grids: Tensor) -> float:
    """What rounding to `grids` adds to the outputs, relative to what the weights make of independent inputs."""
    squares = op.weight.double().square()
    power = op.by_rows(squares).mean(1)
    return float(((grids.square() / 12).sum() / power.sum().clamp(min=1e-300)).sqrt())


def _powers_above(values: Tensor) -> Tensor:
    return torch.where(values > 0, 2.0 ** values.clamp(min=1e-300).log2().ceil(), torch.ones_like(values))


def on_double_grid(op: Weighted, input_bound: float) -> tuple[Weighted, float, float]:
    """`op` in float64 for real inputs; the grid its input has to be rounded to; and the bound of its output."""
    bound = float(largest_sums(op, input_bound, signed=True).max())
    input_grid = power_of_two_above(input_bound) / 2.0**INPUT_BITS
    reach = float(torch.stack(fan_in_sums(op)).sum(0).max())
    weight_grid = power_of_two_above(max(reach, 1e-30)) / 2.0**INPUT_BITS
    return _rounded(op, weight_grid, input_grid * weight_grid), input_grid, bound


def _rounded(op: Weighted, grid: float | Tensor, bias_grid: float | Tensor) -> Weighted:
    bias = None if op.bias is None else round_to(op.bias, bias_grid)
    return op.double().rebuilt(weight=round_to(op.weight, grid), bias=bias)
