"""Resizing by copies and by linear interpolation, with the arithmetic of ONNX Runtime.

Where an output samples its input is computed in float32 there, and a rounding decides which entry is copied: at a scale
of 0.4 the last of three outputs lies at 2 / 0.4 = 5 in float32, but just below 5 in exact arithmetic.
"""

# ruff: noqa: N802, ARG001 (functions are named, and take inputs and attributes, as ONNX has it)

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from snnconvert.convert.lowering.flow import BATCH, Array, Flow, Refusal, Value
from snnconvert.convert.lowering.moves import take
from snnconvert.convert.lowering.products import along_axis
from snnconvert.convert.lowering.scope import moving
from snnconvert.convert.onnx_ops.scope import Scope, fixed, integers
from snnconvert.graph import kinds

_COORDINATES = (
    *("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric", "align_corners", "asymmetric"),
    "tf_half_pixel_for_nn",
)


# ONNX Runtime takes what is this close to a half for one (older releases: exact halves only).
_HALF = np.float32(1e-6)


def _rounded(values: Array, at_half: Callable[[Array], Array]) -> Array:
    """The nearest whole numbers; `at_half` decides between the two neighbours of a half."""
    below = np.floor(values)
    halves = np.abs(values - below - np.float32(0.5)) <= _HALF
    return np.asarray(np.where(halves, at_half(values), below + (values - below > np.float32(0.5))))


_ROUNDINGS: dict[str, Callable[[Array], Array]] = {
    "floor": np.floor,
    "ceil": np.ceil,
    "round_prefer_floor": lambda values: _rounded(values, np.floor),
    "round_prefer_ceil": lambda values: _rounded(values, np.ceil),
}


def _sources(size: int, out: int, scale: np.float32, coordinates: str) -> Array:
    """Where each of `out` outputs samples an axis of `size` entries, float32, by coordinate_transformation_mode."""
    places = np.arange(out, dtype=np.float32)
    half = np.float32(0.5)
    sources: Array
    if scale == 1 or (coordinates == "pytorch_half_pixel" and out == 1):
        sources = places
    elif coordinates == "align_corners":
        sources = places * np.float32(size - 1) / np.float32(max(out - 1, 1))
    elif coordinates == "asymmetric":
        sources = places / scale
    elif coordinates == "tf_half_pixel_for_nn":
        sources = (places + half) / scale
    elif coordinates == "half_pixel_symmetric":
        adjustment = np.float32(out) / (scale * np.float32(size))
        offset = np.float32(size) / np.float32(2) * (np.float32(1) - adjustment)
        sources = np.float64(offset) + (places.astype(np.float64) + 0.5) / np.float64(scale) - 0.5
    else:
        sources = (places + half) / scale - half
    return sources.astype(np.float32)


def _nearest(sources: Array, size: int, rounding: str) -> list[int]:
    """Which input entry each output copies."""
    return [int(index) for index in _ROUNDINGS[rounding](sources).clip(0, size - 1)]


def _interpolation(sources: Array, size: int) -> Array:
    """Weights of linear interpolation, shape (outputs, size): two neighbours share each row."""
    sources = sources.clip(0, size - 1).astype(np.float64)
    first = np.floor(sources).astype(np.int64)
    weights = np.zeros((len(sources), size))
    rows = np.arange(len(sources))
    weights[rows, first] = 1 - (sources - first)
    inner = first + 1 < size
    weights[rows[inner], first[inner] + 1] = (sources - first)[inner]
    return weights.astype(np.float32)


def _cubic(sources: Array, size: int, a: float, *, leave_out: bool) -> Array:
    """Weights of cubic convolution (R. Keys, IEEE Trans. ASSP, 1981), shape (outputs, size): four neighbours a row.

    What lies outside is the nearest border, or left out, the others being scaled up to a sum of 1.
    """
    places = sources.astype(np.float64)
    first = np.floor(places).astype(np.int64)
    weights = np.zeros((len(places), size))
    for step in range(-1, 3):
        x = np.abs(places - (first + step))
        near = ((a + 2) * x - (a + 3)) * x * x + 1
        far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
        share = np.where(x <= 1, near, np.where(x < 2, far, 0.0))
        index = first + step
        if leave_out:
            share = np.where((index >= 0) & (index < size), share, 0.0)
        np.add.at(weights, (np.arange(len(places)), index.clip(0, size - 1)), share)
    return (weights / (weights.sum(1, keepdims=True) if leave_out else 1.0)).astype(np.float32)


def Resize(
    scope: Scope,
    x: Value,
    roi: Value | None = None,
    scales: Value | None = None,
    sizes: Value | None = None,
    *,
    antialias: int = 0,
    axes: tuple[int, ...] | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Flow:
    flow = moving(x).require_plain()
    old = scope.opset < 11 and sizes is None
    if old:
        coordinate_transformation_mode, scales = "asymmetric", scales if scales is not None else roi
    if antialias and mode != "nearest":
        raise Refusal("antialias is not supported")
    if keep_aspect_ratio_policy != "stretch":
        raise Refusal(f"keep_aspect_ratio_policy {keep_aspect_ratio_policy!r}; only 'stretch' is supported")
    if coordinate_transformation_mode not in _COORDINATES:
        raise Refusal(f"coordinate_transformation_mode {coordinate_transformation_mode!r} is not one of {_COORDINATES}")
    if mode not in ("nearest", "linear", "cubic"):
        raise Refusal(f"mode {mode!r} is not one of nearest, linear, cubic")
    out, ratios = _plan(scope, flow, scales, sizes, axes)
    if tuple(out.values()) == flow.dims:  # whatever the scales say, ONNX Runtime copies what keeps its shape
        return flow
    sources = {
        axis: _sources(flow.dims[axis - 1], out[axis], ratio, coordinate_transformation_mode)
        for axis, ratio in ratios.items()
    }
    if mode == "linear":
        return _resize_linear(scope, flow, out, sources)
    if mode == "cubic":
        for axis, source in sources.items():
            if out[axis] != flow.dims[axis - 1]:
                _claim(scope, flow.dims[axis - 1], out[axis])
                weights = _cubic(source, flow.dims[axis - 1], cubic_coeff_a, leave_out=bool(exclude_outside))
                flow = along_axis(scope, flow, axis, weights)
        return flow
    if old:  # before nearest_mode there was one rounding for enlarging and another for shrinking
        roundings = {axis: "ceil" if ratio < 1 else "floor" for axis, ratio in ratios.items()}
    else:
        roundings = dict.fromkeys(ratios, nearest_mode)
    picked = {axis: _nearest(sources[axis], flow.dims[axis - 1], roundings[axis]) for axis in ratios}
    return _resize_nearest(scope, flow, out, picked)


def _plan(
    scope: Scope, flow: Flow, scales: Value | None, sizes: Value | None, axes: tuple[int, ...] | None
) -> tuple[dict[int, int], dict[int, np.float32]]:
    """Size of every axis but the batch afterwards, and the scale of every axis that is named and not left as it is."""
    along = list(range(flow.rank)) if axes is None else [flow.normal(axis) for axis in axes]
    inputs = dict(zip(range(1, flow.rank), flow.dims, strict=True))
    ratios: dict[int, np.float32]
    if sizes is not None and fixed(sizes, "its sizes").size:
        given = dict(zip(along, integers(sizes, "its sizes"), strict=True))
        if given.get(0, 1) not in (1, scope.batch) and given[0] % BATCH:
            raise Refusal("it resizes the batch")
        ratios = {axis: np.float32(given[axis]) / np.float32(inputs[axis]) for axis in along if axis in inputs}
    else:
        factors = np.ravel(fixed(scales, "its scales")).astype(np.float32)
        ratios = {axis: factor for axis, factor in zip(along, factors, strict=True) if axis in inputs}
        given = {axis: math.floor(np.float32(inputs[axis]) * ratio) for axis, ratio in ratios.items()}
        if 0 in along and factors[along.index(0)] != 1:
            raise Refusal("it resizes the batch")
    scaled = {axis: ratio for axis, ratio in ratios.items() if ratio != 1 or given[axis] != inputs[axis]}
    return {axis: given.get(axis, size) for axis, size in inputs.items()}, scaled


def _resize_nearest(scope: Scope, flow: Flow, out: dict[int, int], picked: dict[int, list[int]]) -> Flow:
    """A Resize where torch picks the same entries, else one Select per axis."""
    spatial = tuple(out[axis] for axis in range(2, flow.rank))
    same = out[1] == flow.dims[0] and len(spatial) in (1, 2)
    for axis, size in enumerate(spatial, start=2) if same else ():
        line = torch.arange(flow.dims[axis - 1], dtype=torch.float32)[None, None]
        copied = torch.nn.functional.interpolate(line, size=size, mode="nearest")[0, 0].int().tolist()
        same = same and copied == picked.get(axis, list(range(size)))
    if same:
        return scope.apply(kinds.Resize(size=spatial, mode="nearest"), flow)
    for axis, indices in picked.items():
        flow = take(scope, flow, axis, indices)
    return flow


def _resize_linear(scope: Scope, flow: Flow, out: dict[int, int], sources: dict[int, Array]) -> Flow:
    """A Resize where torch interpolates alike, else one matrix per axis."""
    weights = {}
    for axis, places in sources.items():
        _claim(scope, flow.dims[axis - 1], len(places))
        weights[axis] = _interpolation(places, flow.dims[axis - 1])
    spatial = tuple(out[axis] for axis in range(2, flow.rank))
    if 1 not in weights and len(spatial) in (1, 2):
        kind = "linear" if len(spatial) == 1 else "bilinear"
        for aligned in (False, True):
            if all(_as_torch(weight, aligned) for weight in weights.values()):
                return scope.apply(kinds.Resize(size=spatial, mode=kind, align_corners=aligned), flow)
    for axis, weight in sorted(weights.items()):
        flow = along_axis(scope, flow, axis, weight)
    return flow


def _claim(scope: Scope, size: int, out: int) -> None:
    """The weights of an axis of `size` entries that becomes one of `out`, and what they are compared with."""
    scope.claim(16 * size * (size + out), "the weights of one axis")


def _as_torch(weight: Array, aligned: bool) -> bool:
    """Whether torch's linear interpolation over one axis has these weights."""
    out, size = weight.shape
    eye = torch.eye(size)[None]
    found = torch.nn.functional.interpolate(eye, size=out, mode="linear", align_corners=aligned)[0].T
    return bool(np.abs(found.numpy() - weight).max() < 1e-5)


def Upsample(
    scope: Scope,
    x: Value,
    scales: Value | tuple[float, ...],
    *,
    mode: str = "nearest",
) -> Flow:
    factors = np.array(scales, dtype=np.float32) if isinstance(scales, tuple) else scales
    return Resize(
        scope,
        x,
        None,
        factors,
        mode=mode,
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
