"""Operators with weights: convolutions and matrix products."""

# ruff: noqa: N802, N803 (functions are named, and take inputs and attributes, as ONNX has it)

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from snnconvert.convert.lowering.flow import Flow, Refusal, Value
from snnconvert.convert.lowering.products import einsum, gemm
from snnconvert.convert.lowering.scope import moving, tensor
from snnconvert.convert.lowering.windows import Window, conv, padded
from snnconvert.convert.onnx_ops.scope import Scope, fixed, fixed_or_none
from snnconvert.graph import kinds


def Conv(
    scope: Scope,
    x: Value,
    weight: Value,
    bias: Value | None = None,
    *,
    group: int = 1,
    kernel_shape: tuple[int, ...] | None = None,
    **sliding: Any,
) -> Flow:
    kernel = fixed(weight, "its weight")
    _check_shape(kernel_shape, kernel.shape)
    window = Window(kernel.shape[2:], **sliding)
    return conv(scope, moving(x), kernel, fixed_or_none(bias, "its bias"), window, group)


def _check_shape(stated: tuple[int, ...] | None, kernel: tuple[int, ...]) -> None:
    if stated and tuple(stated) != kernel[2:]:
        raise Refusal(f"kernel_shape {tuple(stated)} differs from the weight's {kernel[2:]}")


def ConvTranspose(
    scope: Scope,
    x: Value,
    weight: Value,
    bias: Value | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: tuple[int, ...] | None = None,
    group: int = 1,
    kernel_shape: tuple[int, ...] | None = None,
    output_padding: tuple[int, ...] | None = None,
    output_shape: tuple[int, ...] | None = None,
    pads: tuple[int, ...] | None = None,
    strides: tuple[int, ...] | None = None,
) -> Flow:
    flow, kernel = moving(x).require_plain(), fixed(weight, "its weight")
    rank = kernel.ndim - 2
    if not 1 <= rank <= 3 or len(flow.dims) != rank + 1:
        raise Refusal(f"transposed convolution over {rank} axes of an input with {len(flow.dims) - 1}")
    _check_shape(kernel_shape, kernel.shape)
    stride, dilation = tuple(strides or (1,) * rank), tuple(dilations or (1,) * rank)
    extra = tuple(output_padding or (0,) * rank)
    whole = [
        (size - 1) * s + (k - 1) * d + 1 + e
        for size, s, k, d, e in zip(flow.dims[1:], stride, kernel.shape[2:], dilation, extra, strict=True)
    ]
    if output_shape is not None or auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        # By auto_pad alone ONNX Runtime crops, and appends nothing.
        wanted = output_shape or [
            min(size * s, full) for size, s, full in zip(flow.dims[1:], stride, whole, strict=True)
        ]
        begin, end = _cropped(whole, wanted[-rank:], longer_end=auto_pad not in ("SAME_LOWER", "NOTSET"))
    else:
        padding = list(pads or (0,) * (2 * rank)) if auto_pad == "NOTSET" else [0] * (2 * rank)
        begin, end = padding[:rank], padding[rank:]
    offset = None if bias is None else tensor(fixed(bias, "its bias"))
    symmetric = (
        begin == end and min(begin) >= 0 and all(e < max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True))
    )
    behind = tuple(e - amount for e, amount in zip(extra, end, strict=True))
    # The bias is added to rows that are appended, too.
    late = not symmetric and offset is not None and (max(behind) > 0 or min(begin) < 0)
    op = kinds.ConvTranspose(
        tensor(kernel),
        None if late else offset,
        stride=stride,
        padding=tuple(begin) if symmetric else (0,) * rank,
        output_padding=extra if symmetric else (0,) * rank,
        dilation=dilation,
        groups=group,
    )
    flow = scope.apply(op, flow)
    if symmetric:
        return flow
    flow = padded(scope, flow, tuple(-amount for amount in begin), behind)
    return scope.affine(flow, shift=fixed(bias, "its bias").reshape(1, -1, *(1,) * rank)) if late else flow


def _cropped(whole: Sequence[int], wanted: Sequence[int], *, longer_end: bool) -> tuple[list[int], list[int]]:
    """What is taken away at the begin and at the end of all that is computed, so that the output is as large as wanted.

    An output that is larger is longer at its end alone.
    """
    totals = [full - size for full, size in zip(whole, wanted, strict=True)]
    small = [max(total, 0) // 2 for total in totals]
    large = [max(total, 0) - half for total, half in zip(totals, small, strict=True)]
    begin, end = (small, large) if longer_end else (large, small)
    return begin, [amount + min(total, 0) for amount, total in zip(end, totals, strict=True)]


def Gemm(
    scope: Scope,
    a: Value,
    b: Value,
    c: Value | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Flow:
    a, b = (_turned(scope, value) if flag else value for value, flag in ((a, transA), (b, transB)))
    return gemm(scope, a, b, c, alpha=alpha, beta=beta)


def _turned(scope: Scope, value: Value) -> Value:
    return scope.transpose(value, (1, 0)) if isinstance(value, Flow) else value.T


def Einsum(scope: Scope, *inputs: Value, equation: str) -> Flow:
    return einsum(scope, equation, *inputs)
