"""What follows the scores of a classifier in a file, and only ranks or names them: the scores stand for it.

Exporters append an ArgMax, a TopK, or (scikit-learn) a table of class names and a ZipMap. A spiking network adds up
scores, so these are its output, and the rest is left out with a note.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from snnconvert.errors import OptionError

_MOVES = ("Cast", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "LabelEncoder")
# places of an index, and of its table where one is looked up in it
_LOOK_UP = {"ArrayFeatureExtractor": 1, "Gather": 1, "GatherElements": 1}
_RANKS = ("ArgMax", "TopK", "Binarizer")


@dataclass(frozen=True)
class Tails:
    """The outputs of a file once their tails are off.

    Attributes:
        names: the value that stands for each output that was asked for, in order, each once.
        notes: what was left out.
        rankers: name and operator of the nodes that were, by the value that stands for them.
    """

    names: tuple[str, ...]
    notes: tuple[str, ...]
    rankers: dict[str, list[tuple[str, str]]]


def without_tails(graph: onnx.GraphProto, output_name: str | None, path: object) -> Tails:
    """Find what stands for the outputs of `graph`, and make that its outputs.

    Args:
        graph: changed in place.
        output_name: keep what this output needs, and nothing else; all outputs by default.
        path: the file, for messages.

    Raises:
        OptionError: there is no such output.
    """
    named = [value.name for value in graph.output]
    if output_name is not None and output_name not in named:
        raise OptionError(
            f"output {output_name!r} is not an output of {path}", hint=f"choose one of: {', '.join(named)}"
        )
    made = {name: node for node in graph.node for name in node.output if name}
    batched = not any(len(value.type.tensor_type.shape.dim) == 1 for value in graph.input)  # axis 0 is the batch
    walked = {name: _scores(name, made, batched=batched) for name in (named if output_name is None else [output_name])}
    ranked = {scores for scores, passed in walked.values() if any(node.op_type in _RANKS for node in passed)}
    names: dict[str, None] = {}
    notes: dict[str, None] = {}
    rankers: dict[str, list[tuple[str, str]]] = {}
    for name, (scores, passed) in walked.items():
        node = made.get(name)
        if not passed and node is not None and node.op_type == "ReduceMax" and node.input[0] in ranked:
            scores, passed = node.input[0], [node]  # noqa: PLW2901 (the score of the class that an ArgMax chose)
        names[scores] = None
        rankers.setdefault(scores, []).extend((each.name, each.op_type) for each in passed)
        if passed:
            operators = ", ".join(dict.fromkeys(each.op_type for each in reversed(passed)))
            notes[f"output {name!r} is made of the scores {scores!r} by {operators}, which was left out"] = None
    kept = {value.name: value for value in graph.output if value.name in names}
    del graph.output[:]
    graph.output.extend(kept.get(name, onnx.ValueInfoProto(name=name)) for name in names)
    return Tails(tuple(names), tuple(notes), rankers)


def _axis(node: onnx.NodeProto) -> int:
    default = -1 if node.op_type == "TopK" else 0
    return next((attribute.i for attribute in node.attribute if attribute.name == "axis"), default)


def _scores(name: str, made: dict[str, onnx.NodeProto], *, batched: bool) -> tuple[str, list[onnx.NodeProto]]:
    """The scores that an output ranks or names, with the nodes in between; the output itself if it does neither."""
    value, passed = name, list[onnx.NodeProto]()
    while value in made:
        node = made[value]
        if node.op_type in ("ArgMax", "TopK") and batched and _axis(node) == 0:
            break
        if node.op_type in _RANKS or node.op_type == "ZipMap":
            return node.input[0], [*passed, node]
        if node.op_type not in (*_MOVES, *_LOOK_UP) or len(node.input) <= _LOOK_UP.get(node.op_type, 0):
            break
        passed.append(node)
        value = node.input[_LOOK_UP.get(node.op_type, 0)]
    return name, []
