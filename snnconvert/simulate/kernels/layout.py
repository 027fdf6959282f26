"""How values lie in memory for the native kernels: channels last, weights as rows of outputs.

A sample of shape (C, H, W) has H x W pixels of C channels; (N, C) has N pixels; (C) has one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from snnconvert.compile.exact import finest_grids
from snnconvert.graph.kinds import Weighted
from snnconvert.simulate.kernels.bits import Bits, bytes_for, physical

LANES = 16
MOST_ROWS = 2**16 - 1
MOST_INTEGER = 127
MOST_SUM = 2**15 - 1
MOST_TABLES = 320  # of one block of outputs; more were not measured
OUTPUTS_WORTH_TABLES = 1024  # making a table costs as much as some 400 look-ups
# densities from which look-ups are faster than lists, and than the faster lists of kernels three columns wide
TABLES_FROM, TABLES_FROM_COLUMNS = 0.1, 0.18
SMALL_WEIGHTS = 70_000  # bytes: most of them stay in the first-level cache
LARGE_WEIGHTS = 2_200_000  # bytes: they leave the second-level cache


def is_channels_last(tensor: Tensor) -> bool:
    """Whether a batch of maps lies in memory pixel by pixel, and not channel by channel."""
    return tensor.ndim == 4 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last)


def out_tensor(count: int, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | str = "cpu") -> Tensor:
    """An empty tensor (count, *shape) with channels last in memory."""
    order = torch.channels_last if len(shape) == 3 else torch.contiguous_format
    return torch.empty((count, *shape), dtype=dtype, memory_format=order, device=device)


def sample_of(spikes: Bits | Tensor) -> tuple[int, ...]:
    """The shape of one sample of `spikes`."""
    return spikes.shape if isinstance(spikes, Bits) else tuple(spikes.shape[1:])


def address(spikes: Bits | Tensor) -> int:
    """Where the memory of `spikes` begins."""
    return (spikes.memory if isinstance(spikes, Bits) else spikes).data_ptr()


def per_element(parameter: Tensor, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """A parameter that broadcasts against one sample as (1, C) where pixels share it, else (pixels, C)."""
    *_, channels = physical(shape)
    full = parameter.expand(shape)
    by_pixel = full.permute(1, 2, 0) if len(shape) == 3 else full
    if len(shape) in (2, 3) and not any(by_pixel.stride()[:-1]):  # as it comes, one for all pixels
        by_pixel = by_pixel[(slice(1),) * (by_pixel.ndim - 1)]
    rows = by_pixel.reshape(-1, channels)
    if len(rows) > 1 and bool((rows == rows[:1]).all()):
        rows = rows[:1]
    return rows.to(dtype).contiguous()


@dataclass(frozen=True)
class Packed:
    """Weights of a 1-D or 2-D convolution or a linear layer (a 1 x 1 convolution) in the kernels' order.

    Attributes:
        weight: (groups, k_h * k_w * C_in / groups + 1, C_out / groups padded to 16), the last row zero; for a
            depthwise layer (k_h * k_w, C).
        bias: (groups, C_out / groups padded to 16) or (C).
        integers: where every weight is a small integer times a step of its output: those integers, int16, as `weight`
            but padded to 32; any sum of them for unit spikes fits into 16 bits.
        steps: then (2, C_out padded to 32): the steps and the biases.
        columns: of kernels three columns wide, without groups, with a stride of 1 or 2 and without dilation across:
            `integers`, or else `weight`, as (k_h, C_in, 3, padded C_out).
    """

    weight: Tensor
    bias: Tensor
    inputs: int
    outputs: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    depthwise: bool
    integers: Tensor | None = None
    steps: Tensor | None = None
    columns: Tensor | None = None


def dense_from(packed: Packed) -> float:
    """Density of the input spikes from which a dense convolution is faster; above 1: never (benchmarks/speed.py)."""
    if packed.depthwise:
        return 2.0
    if packed.groups > 1:
        return 0.5 if packed.inputs // packed.groups >= 2 * LANES else 0.0
    size = packed.weight.numel() * packed.weight.element_size()
    if size <= SMALL_WEIGHTS:
        return 0.8
    if math.prod(packed.kernel) == 1:
        return 0.42
    return 0.37 if size <= LARGE_WEIGHTS else 0.26


def tables_pay(packed: Packed, density: float, outputs: int) -> bool:
    """Whether sums of bits are looked up faster than they are added (benchmarks/speed.py).

    Args:
        packed: the weights.
        density: share of bits that are set.
        outputs: output pixels of all samples.
    """
    outputs //= torch.get_num_threads()  # every thread makes tables of its own
    if packed.groups > 1 or outputs < OUTPUTS_WORTH_TABLES:
        return False
    if math.prod(packed.kernel) * bytes_for(packed.inputs) > MOST_TABLES:
        return False
    if packed.outputs <= LANES or (packed.inputs <= 2 * LANES and packed.kernel == (1, 1)):
        return True
    for_many = TABLES_FROM_COLUMNS if packed.columns is not None else TABLES_FROM
    return density >= for_many * (1 + OUTPUTS_WORTH_TABLES / outputs)


def by_tables(packed: Packed, density: float, planes: int, outputs: int) -> bool | None:
    """Whether spikes go through `packed` fastest by tables of sums, or one by one; None: by a dense operator.

    Args:
        packed: the weights.
        density: share of the spikes that are not 0, all planes together.
        planes: of bits that hold them, 0 where units do.
        outputs: values of all samples that are made.
    """
    if planes and tables_pay(packed, density / planes, outputs // packed.outputs):
        return True
    return False if density < dense_from(packed) else None


def pack(op: Weighted, planes: int = 1, magnitudes: int = 1) -> Packed | None:
    """`op` for the kernels, or None if it is of a form that they do not know.

    Args:
        op: a convolution or a linear layer.
        planes: of the bits that it receives. Unless it has groups, each plane is so many channels of their own, those
            of spikes below zero with negated weights.
        magnitudes: planes of spikes of either sign, each worth twice the one before.
    """
    if op.weight.dtype != torch.float32 or not op.gathers:
        return None
    if planes > 1 and op.groups == 1:
        worth = [2.0**place for place in range(magnitudes)]
        signed = [-one for one in worth] if planes > magnitudes else []
        return pack(op.rebuilt(weight=_of_planes(op.weight, [*worth, *signed])))
    stride: tuple[int, ...] = (1, 1)
    padding: tuple[int, ...] = (0, 0)
    dilation: tuple[int, ...] = (1, 1)
    if op.features_last:
        weight, groups = op.weight[:, :, None, None], 1
    elif op.weight.ndim == 4:
        weight, groups, stride, padding, dilation = op.weight, op.groups, op.stride, op.padding, op.dilation
    elif op.weight.ndim == 3:  # of height 1
        weight, groups = op.weight[:, :, None], op.groups
        stride, padding, dilation = (1, *op.stride), (0, *op.padding), (1, *op.dilation)
    else:
        return None
    outputs, per_group, *kernel = weight.shape
    if per_group * math.prod(kernel) > MOST_ROWS - 1:
        return None
    bias = torch.zeros(outputs) if op.bias is None else op.bias
    if op.depthwise:
        rows = weight[:, 0].permute(1, 2, 0).reshape(-1, outputs)
    else:
        padded = F.pad(bias.reshape(groups, -1), (0, -(outputs // groups) % LANES))
        by_group = weight.reshape(groups, outputs // groups, per_group, *kernel).permute(0, 3, 4, 2, 1)
        rows = by_group.reshape(groups, -1, outputs // groups)
        rows, bias = F.pad(rows, (0, -(outputs // groups) % LANES, 0, 1)), padded
    integers, steps = (None, None) if groups > 1 else _as_integers(rows[0, :, :outputs], bias[0, :outputs])
    columns = None
    if groups == 1 and kernel[1] == 3 and stride[1] in (1, 2) and tuple(dilation) == (1, 1):
        by_row = (rows[0] if integers is None else integers)[:-1].reshape(kernel[0], 3, per_group, -1)
        columns = by_row.transpose(1, 2).contiguous()
    return Packed(
        weight=rows.contiguous(),
        bias=bias.contiguous(),
        inputs=per_group * groups,
        outputs=outputs,
        kernel=tuple(kernel),
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        depthwise=op.depthwise,
        integers=integers,
        steps=steps,
        columns=columns,
    )


def _of_planes(weight: Tensor, worth: Sequence[float]) -> Tensor:
    """Weights (outputs, inputs, ...) for planes of bits, each in whole bytes."""
    filled = F.pad(weight, (0, 0) * (weight.ndim - 2) + (0, -weight.shape[1] % 8))
    return torch.cat([filled * one for one in worth], 1)


def _as_integers(rows: Tensor, bias: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Weight rows (fan-in + 1, outputs) as `Packed.integers` and `Packed.steps`, or None where they are not such."""
    grid = finest_grids(rows.T)
    grid = torch.where(grid.isinf(), 1.0, grid)
    multiples = (rows.double() / grid).abs().to(torch.int64).T.numpy()
    common = np.maximum(np.gcd.reduce(multiples, axis=1), 1)
    if (multiples.max(1) // common).max(initial=0) > MOST_INTEGER:
        return None, None
    step = torch.from_numpy(common).double() * grid
    whole = (rows.double() / step).round()
    reach = torch.maximum(whole.clamp(min=0).sum(0), (-whole).clamp(min=0).sum(0))
    if float(reach.max()) > MOST_SUM:
        return None, None
    pads = (0, -rows.shape[1] % (2 * LANES))
    return F.pad(whole.to(torch.int16), pads), F.pad(torch.stack([step.float(), bias]), pads).contiguous()
