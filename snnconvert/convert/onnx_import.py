"""The ONNX door: a .onnx file straight into the dialect.

The graph is interpreted once. A value is either constant, and then computed at once (all shape arithmetic ends this
way), or an activation, and then a node of the dialect whose value on two random samples is known. Operators live in
`onnx_ops/`, one function each.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper

from snnconvert.budget import Claims
from snnconvert.convert.lowering.flow import Array, Flow, Refusal, Value
from snnconvert.convert.lowering.instead import instead_of
from snnconvert.convert.onnx_inputs import input_notes, inputs_of
from snnconvert.convert.onnx_ops import OPERATORS, quantised
from snnconvert.convert.onnx_ops.folding import PerSample, fold, fold_per_sample, range_over_batch
from snnconvert.convert.onnx_ops.reading import as_float32, initializers, open_model
from snnconvert.convert.onnx_ops.scope import Scope
from snnconvert.convert.onnx_ops.tails import without_tails
from snnconvert.errors import ModelFileError, NodeFault, UnsupportedError
from snnconvert.files import sha256_of
from snnconvert.graph.dialect import Builder
from snnconvert.graph.inputs import cut_out, with_rows
from snnconvert.graph.parts import Part, fitting, special
from snnconvert.graph.types import Ann, Origin, Source

_SEED = 0
_ALWAYS_CONSTANT = ("Shape", "Size", "Constant")
_BOUNDS = ("Clip", "Pad")  # which may lie at infinity
_OF_UNITS = ("Cast", "CastLike", "DequantizeLinear", *quantised.TABLE)  # what says itself what its numbers stand for
_MISFITS = (
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    MemoryError,
)


class _Missing:
    """A value that could not be imported; nodes that read it are passed over."""


_MISSING = _Missing()


class _InvalidFile(Exception):  # noqa: N818 (it is caught in this module)
    """What makes the file itself invalid, whatever its operators are."""


def import_onnx(path: Path, *, output_name: str | None = None, input_shape: tuple[int, ...] | None = None) -> Ann:
    """Read a .onnx file into the dialect.

    Args:
        output_name: the model output to keep, with what it needs (all of them by default).
        input_shape: shape of one sample, batch excluded; needed only where the file leaves sizes open.

    Returns:
        An Ann at stage ANN. Every node of its graph carries `meta["onnx_value"]`, the ONNX value it stands for.

    Raises:
        ModelFileError: if the file is missing, damaged, or no ONNX model.
        UnsupportedError: listing every node that has no form in the dialect, or naming a signature that does not fit.
        OptionError: if `output_name` or `input_shape` does not fit the model.
        DataError: if the file leaves the input's size open and no `input_shape` is given.
    """
    path = Path(path)
    model, opset = open_model(path)
    constants, notes = initializers(model, path)
    graph = model.graph
    tails = without_tails(graph, output_name, path)
    shape, parts, batch, position = inputs_of(graph, constants, input_shape, path)
    _check_operators(graph, set(constants), path)
    sample = fitting(parts, torch.rand(2, *shape, generator=torch.Generator().manual_seed(_SEED)))
    builder, entries = _entered(parts, sample, path)
    scope = Scope(builder, opset, batch)
    for note in (*notes, *input_notes(graph, parts), *tails.notes):
        scope.note(note)
    claims = Claims(path, path.stat().st_size + sum(array.nbytes for array in constants.values()))
    flows = {name: Flow(node, position) for name, node in entries.items()}
    interpreter = _Interpreter(scope, {**constants, **flows}, claims)
    try:
        interpreter.run(_live(graph))
    except _InvalidFile as fault:
        raise ModelFileError(
            f"{path} is not a valid ONNX file: {fault}",
            hint="export or download the model again, or sort its nodes into the order of computation",
        ) from None
    if interpreter.faults:
        raise _unsupported(path, interpreter.faults)
    found = interpreter.results(tails.names, path)
    for name, rankers in tails.rankers.items():
        if name in found:
            found[name].meta["chosen_by"] = tuple(Origin(*each) for each in rankers)
    finished = builder.finish(list(found.values()))
    source = Source(path.stem, str(path), sha256_of(path), "onnx", tuple(scope.notes))
    return Ann(finished, shape, tuple(found), source, inputs=special(with_rows(parts, finished)))


def _entered(parts: tuple[Part, ...], sample: torch.Tensor, path: Path) -> tuple[Builder, dict[str, torch.fx.Node]]:
    """The graph under construction, and the node of each input."""
    name = parts[0].name if len(parts) == 1 else "inputs"
    builder = Builder({name: sample}, path)
    entries = cut_out(
        parts, builder.inputs[name], lambda op, node, part: builder.call(op, node, origin=Origin(part.name, "input"))
    )
    for part in parts:
        entries[part.name].meta |= {"onnx_value": part.name, "whole": part.whole}
    return builder, entries


# --- the nodes ------------------------------------------------------------------------------------


def _operator(node: onnx.NodeProto) -> str:
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"


def _name(node: onnx.NodeProto) -> str:
    return str(node.name) or next((str(name) for name in node.output if name), str(node.op_type))


def _reads(node: onnx.NodeProto) -> list[str]:
    """Names that a node reads, those captured by its subgraphs included."""
    names = [name for name in node.input if name]
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            names += [name for inner in attribute.g.node for name in _reads(inner)]
            names += [value.name for value in attribute.g.output]
    return names


def _live(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes that an output of the graph needs."""
    wanted = {value.name for value in graph.output}
    live = []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            live.append(node)
            wanted.update(_reads(node))
    return live[::-1]


def _check_operators(graph: onnx.GraphProto, constants: set[str], path: Path) -> None:
    """Before any work: every needed node on activations must be of a known operator.

    Raises:
        UnsupportedError: listing all that are not.
    """
    faults = []
    for node in _live(graph):
        if node.op_type in _ALWAYS_CONSTANT or all(name in constants for name in _reads(node)):
            constants.update(node.output)
        elif _operator(node) not in OPERATORS and node.op_type != "If":
            faults.append(NodeFault(_name(node), _operator(node), "this operator has no form in the dialect"))
    if faults:
        raise _unsupported(path, faults)


def _unsupported(path: Path, faults: list[NodeFault]) -> UnsupportedError:
    hint = "export the network without these nodes (post-processing, for instance), or replace them in the network"
    return UnsupportedError(
        f"{path} holds {len(faults)} node(s) that cannot be converted",
        hint=instead_of(faults, hint),
        faults=tuple(faults),
    )


class _Interpreter:
    """Runs over the nodes of a graph; collects what it must refuse."""

    def __init__(self, scope: Scope, values: dict[str, Any], claims: Claims) -> None:
        self.scope, self.claims = scope, claims
        self.values = values
        self.faults: list[NodeFault] = []

    def run(self, nodes: Iterable[onnx.NodeProto]) -> None:
        for node in nodes:
            self.scope.origin = Origin(_name(node), node.op_type)
            self.scope.outputs = tuple(node.output)
            results: tuple[Any, ...]
            try:
                results = self._results(node)
            except Refusal as refusal:
                self.faults.append(NodeFault(_name(node), _operator(node), str(refusal)))
                results = ()
            except _MISFITS as error:
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
                misfit = f"its inputs or attributes do not fit: {reason}"
                self.faults.append(NodeFault(_name(node), _operator(node), misfit))
                results = ()
            for index, name in enumerate(node.output):
                value = results[index] if index < len(results) else _MISSING
                self.values[name] = value
                if isinstance(value, Flow) and not node.op_type.startswith("Q"):  # quantised values are other numbers
                    value.node.meta.setdefault("onnx_value", name)

    def _results(self, node: onnx.NodeProto) -> tuple[Any, ...]:
        unknown = [name for name in node.input if name and name not in self.values]
        if unknown:
            raise _InvalidFile(
                f"{_name(node)} ({_operator(node)}) reads {unknown[0]!r}, which no earlier node produces"
            )
        inputs = [self.values[name] if name else None for name in node.input]
        if any(value is _MISSING for value in inputs):
            if not self.faults:
                raise Refusal("it reads an output of an operator that is not computed here")
            return ()
        if node.op_type == "Constant":
            return (self._constant(node),)
        if node.op_type == "If":
            return self._branch(node, inputs)
        if not any(isinstance(value, Flow) for value in inputs):
            if any(attribute.type == onnx.AttributeProto.GRAPH for attribute in node.attribute):
                raise Refusal("loops are not supported")
            return self._folded(node, inputs)
        operator = _operator(node)
        if operator not in OPERATORS:
            raise Refusal("this operator has no form in the dialect")
        function = OPERATORS[operator]
        attributes = {attribute.name: _plain(attribute) for attribute in node.attribute}
        _check_finite(operator, attributes)
        parameters = inspect.signature(function).parameters
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            strange = sorted(set(attributes) - set(parameters))
            if strange:
                raise Refusal(f"attribute {strange[0]!r} is not known")
        while inputs and inputs[-1] is None:
            inputs.pop()
        found = function(self.scope, *inputs, **attributes)
        results = found if isinstance(found, tuple) else (found,)
        unit = next((value.unit for value in inputs if isinstance(value, Flow) and value.unit), None)
        if unit is None or operator in _OF_UNITS:
            return results
        return tuple(
            replace(each, unit=unit) if isinstance(each, Flow) and each.unit is None else each for each in results
        )

    def _folded(self, node: onnx.NodeProto, inputs: list[Any]) -> tuple[Any, ...]:
        """Outputs of a node whose inputs do not depend on activations."""
        if any(isinstance(value, PerSample) for value in inputs):
            return (fold_per_sample(node, inputs, self.scope.opset, self.claims),)
        samples = range_over_batch(inputs) if node.op_type == "Range" else None
        return tuple(fold(node, inputs, self.scope.opset, self.claims)) if samples is None else (samples,)

    def _constant(self, node: onnx.NodeProto) -> Array:
        (attribute,) = node.attribute
        if attribute.name == "value":
            array, note = as_float32(numpy_helper.to_array(attribute.t))
            if note:
                self.scope.note(note)
        else:
            array = np.asarray(fold(node, [], self.scope.opset, self.claims)[0])
        if array.dtype.kind == "f" and np.isnan(array).any():
            raise Refusal("this constant holds NaN")
        return array

    def _branch(self, node: onnx.NodeProto, inputs: list[Value | None]) -> tuple[Any, ...]:
        """The chosen branch of an If whose condition is constant, read in place."""
        condition = inputs[0]
        if not isinstance(condition, np.ndarray):
            raise Refusal("its condition depends on activations")
        wanted = "then_branch" if bool(condition.reshape(-1)[0]) else "else_branch"
        (branch,) = (attribute.g for attribute in node.attribute if attribute.name == wanted)
        for tensor in branch.initializer:
            self.values[tensor.name] = as_float32(numpy_helper.to_array(tensor))[0]
        self.run(branch.node)
        return tuple(self.values.get(value.name, _MISSING) for value in branch.output)

    def results(self, outputs: Iterable[str], path: Path) -> dict[str, torch.fx.Node]:
        """Names and nodes of the graph outputs."""
        nodes: dict[str, torch.fx.Node] = {}
        for name in outputs:
            value = self.values.get(name, _MISSING)
            if isinstance(value, np.ndarray):
                self.scope.note(f"output {name!r} is constant and was dropped")
                continue
            if not isinstance(value, Flow):
                raise ModelFileError(
                    f"output {name!r} of {path} is produced by no node", hint="export or download the model again"
                )
            if not value.plain and value.position is not None:
                self.scope.note(f"output {name!r}: its batch was moved to the first axis")
            if value.unit is not None:
                self.scope.note(f"output {name!r} is of integers: read as the real numbers that they stand for")
                value.node.meta["units"] = {**value.node.meta.get("units", {}), name: value.unit}
            nodes[name] = value.node
        if not nodes:
            raise UnsupportedError(
                f"no output of {path} depends on its input", hint="check that the file is the model you meant"
            )
        return nodes


def _check_finite(operator: str, attributes: dict[str, Any]) -> None:
    for name, value in attributes.items():
        if isinstance(value, float) and not math.isfinite(value) and operator not in _BOUNDS:
            raise Refusal(f"its attribute {name} is {value}")


def _plain(attribute: onnx.AttributeProto) -> Any:
    """An attribute as a Python value: text decoded, lists as tuples, tensors as arrays."""
    value = helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    if attribute.type in (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS):
        return tuple(value)
    return value
