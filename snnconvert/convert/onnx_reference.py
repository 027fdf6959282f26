"""ONNX Runtime as the reference: does the imported graph compute what the file says?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, fx

from snnconvert.budget import budget
from snnconvert.convert.onnx_ops.reading import open_model
from snnconvert.errors import InternalError
from snnconvert.files import named_in_utf8
from snnconvert.graph.dialect import origin_of, output_nodes
from snnconvert.graph.parts import Part, unpacked
from snnconvert.graph.types import Ann
from snnconvert.graph.walk import applied, walk

# What a file's own arithmetic leaves of real numbers, relative to the largest value: 16-bit floats round by 0.1 % a
# layer; 8-bit integers round, and cut off what their calibration images did not reach (random samples do).
HALF, QUANTISED = 2e-2, 0.5
_WHOLE = {onnx.TensorProto.UINT8: 0, onnx.TensorProto.INT8: -128}
_HALF_TYPES = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)


@dataclass(frozen=True)
class Comparison:
    """Imported graph against ONNX Runtime.

    Attributes:
        differences: per output, largest absolute difference / largest absolute reference value.
        ran: whether ONNX Runtime could run the model.
        reason: why not, where it could not.
        tolerance: the difference that was allowed.
    """

    differences: dict[str, float]
    ran: bool
    reason: str = ""
    tolerance: float = 0.0

    @property
    def largest(self) -> float:
        """The largest difference over all outputs (0 where nothing ran)."""
        return max(self.differences.values(), default=0.0)


def onnx_operator_table(path: Path) -> list[tuple[str, str, tuple[str, ...], tuple[str, ...]]]:
    """Name, operator, inputs and outputs of every node of a file, in its order.

    Raises:
        ModelFileError, UnsupportedError: as `import_onnx` does for unreadable files.
    """
    model, _ = open_model(Path(path))
    return [
        (node.name or next(iter(node.output), ""), node.op_type, tuple(node.input), tuple(node.output))
        for node in model.graph.node
    ]


def compare_with_onnxruntime(ann: Ann, path: Path, samples: Tensor, *, tolerance: float = 1e-4) -> Comparison:
    """Run `samples` (batch, *input_shape) through ONNX Runtime and through `ann`, and compare every output.

    Args:
        samples: values from 0 to 1; a file that takes integers of 8 bits gets all of theirs.
        tolerance: for files in float32; those that round by themselves (HALF, QUANTISED) may differ further.

    Raises:
        InternalError: if an output differs by more than is tolerated, naming the first node that diverges.
        ModelFileError, UnsupportedError: as `import_onnx` does for unreadable files.
    """
    model, _ = open_model(Path(path))
    tolerance = max(tolerance, _own_rounding(model))
    for entry in () if ann.inputs else model.graph.input:
        if entry.type.tensor_type.elem_type in _WHOLE:
            samples = (255 * samples.clamp(0, 1)).round() + _WHOLE[entry.type.tensor_type.elem_type]
    graph_outputs = {value.name for value in model.graph.output}
    extra = [name for name in ann.outputs if name not in graph_outputs]
    ours = _outputs(ann, samples)
    rounded = _outputs(ann, samples, rounded=True) if tolerance == QUANTISED else ours
    reason = ""
    differences: dict[str, float] = {}
    # One at a time is needed where the exporter fixed a batch of 1 in a file that declares it free, and for outputs
    # whose batch is not the first axis.
    with named_in_utf8(path) as utf8:
        for together in (True, False):
            try:
                session = _session(model, extra) if extra or _empty_sides(model) else _session_of(utf8)
                references = _real(ann, _run(session, ann.inputs, samples, list(ann.outputs), together))
            except _runtime_errors() as error:
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
                continue
            differences = {name: _difference(ours[name], references[name]) for name in ann.outputs}
            # A file that cuts its values off may be far from real numbers, and still be read rightly.
            if any(
                all(_difference(one[name], references[name]) <= tolerance for name in one) for one in (ours, rounded)
            ):
                return Comparison(differences, True, tolerance=tolerance)
    if not differences:
        return Comparison({}, False, reason, tolerance)
    worst = max(differences, key=lambda name: differences[name])
    raise InternalError(
        f"the imported graph of {path} differs from ONNX Runtime by {differences[worst]:.2e} of the largest value "
        f"of output {worst!r} (allowed: {tolerance:.0e})",
        causes=(_first_divergence(ann, model, samples[:1], tolerance),),
    )


def _outputs(ann: Ann, samples: Tensor, *, rounded: bool = False) -> dict[str, Any]:
    """What `ann` answers; `rounded` as the file rounds and cuts off its values."""

    def rule(node: fx.Node, inputs: list[Tensor]) -> Tensor:
        return _on_steps(node, applied(node, inputs))

    wanted = output_nodes(ann.graph)
    with torch.no_grad():
        steps = walk(ann.graph, samples, rule if rounded else applied, wanted=wanted)
        found = {node: value for node, _, value in steps if node in wanted}
    return {name: found[node].numpy() for name, node in zip(ann.outputs, wanted, strict=True)}


def _on_steps(node: fx.Node, value: Tensor) -> Tensor:
    scale, zero, low, high = node.meta.get("steps") or (0.0, 0.0, 0.0, 0.0)
    return value if not scale else ((value / scale + zero).round().clamp(low, high) - zero) * scale


def _real(ann: Ann, references: dict[str, Any]) -> dict[str, Any]:
    """Outputs of integers as the real numbers that they stand for."""
    for node in output_nodes(ann.graph):
        for name, (scale, zero) in node.meta.get("units", {}).items():
            if name in references and scale:
                references[name] = (np.asarray(references[name], np.float32) - zero) * scale
    return references


def _own_rounding(model: onnx.ModelProto) -> float:
    """How far the file's own arithmetic may lie from real numbers: 0 where it computes in float32."""
    graph = model.graph
    if any("QuantizeLinear" in node.op_type or node.op_type.startswith(("QLinear", "QGemm")) for node in graph.node):
        return QUANTISED
    kinds = {tensor.data_type for tensor in graph.initializer}
    kinds |= {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
    kinds |= {attribute.i for node in graph.node if node.op_type == "Cast" for attribute in node.attribute}
    kinds |= {attribute.t.data_type for node in graph.node for attribute in node.attribute if attribute.HasField("t")}
    return HALF if kinds.intersection(_HALF_TYPES) else 0.0


def _runtime_errors() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises when it cannot load or run a model; all derive from RuntimeError or these."""
    state = onnxruntime.capi.onnxruntime_pybind11_state
    names = (
        "Fail",
        "InvalidArgument",
        "InvalidGraph",
        "NotImplemented",
        "RuntimeException",
        "InvalidProtobuf",
        "NoSuchFile",
    )
    return (ValueError, *(getattr(state, name) for name in names if hasattr(state, name)))


def _options() -> Any:
    options = onnxruntime.SessionOptions()
    # Its rewriting of graphs is not without faults: 1.31.1 merges a Pad by 0 into a max pooling, which pads by
    # minus infinity. What the operators mean is the reference.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return options


def _session_of(model: str | bytes) -> Any:
    return onnxruntime.InferenceSession(model, _options(), providers=["CPUExecutionProvider"])


def _session(model: onnx.ModelProto, values: list[str]) -> Any:
    """A session of a copy of `model` that also returns `values`, and whose inputs may have any size where it says 0."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for side in _empty_sides(copy):
        side.ClearField("dim_value")
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in values)
    return _session_of(copy.SerializeToString())


def _empty_sides(model: onnx.ModelProto) -> list[Any]:
    """Axes of size 0 of the inputs, which the import takes for open ones."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    sides = [side for value in inputs for side in value.type.tensor_type.shape.dim]
    return [side for side in sides if side.HasField("dim_value") and side.dim_value == 0]


def _run(
    session: Any, inputs: tuple[Part, ...], samples: Tensor, values: list[str], together: bool = True
) -> dict[str, Any]:
    """Values by name for all samples; a free batch is run whole, or (`together` false) one sample at a time."""
    kinds = {
        "tensor(float16)": np.float16,
        "tensor(double)": np.float64,
        "tensor(uint8)": np.uint8,
        "tensor(int8)": np.int8,
        "tensor(int32)": np.int32,
        "tensor(int64)": np.int64,
    }
    entries = session.get_inputs()
    given = unpacked(inputs, samples) if inputs else {entries[0].name: samples}
    arrays = {one.name: given[one.name].numpy().astype(kinds.get(one.type, np.float32)) for one in entries}
    sides, count = entries[0].shape, len(samples)
    if len(sides) == arrays[entries[0].name].ndim - 1:  # the file has no batch axis
        parts = [session.run(values, {name: one[index] for name, one in arrays.items()}) for index in range(count)]
        return {name: np.stack([np.array(part[index]) for part in parts]) for index, name in enumerate(values)}
    size = sides[0] if sides and isinstance(sides[0], int) else count if together else 1
    if (needed := size * sum(one[0].nbytes for one in arrays.values())) > budget():
        raise ValueError(f"the file is for batches of {size:,}, whose inputs alone take {needed / 2**30:,.0f} GiB")
    filled = {name: np.concatenate([one, np.repeat(one[:1], -count % size, axis=0)]) for name, one in arrays.items()}
    starts = range(0, count, size)
    parts = [session.run(values, {name: one[start : start + size] for name, one in filled.items()}) for start in starts]
    if len(parts) == 1:
        return {name: np.array(parts[0][index]) for index, name in enumerate(values)}
    return {name: np.stack([np.array(part[index]) for part in parts]) for index, name in enumerate(values)}


def _difference(ours: Any, reference: Any) -> float:
    """Largest absolute difference over the largest absolute reference value; infinite where shapes do not fit."""
    reference = np.asarray(reference, dtype=np.float64).reshape(-1)
    ours = np.asarray(ours, dtype=np.float64).reshape(-1)
    if ours.size < reference.size:  # the last chunk was filled up
        reference = reference[: ours.size]
    if ours.size != reference.size:
        return float("inf")
    finite = np.isfinite(reference)
    if not finite.any():
        return 0.0 if np.array_equal(ours, reference, equal_nan=True) else float("inf")
    if not np.array_equal(ours[~finite], reference[~finite], equal_nan=True):
        return float("inf")
    scale = max(float(np.abs(reference[finite]).max()), 1e-30)
    return float(np.nan_to_num(np.abs(ours[finite] - reference[finite]).max() / scale, nan=np.inf))


def _first_divergence(ann: Ann, model: onnx.ModelProto, sample: Tensor, tolerance: float) -> str:
    """The first node, in data-flow order, whose value differs; on one sample, so that every layout can be compared."""
    known = {name for node in model.graph.node for name in node.output if name}
    named = {node: str(node.meta["onnx_value"]) for node in ann.graph.graph.nodes if "onnx_value" in node.meta}
    named = {node: value for node, value in named.items() if value in known}
    outputs = {value.name for value in model.graph.output}
    values = list(dict.fromkeys(named.values()))
    try:
        session = _session(model, [value for value in values if value not in outputs])
        references = _run(session, ann.inputs, sample, values)
    except _runtime_errors() as error:
        return f"the first node that diverges could not be found: {error}"

    with torch.no_grad():
        ours = {node: found for node, _, found in walk(ann.graph, sample)}
    for node, value in named.items():
        difference = _difference(ours[node].numpy(), references[value])
        if not difference <= tolerance:
            return f"first at {origin_of(node)}: its value {value!r} differs by {difference:.2e}"
    return "every node agrees on the first sample alone"
