"""Merge two operators with weights that follow each other without an activation, where one multiplies no more.

V (W x + b) + c  =  (V W) x + (V b + c): linear layers, and convolutions of which one has a kernel of a single pixel.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, fx

from snnconvert.graph.dialect import arguments, calls, op_of
from snnconvert.graph.edit import bypass, only_user, replace_op
from snnconvert.graph.kinds import Conv, Linear, Op


def merge_weights(graph: fx.GraphModule) -> int:
    """Merge every pair that can be; returns how many were."""
    merged = 0
    for node, second in list(calls(graph)):
        if not isinstance(second, Conv | Linear):
            continue
        (source,) = arguments(node)
        if source.op != "call_module" or only_user(source) is not node:
            continue
        first = op_of(source)
        made = _merged(first, second)
        if made is None:
            continue
        (before,) = arguments(source)
        given, between, last = (tuple(one.meta["shape"]) for one in (before, source, node))
        apart = first.multiply_accumulates([given], between) + second.multiply_accumulates([between], last)
        if made.multiply_accumulates([given], last) <= apart:
            replace_op(graph, node, made)
            bypass(source)
            merged += 1
    return merged


def _merged(first: Op, second: Op) -> Op | None:
    """One operator for both, or None where there is none."""
    if isinstance(first, Linear) and isinstance(second, Linear):
        weight = second.weight.double() @ first.weight.double()
        return Linear(weight.to(second.weight.dtype), _bias(first.bias, second.bias, second.weight))
    if not isinstance(first, Conv) or not isinstance(second, Conv) or first.groups > 1 or second.groups > 1:
        return None
    pointwise = [math.prod(one.weight.shape[2:]) == 1 and not any(one.padding) for one in (first, second)]
    summed = second.weight.double().flatten(2).sum(2)
    if pointwise[1]:
        weight = torch.einsum("om,mi...->oi...", summed, first.weight.double())
        spread, padding, dilation = first, first.padding, first.dilation
        stride = tuple(one * other for one, other in zip(first.stride, second.stride, strict=True))
    elif pointwise[0] and set(first.stride) == {1} and (first.bias is None or not any(second.padding)):
        weight = torch.einsum("om...,mi->oi...", second.weight.double(), first.weight.double().flatten(1))
        spread, padding, dilation, stride = second, second.padding, second.dilation, second.stride
    else:
        return None
    bias = _bias(first.bias, second.bias, summed)
    return Conv(weight.to(spread.weight.dtype), bias, stride=stride, padding=padding, dilation=dilation)


def _bias(first: Tensor | None, second: Tensor | None, weight: Tensor) -> Tensor | None:
    """What the first operator's bias, through the weights (outputs, inputs) of the second, and its own come to."""
    if first is None:
        return second
    through = weight.double() @ first.double()
    return (through if second is None else through + second.double()).to(first.dtype)
