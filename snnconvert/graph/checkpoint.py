"""`.snn` files: a safetensors file whose header holds the graph, the schedule and everything else as JSON.

Reading one needs neither the source model nor pickle; every kind and field is checked against the dialect.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, fx

from snnconvert.errors import ModelFileError, OptionError, OutputError
from snnconvert.files import atomic
from snnconvert.graph.dialect import arguments, calls, op_of, origin_of, verify
from snnconvert.graph.kinds import KINDS, Op, Stage
from snnconvert.graph.schedule import MOST_TIMESTEPS, schedule_from
from snnconvert.graph.schedule.timing import site_depths
from snnconvert.graph.types import EarlyExit, Origin, Snn, Source
from snnconvert.graph.walk import values_of

SCHEMA = "snnconvert-checkpoint/1"
_RECOVER = "convert the model again, or copy the file again"


def save_snn(snn: Snn, path: str | Path) -> None:
    """Write `snn` to `path`, whole or not at all.

    Raises:
        OutputError: if the place cannot be written.
    """
    tensors = {
        f"{node.name}.{name}": buffer.contiguous()
        for node, op in calls(snn.graph)
        for name, buffer in op.named_buffers()
    }
    path = Path(path)
    # One entry only: safetensors writes several in no fixed order, and equal networks have to be equal files.
    metadata = {
        "snnconvert": json.dumps({"schema": SCHEMA, "tensors": digest(tensors), **describe(snn)}, sort_keys=True)
    }
    with atomic(path) as temporary:
        try:
            save_file(tensors, temporary, metadata=metadata)
        except SafetensorError as error:  # a full disk, for instance
            raise OutputError(
                f"cannot write {path}: {error}", hint="make room, or choose another place with --output"
            ) from error


def load_snn(path: str | Path) -> Snn:
    """Read a checkpoint.

    Raises:
        ModelFileError: if the file is missing, truncated, of another schema, or not a checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelFileError(f"there is no checkpoint {path}", hint="name a .snn file that a conversion has written")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("snnconvert", "{}"))
            if header.get("schema") != SCHEMA:
                raise ModelFileError(
                    f"{path} is not a checkpoint of schema {SCHEMA} (found {header.get('schema', 'none')})",
                    hint="checkpoints are written by `snnconvert MODEL`; convert the model again with this version",
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        if header["tensors"] != digest(tensors):
            raise ModelFileError(f"the weights in {path} are not those that were written", hint=_RECOVER)
        snn = _restore(header, tensors)
        _probe(snn)
        return snn
    except SafetensorError as error:
        raise ModelFileError(f"{path} is truncated or not a checkpoint: {error}", hint=_RECOVER) from error
    except (KeyError, TypeError, ValueError, RuntimeError, AssertionError, AttributeError, OptionError) as error:
        raise ModelFileError(f"{path} holds a damaged network description ({error})", hint=_RECOVER) from error


def describe(snn: Snn) -> dict[str, Any]:
    """All of `snn` but its tensors, JSON-able."""
    nodes = []
    for node in snn.graph.graph.nodes:
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
    (output,) = [node for node in snn.graph.graph.nodes if node.op == "output"]
    return {
        "nodes": nodes,
        "returns": [node.name for node in output.args[0]],
        "schedule": snn.schedule.to_dict(),
        "input_shape": list(snn.input_shape),
        "outputs": list(snn.outputs),
        "source": asdict(snn.source),
        "preprocessing": snn.preprocessing,
        "calibration": snn.calibration | ({} if snn.early_exit is None else {"early_exit": asdict(snn.early_exit)}),
        "evaluation": snn.evaluation,
        "versions": {"torch": torch.__version__.split("+")[0], "python": platform.python_version()},
    }


def digest(tensors: dict[str, Tensor]) -> str:
    """sha256 over names, shapes and bytes of the tensors."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def _probe(snn: Snn) -> None:
    """Run the graph once on zeros: shapes that do not fit each other raise here and not in use."""
    for node, value in values_of(snn.graph, torch.zeros(1, *snn.input_shape, dtype=torch.float64)):
        if tuple(value.shape[1:]) != node.meta["shape"]:
            raise ValueError(f"shape of {node.name}")
    if snn.schedule.timesteps > MOST_TIMESTEPS:
        raise ValueError(f"{snn.schedule.timesteps} time steps")
    depth = max(site_depths(snn.graph).values(), default=0)
    if snn.schedule.depth != depth:
        raise ValueError(f"the schedule's depth is {snn.schedule.depth}, the network's {depth}")
    for name in ("preprocessing", "calibration", "evaluation"):
        if not isinstance(getattr(snn, name), dict):
            raise TypeError(name)


def _restore(header: dict[str, Any], tensors: dict[str, Tensor]) -> Snn:
    root, graph = torch.nn.Module(), fx.Graph()
    made: dict[str, fx.Node] = {}
    for row in header["nodes"]:
        inputs = tuple(made[name] for name in row["inputs"])
        if "kind" in row:
            kind = KINDS[row["kind"]]
            own = {name: tensors.get(f"{row['name']}.{name}") for name in _tensor_names(kind)}
            fields = {name: tuple(value) if isinstance(value, list) else value for name, value in row["fields"].items()}
            build: Any = kind
            root.add_module(row["name"], build(**own, **fields).eval())
            node = graph.create_node("call_module", row["name"], inputs, {}, name=row["name"])
        else:
            node = graph.placeholder(row["name"])
        if node.name != row["name"]:
            raise ValueError(f"node name {row['name']!r}")
        node.meta["origin"], node.meta["shape"] = Origin(*row["origin"]), tuple(row["shape"])
        made[node.name] = node
    graph.output(tuple(made[name] for name in header["returns"]))
    module = fx.GraphModule(root, graph).eval()
    source = {**header["source"], "notes": tuple(header["source"]["notes"])}
    early = header["calibration"].pop("early_exit", None)
    return Snn(
        graph=verify(module, Stage.SNN),
        schedule=schedule_from(header["schedule"]),
        input_shape=tuple(header["input_shape"]),
        outputs=tuple(header["outputs"]),
        source=Source(**source),
        preprocessing=header["preprocessing"],
        calibration=header["calibration"],
        evaluation=header["evaluation"],
        early_exit=None if early is None else EarlyExit(**early),
        label_offset=int(header["evaluation"].get("label_offset") or 0),
    )


def _tensor_names(kind: type[Op]) -> list[str]:
    """Constructor arguments of a kind that are tensors: those that are not fields."""
    parameters = inspect.signature(kind).parameters.values()
    named = [one.name for one in parameters if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
    return [name for name in named if name not in kind.fields]
