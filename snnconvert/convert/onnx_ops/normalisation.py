"""Normalisations: batch norm becomes an Affine; the others depend on their input and stay operators."""

# ruff: noqa: N802, ARG001, PLR0917 (functions are named, and take inputs and attributes, as ONNX has it)

from __future__ import annotations

import numpy as np

from snnconvert.convert.onnx_ops.activations import function
from snnconvert.convert.onnx_ops.flow import Array, Flow, Refusal, Value
from snnconvert.convert.onnx_ops.scope import Scope, fixed, moving, tensor
from snnconvert.graph import analog_ops, ops


def BatchNormalization(
    scope: Scope,
    x: Value,
    scale: Value,
    bias: Value,
    mean: Value,
    variance: Value,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    spatial: int = 1,
    training_mode: int = 0,
) -> Flow:
    """(x - mean) / sqrt(variance + epsilon) * scale + bias, folded into one scale and shift in float64."""
    if training_mode:
        raise Refusal("training_mode is on; export the model in evaluation mode")
    flow = moving(x)
    if flow.position != 0:
        raise Refusal("it needs a batch-first input")
    names = ("scale", "bias", "mean", "variance")
    gain, offset, center, spread = (
        fixed(value, f"its {name}").astype(np.float64)
        for name, value in zip(names, (scale, bias, mean, variance), strict=True)
    )
    factor = gain / np.sqrt(spread + epsilon)
    shift = offset - center * factor
    if not spatial and gain.ndim > 1:
        return scope.affine(flow, factor[None], shift[None])
    shape = (1, -1, *(1,) * (flow.rank - 2))
    return scope.affine(flow, factor.reshape(shape), shift.reshape(shape))


def LayerNormalization(
    scope: Scope,
    x: Value,
    scale: Value,
    bias: Value | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> Flow:
    flow = moving(x)
    first = flow.axis(axis)
    if flow.position is not None and flow.position > flow.normal(axis):
        raise Refusal("it normalises over the batch")
    shape = flow.dims[first - 1 :]
    weight = tensor(np.broadcast_to(fixed(scale, "its scale"), shape))
    offset = None if bias is None else tensor(np.broadcast_to(fixed(bias, "its bias"), shape))
    return scope.apply(analog_ops.LayerNorm(weight, offset, shape=shape, eps=epsilon), flow)


def RMSNormalization(
    scope: Scope, x: Value, scale: Value, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Flow:
    """x / sqrt(mean(x ** 2) + epsilon) * scale."""
    flow = moving(x)
    first = flow.axis(axis)
    if flow.position is not None and flow.position > flow.normal(axis):
        raise Refusal("it normalises over the batch")
    dims = tuple(range(first, len(flow.dims) + 1))
    power = scope.apply(ops.Mean(dims=dims, keepdim=True), function(scope, flow, "square"))
    inverse = function(scope, scope.affine(power, shift=epsilon), "rsqrt")
    product = flow.on(scope.emit(analog_ops.Multiply(), flow.node, inverse.node))
    return scope.affine(product, fixed(scale, "its scale"))


def InstanceNormalization(
    scope: Scope,
    x: Value,
    scale: Value,
    bias: Value,
    *,
    epsilon: float = 1e-5,
) -> Flow:
    flow = moving(x).require_plain()
    weight, offset = fixed(scale, "its scale"), fixed(bias, "its bias")
    return scope.apply(analog_ops.GroupNorm(tensor(weight), tensor(offset), groups=flow.dims[0], eps=epsilon), flow)


def GroupNormalization(
    scope: Scope,
    x: Value,
    scale: Value,
    bias: Value,
    *,
    epsilon: float = 1e-5,
    num_groups: int,
    stash_type: int = 1,
) -> Flow:
    flow = moving(x).require_plain()

    def per_channel(value: Value, name: str) -> Array:
        array = fixed(value, name).reshape(-1)
        # Opset 18 gave one value per group; from 21 on there is one per channel.
        return array if scope.opset >= 21 else np.repeat(array, flow.dims[0] // num_groups)

    weight, offset = per_channel(scale, "its scale"), per_channel(bias, "its bias")
    return scope.apply(analog_ops.GroupNorm(tensor(weight), tensor(offset), groups=num_groups, eps=epsilon), flow)
