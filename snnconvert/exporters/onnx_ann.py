"""The original network in ONNX, folded, for tools that quantise it and make a spiking network of it themselves.

Akida's is one: it takes no spiking network, but one of real numbers that its own tool has quantised.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from snnconvert.errors import NodeFault, OptionError, UnsupportedError
from snnconvert.exporters.onnx_nodes import TRANSLATIONS, Emitter, Translate, end_pads, layer_name
from snnconvert.exporters.task import Reader, Recording
from snnconvert.graph import kinds
from snnconvert.graph.dialect import arguments, calls, origin_of, output_nodes
from snnconvert.graph.kinds import Op
from snnconvert.graph.types import Ann, Snn

NOTE = (
    "the original network in float32, folded; it is no spiking network. Akida's own tools quantise it and make one of "
    "it: quantizeml.models.quantize on this file, with samples of your data for the ranges, then cnn2snn.convert. Hold "
    "the answers of what they make beside those of this file: layers behind one that does not fit may be left out "
    "without an error"
)


def original_of(snn: Snn) -> Ann:
    """The network before it was calibrated.

    Raises:
        OptionError: if the checkpoint does not hold it.
    """
    original = None if snn.calibrated is None else snn.calibrated.original
    if original is None:
        raise OptionError(
            "--ann needs the original network, which this checkpoint does not hold",
            hint="convert the model again without --without-original",
            options=("ann",),
        )
    return original


def ann_engine(snn: Snn) -> Reader:
    """What runs the original network in torch."""
    graph = original_of(snn).graph

    @torch.no_grad()
    def run(batch: Tensor) -> Recording:
        found: Any = graph(batch.float())
        return Recording({}, (found[0] if isinstance(found, tuple | list) else found).unsqueeze(0))

    return run


def write_graph(original: Ann, emit: Emitter, image: str) -> list[str]:
    """Write the nodes of a network of real numbers, and return what its outputs are called.

    Raises:
        UnsupportedError: naming every node that is none of convolutions, products, pools, sums and rectifiers.
    """
    _refuse(original)
    values: dict[fx.Node, str] = {}
    for node in original.graph.graph.nodes:
        if node.op == "placeholder":
            values[node] = image
    for node, op in calls(original.graph):
        emit.scope = layer_name(node)
        values[node] = _translation(op)(emit, node, op, [values[source] for source in arguments(node)])
    return [values[node] for node in output_nodes(original.graph)]


def _translation(op: Op) -> Translate:
    return _OWN.get(type(op)) or TRANSLATIONS[type(op)]


def _refuse(original: Ann) -> None:
    faults = []
    for node, op in calls(original.graph):
        known = type(op) in _OWN or type(op) in TRANSLATIONS
        if not known or getattr(op, "mode", "nearest") != "nearest":
            origin = origin_of(node)
            faults.append(
                NodeFault(origin.name, origin.operator, f"a {op.plain_name} has no plain ONNX operators here")
            )
    if faults:
        raise UnsupportedError(
            f"{original.source.name} is not made of convolutions, products, pools, sums and rectifiers alone",
            hint="hand the model's own file to the other tool",
            faults=tuple(faults),
        )


# --- what a spiking network does not have, or has in another form ---


def _relu(emit: Emitter, _: fx.Node, __: kinds.Relu, inputs: list[str]) -> str:
    return emit.op("Relu", inputs[0])


def _clip(emit: Emitter, _: fx.Node, op: kinds.Clip, inputs: list[str]) -> str:
    return emit.op("Clip", inputs[0], emit.constant(0.0, "low"), emit.constant(op.high, "high"))


def _leaky(emit: Emitter, _: fx.Node, op: kinds.LeakyRelu, inputs: list[str]) -> str:
    if op.slope.numel() == 1:
        return emit.op("LeakyRelu", inputs[0], alpha=float(op.slope))
    return emit.op("PRelu", inputs[0], emit.constant(op.slope.float(), "slope"))


def _average_pool(emit: Emitter, node: fx.Node, op: kinds.AveragePool, inputs: list[str]) -> str:
    own = list(op.padding)
    if op.ceil_mode and end_pads(op, node) != own:
        return TRANSLATIONS[kinds.AveragePool](emit, node, op, inputs)
    return emit.op(
        "AveragePool",
        inputs[0],
        kernel_shape=list(op.kernel),
        strides=list(op.stride),
        pads=[*own, *own],
        count_include_pad=int(op.count_include_pad),
    )


def _mean(emit: Emitter, node: fx.Node, op: kinds.Mean, inputs: list[str]) -> str:
    rank = 1 + len(arguments(node)[0].meta["shape"])
    if sorted(op.dims) == list(range(2, rank)):
        pooled = emit.op("GlobalAveragePool", inputs[0], name="" if op.keepdim else "pooled")
        return pooled if op.keepdim else emit.op("Flatten", pooled)
    return emit.op("ReduceMean", inputs[0], emit.constant(list(op.dims), "axes"), keepdims=int(op.keepdim))


def _reshape(emit: Emitter, node: fx.Node, op: kinds.Reshape, inputs: list[str]) -> str:
    if len(op.shape) == 1:
        return emit.op("Flatten", inputs[0])
    return TRANSLATIONS[kinds.Reshape](emit, node, op, inputs)


_OWN: dict[type[Op], Any] = {
    kinds.Relu: _relu,
    kinds.Clip: _clip,
    kinds.LeakyRelu: _leaky,
    kinds.AveragePool: _average_pool,
    kinds.Mean: _mean,
    kinds.Reshape: _reshape,
}
