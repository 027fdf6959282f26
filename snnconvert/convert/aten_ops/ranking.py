"""Outputs that only rank the scores of a classifier: the scores stand for them.

`scores.max(1)`, `argmax`, `topk` and `sort` at the end of a network say which class is likely. A spiking network adds
up scores, so the scores are its output, and what ranked them is left out with a note.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

_INDEX = ("argmax", "argsort")
_PAIR = ("max", "topk", "sort")
_MOVES = (
    "to",
    "_to_copy",
    "squeeze",
    "unsqueeze",
    "view",
    "reshape",
    "flatten",
    "clone",
    "detach",
    "alias",
    "contiguous",
)


@dataclass(frozen=True)
class Outputs:
    """What is left of a program's outputs.

    Attributes:
        names: of each.
        places: of each, which output of the program it is; None where it stands for one that ranked it.
        notes: what was left out.
    """

    names: tuple[str, ...]
    places: tuple[int | None, ...]
    notes: tuple[str, ...]


def without_ranking(graph: fx.Graph, names: Sequence[str]) -> Outputs:
    """Let the scores of a program stand for outputs that only rank them, each once, and change its output node so.

    Args:
        graph: of ATen operators; changed in place.
        names: one for each output.
    """
    (output,) = [node for node in graph.nodes if node.op == "output"]
    given: list[Any] = list(output.args[0])
    # the values of a maximum are what is asked for, unless the place of it is, too
    chosen = {source for value in given if (source := _ranked(value, values=False)) is not None}
    kept: dict[Any, tuple[str, int | None]] = {}
    notes, dropped = [], []
    for place, (name, value) in enumerate(zip(names, given, strict=True)):
        scores = _ranked(value, values=False) or _ranked(value, values=True)
        if scores is None or (scores not in chosen and _name(_ranker(value)[0]) == "max"):
            # the scores themselves, where they are an output, come under their own name
            kept[value if isinstance(value, fx.Node) else (place,)] = (name, place)
            continue
        notes.append(f"output {name!r} only ranks scores: the scores are the output")
        kept.setdefault(scores, (name, None))
        dropped.append(value)
    output.args = (tuple(key if isinstance(key, fx.Node) else None for key in kept),)
    for value in dropped:
        _erased(graph, value)
    found = list(kept.values())
    return Outputs(tuple(name for name, _ in found), tuple(place for _, place in found), tuple(notes))


def _erased(graph: fx.Graph, node: fx.Node) -> None:
    """Take out an operator that nobody reads, and those it reads up to the scores."""
    ranks = _ranker(node)[0]
    while True:
        for user in list(node.users):
            if _name(user).startswith("_assert"):
                graph.erase_node(user)
        if node.users:
            return
        source = node.args[0]
        graph.erase_node(node)
        if node is ranks or not isinstance(source, fx.Node):
            return
        node = source


def _ranked(value: Any, *, values: bool) -> fx.Node | None:
    """The scores whose order, or (`values`) whose largest values, `value` gives."""
    node, part = _ranker(value)
    if node is None or (_name(node) in _PAIR and part != (0 if values else 1)):
        return None
    scores = node.args[0]
    return scores if isinstance(scores, fx.Node) else None


def _ranker(value: Any) -> tuple[fx.Node | None, int | None]:
    """The operator that ranks, if `value` is made by one and only moved about since; and which result it is."""
    node = value
    while isinstance(node, fx.Node) and _name(node) in _MOVES:
        node = node.args[0]
    if not isinstance(node, fx.Node):
        return None, None
    if node.target is operator.getitem:
        source, part = node.args
        pair = isinstance(source, fx.Node) and _name(source) in _PAIR and len(source.args) > 1
        return (source, part) if pair else (None, None)  # type: ignore[return-value]
    whole = node.args[1:2] or (node.kwargs.get("dim"),)
    return (node, None) if _name(node) in _INDEX and whole[0] is not None else (None, None)


def _name(node: fx.Node | None) -> str:
    if node is None or not isinstance(node.target, torch._ops.OpOverload):
        return ""
    return str(node.target._schema.name).split("::")[-1]
