"""The ONNX door: a .onnx file straight into the dialect.

The graph is interpreted once. A value is either constant, and then computed at once (all shape arithmetic ends this
way), or an activation, and then a node of the dialect whose value on two random samples is known. Operators live in
`onnx_ops/`, one function each.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper

from snnconvert.budget import Claims, check_claim, elements
from snnconvert.convert.lowering.flow import Array, Flow, Refusal, Value
from snnconvert.convert.onnx_ops import OPERATORS, quantised
from snnconvert.convert.onnx_ops.folding import PerSample, fold, fold_per_sample, range_over_batch
from snnconvert.convert.onnx_ops.reading import as_float32, initializers, open_model
from snnconvert.convert.onnx_ops.scope import Scope
from snnconvert.convert.onnx_ops.tails import without_tails
from snnconvert.errors import DataError, ModelFileError, NodeFault, OptionError, UnsupportedError
from snnconvert.files import sha256_of
from snnconvert.graph.dialect import Builder
from snnconvert.graph.types import Ann, Origin, Source

_SEED = 0
_ALWAYS_CONSTANT = ("Shape", "Size", "Constant")
_INPUT_TYPES = {1: "float", 10: "float16", 11: "double", 16: "bfloat16", 2: "uint8", 3: "int8"}
_TYPE_NAMES = {number: name.lower() for name, number in onnx.TensorProto.DataType.items()}
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
    value = _only_input(graph, constants, path)
    shape, batch, position = _input_shape(value, graph, constants, input_shape, path)
    _check_operators(graph, set(constants), path)
    sample = torch.rand(2, *shape, generator=torch.Generator().manual_seed(_SEED))
    builder = Builder({value.name: sample}, path)
    node = builder.inputs[value.name]
    node.meta["onnx_value"] = value.name
    scope = Scope(builder, opset, batch)
    for note in (*notes, *_input_notes(value), *tails.notes):
        scope.note(note)
    claims = Claims(path, path.stat().st_size + sum(array.nbytes for array in constants.values()))
    interpreter = _Interpreter(scope, {**constants, value.name: Flow(node, position)}, claims)
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
    return Ann(finished, shape, tuple(found), source)


# --- the input ------------------------------------------------------------------------------------


def _only_input(graph: onnx.GraphProto, constants: dict[str, Array], path: Path) -> onnx.ValueInfoProto:
    """The one graph input that is not an initializer."""
    inputs = [value for value in graph.input if value.name not in constants]
    if not inputs:
        raise ModelFileError(f"{path} has no input", hint="export the network with an example input that is traced")
    if len(inputs) > 1:
        names = ", ".join(value.name for value in inputs)
        hint = "export a model that takes one tensor; fix the others as constants"
        raise UnsupportedError(f"{path} has {len(inputs)} inputs ({names}); one is supported", hint=hint)
    value: onnx.ValueInfoProto = inputs[0]
    if not value.type.HasField("tensor_type") or value.type.tensor_type.elem_type not in _INPUT_TYPES:
        kind = "not a tensor"
        if value.type.HasField("tensor_type"):
            kind = _TYPE_NAMES.get(value.type.tensor_type.elem_type, "of no known type")
        raise UnsupportedError(
            f"input {value.name!r} of {path} is {kind}; only {', '.join(_INPUT_TYPES.values())} are supported",
            hint="convert a network that takes images or feature vectors",
        )
    return value


def _input_notes(value: onnx.ValueInfoProto) -> list[str]:
    kind = _INPUT_TYPES[value.type.tensor_type.elem_type]
    runs = {"uint8": "0 to 255", "int8": "-128 to 127"}.get(kind, "")
    scale = f" (its values run from {runs}: --scale 1 leaves images as they are)" if runs else ""
    return [] if kind == "float" else [f"the input {value.name!r} is {kind}; it is taken as float32 here{scale}"]


def _input_shape(
    value: onnx.ValueInfoProto,
    graph: onnx.GraphProto,
    constants: dict[str, Array],
    given: tuple[int, ...] | None,
    path: Path,
) -> tuple[tuple[int, ...], int | None, int | None]:
    """Shape of one sample, the batch size fixed in the file (or None), and the axis of the batch (or None)."""
    declared = value.type.tensor_type
    sizes: list[int | None] | None = None
    if declared.HasField("shape"):
        sizes = [size.dim_value if size.dim_value > 0 else None for size in declared.shape.dim]
    if sizes is not None and not sizes:
        raise UnsupportedError(
            f"input {value.name!r} of {path} is a single number", hint="convert a network that takes images or vectors"
        )
    alone = sizes is not None and (len(sizes) == 1 or _adds_batch(value.name, sizes, graph, constants))
    batch, position = (1, None) if alone else (sizes[0] if sizes else None, 0)
    known: list[int | None] | None = sizes if alone or sizes is None else sizes[1:]
    if (known is None and given is None) or (given is None and known is not None and None in known):
        spelled = "nothing" if known is None else str(tuple("?" if size is None else size for size in known))
        raise DataError(
            f"input {value.name!r} of {path} leaves its size open (the file says {spelled}, batch excluded)",
            hint="give the shape of one sample: --input-shape 3,224,224 (input_shape=(3, 224, 224) in Python)",
        )
    if given is not None:
        fits = all(size > 0 for size in given) and (
            known is None
            or (len(known) == len(given) and all(k in (None, g) for k, g in zip(known, given, strict=True)))
        )
        if not fits:
            spelled = "any" if known is None else str(tuple("?" if size is None else size for size in known))
            raise OptionError(
                f"input_shape {tuple(given)} does not fit input {value.name!r} of {path}",
                hint=f"give the shape of one sample without the batch; the file says {spelled}",
            )
    shape = tuple(given) if given is not None else tuple(size for size in known or () if size is not None)
    check_claim(8 * elements(shape), f"two samples of shape {shape}", path)
    return shape, batch, position


def _adds_batch(name: str, sizes: list[int | None], graph: onnx.GraphProto, constants: dict[str, Array]) -> bool:
    """Whether the graph itself puts a batch axis in front of its input, so that the input has none."""
    readers = [node for node in graph.node if name in node.input]
    if sizes[0] == 1 or None in sizes or len(readers) != 1 or readers[0].op_type != "Unsqueeze":
        return False
    axes = [list(attribute.ints) for attribute in readers[0].attribute if attribute.name == "axes"]
    axes += [constants[given].reshape(-1).tolist() for given in readers[0].input[1:] if given in constants]
    return [0] in axes


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
    return UnsupportedError(
        f"{path} holds {len(faults)} node(s) that cannot be converted",
        hint="export the network without these nodes (post-processing, for instance), or replace them in the network",
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
