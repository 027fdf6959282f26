"""Operators as lines of Python that need torch alone."""

from __future__ import annotations

import keyword
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn

from snnconvert.errors import NodeFault
from snnconvert.graph import kinds
from snnconvert.graph.dialect import arguments, origin_of
from snnconvert.graph.kinds import Op

DTYPES = {torch.float32: "torch.float32", torch.float64: "torch.float64"}
# names that the written file gives a meaning of its own
RESERVED = {"torch", "nn", "F", "image", "state", "after", "step", "start", "snap", "reached", "whole", "compensated"}


@dataclass
class Line:
    """What a node becomes: an attribute of the module, and an expression of one step.

    Attributes:
        attribute: what is made in the constructor; empty for none.
        value: of the node in one step.
        tensors: of the attribute, by name.
    """

    value: str
    attribute: str = ""
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)


def identifiers(nodes: Iterable[fx.Node]) -> dict[fx.Node, str]:
    """A name for every node that Python and `nn.Module` leave free: its own where possible."""
    found: dict[fx.Node, str] = {}
    taken = set(dir(nn.Module())) | RESERVED | set(keyword.kwlist)
    for index, node in enumerate(nodes):
        base = node.name if node.name.isidentifier() and not node.name.startswith("_") else f"node{index}"
        name, counter = base, 1
        while name in taken:
            name, counter = f"{base}_{counter}", counter + 1
        taken.add(name)
        found[node] = name
    return found


# (name of the attribute, the node, its operator, expressions of its inputs) -> line
Translate = Callable[[str, fx.Node, Any, list[str]], Line]
TRANSLATIONS: dict[type[Op], Translate] = {}


def translates(*of: type[Op]) -> Callable[[Translate], Translate]:
    """Register the translation of kinds."""

    def register(function: Translate) -> Translate:
        TRANSLATIONS.update(dict.fromkeys(of, function))
        return function

    return register


def fault(node: fx.Node, reason: str) -> NodeFault:
    """That a node cannot be written."""
    origin = origin_of(node)
    return NodeFault(origin.name, origin.operator, reason)


def whole(values: Iterable[Any]) -> str:
    """Whole numbers as a tuple: what a stranger's checkpoint says is written as a number, or not at all."""
    return repr(tuple(int(value) for value in values))


def _side(values: Iterable[Any]) -> str:
    """Whole numbers as one where they are equal."""
    each = [int(value) for value in values]
    return str(each[0]) if len(set(each)) == 1 else whole(each)


def own(op: Op, given: str, source: fx.Node) -> str:
    """An input in the precision of an operator's own tensors."""
    dtype = next(op.buffers()).dtype
    return given if source.meta.get("dtype") == dtype else f"{given}.to({DTYPES[dtype]})"


# --- with tensors ---


def _tensors(op: Op) -> dict[str, torch.Tensor]:
    return {name: buffer for name, buffer in op.named_buffers() if buffer is not None}


def _dtype(op: Op) -> str:
    return "" if next(op.buffers()).dtype == torch.float32 else ", dtype=torch.float64"


def _sides(op: Any, *names: str) -> str:
    """Arguments of a convolution that are not the usual ones."""
    said = ""
    for name in names:
        usual = 0 if "padding" in name else 1
        if any(value != usual for value in getattr(op, name)):
            said += f", {name}={_side(getattr(op, name))}"
    said += f", groups={int(op.groups)}" if op.groups > 1 else ""
    return said + ("" if op.bias is not None else ", bias=False")


@translates(kinds.Conv)
def _conv(name: str, node: fx.Node, op: kinds.Conv, inputs: list[str]) -> Line:
    kernel = _side(op.weight.shape[2:])
    sides = _sides(op, "stride", "padding", "dilation")
    made = f"nn.Conv{op.weight.ndim - 2}d({op.inputs}, {op.outputs}, {kernel}{sides}{_dtype(op)})"
    return Line(f"self.{name}({own(op, inputs[0], arguments(node)[0])})", made, _tensors(op))


@translates(kinds.ConvTranspose)
def _conv_transpose(name: str, node: fx.Node, op: kinds.ConvTranspose, inputs: list[str]) -> Line:
    kernel = _side(op.weight.shape[2:])
    sides = _sides(op, "stride", "padding", "output_padding", "dilation")
    made = f"nn.ConvTranspose{op.weight.ndim - 2}d({op.inputs}, {op.outputs}, {kernel}{sides}{_dtype(op)})"
    return Line(f"self.{name}({own(op, inputs[0], arguments(node)[0])})", made, _tensors(op))


@translates(kinds.Linear)
def _linear(name: str, node: fx.Node, op: kinds.Linear, inputs: list[str]) -> Line:
    bias = "" if op.bias is not None else ", bias=False"
    made = f"nn.Linear({op.inputs}, {op.outputs}{bias}{_dtype(op)})"
    return Line(f"self.{name}({own(op, inputs[0], arguments(node)[0])})", made, _tensors(op))


def _held(op: Op) -> str:
    """A module that only holds tensors."""
    shapes = ", ".join(f"{name}={tuple(tensor.shape)!r}" for name, tensor in _tensors(op).items())
    return f"Tensors({shapes}{_dtype(op)})"


@translates(kinds.Scale)
def _scale(name: str, node: fx.Node, op: kinds.Scale, inputs: list[str]) -> Line:
    return Line(f"{own(op, inputs[0], arguments(node)[0])} * self.{name}.factor", _held(op), _tensors(op))


@translates(kinds.Affine)
def _affine(name: str, node: fx.Node, op: kinds.Affine, inputs: list[str]) -> Line:
    given = own(op, inputs[0], arguments(node)[0])
    return Line(f"{given} * self.{name}.scale + self.{name}.shift", _held(op), _tensors(op))


@translates(kinds.Constant)
def _constant(name: str, node: fx.Node, op: kinds.Constant, inputs: list[str]) -> Line:
    rank = len(node.meta["shape"])
    return Line(f"self.{name}.value.expand({inputs[0]}.shape[0]{', -1' * rank})", _held(op), _tensors(op))


def _normalised(name: str, op: Any, given: str, call: str) -> Line:
    tensors = _tensors(op)
    parts = ", ".join(f"self.{name}.{part}" if part in tensors else "None" for part in ("weight", "bias"))
    return Line(call.format(given=given, parts=parts), _held(op) if tensors else "", tensors)


@translates(kinds.LayerNorm)
def _layer_norm(name: str, _: fx.Node, op: kinds.LayerNorm, inputs: list[str]) -> Line:
    call = f"F.layer_norm({{given}}, {whole(op.shape)}, {{parts}}, {float(op.eps)!r})"
    return _normalised(name, op, inputs[0], call)


@translates(kinds.GroupNorm)
def _group_norm(name: str, _: fx.Node, op: kinds.GroupNorm, inputs: list[str]) -> Line:
    return _normalised(name, op, inputs[0], f"F.group_norm({{given}}, {int(op.groups)}, {{parts}}, {float(op.eps)!r})")


# --- without ---


@translates(kinds.Snap)
def _snap(_: str, __: fx.Node, op: kinds.Snap, inputs: list[str]) -> Line:
    limit = "" if op.limit is None else f", {float(op.limit)!r}"
    return Line(f"snap({inputs[0]}, {float(op.grid)!r}{limit})")


@translates(kinds.Add)
def _add(_: str, __: fx.Node, ___: kinds.Add, inputs: list[str]) -> Line:
    return Line(" + ".join(inputs))


@translates(kinds.SumPool)
def _sum_pool(_: str, __: fx.Node, op: kinds.SumPool, inputs: list[str]) -> Line:
    sides = (
        [(1, *op.kernel), (1, *op.stride), (0, *op.padding)]
        if len(op.kernel) == 1
        else [op.kernel, op.stride, op.padding]
    )
    said = ", ".join(map(whole, sides))
    ceil = ", ceil_mode=True" if op.ceil_mode else ""
    if len(op.kernel) == 1:
        return Line(f"F.avg_pool2d({inputs[0]}.unsqueeze(-2), {said}{ceil}, divisor_override=1).squeeze(-2)")
    return Line(f"F.avg_pool2d({inputs[0]}, {said}{ceil}, divisor_override=1)")


@translates(kinds.AveragePool)
def _average_pool(_: str, __: fx.Node, op: kinds.AveragePool, inputs: list[str]) -> Line:
    said = ", ".join(map(whole, (op.kernel, op.stride, op.padding)))
    modes = f"{bool(op.ceil_mode)}, {bool(op.count_include_pad)}"
    return Line(f"F.avg_pool{len(op.kernel)}d({inputs[0]}, {said}, {modes})")


@translates(kinds.MaxPool)
def _max_pool(_: str, __: fx.Node, op: kinds.MaxPool, inputs: list[str]) -> Line:
    said = ", ".join(map(whole, (op.kernel, op.stride, op.padding, op.dilation)))
    return Line(f"F.max_pool{len(op.kernel)}d({inputs[0]}, {said}{', ceil_mode=True' if op.ceil_mode else ''})")


@translates(kinds.Mean)
def _mean(_: str, __: fx.Node, op: kinds.Mean, inputs: list[str]) -> Line:
    return Line(f"{inputs[0]}.mean({whole(op.dims)}{', keepdim=True' if op.keepdim else ''})")


@translates(kinds.Resize)
def _resize(_: str, __: fx.Node, op: kinds.Resize, inputs: list[str]) -> Line:
    if op.mode == "nearest":
        return Line(f'F.interpolate({inputs[0]}, size={whole(op.size)}, mode="nearest")')
    corners = f"align_corners={bool(op.align_corners)}"
    return Line(f'F.interpolate({inputs[0]}, size={whole(op.size)}, mode="bilinear", {corners})')


@translates(kinds.Reshape)
def _reshape(_: str, __: fx.Node, op: kinds.Reshape, inputs: list[str]) -> Line:
    return Line(f"{inputs[0]}.reshape(-1, {', '.join(str(int(size)) for size in op.shape)})")


@translates(kinds.Permute)
def _permute(_: str, __: fx.Node, op: kinds.Permute, inputs: list[str]) -> Line:
    return Line(f"{inputs[0]}.permute{whole(op.dims)}")


@translates(kinds.Slice)
def _slice(_: str, node: fx.Node, op: kinds.Slice, inputs: list[str]) -> Line:
    stop = min(int(op.stop), arguments(node)[0].meta["shape"][op.dim - 1])
    step = "" if op.step == 1 else f":{int(op.step)}"
    return Line(f"{inputs[0]}[{':, ' * int(op.dim)}{int(op.start)}:{stop}{step}]")


@translates(kinds.Select)
def _select(_: str, __: fx.Node, op: kinds.Select, inputs: list[str]) -> Line:
    return Line(f"{inputs[0]}[{':, ' * int(op.dim)}{list(map(int, op.indices))}]")


@translates(kinds.Pad)
def _pad(_: str, __: fx.Node, op: kinds.Pad, inputs: list[str]) -> Line:
    value = f", value={float(op.value)!r}" if op.value else ""
    return Line(f"F.pad({inputs[0]}, {whole(op.pads)}{value})")


@translates(kinds.Expand)
def _expand(_: str, __: fx.Node, op: kinds.Expand, inputs: list[str]) -> Line:
    return Line(f"{inputs[0]}.expand(-1, {', '.join(str(int(size)) for size in op.shape)})")


@translates(kinds.Concat)
def _concat(_: str, __: fx.Node, op: kinds.Concat, inputs: list[str]) -> Line:
    return Line(f"torch.cat([{', '.join(inputs)}], {int(op.dim)})")


# --- functions of real values ---

_FUNCTIONS = {
    "hardsigmoid": "F.hardsigmoid({})",
    "hardswish": "F.hardswish({})",
    "silu": "F.silu({})",
    "gelu": "F.gelu({})",
    "gelu_tanh": 'F.gelu({}, approximate="tanh")',
    "elu": "F.elu({})",
    "selu": "F.selu({})",
    "softplus": "F.softplus({})",
    "mish": "F.mish({})",
    "softsign": "F.softsign({})",
}


@translates(kinds.Elementwise)
def _elementwise(_: str, __: fx.Node, op: kinds.Elementwise, inputs: list[str]) -> Line:
    assert op.function in kinds.FUNCTIONS
    return Line(_FUNCTIONS.get(op.function, f"torch.{op.function}({{}})").format(inputs[0]))


@translates(kinds.Clamp)
def _clamp(_: str, __: fx.Node, op: kinds.Clamp, inputs: list[str]) -> Line:
    return Line(f"{inputs[0]}.clamp({_number(op.low)}, {_number(op.high)})")


def _number(value: float) -> str:
    return f'float("{float(value)}")' if value in (float("inf"), -float("inf")) else repr(float(value))


@translates(kinds.Power)
def _power(_: str, __: fx.Node, op: kinds.Power, inputs: list[str]) -> Line:
    return Line(f"({inputs[0]}) ** {_number(op.exponent)}")


@translates(kinds.Multiply)
def _multiply(_: str, __: fx.Node, ___: kinds.Multiply, inputs: list[str]) -> Line:
    return Line(" * ".join(inputs))


@translates(kinds.Divide)
def _divide(_: str, __: fx.Node, ___: kinds.Divide, inputs: list[str]) -> Line:
    return Line(" / ".join(inputs))


@translates(kinds.Maximum)
def _maximum(_: str, __: fx.Node, ___: kinds.Maximum, inputs: list[str]) -> Line:
    return Line(f"torch.maximum({', '.join(inputs)})")


@translates(kinds.MatMul)
def _matmul(_: str, __: fx.Node, ___: kinds.MatMul, inputs: list[str]) -> Line:
    return Line(f"{inputs[0]}.double() @ {inputs[1]}.double()")


@translates(kinds.Choose)
def _choose(_: str, __: fx.Node, ___: kinds.Choose, inputs: list[str]) -> Line:
    return Line(f"torch.where({inputs[0]} > 0.5, {inputs[1]}, {inputs[2]})")


@translates(kinds.Embedding)
def _embedding(name: str, _: fx.Node, op: kinds.Embedding, inputs: list[str]) -> Line:
    index = f"{inputs[0]}.round().long().clamp(0, {len(op.weight) - 1})"
    return Line(f"F.embedding({index}, self.{name}.weight)", _held(op), _tensors(op))


@translates(kinds.Softmax)
def _softmax(_: str, __: fx.Node, op: kinds.Softmax, inputs: list[str]) -> Line:
    return Line(f"{inputs[0]}.{'log_softmax' if op.log else 'softmax'}({int(op.dim)})")


@translates(kinds.Reduce)
def _reduce(_: str, __: fx.Node, op: kinds.Reduce, inputs: list[str]) -> Line:
    how = f"{whole(op.dims)}, {bool(op.keepdim)}"
    if op.function in ("max", "min"):
        return Line(f"{inputs[0]}.a{op.function}({how})")
    return Line(f"{inputs[0]}.square().sum({how}).sqrt()")
