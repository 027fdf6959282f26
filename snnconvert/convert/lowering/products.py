"""Matrix products and sums over letters."""

from __future__ import annotations

import math

import numpy as np

from snnconvert.convert.lowering.elementwise import add
from snnconvert.convert.lowering.flow import Array, Flow, Refusal, Value
from snnconvert.convert.lowering.scope import Scope, moving, optional, tensor
from snnconvert.graph import kinds


def linear(scope: Scope, flow: Flow, weight: Array, bias: Array | None = None, part: str = "") -> Flow:
    """Matrix product of the last axis with `weight` (out, in)."""
    if flow.axis(-1) != len(flow.dims) or flow.dims[-1] != weight.shape[1]:
        raise Refusal(f"a weight of shape {weight.shape} meets a last axis of size {flow.dims[-1:]}")
    return scope.apply(kinds.Linear(tensor(weight), optional(bias)), flow, part=part)


def along_axis(scope: Scope, flow: Flow, axis: int, weight: Array) -> Flow:
    """Matrix product of one axis with `weight` (out, in)."""
    turned = linear(scope, scope.swapped(flow, axis, -1, "transpose"), weight)
    return scope.swapped(turned, axis, -1, "transpose_back")


def matmul(scope: Scope, a: Value, b: Value) -> Flow:
    """The product over the last axis of `a` and the last but one of `b`, as numpy.matmul has it."""
    if isinstance(a, Flow) and not isinstance(b, Flow):
        weight = _matrix(b, a.rank)
        if weight.ndim == 2:
            return linear(scope, a, weight.T)
        if weight.ndim == 1:
            return _without_last(scope, linear(scope, a, weight[None]))
    if isinstance(b, Flow) and not isinstance(a, Flow) and b.rank >= 2:
        weight = _matrix(a, b.rank)
        if weight.ndim == 1:
            return _without_last(scope, linear(scope, scope.swapped(b, -1, -2, "transpose"), weight[None]))
        if weight.ndim == 2:
            b.axis(-1)
            return along_axis(scope, b, -2, weight)
    if min(value.rank if isinstance(value, Flow) else value.ndim for value in (a, b)) < 2:
        raise Refusal("a product with a vector of activations")
    flows = scope.together(a, b)
    for flow in flows:
        flow.axis(-1)
        flow.axis(-2)
    return scope.apply(kinds.MatMul(), *flows)


def _without_last(scope: Scope, flow: Flow) -> Flow:
    return flow.dropped(scope.sample_reshape(flow.node, flow.dims[:-1], "squeeze"), (flow.rank - 1,))


def _matrix(weight: Array, rank: int) -> Array:
    """`weight` without leading axes of size 1 that the other operand, of `rank` axes, has anyway."""
    while weight.ndim > 2 and weight.shape[0] == 1 and rank >= weight.ndim:
        weight = weight[0]
    return weight


def gemm(scope: Scope, a: Value, b: Value, c: Value | None = None, *, alpha: float = 1.0, beta: float = 1.0) -> Flow:
    """alpha * a @ b + beta * c."""
    if isinstance(a, Flow) and not isinstance(b, Flow) and b.ndim == 2:
        weight = alpha * b.T
        if not isinstance(c, Flow) and c is not None and c.size == weight.shape[0] and c.shape[-1:] == (c.size,):
            return linear(scope, a, weight, beta * c.reshape(-1))
        product = linear(scope, a, weight)
    else:
        product = scope.affine(matmul(scope, a, b), alpha, part="alpha")
    if c is None:
        return product
    return add(scope, product, scope.affine(c, beta, part="beta") if isinstance(c, Flow) else beta * c)


def einsum(scope: Scope, equation: str, *inputs: Value) -> Flow:
    """Two operands, as one (batched) matrix product between permutations; no repeated letters, no ellipsis.

    Letters are those of the batch and of both operands and the result (`both`), of one operand and the result (`rows`,
    `columns`), or of both operands alone (`summed`).
    """
    left, arrow, result = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow or len(terms) != 2 or len(inputs) != 2 or "." in equation:
        raise Refusal(f"equation {equation!r}; only two operands with '->' and plain letters are supported")
    (a, b), (one, two) = inputs, terms
    if not isinstance(a, Flow):
        a, b, one, two = b, a, two, one
    flow = moving(a)
    if any(len(set(term)) != len(term) for term in (one, two, result)):
        raise Refusal(f"equation {equation!r} repeats a letter")
    batch = [] if flow.position is None else [one[flow.position]]
    if isinstance(b, Flow) and b.position is not None and [two[b.position]] != batch:
        raise Refusal(f"equation {equation!r} meets the batch on different letters")
    both = [letter for letter in result if letter in one and letter in two and letter not in batch]
    summed = [letter for letter in one if letter in two and letter not in result]
    rows = [letter for letter in result if letter in one and letter not in [*two, *batch]]
    columns = [letter for letter in result if letter in two and letter not in one]
    if set(one + two) != {*batch, *both, *summed, *rows, *columns} or not set(batch) <= set(result):
        raise Refusal(f"equation {equation!r} is not a matrix product of two inputs")
    size = dict(zip(one, flow.sizes, strict=True))
    size |= dict(zip(two, b.sizes if isinstance(b, Flow) else b.shape, strict=True))

    def spans(*groups: list[str]) -> list[int]:
        return [math.prod(size[letter] for letter in group) for group in groups]

    def ordered(value: Value, term: str, letters: list[str], shape: list[int]) -> Value:
        axes = [term.index(letter) for letter in letters]
        if not isinstance(value, Flow):
            return np.transpose(value, axes).reshape(shape)
        return scope.reshape(scope.transpose(value, axes, "permute"), shape, "reshape")

    lead = [[letter] for letter in (*batch, *both)]
    plain = not isinstance(b, Flow) and not both
    kept = [[letter] for letter in rows] if plain else [rows]  # a Linear takes any number of rows
    first = ordered(flow, one, [*batch, *both, *rows, *summed], spans(*lead, *kept, summed))
    own = [[letter] for letter in (*(letter for letter in batch if letter in two), *both)]
    second = ordered(b, two, [*(group[0] for group in own), *summed, *columns], spans(*own, summed, columns))
    if not isinstance(second, Flow) and not plain:
        second = second.reshape((1,) * len(batch) + second.shape)
    letters = [*batch, *both, *rows, *columns]
    product = scope.reshape(matmul(scope, first, second), spans(*([letter] for letter in letters)), "reshape")
    return scope.transpose(product, [letters.index(letter) for letter in result], "permute")
