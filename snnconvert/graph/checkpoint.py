"""`.snn` files: a safetensors file whose header holds graphs, schedule and everything else as JSON.

Kept are the spiking network, which is what is loaded and run; the calibrated network it was compiled from; and, unless
it is left out, the original in canonical form. Tensors that are equal are stored once, 8-bit weights as 8-bit integers
and a scale per output. Two digests seal the file: of the tensors, and of the header's own text. Reading one needs
neither the source model nor pickle; every kind and field is checked against the dialect.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import platform
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, fx

from snnconvert import plugins
from snnconvert.errors import ModelFileError, OptionError, OutputError
from snnconvert.files import atomic, is_regular, named_in_utf8, refuse_others
from snnconvert.graph.dialect import arguments, calls, is_reserved, op_of, origin_of, output_nodes, verify
from snnconvert.graph.header import check_header
from snnconvert.graph.kinds import KINDS, Neuron, Op, Stage, Weighted
from snnconvert.graph.parts import parts_from, shape_of_parts
from snnconvert.graph.schedule import MOST_TIMESTEPS, schedule_from
from snnconvert.graph.schedule.timing import site_depths
from snnconvert.graph.shapes import check_frames, check_shapes
from snnconvert.graph.types import Ann, Calibrated, EarlyExit, NeuronChoice, Origin, SiteCalibration, Snn, Source
from snnconvert.graph.walk import values_of
from snnconvert.neurons import GROUP as NEURON_GROUP
from snnconvert.neurons import NEURONS, offered
from snnconvert.neurons.checks import behaviour
from snnconvert.tasks import TASKS, task_from

SCHEMA = "snnconvert-checkpoint/2"
# held the spiking network alone, and no digest of its header
FIRST_SCHEMA = "snnconvert-checkpoint/1"
CALIBRATED, ORIGINAL = "calibrated/", "original/"
_SEAL = ', "digest": "'
# what makes no network, whatever of it is wrong
_DAMAGE = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
_RECOVER = "convert the model again, or copy the file again"


def save_snn(snn: Snn, path: str | Path, *, original: bool = True) -> None:
    """Write `snn` to `path`, whole or not at all, with what it was compiled from; equal networks give equal files.

    Args:
        original: keep the original network as well, where the calibration knows it.

    Raises:
        OutputError: if the place cannot be written.
    """
    if snn.calibrated is not None and not original:
        snn = replace(snn, calibrated=replace(snn.calibrated, original=None))
    tensors, copies = _once(_tensors(snn))
    path, header = Path(path), {"schema": SCHEMA, "tensors": digest(tensors), "copies": copies, **describe(snn)}
    text = json.dumps(header, sort_keys=True)
    # One entry only: safetensors writes several in no fixed order, and equal networks have to be equal files.
    metadata = {"snnconvert": f'{text[:-1]}{_SEAL}{hashlib.sha256(text.encode()).hexdigest()}"}}'}
    with atomic(path) as temporary:
        try:
            save_file(tensors, temporary, metadata=metadata)
        except SafetensorError as error:  # a full disk, for instance
            raise OutputError(f"cannot write {path}: {error}", hint="make room, or choose another --output") from error


def load_snn(path: str | Path) -> Snn:
    """Read a checkpoint of this schema or the first; the spiking network comes back as it was written.

    Raises:
        ModelFileError: if the file is missing, truncated, damaged, of another schema, or not a checkpoint.
    """
    path = Path(path)
    if not is_regular(path):
        raise ModelFileError(f"there is no checkpoint {path}", hint="name a .snn file that a conversion has written")
    try:
        with named_in_utf8(path) as name, safe_open(name, framework="pt") as file:
            header = _header((file.metadata() or {}).get("snnconvert", "{}"), path)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        if header["tensors"] != digest(tensors):
            raise ModelFileError(f"the weights in {path} are not those that were written", hint=_RECOVER)
        check_header(header)
        tensors |= {name: tensors[kept] for name, kept in header.get("copies", {}).items()}
        for name in [name.removesuffix(".codes") for name in tensors if name.endswith(".codes")]:
            tensors[name] = _unpacked(name, tensors)
        _refuse_foreign(header, path)
        snn = _restore(header, tensors)
        _probe(snn, path)
        return snn
    except SafetensorError as error:
        refuse_others(path)
        raise ModelFileError(f"{path} is truncated or not a checkpoint: {error}", hint=_RECOVER) from error
    except (*_DAMAGE, OptionError) as error:
        raise ModelFileError(f"{path} holds a damaged network description ({error})", hint=_RECOVER) from error


def _header(text: str, path: Path) -> dict[str, Any]:
    """The header, once its text is found to be what was written."""
    body, sealed, rest = text.rpartition(_SEAL)
    if sealed and rest != f'{hashlib.sha256((body + "}").encode()).hexdigest()}"}}':
        raise ModelFileError(f"the network description in {path} is not the one that was written", hint=_RECOVER)
    header = json.loads(text)
    found = header.get("schema", "none")
    if found not in (SCHEMA, FIRST_SCHEMA) or (found == SCHEMA) != bool(sealed):
        raise ModelFileError(
            f"{path} is not a checkpoint of schema {SCHEMA} (found {found})",
            hint="checkpoints are written by `snnconvert MODEL`; convert the model again with this version",
        )
    assert isinstance(header, dict)
    return header


def _refuse_foreign(header: dict[str, Any], path: Path) -> None:
    """Refuse neurons that another package or script brought, where they or their equations are not those registered.

    Raises:
        ModelFileError: naming the model, and who brought it.
    """
    used = {row["fields"]["model"] for row in header["nodes"] if row.get("kind") == "Neuron"}
    for name in sorted(used - NEURONS.keys()):
        by = header.get("providers", {}).get(name)
        raise ModelFileError(
            plugins.missing(NEURON_GROUP, str(name)) or f"{path} has neurons of the model {name!r}, which is not known",
            hint=f"install the package that brings it, or register it first (snnconvert.register_neuron); it was {by}"
            if by
            else "load it with the version of snnconvert that wrote it, or register the model first",
        )
    for name, known in header.get("equations", {}).items():
        if name in used and behaviour(NEURONS[name]) != known:
            by = header.get("providers", {}).get(name)
            raise ModelFileError(
                f"the neuron {name!r} that is registered sends other spikes than the one {path} was made with",
                hint=f"register that one (from {by}; today's is from {NEURONS[name].provider}), or convert again",
            )


def describe(snn: Snn) -> dict[str, Any]:
    """All of `snn` but its tensors, JSON-able."""
    calibrated, original = snn.calibrated, None
    if calibrated is not None and calibrated.original is not None:
        original = graph_rows(calibrated.original.graph)
    return {
        **graph_rows(snn.graph),
        **_choices(snn),
        "precision": snn.precision,
        "input_shape": list(snn.input_shape),
        "outputs": list(snn.outputs),
        "task": snn.task.to_dict(),
        **({"inputs": [part.to_dict() for part in snn.inputs]} if snn.inputs else {}),
        "source": asdict(snn.source),
        "preprocessing": snn.preprocessing,
        "label_offset": snn.label_offset,
        "calibration": snn.calibration,
        "evaluation": snn.evaluation,
        "calibrated": None if calibrated is None else _describe_calibrated(calibrated),
        "original": original,
        **_providers(snn),
        "versions": {"torch": torch.__version__.split("+")[0], "python": platform.python_version()},
    }


def _providers(snn: Snn) -> dict[str, Any]:
    """Who brought the neurons that are not the package's own, and what they do; nothing where all are its own."""
    rows = {op.row.name: op.row for _, op in calls(snn.graph, Neuron) if op.row.provider}
    if not rows:
        return {}
    return {
        "providers": {name: row.provider for name, row in rows.items()},
        "equations": {name: behaviour(row) for name, row in rows.items()},
    }


def _describe_calibrated(calibrated: Calibrated) -> dict[str, Any]:
    return {
        **graph_rows(calibrated.network.graph),
        **_choices(calibrated),
        "sites": sorted(calibrated.sites),
        "input_bound": calibrated.input_bound,
        "reach": calibrated.reach,
        "approximate": calibrated.approximate,
        "input_encoder": calibrated.input_encoder,
        **({} if calibrated.linear == "auto" else {"linear": calibrated.linear}),
    }


def _choices(one: Snn | Calibrated) -> dict[str, Any]:
    own = {"sites": dict(one.neuron.sites)} if one.neuron.sites else {}
    return {
        "schedule": one.schedule.to_dict(),
        "neuron": {"model": one.neuron.model, "levels": one.neuron.levels, **own},
        "early_exit": None if one.early_exit is None else asdict(one.early_exit),
    }


def graph_rows(graph: fx.GraphModule) -> dict[str, Any]:
    """The nodes of `graph` and what it returns, JSON-able."""
    nodes = []
    for node in graph.graph.nodes:
        if node.op == "output":
            continue
        origin = origin_of(node)
        row: dict[str, Any] = {
            "name": node.name,
            "origin": [origin.name, origin.operator],
            "shape": list(node.meta["shape"]),
            "inputs": [source.name for source in arguments(node)],
        }
        if node.op == "call_module":
            op = op_of(node)
            row |= {"kind": type(op).__name__, "fields": op.arguments()}
        nodes.append(row)
    return {"nodes": nodes, "returns": [node.name for node in output_nodes(graph)]}


def graph_tensors(graph: fx.GraphModule, prefix: str = "") -> dict[str, Tensor]:
    """Every tensor of `graph`, by node and name."""
    return {
        f"{prefix}{node.name}.{name}": tensor.contiguous()
        for node, op in calls(graph)
        for name, tensor in op.tensors().items()
        if tensor is not None
    }


def _tensors(snn: Snn) -> dict[str, Tensor]:
    found = graph_tensors(snn.graph)
    if snn.precision == "int8":
        for node, op in calls(snn.graph, Weighted):
            name = f"{node.name}.weight"
            if codes := packed(name, op):
                del found[name]
                found |= codes
    calibrated = snn.calibrated
    if calibrated is not None:
        found |= graph_tensors(calibrated.network.graph, CALIBRATED)
        for name, site in calibrated.sites.items():
            found |= {f"sites/{name}.{part}": tensor.contiguous() for part, tensor in site.tensors().items()}
        if calibrated.original is not None:
            found |= graph_tensors(calibrated.original.graph, ORIGINAL)
    return found


def _once(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Every different tensor, and the names of the others with the name their value is kept under."""
    kept: dict[str, str] = {}
    names = {name: kept.setdefault(digest({"": tensors[name]}), name) for name in sorted(tensors)}
    return {name: tensors[name] for name in kept.values()}, {one: two for one, two in names.items() if one != two}


def packed(name: str, op: Weighted) -> dict[str, Tensor]:
    """The weights of `op` as 8-bit integers and the step that they count, per output channel.

    The step is the largest number that all weights of a channel are multiples of. Where they need more than 8 bits the
    weights stay as they are.
    """
    rows = op.by_rows(op.weight.double()).numpy()
    mantissa, exponent = np.frexp(rows)
    bits = (mantissa * 2.0**53).astype(np.int64)
    lowest = np.where(bits == 0, np.inf, np.ldexp((bits & -bits).astype(np.float64), exponent - 53)).min(1)
    grid = np.where(np.isinf(lowest), 1.0, lowest)
    whole = np.clip(rows / grid[:, None], -(2.0**62), 2.0**62).astype(np.int64)
    steps = op.by_output(torch.from_numpy(grid * np.maximum(np.gcd.reduce(whole, axis=1), 1)))
    codes = (op.weight.double() / steps).round().clamp(-127, 127).to(torch.int8)
    made = {f"{name}.codes": codes.contiguous(), f"{name}.steps": steps.to(op.weight.dtype).contiguous()}
    return made if torch.equal(_unpacked(name, made), op.weight) else {}


def _unpacked(name: str, tensors: dict[str, Tensor]) -> Tensor:
    steps = tensors[f"{name}.steps"]
    return tensors[f"{name}.codes"].to(steps.dtype) * steps


def digest(tensors: dict[str, Tensor]) -> str:
    """sha256 over names, shapes and bytes of the tensors."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def _probe(snn: Snn, path: Path) -> None:
    """Run the graphs once: shapes that do not fit each other raise here and not in use.

    All run on shapes alone first, so that none costs more than the file may ask for; the spiking one on zeros as well.
    """
    calibrated = snn.calibrated
    kept = () if calibrated is None else (calibrated.network, calibrated.original)
    for graph in (snn.graph, *(one.graph for one in kept if one is not None)):
        check_shapes(graph, snn.input_shape, path)
    for node, value in values_of(snn.graph, torch.zeros(1, *snn.input_shape, dtype=torch.float64)):
        if tuple(value.shape[1:]) != node.meta["shape"]:
            raise ValueError(f"shape of {node.name}")
    if snn.inputs and shape_of_parts(snn.inputs) != snn.input_shape:
        raise ValueError("its inputs do not make up its input_shape")
    if snn.schedule.timesteps > MOST_TIMESTEPS:
        raise ValueError(f"{snn.schedule.timesteps} time steps")
    check_frames(snn.graph, snn.schedule, path)
    depth = max(site_depths(snn.graph).values(), default=0)
    if snn.schedule.depth != depth:
        raise ValueError(f"the schedule's depth is {snn.schedule.depth}, the network's {depth}")
    ranks = [len(node.meta["shape"]) for node in output_nodes(snn.graph)]
    if snn.task.kind not in TASKS:
        raise ValueError(f"task {snn.task.kind!r}")
    if any(not 0 <= index < len(ranks) or not 0 <= snn.task.axis < max(ranks[index], 1) for index in snn.task.outputs):
        raise ValueError("the task is for other outputs")


def _restore(header: dict[str, Any], tensors: dict[str, Tensor]) -> Snn:
    first = header["schema"] == FIRST_SCHEMA
    calibration = header["calibration"]
    if first:  # kept these in its accounts and nodes
        header["early_exit"] = calibration.pop("early_exit", None)
        header["label_offset"] = header["evaluation"].get("label_offset") or 0
        neurons = (row["fields"] for row in header["nodes"] if row.get("kind") == "Neuron")
        header["neuron"] = next((fields for fields in neurons if fields["model"] in offered()), {})
    source = Source(**{**header["source"], "notes": tuple(header["source"]["notes"])})
    common: dict[str, Any] = {
        "input_shape": tuple(header["input_shape"]),
        "outputs": tuple(header["outputs"]),
        "source": source,
        "task": task_from(header.get("task")),
        "inputs": parts_from(header.get("inputs", ())),
    }
    accounts: dict[str, Any] = {"preprocessing": header["preprocessing"], "label_offset": int(header["label_offset"])}
    calibrated = None
    if not first and header["calibrated"] is not None:
        row = header["calibrated"]
        kept = header["original"]
        calibrated = Calibrated(
            network=Ann(_graph(row, tensors, Stage.CALIBRATED, CALIBRATED), **common),
            sites={name: SiteCalibration.of(tensors, f"sites/{name}") for name in row["sites"]},
            original=None if kept is None else Ann(_graph(kept, tensors, Stage.ANN, ORIGINAL), **common),
            record=calibration,
            linear=row.get("linear", "auto"),
            **{name: row[name] for name in ("input_bound", "reach", "approximate", "input_encoder")},
            **_restored_choices(row),
            **accounts,
        )
    return Snn(
        graph=_graph(header, tensors, Stage.SNN),
        calibration=calibration,
        evaluation=header["evaluation"],
        precision=header.get("precision", "float32"),
        calibrated=calibrated,
        **_restored_choices(header),
        **common,
        **accounts,
    )


def _restored_choices(row: dict[str, Any]) -> dict[str, Any]:
    early, chosen = row["early_exit"], row.get("neuron", {})
    neuron = NeuronChoice(**{**chosen, "sites": tuple(chosen.get("sites", {}).items())})
    if neuron.model not in NEURONS:
        raise ValueError(f"neuron {neuron.model!r}")
    return {
        "schedule": schedule_from(row["schedule"]),
        "neuron": neuron,
        "early_exit": None if early is None else EarlyExit(**{**early, "scales": tuple(early.get("scales", ()))}),
    }


def _graph(rows: dict[str, Any], tensors: dict[str, Tensor], stage: Stage, prefix: str = "") -> fx.GraphModule:
    root, graph = torch.nn.Module(), fx.Graph()
    made: dict[str, fx.Node] = {}
    for row in rows["nodes"]:
        inputs = tuple(made[name] for name in row["inputs"])
        if "kind" in row:
            kind = KINDS[row["kind"]]
            own = {name: tensors.get(f"{prefix}{row['name']}.{name}") for name in _tensor_names(kind)}
            fields = {name: tuple(value) if isinstance(value, list) else value for name, value in row["fields"].items()}
            build: Any = kind
            root.add_module(row["name"], build(**own, **fields).eval())
            node = graph.create_node("call_module", row["name"], inputs, {}, name=row["name"])
        else:
            node = graph.placeholder(row["name"])
        if node.name != row["name"] or is_reserved(node.name) or (node.op == "placeholder") is bool(made):
            raise ValueError(f"node name {row['name']!r}")  # the first one, and no other, is the input
        node.meta["origin"], node.meta["shape"] = Origin(*row["origin"]), tuple(row["shape"])
        made[node.name] = node
    graph.output(tuple(made[name] for name in rows["returns"]))
    return verify(fx.GraphModule(root, graph).eval(), stage)


def _tensor_names(kind: type[Op]) -> list[str]:
    """Constructor arguments of a kind that are tensors: those that are not fields."""
    parameters = inspect.signature(kind).parameters.values()
    named = [one.name for one in parameters if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
    return [name for name in named if name not in kind.fields]
