"""What a conversion would do with every node of a model, found without any data.

One verdict per node of the source, by the user's own names:

    spiking       becomes a neuron, or works on spikes exactly (max pooling)
    approximated  a few spiking units stand for it, fitted on calibration images
    linear        weights, sums and averages: additions where it reads spikes
    folded        merged into its neighbours, or computed once
    wiring        moves values, computes nothing
    analog        no spiking form: computed in the mean, exact at every step
    unsupported   no form at all; nothing is converted
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import fx

from snnconvert.convert.approximate import candidates, function_of
from snnconvert.convert.doors import open_model
from snnconvert.convert.onnx_reference import onnx_operator_table
from snnconvert.convert.passes import canonicalize
from snnconvert.convert.passes.logits import keep_logits
from snnconvert.errors import UnsupportedError
from snnconvert.graph.dialect import arguments, calls, op_of, origin_of
from snnconvert.graph.kinds import Concat, Constant, Conv, ConvTranspose, Linear, MatMul, Op, Pad, Role
from snnconvert.graph.types import Ann

VERDICTS = ("spiking", "approximated", "linear", "folded", "wiring", "analog", "unsupported")
READS = {
    "spikes": "reads spikes: additions only",
    "input": "reads the input: computed once per image",
    "current": "reads a sum that is not spikes: multiplies in every step",
}
_POOLING = {
    "spikes": "on spikes, exact: the maximum of the counts",
    "current": "on sums, exact in the total: the maximum of the totals",
    "input": "on the input, computed once",
}
_LINEAR = {
    Role.JOIN: "a sum of currents",
    Role.POOL: "an average, folded into the next weights where it can be",
    Role.AFFINE: "scale and shift",
}
_PRODUCTS = {
    "Multiply": "a product of two activations",
    "MatMul": "a product of two activations",
    "Divide": "a quotient of two activations",
}
_REMEDIES = {
    "Multiply": "leave the gate or product out of the network",
    "MatMul": "constant weights instead of a product of activations",
    "Divide": "a constant divisor",
    "LayerNorm": "batch normalisation, which folds away",
    "GroupNorm": "batch normalisation, which folds away",
    "Softmax": "ReLU attention",
}
_UNITS = "--approximate units, where other than analog nodes read it; or a ReLU"
_DROPPED = ("Identity", "Dropout", "Cast", "QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True)
class Verdict:
    """What becomes of one node.

    Attributes:
        name, operator: as the source spells them.
        verdict: one of VERDICTS.
        reason: why.
        remedy: what would change it; empty where nothing needs to.
        operations: multiply-accumulates per image of the ANN.
        reads: "spikes", "input" or "current" for nodes with weights, else "".
    """

    name: str
    operator: str
    verdict: str
    reason: str
    remedy: str = ""
    operations: int = 0
    reads: str = ""


@dataclass(frozen=True)
class Check:
    """The verdicts on a model, and how much of it would spike.

    Attributes:
        sites: activations that become neurons, approximated ones included.
        analog: nodes that stay analog.
        operations: multiply-accumulates per image, by what they read: "spikes", "input", "current".
        refusal: why the model cannot be converted; empty if it can.
        hint: what would help against that, where it is no matter of single nodes.
    """

    model: str
    format: str
    input_shape: tuple[int, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Verdict, ...]
    sites: int
    analog: int
    operations: dict[str, int]
    notes: tuple[str, ...]
    refusal: str = ""
    hint: str = ""

    @property
    def operation_coverage(self) -> float:
        """Share of all multiply-accumulates that become additions by spikes."""
        return self.operations.get("spikes", 0) / max(sum(self.operations.values()), 1)

    @property
    def site_coverage(self) -> float:
        """Share of all non-linear nodes that become neurons."""
        return self.sites / max(self.sites + self.analog, 1)

    def counts(self) -> dict[str, int]:
        """Number of nodes by verdict."""
        return {verdict: sum(node.verdict == verdict for node in self.nodes) for verdict in VERDICTS}

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form, with a schema name."""
        coverage = {"operations": self.operation_coverage, "sites": self.site_coverage}
        return {"schema": "snnconvert-check/1", **asdict(self), "counts": self.counts(), "coverage": coverage}


def check_model(
    model: str,
    *,
    arch: str | None = None,
    input_shape: tuple[int, ...] | None = None,
    output_name: str | None = None,
    way: str = "auto",
    strict: bool = False,
) -> Check:
    """Judge every node of what `model` names; see `open_model` for the arguments.

    Args:
        way: --approximate; with "analog" functions that could be written as spiking units count as analog.
        strict: refuse analog nodes.

    Raises:
        ModelFileError, OptionError, DataError: as `open_model` does. Unsupported nodes are verdicts, not errors.
    """
    try:
        opened = open_model(model, arch=arch, input_shape=input_shape, output_name=output_name)
    except UnsupportedError as error:
        return _unsupported(model, error)
    return check(opened, way=way, strict=strict)


def check(opened: Ann, *, way: str = "auto", strict: bool = False) -> Check:
    """Judge every node of a network as a door left it."""
    canonical = keep_logits(canonicalize(opened))
    offered = set(candidates(canonical.graph))
    units = set() if way == "analog" else offered
    reads = _reads(canonical.graph, units, sent=offered - units)
    known: dict[str, list[tuple[fx.Node, Op]]] = {}
    for node, op in calls(canonical.graph):
        known.setdefault(origin_of(node).name, []).append((node, op))
    first = {origin_of(node).name for node, _ in calls(opened.graph)}
    source = canonical.source
    dropped = [note for note in source.notes if note not in opened.source.notes]
    nodes = []
    for name, operator in _source_nodes(opened):
        if name in known:
            if any(node in units for node, _ in known[name]):
                nodes.append(_approximated(name, operator, way))
            else:
                nodes.append(_verdict(name, operator, known[name], reads))
        elif any(note.startswith(f"{name} (") for note in dropped):
            nodes.append(Verdict(name, operator, "folded", "left out at the very end: logits decide the same"))
        elif operator == "ArgMax" and any(note.startswith(f"{name} (ArgMax): the final") for note in source.notes):
            nodes.append(Verdict(name, operator, "folded", "left out at the very end: the largest score decides"))
        elif name in first or operator in _DROPPED:
            nodes.append(Verdict(name, operator, "folded", "merged into its neighbours"))
        else:
            nodes.append(Verdict(name, operator, "folded", "does not depend on the input: computed once"))
    operations = dict.fromkeys(READS, 0)
    for node, op in calls(canonical.graph):
        operations[reads[node]] += _operations(node, op)
    spiking = sum(node.verdict in ("spiking", "approximated") and not _is_pool(node) for node in nodes)
    analog = sum(node.verdict == "analog" for node in nodes)
    refusal = ""
    if not offered and not any(op.role == Role.SITE for _, op in calls(canonical.graph)):
        refusal = "no activation could become a spiking neuron, so nothing would be converted"
    elif strict and analog:
        refusal = f"{analog} node(s) have no spiking form, and --strict-spiking was given"
    return Check(
        model=source.location,
        format=source.format,
        input_shape=opened.input_shape,
        outputs=opened.outputs,
        nodes=tuple(nodes),
        sites=spiking,
        analog=analog,
        operations=operations,
        notes=source.notes,
        refusal=refusal,
    )


def _unsupported(model: str, error: UnsupportedError) -> Check:
    nodes = []
    for cause in error.causes:
        place, _, reason = cause.partition(": ")
        name, named, operator = place.rpartition(" (")
        operator = operator.rstrip(")") if named else ""
        nodes.append(Verdict(name or place, operator, "unsupported", reason or cause, error.hint))
    return Check(model, "", (), (), tuple(nodes), 0, 0, {}, (), refusal=error.message, hint=error.hint)


def _source_nodes(opened: Ann) -> list[tuple[str, str]]:
    """Name and operator of every node of the source: of the file for ONNX, else of the graph as it was opened."""
    if opened.source.format == "onnx":
        path = Path(opened.source.location)
        return [(name, operator) for name, operator, _, _ in onnx_operator_table(path)]
    found = {origin_of(node).name: origin_of(node).operator for node, _ in calls(opened.graph)}
    return list(found.items())


# --- verdicts -------------------------------------------------------------------------------------


def _approximated(name: str, operator: str, way: str) -> Verdict:
    otherwise = "analog where they do not fit" + (", or change the outputs by over 5 %" if way == "auto" else "")
    reason = f"a few spiking units, fitted on calibration images; {otherwise}"
    return Verdict(name, operator, "approximated", reason, "--approximate analog keeps it analog")


def _verdict(name: str, operator: str, made: list[tuple[fx.Node, Op]], reads: dict[fx.Node, str]) -> Verdict:
    by_role = {op.role: (node, op) for node, op in made}
    operations = sum(_operations(node, op) for node, op in made)
    if Role.ANALOG in by_role:
        reason, remedy = _analog_reason(by_role[Role.ANALOG][1])
        return Verdict(name, operator, "analog", reason, remedy, operations, "current" if operations else "")
    if Role.SITE in by_role:
        two = sum(op.role == Role.SITE for _, op in made) > 1
        return Verdict(name, operator, "spiking", "two neurons, one for each sign" if two else "becomes a neuron")
    if Role.MAXPOOL in by_role:
        read = reads[by_role[Role.MAXPOOL][0]]
        return Verdict(name, operator, "spiking" if read == "spikes" else "linear", _POOLING[read])
    if Role.WEIGHTED in by_role:
        read = reads[by_role[Role.WEIGHTED][0]]
        remedy = "an activation in front of it would let it add spikes" if read == "current" else ""
        return Verdict(name, operator, "linear", READS[read], remedy, operations, read)
    reason = next((text for role, text in _LINEAR.items() if role in by_role), "")
    return Verdict(name, operator, "linear" if reason else "wiring", reason or "moves values")


def _analog_reason(op: Op) -> tuple[str, str]:
    kind = type(op).__name__
    what = _PRODUCTS.get(kind, "no spiking form")
    remedy = _UNITS if function_of(op) is not None else _REMEDIES.get(kind, "a ReLU instead")
    return f"{what}: computed on the means so far, exact at every step", remedy


def _is_pool(node: Verdict) -> bool:
    return node.reason.startswith("on ")


# --- what flows where -----------------------------------------------------------------------------


def _reads(graph: fx.GraphModule, units: set[fx.Node], sent: set[fx.Node]) -> dict[fx.Node, str]:
    """For each operator what it reads: "spikes", "input" (constant in time) or "current".

    `units` are the nodes that will be sums of spiking units: weights read those units, all others read their sum.
    `sent` are analog nodes whose results signed neurons send.
    """
    gives: dict[fx.Node, str] = {}
    reads: dict[fx.Node, str] = {}
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            gives[node] = "input"
        if node.op != "call_module":
            continue
        op = op_of(node)
        kinds = {gives[source] for source in arguments(node)}
        through = isinstance(op, Conv | Linear | Concat)
        if "units" in kinds and (not through or not kinds <= {"spikes", "units"}):
            kinds = {"current"}
        reads[node] = "spikes" if "units" in kinds else kinds.pop() if len(kinds) == 1 else "current"
        if op.role == Role.SITE or node in sent:
            gives[node] = "spikes"
        elif node in units:
            gives[node] = "units"
        elif isinstance(op, Constant):
            gives[node] = "input"
        elif isinstance(op, Concat) and "units" in {gives[source] for source in arguments(node)}:
            gives[node] = "units" if reads[node] == "spikes" else "current"
        elif reads[node] != "spikes" or op.role == Role.MAXPOOL:
            gives[node] = reads[node]
        else:
            gives[node] = "spikes" if _keeps_spikes(op) else "current"
    return reads


def _keeps_spikes(op: Op) -> bool:
    if isinstance(op, Pad):
        return op.value == 0.0
    plain = type(op).__name__ == "AveragePool" and not getattr(op, "ceil_mode", False)
    return op.role == Role.WIRING or plain


def _operations(node: fx.Node, op: Op) -> int:
    """Multiply-accumulates per image."""
    if isinstance(op, MatMul):
        return math.prod(map(int, node.meta["shape"])) * int(arguments(node)[0].meta["shape"][-1])
    if op.role != Role.WEIGHTED:
        return 0
    weight = op.get_buffer("weight")
    places = arguments(node)[0] if isinstance(op, ConvTranspose) else node
    return math.prod(map(int, places.meta["shape"])) * math.prod(weight.shape[1:])
