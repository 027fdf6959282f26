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

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from torch import fx

from snnconvert.convert.approximate import candidates, function_of
from snnconvert.convert.doors import open_model
from snnconvert.convert.linear import sums_spike
from snnconvert.convert.onnx_reference import onnx_operator_table
from snnconvert.convert.passes import canonicalize
from snnconvert.convert.passes.logits import keep_logits
from snnconvert.convert.units import needs_windows
from snnconvert.errors import NodeFault, UnsupportedError
from snnconvert.graph.dialect import arguments, calls, op_of, origin_of, outputs_of, role_of
from snnconvert.graph.flow import Flow, through
from snnconvert.graph.kinds import Concat, Conv, Linear, MatMul, Op, Role
from snnconvert.graph.parts import Part
from snnconvert.graph.types import Ann
from snnconvert.options import AUTO
from snnconvert.tasks.assume import task_of

VERDICTS = ("spiking", "approximated", "linear", "folded", "wiring", "analog", "unsupported")
SPIKES, INPUT, CURRENT = READS = ("spikes", "input", "current")
_READS = {Flow.SPIKES: SPIKES, Flow.CONSTANT: INPUT, Flow.CURRENT: CURRENT}
_UNITS = "--approximate units, where other than analog nodes read it; or a ReLU"
_DROPPED = ("Identity", "Dropout", "Cast", "QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True)
class Finding:
    """What may become of a node.

    Attributes:
        verdict: one of VERDICTS.
        reason: why.
        remedy: what would change it; empty where nothing needs to.
        site: whether it becomes neurons.
    """

    verdict: str
    reason: str
    remedy: str = ""
    site: bool = False


_NEURON = Finding("spiking", "becomes a neuron", site=True)
_TWO_NEURONS = Finding("spiking", "two neurons, one for each sign", site=True)
_WIRING = Finding("wiring", "moves values")
_CONSTANT = Finding("folded", "does not depend on the input: computed once")
_MERGED = Finding("folded", "merged into its neighbours")
_LOGITS = Finding("folded", "left out at the very end: logits decide the same")
_SCORES = Finding("folded", "left out at the very end: the largest score decides")
_UNITS_FITTED = "a few spiking units, fitted on calibration images; analog where they do not fit"
_APPROXIMATED = {
    "auto": Finding(
        "approximated",
        f"{_UNITS_FITTED}, or change the outputs by over 5 %",
        "--approximate analog keeps it analog",
        site=True,
    ),
    "units": Finding("approximated", _UNITS_FITTED, "--approximate analog keeps it analog", site=True),
}
_WINDOWS = Finding("spiking", "sent as spikes, in windows of one layer after the other", "", site=True)
_MAXPOOL = {
    SPIKES: Finding("spiking", "on spikes, exact: the maximum of the counts"),
    CURRENT: Finding("linear", "on sums, exact in the total: the maximum of the totals"),
    INPUT: Finding("linear", "on the input, computed once"),
}
_WEIGHTED = {
    SPIKES: Finding("linear", "reads spikes: additions only"),
    INPUT: Finding("linear", "reads the input: computed once per image"),
    CURRENT: Finding(
        "linear",
        "reads a sum that is not spikes: multiplies in every step",
        "an activation in front of it would let it add spikes",
    ),
}
_LINEAR = {
    Role.JOIN: Finding("linear", "a sum of currents"),
    Role.POOL: Finding("linear", "an average, folded into the next weights where it can be"),
    Role.AFFINE: Finding("linear", "scale and shift"),
}
_SERIAL = "--schedule serial, which sends it as spikes"
# kind: what it is, and what would have a spiking form instead
_ANALOG = {
    "Multiply": ("a product of two activations", "leave the gate or product out of the network"),
    "MatMul": ("a product of two activations", f"constant weights instead, or {_SERIAL}"),
    "Divide": ("a quotient of two activations", "a constant divisor"),
    "LayerNorm": ("no spiking form", f"batch normalisation, which folds away, or {_SERIAL}"),
    "GroupNorm": ("no spiking form", "batch normalisation, which folds away"),
    "Choose": ("a choice by a comparison", "a ReLU instead"),
    "Softmax": ("no spiking form", f"ReLU attention, or {_SERIAL}"),
    "Embedding": ("rows of a table by whole numbers of the input", "the rows themselves as the input"),
}


@dataclass(frozen=True, kw_only=True)
class Verdict(Finding):
    """What becomes of one node.

    Attributes:
        name, operator: as the source spells them.
        operations: multiply-accumulates per image of the ANN.
        reads: one of READS for nodes with weights, else "".
    """

    name: str
    operator: str
    operations: int = 0
    reads: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        shown = ("name", "operator", "verdict", "reason", "remedy", "operations", "reads")
        return {key: getattr(self, key) for key in shown}


@dataclass(frozen=True)
class Check:
    """The verdicts on a model, and how much of it would spike.

    Attributes:
        sites: activations that become neurons, approximated ones included.
        analog: nodes that stay analog.
        operations: multiply-accumulates per image, by what they read: "spikes", "input", "current".
        refusal: why the model cannot be converted; empty if it can.
        hint: what would help against that, where it is no matter of single nodes.
        inputs: what `input_shape` holds, where there are several inputs, or one of whole numbers.
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
    inputs: tuple[Part, ...] = ()

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
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        own["inputs"] = [part.to_dict() for part in self.inputs]
        own["nodes"] = [node.to_dict() for node in self.nodes]
        return {"schema": "snnconvert-check/1", **own, "counts": self.counts(), "coverage": coverage}


def check_model(
    model: str,
    *,
    arch: str | None = None,
    input_shape: tuple[int, ...] | None = None,
    output_name: str | None = None,
    way: str = "auto",
    strict: bool = False,
    linear: str = AUTO,
    signed: bool = False,
) -> Check:
    """Judge every node of what `model` names; see `open_model` for the arguments.

    Args:
        way: --approximate; with "analog" functions that could be written as spiking units count as analog.
        strict: refuse analog nodes.
        linear: --linear: what becomes of sums that operators with weights read.
        signed: whether neurons send spikes of either sign.

    Raises:
        ModelFileError, OptionError, DataError: as `open_model` does. Unsupported nodes are verdicts, not errors.
    """
    try:
        opened = open_model(model, arch=arch, input_shape=input_shape, output_name=output_name)
    except UnsupportedError as error:
        return _unsupported(model, error)
    return check(opened, way=way, strict=strict, linear=linear, signed=signed)


def check(opened: Ann, *, way: str = "auto", strict: bool = False, linear: str = AUTO, signed: bool = False) -> Check:
    """Judge every node of a network as a door left it."""
    whole = canonicalize(opened)
    task = task_of(AUTO, outputs_of(whole.graph), whole.input_shape, None)
    canonical = keep_logits(replace(whole, task=task))
    offered = set(candidates(canonical.graph))
    windows = strict and needs_windows(canonical)
    units = set() if windows or way == "analog" else offered
    reads = _reads(canonical.graph, units, sent=offered - units)
    if windows or sums_spike(linear, canonical, signed=signed, strict=strict):
        reads |= {node: SPIKES for node in _sent(canonical.graph, reads) if windows or role_of(node) == Role.WEIGHTED}
    known: dict[str, list[tuple[fx.Node, Op]]] = {}
    for node, op in calls(canonical.graph):
        known.setdefault(origin_of(node).name, []).append((node, op))
    scores = {origin.name for node in opened.graph.graph.nodes for origin in node.meta.get("chosen_by", ())}
    nodes = []
    for name, operator in _source_nodes(opened):
        count, read = 0, ""
        if any(node in units for node, _ in known.get(name, ())):
            found = _APPROXIMATED[way]
        elif name in known:
            found, count, read = _judged(known[name], reads)
            if windows and found.verdict == "analog":
                found, read = _WINDOWS, SPIKES if count else ""
        elif name in scores:
            found = _SCORES
        elif name in _names(whole.graph):
            found = _LOGITS
        else:
            found = _MERGED if name in _names(opened.graph) or operator in _DROPPED else _CONSTANT
        nodes.append(Verdict(**vars(found), name=name, operator=operator, operations=count, reads=read))
    operations = dict.fromkeys(READS, 0)
    for node, op in calls(canonical.graph):
        operations[reads[node]] += _operations(node, op)
    spiking = sum(node.site for node in nodes)
    analog = sum(node.verdict == "analog" for node in nodes)
    refusal = ""
    if not offered and not any(op.role == Role.SITE for _, op in calls(canonical.graph)):
        refusal = "no activation could become a spiking neuron, so nothing would be converted"
    elif strict and analog:
        refusal = f"{analog} node(s) have no spiking form, and --strict-spiking was given"
    return Check(
        model=canonical.source.location,
        format=canonical.source.format,
        input_shape=opened.input_shape,
        inputs=opened.inputs,
        outputs=opened.outputs,
        nodes=tuple(nodes),
        sites=spiking,
        analog=analog,
        operations=operations,
        notes=canonical.source.notes,
        refusal=refusal,
    )


def _sent(graph: fx.GraphModule, reads: dict[fx.Node, str]) -> list[fx.Node]:
    """Nodes that read sums, which neurons may send as spikes."""
    return [node for node, _ in calls(graph) if reads[node] == CURRENT]


def _unsupported(model: str, error: UnsupportedError) -> Check:
    faults = error.faults or tuple(NodeFault("", "", cause) for cause in error.causes)
    nodes = tuple(
        Verdict("unsupported", fault.reason, error.hint, name=fault.name, operator=fault.operator) for fault in faults
    )
    return Check(model, "", (), (), nodes, 0, 0, {}, (), refusal=error.message, hint=error.hint)


def _source_nodes(opened: Ann) -> list[tuple[str, str]]:
    """Name and operator of every node of the source: of the file for ONNX, else of the graph as it was opened."""
    if opened.source.format == "onnx":
        path = Path(opened.source.location)
        return [(name, operator) for name, operator, _, _ in onnx_operator_table(path)]
    found = {origin_of(node).name: origin_of(node).operator for node, _ in calls(opened.graph)}
    return list(found.items())


def _names(graph: fx.GraphModule) -> set[str]:
    return {origin_of(node).name for node, _ in calls(graph)}


# --- verdicts -------------------------------------------------------------------------------------


def _judged(made: list[tuple[fx.Node, Op]], reads: dict[fx.Node, str]) -> tuple[Finding, int, str]:
    """What the nodes that an operator became amount to, with their operations and what these read."""
    by_role = {op.role: (node, op) for node, op in made}
    operations = sum(_operations(node, op) for node, op in made)
    if Role.ANALOG in by_role:
        return _analog(by_role[Role.ANALOG][1]), operations, CURRENT if operations else ""
    if Role.SITE in by_role:
        return (_TWO_NEURONS if sum(op.role == Role.SITE for _, op in made) > 1 else _NEURON), 0, ""
    if Role.MAXPOOL in by_role:
        return _MAXPOOL[reads[by_role[Role.MAXPOOL][0]]], 0, ""
    if Role.WEIGHTED in by_role:
        read = reads[by_role[Role.WEIGHTED][0]]
        return _WEIGHTED[read], operations, read
    return next((found for role, found in _LINEAR.items() if role in by_role), _WIRING), 0, ""


def _analog(op: Op) -> Finding:
    what, remedy = _ANALOG.get(type(op).__name__, ("no spiking form", "a ReLU instead"))
    remedy = _UNITS if function_of(op) is not None else remedy
    return Finding("analog", f"{what}: computed on the means so far, exact at every step", remedy)


# --- what flows where -----------------------------------------------------------------------------


def _reads(graph: fx.GraphModule, units: set[fx.Node], sent: set[fx.Node]) -> dict[fx.Node, str]:
    """For each operator what it reads, one of READS.

    `units` are the nodes that will be sums of spiking units: weights read those units, all others read their sum.
    `sent` are analog nodes whose results signed neurons send.
    """
    gives: dict[fx.Node, Flow] = {}
    reads: dict[fx.Node, str] = {}
    spread = set(units)  # what weights may read as spikes, though it is a sum
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            gives[node] = Flow.CONSTANT
        if node.op != "call_module":
            continue
        op, sources = op_of(node), arguments(node)
        kinds = {gives[source] for source in sources}
        if not spread.isdisjoint(sources):
            apart = isinstance(op, Conv | Linear | Concat)
            apart = apart and all(source in spread or gives[source] == Flow.SPIKES for source in sources)
            kinds = {Flow.SPIKES} if apart else {Flow.CURRENT}
            if apart and isinstance(op, Concat):
                spread.add(node)
        reads[node] = _READS[kinds.pop() if len(kinds) == 1 else Flow.CURRENT]
        through_it = through(op, [gives[source] for source in sources] if op.reads else [])
        gives[node] = Flow.CURRENT if node in spread else Flow.SPIKES if node in sent else through_it
    return reads


def _operations(node: fx.Node, op: Op) -> int:
    """Multiply-accumulates per image that weights, or the product of two activations, stand for."""
    if op.role != Role.WEIGHTED and not isinstance(op, MatMul):
        return 0
    return op.multiply_accumulates([source.meta["shape"] for source in arguments(node)], node.meta["shape"])
