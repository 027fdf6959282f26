"""Convolutions on a CUDA device as exact sums.

The engine rests on sums that no order changes (`compile.exact`): products and additions in float32 or float64, nothing
else. On a CUDA device two things stand against that:

- TF32 rounds the factors to 10 bits. It is torch's default for convolutions, and may have been allowed for products.
- cuDNN may choose transforms (Winograd, FFT) that are no sums of products of weights and inputs. Neither torch nor
  cuDNN has a switch for that: asking for deterministic algorithms leaves them in, torch chooses among cuDNN's by their
  speed.

So cuDNN and TF32 are switched off while the engine runs, and convolutions become matrix products over copied windows;
transposed convolutions are left to torch's own kernels, which do the same image by image. What this rests on is that
float32 and float64 matrix products of cuBLAS are multiply-adds in some order, as long as nobody has asked it for
something else (its environment variables can). That has not been measured: nothing here was run on such a device.
Exponentials and the like (operators that stay analog) may differ from the CPU's in their last bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional as F

from snnconvert.graph.kinds import Conv, Op

# bytes of windows that are copied at once
MOST_WINDOWS = 2**28


@contextmanager
def exact_arithmetic(device: torch.device) -> Iterator[None]:
    """Inside the block cuDNN and TF32 are off, if `device` is a CUDA device; afterwards all is as it was.

    These are settings of the process: what other threads compute meanwhile is affected as well.
    """
    if device.type != "cuda":
        yield
        return
    products, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    # torch 2.9 has a setting of its own for each kind of operator, and does not like the older one beside it
    name, off = ("fp32_precision", "ieee") if hasattr(products, "fp32_precision") else ("allow_tf32", False)
    before, enabled = getattr(products, name), cudnn.enabled
    try:
        setattr(products, name, off)
        cudnn.enabled = False
        yield
    finally:
        setattr(products, name, before)
        cudnn.enabled = enabled


def applied(op: Op, tensors: Sequence[Tensor]) -> Tensor:
    """`op(*tensors)` without cuDNN."""
    if isinstance(op, Conv):
        return convolved(op, tensors[0])
    value: Tensor = op(*tensors)
    return value


def convolved(op: Conv, x: Tensor) -> Tensor:
    """`op(x)` as matrix products, equal to it where the sums are exact.

    Args:
        op: any convolution.
        x: (batch, C_in, *space) in the precision of the weights.

    Returns:
        (batch, C_out, *space), channels last in memory.
    """
    outputs, per_group, *kernel = op.weight.shape
    rank, groups, channels = len(kernel), op.groups, per_group * op.groups
    if any(op.padding):
        x = F.pad(x, [side for padding in reversed(op.padding) for side in (padding, padding)])
    x = x.movedim(1, -1).contiguous()
    batch, *space, _ = x.shape
    size = [
        (length - dilation * (taps - 1) - 1) // stride + 1
        for length, taps, stride, dilation in zip(space, kernel, op.stride, op.dilation, strict=True)
    ]
    first, *steps, last = x.stride()
    across = [step * stride for step, stride in zip(steps, op.stride, strict=True)]
    inside = [step * dilation for step, dilation in zip(steps, op.dilation, strict=True)]
    windows = x.as_strided((batch, *size, *kernel, channels), (first, *across, *inside, last))
    rows = op.weight.reshape(groups, outputs // groups, per_group, -1).transpose(1, 3).flatten(1, 2)
    result = x.new_empty((batch, *size, outputs))
    each = math.prod(windows.shape[1:]) * x.element_size()
    some = max(1, MOST_WINDOWS // max(each, 1))
    for start in range(0, batch, some):
        part, out = windows[start : start + some], result[start : start + some]
        if per_group == 1 and outputs == groups:  # depthwise: a product would be one of vectors
            taps = op.weight.reshape(outputs, *kernel).movedim(0, -1)
            torch.sum(part * taps, dim=tuple(range(rank + 1, 2 * rank + 1)), out=out)
        elif groups == 1:
            torch.mm(part.reshape(-1, rows.shape[1]), rows[0], out=out.view(-1, outputs))
        else:
            columns = part.view(*part.shape[:-1], groups, per_group).movedim(-2, 0).reshape(groups, -1, rows.shape[1])
            out.view(-1, groups, outputs // groups).copy_(torch.bmm(columns, rows).transpose(0, 1))
    if op.bias is not None:
        result += op.bias
    return result.movedim(-1, 1)
