"""Exported programs (.pt2), read as data.

`torch.export.load` runs code from the file (expressions are evaluated, payloads unpickled), so it is not used. The
archive is a zip of a JSON graph and raw tensor bytes; operators are looked up in an allow-list.
"""

from __future__ import annotations

import json
import math
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from snnconvert.budget import Claims, check_claim, elements
from snnconvert.convert.aten_ops import OPERATORS
from snnconvert.convert.aten_ops.canonicalise import (
    CHECKS,
    COMPARISONS,
    SIZE_FUNCTIONS,
    Canonicaliser,
    Program,
    checked_outputs,
    operator_name,
)
from snnconvert.convert.aten_ops.ranking import without_ranking
from snnconvert.convert.lowering.instead import instead_of
from snnconvert.convert.pytorch import TOLERANCE, relative_difference, seeded_samples
from snnconvert.convert.weights import DAMAGE, sniff
from snnconvert.errors import InternalError, ModelFileError, NodeFault, UnsupportedError
from snnconvert.files import BYTES_PARSED, sha256_of
from snnconvert.graph.dialect import verify
from snnconvert.graph.inputs import with_rows
from snnconvert.graph.kinds import Stage
from snnconvert.graph.parts import Part, shape_of_parts, special
from snnconvert.graph.types import Ann, Source

SCHEMA_MAJOR = 8
# Pure functions of constants that need no rule, since they are computed when the model is read.
_CONSTANT_OPERATORS = frozenset(
    (
        *("arange", "linspace", "scalar_tensor", "eye", "tril", "triu", "meshgrid", "outer", "cumsum", "lift_fresh"),
        *("logical_not", "logical_and", "logical_or", "bitwise_not", "eq", "ne", "lt", "le", "gt", "ge", "any", "all"),
        *("fill", "copy", "std", "var", "std_mean", "var_mean", "ceil", "round", "floor_divide", "remainder"),
        *("sym_size", "sym_numel"),
    )
)
_TARGET = re.compile(r"torch\.ops\.aten\.([A-Za-z0-9_]+)\.([A-Za-z0-9_]+)")
_DTYPES = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    12: torch.bool,
    13: torch.bfloat16,
}
_PLAIN = ("as_int", "as_ints", "as_float", "as_floats", "as_bool", "as_bools", "as_string", "as_strings")
_STORAGE = ("as_device", "as_layout", "as_memory_format")
_REGION = "torch.ops.higher_order.wrap_with_autocast"
_STORAGE_NAMES = ("device", "layout", "memory_format", "pin_memory")
_CONTAINERS = ("MultiheadAttention", "Sequential", "Transformer")


def import_pt2(path: str | Path) -> Ann:
    """Bring an exported program into the dialect.

    The shape of one sample is the one it was exported with. The result is compared with the file's own graph.

    Raises:
        ModelFileError: the file is damaged, holds pickled payloads, or is of an unknown schema.
        UnsupportedError: it holds operators without a form in the dialect.
    """
    path = Path(path)
    sniff(path)
    try:
        with zipfile.ZipFile(path) as archive:
            reader = _Reader(path, archive)
            program, batch = reader.program()
    except zipfile.BadZipFile:
        raise ModelFileError(f"{path} is truncated or no .pt2 archive", hint="export or download it again") from None
    except DAMAGE as error:
        raise ModelFileError(
            f"{path} is not a well-formed exported program: {type(error).__name__}: {error}",
            hint="export it again with torch.export.save",
        ) from None
    samples = seeded_samples(batch, program.inputs)
    count = len(next(node for node in program.graph.nodes if node.op == "output").args[0])
    outputs = without_ranking(program.graph, ["output", *(f"output_{place}" for place in range(1, count))])
    try:
        graph, names = _imported(program, samples, outputs.names, path)
    except (UnsupportedError, InternalError):
        if program.batch != 1:
            raise
        # Of several axes of size 1, the first guess at the batch may have been a wrong one.
        graph, names = _imported(program, samples, outputs.names, path, kept=True)
    source = Source(path.name, str(path), sha256_of(path), "pt2", outputs.notes)
    parts = program.inputs
    return Ann(graph, shape_of_parts(parts), names, source, inputs=special(with_rows(parts, graph)))


def _imported(
    program: Program, samples: Tensor, names: Sequence[str], path: Path, *, kept: bool = False
) -> tuple[fx.GraphModule, tuple[str, ...]]:
    """The program in the dialect, compared with itself, and the names of its outputs."""
    canonicaliser = Canonicaliser(program, samples, kept=kept)
    named = [each for each in zip(names, canonicaliser.run(), strict=True) if each[1] is not None]
    graph = verify(canonicaliser.builder.finish(checked_outputs([value for _, value in named])), Stage.ANN)
    _compare(program, graph, samples, path)
    return graph, tuple(name for name, _ in named)


def _compare(program: Program, graph: fx.GraphModule, like: Tensor, path: Path) -> None:
    """Compare with the file's own graph, on twice as many samples as it was exported for: none may depend on another.

    Raises:
        InternalError: they differ.
    """
    samples = seeded_samples(2 * len(like), program.inputs)
    parts = []
    for part in torch.split(samples, len(like)):
        *_, (_, values) = program.values(part)
        parts.append([value for value in values if isinstance(value, Tensor)])
    with torch.no_grad():
        found = graph(samples)
    expected = [torch.cat(each) for each in zip(*parts, strict=True)]
    worst = max(relative_difference(a, b) for a, b in zip(expected, found, strict=True))
    if worst > TOLERANCE:
        raise InternalError(f"the imported {path.name} differs from its own graph by {worst:.1e}")


class _Reader:
    """One open archive."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path, self.archive = path, archive
        self.claims = Claims(path)
        models = [name for name in archive.namelist() if re.fullmatch(r"[^/]+/models/[^/]+\.json", name)]
        if len(models) != 1:
            raise self._fault(f"holds {len(models)} graphs; one is expected")
        self.root = models[0].split("/", maxsplit=1)[0]
        self.model = json.loads(self._read(models[0]))
        version = self.model["schema_version"]
        if version["major"] != SCHEMA_MAJOR:
            raise self._fault(f"has schema {version['major']}.{version['minor']}; {SCHEMA_MAJOR} is known")
        order = f"{self.root}/byteorder"
        if order in archive.namelist() and self._read(order).strip() != b"little":
            raise self._fault("was written on a big-endian machine")

    def _fault(self, text: str) -> ModelFileError:
        return ModelFileError(f"{self.path} {text}", hint="export the model to ONNX, or again with a current PyTorch")

    def _read(self, name: str) -> bytes:
        parsed = BYTES_PARSED if name.endswith(".json") else 1
        self.claims.add(parsed * self.archive.getinfo(name).file_size, f"its member {name}")
        return self.archive.read(name)

    def program(self) -> tuple[Program, int]:
        """The graph, and a batch size that it accepts."""
        module = self.model["graph_module"]
        described = module["graph"]
        stored = {**self._tensors("weights", "weight"), **self._tensors("constants", "constant")}
        graph = fx.Graph()
        nodes: dict[str, fx.Node] = {}
        constants: dict[str, Tensor] = {}
        inputs: list[str] = []
        for spec in module["signature"]["input_specs"]:
            ((kind, content),) = spec.items()
            name = content["arg"]["as_tensor"]["name"] if kind == "user_input" else content["arg"]["name"]
            nodes[name] = graph.placeholder(name)
            if kind == "user_input":
                inputs.append(name)
            elif kind in ("parameter", "buffer", "tensor_constant"):
                constants[nodes[name].name] = stored[content[f"{kind}_name"]]
            else:
                raise self._fault(f"has an input of kind {kind}")
        if not inputs:
            raise self._fault("has no input")
        entries = list(_without_regions(described["nodes"]))
        faults = [fault for fault in map(_node_fault, entries) if fault]
        if faults:
            raise UnsupportedError(
                f"{self.path} holds {len(faults)} operators that are not known",
                hint=instead_of(faults, "export the model to ONNX, or replace these operators"),
                faults=tuple(faults),
            )
        for entry in entries:
            _append(graph, nodes, entry)
        graph.output(tuple(_value(item, nodes) for item in described["outputs"]))
        found = [self._input(nodes[name].name, described["tensor_values"][name]) for name in inputs]
        if len({batch for _, batch in found}) > 1:
            raise self._fault("has inputs whose first axes are not of one size, the batch")
        fixed = found[0][1]
        parts = tuple(part for part, _ in found)
        return Program(graph, constants, parts, _where, self.path, fixed), fixed or 2

    def _input(self, name: str, described: dict[str, Any]) -> tuple[Part, int | None]:
        """An input, and its batch (None where it is free)."""
        sizes, kind = described["sizes"], _DTYPES.get(described["dtype"])
        if not sizes:
            raise self._fault(f"has an input {name} that is a single number")
        shape = tuple(int(size["as_int"]) for size in sizes[1:])
        fixed = int(sizes[0]["as_int"]) if "as_int" in sizes[0] else None
        if (fixed is not None and fixed < 1) or min(shape, default=1) < 0:
            raise self._fault(f"was exported for an input of shape {(fixed, *shape)}")
        check_claim(4 * elements((fixed or 2, *shape)), f"an input of shape {(fixed or 2, *shape)}", self.path)
        return Part(name, shape, kind in (torch.int32, torch.int64)), fixed

    def _tensors(self, folder: str, kind: str) -> dict[str, Tensor]:
        config = f"{self.root}/data/{folder}/model_{folder}_config.json"
        if config not in self.archive.namelist():
            return {}
        found = {}
        for name, entry in json.loads(self._read(config))["config"].items():
            if entry["use_pickle"]:
                raise self._fault(f"holds the {kind} {name} as a pickle, which could run code")
            if not re.fullmatch(r"[A-Za-z0-9_]+", entry["path_name"]):
                raise self._fault(f"names a strange place for {name}: {entry['path_name']!r}")
            found[name] = self._tensor(name, entry["tensor_meta"], f"{self.root}/data/{folder}/{entry['path_name']}")
        return found

    def _tensor(self, name: str, meta: dict[str, Any], member: str) -> Tensor:
        data = bytearray(self._read(member))
        dtype = _DTYPES.get(meta["dtype"])
        if dtype is None:
            raise self._fault(f"holds {name} in an element type that is not known ({meta['dtype']})")
        sizes: list[int] = [int(size["as_int"]) for size in meta["sizes"]]
        strides = [int(stride["as_int"]) for stride in meta["strides"]]
        offset = int(meta["storage_offset"]["as_int"])
        stored = len(data) // dtype.itemsize
        count = math.prod(sizes)
        last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
        if min([offset, *sizes, *strides]) < 0 or (count and last >= stored):
            raise self._fault(f"holds {name} with a shape that reaches outside its data")
        self.claims.add(4 * count, f"the tensor {name} of shape {tuple(sizes)}")
        if not count:
            return torch.zeros(sizes, dtype=dtype)
        tensor = torch.frombuffer(data, dtype=dtype).as_strided(sizes, strides, offset).clone()
        if tensor.is_floating_point():
            tensor = tensor.float()
            # Masks hold minus infinity by design; weights do not.
            if bool(torch.isnan(tensor).any()) or ("/weights/" in member and bool(torch.isposinf(tensor).any())):
                raise self._fault(f"holds NaN or infinity in {name}")
        return tensor


def _without_regions(entries: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The nodes of a graph, with those of regions in which automatic casts are switched off in their place."""
    for entry in entries:
        arguments = [item["arg"] for item in entry["inputs"]]
        if str(entry["target"]) != _REGION or arguments[2] != {"as_bool": False}:
            yield entry
            continue
        inner = arguments[4]["as_graph"]["graph"]
        own = {_named(output) for node in inner["nodes"] for output in node["outputs"]}
        # names of a region are its own: they get its name in front
        mark = f"{_named(entry['outputs'][0])}."
        given = {
            _named(inside): _named(outside) for inside, outside in zip(inner["inputs"], arguments[5:], strict=True)
        }
        given |= {name: mark + name for name in own}
        given |= {
            _named(inside): _named(outside) for inside, outside in zip(inner["outputs"], entry["outputs"], strict=True)
        }
        where = {"metadata": entry.get("metadata", {})}
        yield from _without_regions([{**where, **_renamed(node, given)} for node in inner["nodes"]])


def _named(value: dict[str, Any]) -> str:
    """The name in an argument that is a tensor, or in one that is a symbolic size."""
    ((_, content),) = value.items()
    return str(content.get("name", content.get("as_name", ""))) if isinstance(content, dict) else ""


def _renamed(value: Any, names: dict[str, str]) -> Any:
    """A part of a graph with the names of its values exchanged."""
    if isinstance(value, list):
        return [_renamed(item, names) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: names.get(item, item) if key in ("name", "as_name") and isinstance(item, str) and "arg" not in value
        else _renamed(item, names)
        for key, item in value.items()
    }  # fmt: skip


def _node_fault(entry: dict[str, Any]) -> NodeFault | None:
    """Why a node of the file is not accepted; None where it is."""
    text = str(entry["target"])
    if any(check in text for check in CHECKS):
        return None
    where = _path(entry.get("metadata", {}).get("nn_module_stack", ""))[0] or "the model"
    target = _target(text)
    if target is None:
        return NodeFault(where, text, "this operator is not known")
    return None


def _append(graph: fx.Graph, nodes: dict[str, fx.Node], entry: dict[str, Any]) -> None:
    """Add one accepted node of the file to `graph`, and its results to `nodes`."""
    text = str(entry["target"])
    if any(check in text for check in CHECKS):
        return
    target = _target(text)
    assert target is not None
    where = _path(entry.get("metadata", {}).get("nn_module_stack", ""))
    pairs = [(item["name"], item["arg"]) for item in entry["inputs"] if item["name"] not in _STORAGE_NAMES]
    if not all(isinstance(name, str) for name, _ in pairs):
        raise TypeError(f"an argument of {text} has no name")
    values = [(name, _value(arg, nodes)) for name, arg in pairs]
    if isinstance(target, torch._ops.OpOverload):
        names = [argument.name for argument in target._schema.arguments if not argument.kwarg_only]
        given = dict(values)
        front = []
        for name in names:
            if name not in given:
                break
            front.append(given.pop(name))
        node = graph.call_function(target, tuple(front), given)
    else:
        node = graph.call_function(target, tuple(value for _, value in values))
    node.meta["where"] = where
    for place, output in enumerate(entry["outputs"]):
        ((kind, content),) = output.items()
        if kind == "as_tensors":
            for index, item in enumerate(content):
                nodes[item["name"]] = graph.call_function(SIZE_FUNCTIONS["getitem"], (node, index))
        elif kind == "as_tensor" and len(entry["outputs"]) > 1:
            nodes[content["name"]] = graph.call_function(SIZE_FUNCTIONS["getitem"], (node, place))
        elif kind != "as_none":
            nodes[content["name"] if kind == "as_tensor" else content["as_name"]] = node


def _target(text: str) -> Any:
    """The function that `text` names, where it is an allowed one."""
    if text.startswith("_operator."):
        name = text.removeprefix("_operator.")
        return SIZE_FUNCTIONS.get(name) or COMPARISONS.get(name)
    match = _TARGET.fullmatch(text)
    if match is None:
        return None
    name, overload = match.groups()
    if (name, overload) == ("to", "device"):  # where it is stored is not read; what is left is a conversion
        overload = "dtype"
    if name not in OPERATORS and name.removesuffix("_") not in OPERATORS | dict.fromkeys(_CONSTANT_OPERATORS):
        return None
    return getattr(getattr(torch.ops.aten, name, None), overload, None)


def _value(arg: dict[str, Any], nodes: dict[str, fx.Node]) -> Any:
    """The Python value of one argument of the file."""
    ((kind, content),) = arg.items()
    if kind in _PLAIN:
        return content
    if kind == "as_none" or kind in _STORAGE:
        return None
    if kind == "as_scalar_type":
        return _DTYPES[content]
    if kind in ("as_tensors", "as_optional_tensors", "as_sym_ints", "as_sym_floats"):
        return [_item(item, nodes) for item in content]
    return _item(content, nodes)


def _item(content: dict[str, Any], nodes: dict[str, fx.Node]) -> Any:
    """A result of an earlier node by its name, or a plain value."""
    for key in ("name", "as_name"):
        if key in content:
            return nodes[content[key]]
    return _value(content, nodes)


def _path(stack: str) -> tuple[str, bool]:
    """The module path of a node, and whether the module is a plain layer of torch.nn."""
    last = stack.rsplit(";", maxsplit=1)[-1].split(",")
    if len(last) != 3 or last[0].startswith("_empty"):
        return "", False
    kind = last[2]
    leaf = kind.startswith("torch.nn.modules.") and not any(name in kind for name in _CONTAINERS)
    return re.sub(r"@\d+", "", last[1]), leaf


def _where(node: fx.Node) -> str:
    path, leaf = node.meta.get("where", ("", False))
    if leaf and path:
        return str(path)
    return f"{path}.{operator_name(node)}" if path else operator_name(node)
