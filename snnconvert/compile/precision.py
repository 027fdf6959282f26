"""Run a spiking network with the weights of a chip: rounded to 8-bit integers per output, or to bfloat16.

The rounding is a rewrite of the graph, so that every engine runs the same network and agrees on every spike. A weight
becomes an integer of at most 7 bits and a sign times the step of its output channel; a sum of spikes times weights is
then an integer times that step, and the kernels add those integers. Rounded weights stay on the grid that makes sums
exact (`compile.exact`), with one bit of it spent because rounding may lengthen a weight. Biases keep that grid;
thresholds, membranes and the factors of shortcuts stay float32.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from snnconvert.compile import PRECISIONS
from snnconvert.compile.exact import finest_grids, round_to
from snnconvert.errors import OptionError
from snnconvert.graph.dialect import calls, verify
from snnconvert.graph.edit import copied, finish, replace_op
from snnconvert.graph.kinds import Stage, Weighted
from snnconvert.graph.types import Snn

LARGEST = 127
BFLOAT16_BITS = 8


def in_precision(snn: Snn, precision: str) -> Snn:
    """`snn` with the weights of all weighted operators in `precision`; itself for float32.

    Raises:
        OptionError: if the precision is not known.
    """
    if precision not in PRECISIONS:
        raise OptionError(f"--precision {precision!r} is not known", hint=f"choose one of {', '.join(PRECISIONS)}")
    if precision == "float32":
        return snn
    graph = copied(snn.graph)
    for node, op in list(calls(graph, Weighted)):
        replace_op(graph, node, _rounded(op, precision))
    finish(graph)
    verify(graph, Stage.SNN)
    return replace(snn, graph=graph, precision=precision)


def _rounded(op: Weighted, precision: str) -> Weighted:
    rows, bias = op.by_rows(op.weight.double()), op.bias
    shared = bias is not None and bias.dtype == torch.float32  # spikes come in: weights and bias have one grid
    grids = 2 * finest_grids(rows if bias is None or not shared else torch.cat([rows, bias.double()[:, None]], 1))
    grids = torch.where(grids.isinf(), 1.0, grids)
    if precision == "int8":
        steps = op.by_output((torch.ceil(rows.abs().amax(1) / (LARGEST * grids)) * grids).clamp(min=grids))
        weight = round_to(op.weight, steps)
    else:
        weight = _to_bfloat16(round_to(op.weight, op.by_output(grids)))
    if bias is not None and shared:
        bias = round_to(bias, grids).float()
    return op.rebuilt(weight=weight.to(op.weight.dtype) + 0.0, bias=bias)  # an integer has no negative zero


def _to_bfloat16(weight: Tensor) -> Tensor:
    mantissa, exponent = torch.frexp(weight)
    return torch.ldexp(torch.round(mantissa * 2.0**BFLOAT16_BITS), exponent - BFLOAT16_BITS)
