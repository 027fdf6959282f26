"""Layer norm, softmax, products of activations and smooth functions as spikes, for schedules of one window a layer.

    LayerNorm        D = C x - sum x is sent as spikes once, for the sum of its squares, whose root a neuron a row
                     sends; neurons that integrate D fire at thresholds of root times their own, gamma and beta fold
    softmax, p v     a neuron a weight sends e = exp of its score less the row's largest; the neurons behind e v fire at
                     thresholds of sum e times their own, so that nothing divides
    a b              both are sent as spikes, and their counts multiplied spike by spike
    GELU, SiLU, ...  neurons send the function of their membrane

All of it is exact in real numbers; thresholds are found by `calibrate.windows`. After "All-spiking"
conversions of transformers (SpikedAttention, NeurIPS 2024; MBE neurons, AAAI 2026), put together otherwise.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import fx

from snnconvert.convert.approximate import candidates
from snnconvert.convert.passes import canonicalize
from snnconvert.graph.dialect import arguments, calls, op_of, origin_of, role_of, verify
from snnconvert.graph.edit import bypass, copied, finish, insert_after, kind_of, only_user, redirect, replace_op
from snnconvert.graph.kinds import (
    Affine,
    Centre,
    Elementwise,
    Exponential,
    Function,
    Identity,
    LayerNorm,
    Linear,
    Op,
    Product,
    Quotient,
    Role,
    Softmax,
    Squares,
    Stage,
)
from snnconvert.graph.types import Ann, Origin
from snnconvert.graph.walk import propagate_shapes

REMARK = "{} are sent as spikes, in windows of one layer after the other"
# of what is squared, where values far from the mean must not be cut off
COUNTED = 3
# of the root of a variance, which is one value a row: as many as it takes
ALL_SPIKES = 64


def with_spiking_operators(ann: Ann) -> Ann:
    """`ann` with all operators that have a form of spikes in it, and a note; `ann` itself if there is none."""
    graph, done = copied(ann.graph), dict[str, int]()
    functions = set(candidates(graph))
    for node, _ in list(calls(graph)):
        what = _rewritten(graph, node, functions)
        if what:
            done[what] = done.get(what, 0) + 1
    if not done:
        return ann
    finish(graph)
    propagate_shapes(graph, ann.input_shape)
    named = ", ".join(f"{count} {what}" for what, count in done.items())
    source = replace(ann.source, notes=(*ann.source.notes, REMARK.format(named)))
    return canonicalize(replace(ann, graph=verify(graph, Stage.ANN), source=source))


def _rewritten(graph: fx.GraphModule, node: fx.Node, functions: set[fx.Node]) -> str:
    """What `node` was, if it was rewritten."""
    kind = kind_of(node)
    if kind == "LayerNorm" and _layer_norm(graph, node, op_of(node, LayerNorm)):
        return "layer norm(s)"
    if kind == "Softmax" and _softmax(graph, node, op_of(node, Softmax)):
        return "softmax(es)"
    if kind == "Elementwise" and node in functions:
        replace_op(graph, node, Function(function=op_of(node, Elementwise).function))
        return "function(s)"
    if kind == "MatMul":
        _product(graph, node)
        return "product(s)"
    return ""


def _put(graph: fx.GraphModule, op: Op, *sources: fx.Node, after: fx.Node, of: fx.Node, what: str) -> fx.Node:
    """A new node behind `after` that is called after what it does for the user's operator at `of`."""
    added = insert_after(graph, after, op, suffix=what, users=[])
    added.args = sources
    origin = origin_of(of)
    added.meta["origin"] = Origin(origin.name, f"{origin.operator} {what}")
    return added


def _layer_norm(graph: fx.GraphModule, node: fx.Node, op: LayerNorm) -> bool:
    (x,) = arguments(node)
    if len(op.shape) != 1:
        return False
    size = op.shape[0]
    centre = _put(graph, Centre(), x, after=x, of=node, what="centre")
    counted = Function(function="identity", spikes=COUNTED)
    counts = _put(graph, counted, centre, after=centre, of=node, what="counts")
    squares = _put(graph, Squares(scale=size**-3, eps=op.eps), counts, after=counts, of=node, what="squares")
    root = _put(graph, Function(function="sqrt", spikes=ALL_SPIKES), squares, after=squares, of=node, what="root")
    divided = _put(graph, Quotient(), centre, root, after=root, of=node, what="divided")
    gamma = torch.ones(size) if op.weight is None else op.weight
    beta = torch.zeros(size) if op.bias is None else op.bias
    node.args = (divided,)
    replace_op(graph, node, Affine(gamma / size, beta))
    return True


def _softmax(graph: fx.GraphModule, node: fx.Node, op: Softmax) -> bool:
    """Where a product is all that reads it, as the first of two."""
    product, rank = only_user(node), len(node.meta["shape"])
    if op.log or op.dim != rank or product is None or kind_of(product) != "MatMul" or arguments(product)[0] is not node:
        return False
    replace_op(graph, node, Exponential())
    ones = Linear(torch.ones(1, node.meta["shape"][-1]))
    total = _put(graph, ones, node, after=node, of=node, what="total")
    readers = list(product.users)
    divided = _put(graph, Quotient(), product, total, after=product, of=node, what="divided")
    for reader in readers:
        redirect(reader, product, divided)
    return True


def _product(graph: fx.GraphModule, node: fx.Node) -> None:
    """Both factors as spikes, where they are none yet; scales in front of it and behind it are taken along."""
    scale = _taken_along(only_user(node), 1.0)
    for source in arguments(node):
        before = source
        while role_of(before) == Role.WIRING and only_user(before) is not None and len(arguments(before)) == 1:
            (before,) = arguments(before)
        scale = _taken_along(before if only_user(before) is not None else None, scale)
    for index, source in enumerate(arguments(node)):
        # a site of its own has thresholds of its own, which this product then decides
        own = role_of(source) == Role.SITE and (len(source.users) == 1 or kind_of(source) == "Exponential")
        if not own:
            sent = _put(graph, Identity(), source, after=source, of=source, what="sent")
            node.args = tuple(sent if place == index else one for place, one in enumerate(node.args))
    replace_op(graph, node, Product(scale=scale))


def _taken_along(node: fx.Node | None, scale: float) -> float:
    """`scale` times that of `node`, which is left out, where all that it does is to multiply by one number."""
    if node is None or kind_of(node) != "Affine":
        return scale
    affine = op_of(node, Affine)
    if affine.scale.numel() != 1 or affine.shift.any():
        return scale
    bypass(node)
    return scale * float(affine.scale)
