"""What a .onnx file takes: its inputs, their shapes, and the axis of the batch."""

from __future__ import annotations

from pathlib import Path

import onnx

from snnconvert.budget import check_claim, elements
from snnconvert.convert.lowering.flow import Array
from snnconvert.errors import DataError, ModelFileError, OptionError, UnsupportedError
from snnconvert.graph.parts import Part, shape_of_parts

_TYPES = {1: "float", 10: "float16", 11: "double", 16: "bfloat16", 2: "uint8", 3: "int8", 6: "int32", 7: "int64"}
_WHOLE = ("int32", "int64")
_NAMES = {number: name.lower() for name, number in onnx.TensorProto.DataType.items()}


def inputs_of(
    graph: onnx.GraphProto, constants: dict[str, Array], given: tuple[int, ...] | None, path: Path
) -> tuple[tuple[int, ...], tuple[Part, ...], int | None, int | None]:
    """Shape of one sample, its parts, the batch size fixed in the file (or None), and the axis of the batch (or None).

    Args:
        given: the shape of one sample that the user states.

    Raises:
        ModelFileError, UnsupportedError, DataError, OptionError: as of `import_onnx`.
    """
    values = _inputs(graph, constants, path)
    if len(values) > 1 and given is not None:
        names = ", ".join(value.name for value in values)
        raise OptionError(
            f"input_shape {given} is of one input, and {path} has {len(values)} ({names})",
            hint="leave --input-shape out; sizes that the file leaves open are set when it is exported",
        )
    found = [_input_shape(value, graph, constants, given, path) for value in values]
    batches, positions = {batch for _, batch, _ in found}, {position for *_, position in found}
    if len(batches) > 1 or ((len(positions) > 1 or None in positions) and len(found) > 1):
        stated = ", ".join(f"{value.name} {_stated(value)}" for value in values)
        raise UnsupportedError(
            f"the inputs of {path} do not have the batch as their first axis, all of one size ({stated})",
            hint="export it with the batch as the first axis of every input, all fixed or all free (dynamic_axes)",
        )
    pairs = zip(values, found, strict=True)
    parts = tuple(Part(value.name, shape, _kind(value) in _WHOLE) for value, (shape, *_) in pairs)
    check_claim(8 * sum(part.size for part in parts), "two samples of all inputs", path)
    return shape_of_parts(parts), parts, batches.pop(), positions.pop()


def _stated(value: onnx.ValueInfoProto) -> str:
    sizes = [size.dim_param or size.dim_value or "?" for size in value.type.tensor_type.shape.dim]
    return f"({', '.join(map(str, sizes))})"


def _kind(value: onnx.ValueInfoProto) -> str:
    return _TYPES.get(value.type.tensor_type.elem_type, "")


def _inputs(graph: onnx.GraphProto, constants: dict[str, Array], path: Path) -> list[onnx.ValueInfoProto]:
    """The graph inputs that are no initializers."""
    inputs = [value for value in graph.input if value.name not in constants]
    if not inputs:
        raise ModelFileError(f"{path} has no input", hint="export the network with an example input that is traced")
    for value in inputs:
        if not value.type.HasField("tensor_type") or not _kind(value):
            kind = "not a tensor"
            if value.type.HasField("tensor_type"):
                kind = _NAMES.get(value.type.tensor_type.elem_type, "of no known type")
            raise UnsupportedError(
                f"input {value.name!r} of {path} is {kind}; only {', '.join(_TYPES.values())} are supported",
                hint="convert a network that takes images, feature vectors or whole numbers",
            )
    return inputs


def input_notes(graph: onnx.GraphProto, parts: tuple[Part, ...]) -> list[str]:
    """What has to be said about the numbers of the inputs."""
    own = {part.name for part in parts if not part.whole}
    return [note for value in graph.input if value.name in own for note in _notes(value)]


def _notes(value: onnx.ValueInfoProto) -> list[str]:
    kind = _kind(value)
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
