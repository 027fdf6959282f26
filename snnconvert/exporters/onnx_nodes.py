"""Operators of a portable network as standard ONNX operators: float32, exact in every order of summation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, fx

from snnconvert.graph import kinds
from snnconvert.graph.checkpoint import packed
from snnconvert.graph.dialect import arguments, origin_of, safe_name
from snnconvert.graph.kinds import Op

OPSET = 18
FLOAT, DOUBLE, INT64 = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64


class Emitter:
    """Collects nodes and initializers under names of the network's own layers.

    Attributes:
        scope: what the names of nodes start with: the layer that is being written.
        coded: whether weights are written as 8-bit integers with a step per channel, where they are such.
    """

    def __init__(self, *, coded: bool = False) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self.doubles: set[str] = set()
        self.scope, self.coded = "", coded
        self.taken: set[str] = set()

    def op(self, kind: str, *inputs: str, name: str = "", double: bool = False, **attributes: Any) -> str:
        """Append an operator; returns the name of its output. `double`: whether that is float64."""
        own = self._unused(f"{self.scope}/{name or kind}" if name or self.scope in self.taken else self.scope)
        self.nodes.append(helper.make_node(kind, list(inputs), [f"{own}:0"], name=own, **attributes))
        if double:
            self.doubles.add(f"{own}:0")
        return f"{own}:0"

    def constant(self, value: Tensor | np.ndarray[Any, Any] | Sequence[int] | float, name: str = "constant") -> str:
        """An initializer; lists are int64, numbers float32."""
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
        if isinstance(array, float | int):
            array = np.array(array, np.float32)
        array = np.ascontiguousarray(array, None if isinstance(array, np.ndarray) else np.int64)
        own = self._unused(f"{self.scope}/{name}" if self.scope else name)
        self.initializers[own] = numpy_helper.from_array(array, own)
        if array.dtype == np.float64:
            self.doubles.add(own)
        return own

    def single(self, name: str) -> str:
        """A value as float32."""
        return self.op("Cast", name, name="float32", to=FLOAT) if name in self.doubles else name

    def double(self, name: str) -> str:
        """A value as float64."""
        return name if name in self.doubles else self.op("Cast", name, name="float64", to=DOUBLE, double=True)

    def alike(self, *names: str) -> tuple[str, ...]:
        """Values in one precision: float64 where one of them is."""
        return tuple(map(self.double, names)) if self.doubles & set(names) else names

    def weight(self, op: kinds.Weighted, tensor: Tensor, axis: int = 0) -> str:
        """A weight; 8-bit codes times steps where it is such."""
        codes = packed("", op) if self.coded and op.groups >= 1 and axis == 0 else {}
        if not codes:
            return self.constant(tensor.float(), "weight")
        shape = tensor.shape
        steps = self.constant(codes[".steps"].float().flatten(), "step")
        return self.op(
            "DequantizeLinear", self.constant(codes[".codes"].reshape(shape), "codes"), steps, name="weight", axis=0
        )

    def _unused(self, name: str) -> str:
        found, counter = name, 1
        while found in self.taken:
            found, counter = f"{name}_{counter}", counter + 1
        self.taken.add(found)
        return found


Translate = Callable[[Emitter, fx.Node, Op, list[str]], str]
TRANSLATIONS: dict[type[Op], Translate] = {}


def translates(*of: type[Op]) -> Callable[[Any], Any]:
    """Register the translation of kinds."""

    def register(function: Any) -> Any:
        TRANSLATIONS.update(dict.fromkeys(of, function))
        return function

    return register


def layer_name(node: fx.Node) -> str:
    """What the user calls a node; its name in the graph where it was put there by a conversion."""
    origin = origin_of(node)
    return origin.name if node.name == safe_name(origin.name, lambda _: False) else node.name


# --- weights ---


@translates(kinds.Conv)
def _conv(emit: Emitter, _: fx.Node, op: kinds.Conv, inputs: list[str]) -> str:
    pads = [*op.padding, *op.padding]
    given = [emit.single(inputs[0]), emit.weight(op, op.weight), *_bias(emit, op)]
    shape = list(op.weight.shape[2:])
    return emit.op(
        "Conv",
        *given,
        kernel_shape=shape,
        strides=list(op.stride),
        pads=pads,
        dilations=list(op.dilation),
        group=op.groups,
    )


@translates(kinds.ConvTranspose)
def _conv_transpose(emit: Emitter, _: fx.Node, op: kinds.ConvTranspose, inputs: list[str]) -> str:
    given = [emit.single(inputs[0]), emit.weight(op, op.weight, axis=1), *_bias(emit, op)]
    return emit.op(
        "ConvTranspose",
        *given,
        kernel_shape=list(op.weight.shape[2:]),
        strides=list(op.stride),
        pads=[*op.padding, *op.padding],
        output_padding=list(op.output_padding),
        dilations=list(op.dilation),
        group=op.groups,
    )


@translates(kinds.Linear)
def _linear(emit: Emitter, node: fx.Node, op: kinds.Linear, inputs: list[str]) -> str:
    given = emit.single(inputs[0])
    if len(arguments(node)[0].meta["shape"]) == 1:
        return emit.op("Gemm", given, emit.weight(op, op.weight), *_bias(emit, op), transB=1)
    weight = emit.op("Transpose", emit.weight(op, op.weight), name="transposed", perm=[1, 0])
    product = emit.op("MatMul", given, weight)
    return product if op.bias is None else emit.op("Add", product, *_bias(emit, op), name="bias_added")


def _bias(emit: Emitter, op: kinds.Weighted) -> list[str]:
    return [] if op.bias is None else [emit.constant(op.bias.float(), "bias")]


# --- elementwise ---


@translates(kinds.Scale)
def _scale(emit: Emitter, _: fx.Node, op: kinds.Scale, inputs: list[str]) -> str:
    given, factor = emit.alike(inputs[0], emit.constant(_exact(op.factor), "factor"))
    return emit.op("Mul", given, factor, double=given in emit.doubles)


@translates(kinds.Affine)
def _affine(emit: Emitter, _: fx.Node, op: kinds.Affine, inputs: list[str]) -> str:
    given, scale, shift = emit.alike(
        inputs[0], emit.constant(_exact(op.scale), "scale"), emit.constant(_exact(op.shift), "shift")
    )
    wide = given in emit.doubles
    return emit.op("Add", emit.op("Mul", given, scale, name="scaled", double=wide), shift, double=wide)


@translates(kinds.Snap)
def _snap(emit: Emitter, _: fx.Node, op: kinds.Snap, inputs: list[str]) -> str:
    given, wide = inputs[0], inputs[0] in emit.doubles
    kind = np.float64 if wide else np.float32
    grid = emit.constant(np.array(op.grid, kind), "grid")
    counted = emit.op("Round", emit.op("Div", given, grid, name="in_units", double=wide), name="round", double=wide)
    found = emit.op("Mul", counted, grid, double=wide)
    if op.limit is not None:
        bounds = [emit.constant(np.array(sign * op.limit, kind), "limit") for sign in (-1, 1)]
        found = emit.op("Clip", found, *bounds, name="limited", double=wide)
    return emit.single(found)


@translates(kinds.Add)
def _add(emit: Emitter, _: fx.Node, __: kinds.Add, inputs: list[str]) -> str:
    first, *others = emit.alike(*inputs)
    for other in others:
        first = emit.op("Add", first, other, double=first in emit.doubles)
    return first


def _exact(tensor: Tensor) -> Tensor:
    """In float32 where nothing is lost."""
    single = tensor.float()
    return single if torch.equal(single.double(), tensor.double()) else tensor.double()


# --- pooling ---


def end_pads(op: Op, node: fx.Node) -> list[int]:
    """Padding behind each axis: what a rounded-up size needs, where that is more than was asked for."""
    source, found = arguments(node)[0].meta["shape"], []
    dilation = getattr(op, "dilation", (1,) * len(op.window))
    for axis, size in enumerate(op.window):
        stride, pad = op.stride[axis], op.padding[axis]  # type: ignore[index]
        places = node.meta["shape"][1 + axis]
        needed = (places - 1) * stride + dilation[axis] * (size - 1) + 1 - source[1 + axis] - pad
        found.append(max(int(pad), needed))
    return found


def _window_sums(emit: Emitter, node: fx.Node, op: Any, given: str) -> str:
    """Sums over windows: a convolution of every channel by itself with ones."""
    channels = node.meta["shape"][0]
    ones = emit.constant(np.ones((channels, 1, *op.kernel), np.float32), "ones")
    pads = [*op.padding, *end_pads(op, node)]
    return emit.op(
        "Conv",
        emit.single(given),
        ones,
        kernel_shape=list(op.kernel),
        strides=list(op.stride),
        pads=pads,
        group=channels,
    )


@translates(kinds.SumPool)
def _sum_pool(emit: Emitter, node: fx.Node, op: kinds.SumPool, inputs: list[str]) -> str:
    return _window_sums(emit, node, op, inputs[0])


@translates(kinds.AveragePool)
def _average_pool(emit: Emitter, node: fx.Node, op: kinds.AveragePool, inputs: list[str]) -> str:
    source = torch.ones(1, 1, *arguments(node)[0].meta["shape"][1:], dtype=torch.float64)
    members = kinds.SumPool(kernel=op.kernel, stride=op.stride, padding=op.padding, ceil_mode=op.ceil_mode)(source)
    counts = (members / op(source)).round()  # what the average divides by at each place
    total = emit.double(_window_sums(emit, node, op, inputs[0]))
    return emit.op("Div", total, emit.constant(counts.numpy(), "counts"), name="mean", double=True)


@translates(kinds.Mean)
def _mean(emit: Emitter, node: fx.Node, op: kinds.Mean, inputs: list[str]) -> str:
    shape = arguments(node)[0].meta["shape"]
    count = float(np.prod([shape[dim - 1] for dim in op.dims]))
    axes = emit.constant(list(op.dims), "axes")
    total = emit.op("ReduceSum", emit.double(inputs[0]), axes, keepdims=int(op.keepdim), double=True)
    return emit.op("Div", total, emit.constant(np.array(count), "count"), name="mean", double=True)


@translates(kinds.MaxPool)
def _max_pool(emit: Emitter, node: fx.Node, op: kinds.MaxPool, inputs: list[str]) -> str:
    pads = [*op.padding, *end_pads(op, node)]
    return emit.op(
        "MaxPool",
        emit.single(inputs[0]),
        kernel_shape=list(op.kernel),
        strides=list(op.stride),
        pads=pads,
        dilations=list(op.dilation),
    )


# --- wiring ---


def _moved(emit: Emitter, inputs: list[str], kind: str, *more: str, **attributes: Any) -> str:
    return emit.op(kind, *inputs, *more, double=inputs[0] in emit.doubles, **attributes)


@translates(kinds.Reshape)
def _reshape(emit: Emitter, _: fx.Node, op: kinds.Reshape, inputs: list[str]) -> str:
    return _moved(emit, inputs, "Reshape", emit.constant([0, *op.shape], "shape"))


@translates(kinds.Permute)
def _permute(emit: Emitter, _: fx.Node, op: kinds.Permute, inputs: list[str]) -> str:
    return _moved(emit, inputs, "Transpose", perm=list(op.dims))


@translates(kinds.Slice)
def _slice(emit: Emitter, _: fx.Node, op: kinds.Slice, inputs: list[str]) -> str:
    bounds = [emit.constant([value], name) for name, value in (("start", op.start), ("stop", op.stop))]
    return _moved(emit, inputs, "Slice", *bounds, emit.constant([op.dim], "axis"), emit.constant([op.step], "stride"))


@translates(kinds.Select)
def _select(emit: Emitter, _: fx.Node, op: kinds.Select, inputs: list[str]) -> str:
    return _moved(emit, inputs, "Gather", emit.constant(list(op.indices), "indices"), axis=op.dim)


@translates(kinds.Pad)
def _pad(emit: Emitter, node: fx.Node, op: kinds.Pad, inputs: list[str]) -> str:
    rank = 1 + len(node.meta["shape"])
    begins, ends = [0] * rank, [0] * rank
    for index, (begin, end) in enumerate(zip(op.pads[::2], op.pads[1::2], strict=True)):
        begins[rank - 1 - index], ends[rank - 1 - index] = begin, end
    value = emit.constant(np.array(op.value, np.float64 if inputs[0] in emit.doubles else np.float32), "value")
    return _moved(emit, inputs, "Pad", emit.constant([*begins, *ends], "pads"), value)


@translates(kinds.Expand)
def _expand(emit: Emitter, _: fx.Node, op: kinds.Expand, inputs: list[str]) -> str:
    return _moved(emit, inputs, "Expand", emit.constant([1, *op.shape], "shape"))


@translates(kinds.Concat)
def _concat(emit: Emitter, _: fx.Node, op: kinds.Concat, inputs: list[str]) -> str:
    return _moved(emit, list(emit.alike(*inputs)), "Concat", axis=op.dim)


@translates(kinds.Resize)
def _resize(emit: Emitter, node: fx.Node, op: kinds.Resize, inputs: list[str]) -> str:
    found = inputs[0]
    for axis, size in enumerate(op.size):
        before = arguments(node)[0].meta["shape"][1 + axis]
        places = torch.arange(before, dtype=torch.float32).reshape(1, 1, -1)
        picked = torch.nn.functional.interpolate(places, size=size, mode="nearest").flatten().long().tolist()
        found = emit.op(
            "Gather",
            found,
            emit.constant(picked, "places"),
            name="picked",
            axis=2 + axis,
            double=found in emit.doubles,
        )
    return found
