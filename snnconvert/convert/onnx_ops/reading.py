"""Opening an untrusted .onnx file: say what it is when it is not a model, and check what an importer relies on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import numpy_helper

from snnconvert.budget import BYTES_PER_NODE, check_claim
from snnconvert.convert.lowering.flow import Array
from snnconvert.convert.weights import sniff
from snnconvert.errors import ModelFileError, UnsupportedError
from snnconvert.files import is_regular, opened

OLDEST_OPSET = 7
_WEIGHTED = (
    "Conv",
    "ConvTranspose",
    "Gemm",
    "MatMul",
    "BatchNormalization",
    "PRelu",
    "LayerNormalization",
    "QLinearConv",
)
_KINDS: tuple[tuple[bytes, str, str], ...] = (
    (
        b"pk\x03\x04",
        "is a zip archive (PyTorch files are), not an ONNX model",
        "export with torch.onnx.export, or unpack it",
    ),
    (b"\x80", "is a Python pickle, not an ONNX model", "export the network with torch.onnx.export"),
    (b"\x89hdf", "is an HDF5 file (Keras), not an ONNX model", "convert it with tf2onnx first"),
    (b"\x1f\x8b", "is gzip-compressed", "decompress it with `gunzip` first"),
)


def check_content(path: Path) -> None:
    """Recognise the files that people give by mistake.

    Raises:
        ModelFileError: if `path` is missing, a folder, empty, unreadable, or visibly not an ONNX model.
    """
    head = sniff(path)
    for magic, what, hint in _KINDS:
        if head.lower().startswith(magic):
            raise ModelFileError(f"{path} {what}", hint=hint)
    if head[4:8] == b"TFL3":
        raise ModelFileError(f"{path} is a TFLite file, not an ONNX model", hint="convert it with tf2onnx first")


def open_model(path: Path) -> tuple[onnx.ModelProto, int]:
    """Read a model and its opset; functions local to the model are inlined.

    Raises:
        ModelFileError: if it is no readable model.
        UnsupportedError: if its opset is outside what this package and the installed onnx know.
    """
    check_content(path)
    broken = "export or download it again; it may be truncated"
    try:
        with opened(path) as file:
            model = onnx.load(file, format="protobuf", load_external_data=False)
        _check_external(model, path)
        onnx.load_external_data_for_model(model, str(path.parent))
    except DecodeError as error:
        raise ModelFileError(f"{path} is not a readable ONNX file: {error}", hint=broken) from error
    except (onnx.checker.ValidationError, OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        hint = "keep the file of external weights beside the .onnx file, under its original name"
        raise ModelFileError(f"the weights of {path} cannot be read: {reason}", hint=hint) from error
    if not model.opset_import or not model.HasField("graph") or not model.graph.node:
        raise ModelFileError(f"{path} holds no ONNX graph", hint=broken)
    if not all(isinstance(text, str) for text in _texts(model)):  # bytes, where the text is not UTF-8
        raise ModelFileError(f"{path} holds names that are no text", hint=broken)
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    opset = opsets.get("", opsets.get("ai.onnx", 0))
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= opset <= newest:
        known = f"opsets {OLDEST_OPSET} to {newest} are supported"
        if opset > newest:
            hint = "upgrade the onnx package, or export the model with a lower opset_version"
        else:
            hint = "convert the file with onnx.version_converter, or export it with opset_version=17"
        raise UnsupportedError(f"{path} uses ONNX opset {opset or 'of no known domain'}; {known}", hint=hint)
    if model.functions:
        check_claim(_expanded(model, path) * BYTES_PER_NODE, "its nodes, once its functions are expanded", path)
        model = onnx.inliner.inline_local_functions(model)
    _name_nodes(model.graph)
    return model, opset


def _texts(message: Any) -> Iterator[Any]:
    """Every text in a message and what it holds, but for those of tensors, of which only the name is read."""
    if message.DESCRIPTOR.name == "TensorProto":
        yield message.name
        return
    for field, value in message.ListFields():
        if field.type == field.TYPE_STRING:
            yield from value if field.is_repeated else (value,)
        elif field.message_type is not None:
            for inner in value if field.is_repeated else (value,):
                yield from _texts(inner)


def _check_external(model: onnx.ModelProto, path: Path) -> None:
    """Weights beside the file have to be files: the pipe or device that a name stands for may never end."""
    for tensor in model.graph.initializer:
        for row in tensor.external_data:
            beside = path.parent / row.value
            if row.key == "location" and beside.exists() and not is_regular(beside):
                raise OSError(f"{row.value}, which holds {tensor.name!r}, is a folder, a pipe or a device")


def _expanded(model: onnx.ModelProto, path: Path) -> int:
    """The number of nodes once every call of a function of the model is replaced by the function's nodes.

    Raises:
        ModelFileError: a function calls itself, by way of others perhaps.
    """
    bodies = {(one.domain, one.name): list(_nodes(one.node)) for one in model.functions}
    counts: dict[tuple[str, str], int] = {}
    active: dict[tuple[str, str], None] = {}

    def total(nodes: Iterable[onnx.NodeProto]) -> int:
        return sum(counts.get((node.domain, node.op_type), 1) for node in nodes)

    # Depth first without recursion: functions may be nested as deeply as the file is long.
    stack = list(bodies)
    while stack:
        key = stack[-1]
        called = {(node.domain, node.op_type) for node in bodies[key]} & bodies.keys()
        waiting = [one for one in called if one not in counts]
        if key in counts:
            stack.pop()
        elif not waiting:
            counts[key] = total(bodies[key])
            active.pop(key, None)
            stack.pop()
        elif key in active and any(one in active for one in waiting):
            name = next(one[1] for one in waiting if one in active)
            raise ModelFileError(
                f"{path} holds the function {name!r}, which calls itself",
                hint="export the model again, without functions",
            )
        else:
            active[key] = None
            stack += waiting
    return total(_nodes(model.graph.node))


def _nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """All of them, those of branches and loops included."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs) if attribute.HasField("g") or attribute.graphs else ():
                yield from _nodes(graph.node)


def _name_nodes(graph: onnx.GraphProto) -> None:
    """Give every node a name of its own: its first output where it has none, and that behind a name used before."""
    used: set[str] = set()
    for node in graph.node:
        output = next((name for name in node.output if name), node.op_type)
        if not node.name or node.name in used:
            node.name = f"{node.name}:{output}" if node.name else output
        used.add(node.name)


def initializers(model: onnx.ModelProto, path: Path) -> tuple[dict[str, Array], list[str]]:
    """Weights by name in float32 (integers as they are), and notes.

    Raises:
        ModelFileError: naming every tensor that is damaged, NaN, or an infinite weight.
    """
    weights = {name for node in model.graph.node if node.op_type in _WEIGHTED for name in node.input}
    found: dict[str, Array] = {}
    notes: dict[str, None] = {}
    faults = []
    for tensor in model.graph.initializer:
        try:
            array = numpy_helper.to_array(tensor)
        except (ValueError, TypeError, RuntimeError, KeyError) as error:
            faults.append(f"initializer {tensor.name!r} is damaged: {error}")
            continue
        array, note = as_float32(array)
        if note:
            notes[note] = None
        if array.dtype.kind == "f" and np.isnan(array).any():
            faults.append(f"initializer {tensor.name!r} holds NaN")
        elif array.dtype.kind == "f" and tensor.name in weights and np.isinf(array).any():
            faults.append(f"initializer {tensor.name!r} holds infinite weights")
        found[tensor.name] = array
    for sparse in model.graph.sparse_initializer:
        faults.append(f"initializer {sparse.values.name!r} is sparse, which is not supported")
    if faults:
        hint = "check the training run and export the model again"
        raise ModelFileError(f"{path} holds unusable weights", hint=hint, causes=tuple(faults))
    return found, list(notes)


def as_float32(array: Array) -> tuple[Array, str]:
    """`array` in float32 if it is of another floating type, and a note on that."""
    name = array.dtype.name
    if name in ("float16", "bfloat16", "float64"):
        with np.errstate(over="ignore"):
            return array.astype(np.float32), f"{name} weights were converted to float32"
    return array, ""
