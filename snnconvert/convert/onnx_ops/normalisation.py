"""Normalisations: batch norm becomes an Affine; the others depend on their input and stay operators."""

# ruff: noqa: N802, ARG001, PLR0917 (functions are named, and take inputs and attributes, as ONNX has it)

from __future__ import annotations

import numpy as np

from snnconvert.convert.lowering.elementwise import batch_norm
from snnconvert.convert.lowering.flow import Array, Flow, Refusal, Value
from snnconvert.convert.lowering.moves import rms_norm
from snnconvert.convert.lowering.scope import moving, tensor
from snnconvert.convert.onnx_ops.scope import Scope, fixed
from snnconvert.graph import kinds


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
    if training_mode:
        raise Refusal("training_mode is on; export the model in evaluation mode")
    named = {"scale": scale, "bias": bias, "mean": mean, "variance": variance}
    fixed_ones = {name: fixed(value, f"its {name}") for name, value in named.items()}
    return batch_norm(scope, moving(x), **fixed_ones, eps=epsilon)


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
    shape = flow.dims[_first(flow, axis) - 1 :]
    weight = tensor(np.broadcast_to(fixed(scale, "its scale"), shape))
    offset = None if bias is None else tensor(np.broadcast_to(fixed(bias, "its bias"), shape))
    return scope.apply(kinds.LayerNorm(weight, offset, shape=shape, eps=epsilon), flow)


def RMSNormalization(
    scope: Scope, x: Value, scale: Value, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Flow:
    flow = moving(x)
    _first(flow, axis)
    return rms_norm(scope, flow, axis, fixed(scale, "its scale"), epsilon)


def _first(flow: Flow, axis: int) -> int:
    """The first axis of the dialect that is normalised; all axes from `axis` on are."""
    if flow.position is not None and flow.position > flow.normal(axis):
        raise Refusal("it normalises over the batch")
    return flow.axis(axis)


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
    return scope.apply(kinds.GroupNorm(tensor(weight), tensor(offset), groups=flow.dims[0], eps=epsilon), flow)


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
    return scope.apply(kinds.GroupNorm(tensor(weight), tensor(offset), groups=num_groups, eps=epsilon), flow)


def _scaler(scope: Scope, x: Value, *, offset: tuple[float, ...] = (0.0,), scale: tuple[float, ...] = (1.0,)) -> Flow:
    """(x - offset) * scale over the last axis, as scikit-learn's scalers are written."""
    factor, shift = np.asarray(scale, np.float64), np.asarray(offset, np.float64)
    return scope.affine(moving(x), factor, -shift * factor)


TABLE = {"ai.onnx.ml.Scaler": _scaler}
