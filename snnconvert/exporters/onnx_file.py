"""A spiking network as an ONNX file of standard operators, which any ONNX runtime runs without this package.

Forms: `step` holds one time step (of a schedule with windows: one window), with states in and out; `loop` holds all of
them, with their number as an input; `window` holds the only window of a network as a feed-forward graph of integers;
`ann` holds the network of real numbers that it was made from.
Weights of a network in int8 stay 8-bit integers, behind a DequantizeLinear each.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from snnconvert.errors import InternalError, OptionError
from snnconvert.exporters.onnx_ann import NOTE, ann_engine, original_of, write_graph
from snnconvert.exporters.onnx_nodes import DOUBLE, FLOAT, INT64, OPSET, Emitter, layer_name
from snnconvert.exporters.onnx_step import Step, StepWriter, refuse_inexact, uses_clock
from snnconvert.exporters.portable import portable
from snnconvert.exporters.task import Task, Written
from snnconvert.files import atomic
from snnconvert.graph.dialect import neurons_of, output_nodes
from snnconvert.graph.types import Snn

# the first that knows opset 18; older runtimes read it
IR_VERSION = 8
# names of a graph's inputs and outputs besides the network's own
CLOCK, LENGTH, COUNTS = "step", "timesteps", "spike_counts"
KEY = "snnconvert"


def write_onnx(task: Task) -> Written:
    """Write the portable form of a network as an ONNX file (see `Exporter.write`)."""
    if task.form == "ann":
        model = _ann(task.snn)
        facts = _write(model, task.path)
        return Written((task.path,), task.snn, (NOTE,), facts, engine=ann_engine(task.snn), spiking=False)
    network = portable(task.snn)
    refuse_inexact(network)
    if task.form == "window":
        _refuse_more_than_a_window(network)
    model = {"step": _step, "loop": _loop, "window": _window}[task.form](_Names(network))
    return Written((task.path,), network, _notes(network, task.form), _write(model, task.path))


def _write(model: onnx.ModelProto, path: Path) -> dict[str, Any]:
    """Check and write a file; returns figures of it."""
    try:
        model = onnx.shape_inference.infer_shapes(model, strict_mode=True)  # viewers show them on every edge
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise InternalError(f"the ONNX file would not be valid: {error}") from error
    with atomic(path) as temporary:
        temporary.write_bytes(model.SerializeToString())
    return {"opset": OPSET, "nodes": len(model.graph.node), "operators": sorted(_operators(model.graph))}


def _notes(network: Snn, form: str) -> tuple[str, ...]:
    frame = "window" if network.schedule.windowed else "step"
    said = {
        "step": f"one {frame}: feed zeros for every state at first, then what the {frame} before has left "
        f"(NAME/next into NAME), {network.schedule.frames} times, and add up the read-out",
        "loop": f"all {frame}s: the input {LENGTH!r} is how many, here {_length(network)}; the read-out is their mean",
        "window": "one window, without a state: spikes are the whole numbers of units that leave each layer",
    }
    return (said[form],)


def _refuse_more_than_a_window(network: Snn) -> None:
    schedule = network.schedule
    if not schedule.windowed:
        raise OptionError(
            f"--form window is for schedules with windows, not for {schedule.describe()}",
            hint="use --form step or loop; or convert with --schedule bistable",
        )
    if schedule.frames > 1:
        raise OptionError(
            f"--form window holds one window, the network sends {schedule.frames}",
            hint=f"use --form step, one window at a time; or keep one: snnconvert run FILE.snn --timesteps "
            f"{schedule.answer_step(0)} -o ONE.snn --data DATA",
        )


def _length(network: Snn) -> int:
    """What the loop's input counts: steps, or windows."""
    return network.schedule.frames if network.schedule.windowed else network.schedule.timesteps


def _operators(graph: onnx.GraphProto) -> set[str]:
    found = set()
    for node in graph.node:
        found.add(node.op_type)
        for attribute in node.attribute:
            found |= _operators(attribute.g) if attribute.type == onnx.AttributeProto.GRAPH else set()
    return found


@dataclass(frozen=True)
class _Names:
    """The network, and what its input and output are called."""

    network: Snn

    @property
    def image(self) -> str:
        (node,) = [node for node in self.network.graph.graph.nodes if node.op == "placeholder"]
        return str(node.name)

    @property
    def output(self) -> str:
        taken = {self.image, CLOCK, LENGTH, COUNTS}
        name = self.network.outputs[0]
        return name if name not in taken else f"{name}_out"

    @property
    def output_shape(self) -> tuple[int, ...]:
        return tuple(output_nodes(self.network.graph)[0].meta["shape"])

    def emitter(self) -> Emitter:
        return Emitter(coded=self.network.precision == "int8")

    def spikes(self) -> dict[str, str]:
        """What the graph calls the spikes of each site."""
        return {node.name: f"{layer_name(node)}/spikes" for node in neurons_of(self.network.graph)}


def _info(name: str, shape: tuple[int, ...], kind: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, ["batch", *shape])


def _step(names: _Names) -> onnx.ModelProto:
    """One frame, states in and out, spikes and the frame's read-out."""
    network, emit = names.network, names.emitter()
    timed = uses_clock(network)
    frames = emit.constant(np.array(network.schedule.frames, np.int64), "frames") if timed else ""
    writer = StepWriter(network, emit, clock=CLOCK, frames=frames)
    writer.constants(names.image)
    step = writer.moving()
    inputs = [_info(names.image, network.input_shape)]
    inputs += [helper.make_tensor_value_info(CLOCK, INT64, [])] if timed else []
    outputs = _outputs(names, step, emit)
    for state in step.states:
        inputs.append(_info(state.name, state.shape))
        _rename(emit, state.after, f"{state.name}/next")
        outputs.append(_info(f"{state.name}/next", state.shape))
    return _model(names, emit, inputs, outputs, {"states": {one.name: list(one.shape) for one in step.states}})


def _window(names: _Names) -> onnx.ModelProto:
    """The only window, without states."""
    emit = names.emitter()
    writer = StepWriter(names.network, emit, clock="", frames="", stateless=True)
    writer.constants(names.image)
    step = writer.moving()
    outputs = _outputs(names, step, emit)
    return _model(names, emit, [_info(names.image, names.network.input_shape)], outputs, {})


def _ann(snn: Snn) -> onnx.ModelProto:
    """The original network, without time."""
    original, emit = original_of(snn), Emitter()
    (image,) = [str(node.name) for node in original.graph.graph.nodes if node.op == "placeholder"]
    outputs = []
    for name, node, value in zip(
        original.outputs, output_nodes(original.graph), write_graph(original, emit, image), strict=True
    ):
        own = name if name != image else f"{name}_out"
        _rename(emit, value, own)
        outputs.append(_info(own, tuple(node.meta["shape"])))
    facts = {"input": image, "output": outputs[0].name, "preprocessing": snn.preprocessing}
    return _file(emit, [_info(image, original.input_shape)], outputs, snn.source.name, facts)


def _outputs(names: _Names, step: Step, emit: Emitter) -> list[onnx.ValueInfoProto]:
    shapes = {node.name: tuple(node.meta["shape"]) for node in neurons_of(names.network.graph)}
    _rename(emit, step.output, names.output)
    found = [_info(names.output, names.output_shape)]
    for site, name in names.spikes().items():
        _rename(emit, step.spikes[site], name)
        found.append(_info(name, shapes[site]))
    return found


def _rename(emit: Emitter, old: str, new: str) -> None:
    """Call a value of the graph by another name."""
    for node in emit.nodes:
        node.output[:] = [new if name == old else name for name in node.output]
        node.input[:] = [new if name == old else name for name in node.input]


def _loop(names: _Names) -> onnx.ModelProto:
    """All frames: mean read-out, and how many units every layer sent for each image."""
    network, outer, body = names.network, names.emitter(), names.emitter()
    schedule = network.schedule
    outer.scope = "time"
    frames = LENGTH
    if not schedule.windowed and schedule.waited:
        idle = outer.constant(np.array(schedule.depth * schedule.waited, np.int64), "steps_before_the_first_answer")
        frames = outer.op("Sub", LENGTH, idle, name="frames")
    writer = StepWriter(network, outer, clock=CLOCK, frames=frames)
    writer.constants(names.image)
    writer.emit = body
    body.taken, body.doubles = outer.taken, outer.doubles
    step = writer.moving()
    body.scope, outer.scope = "read_out", "start"
    batch = outer.op("Shape", names.image, name="batch", end=1)
    carried: list[tuple[str, str, str, onnx.ValueInfoProto]] = []  # before, after, start, and what it is

    def carry(name: str, after: str, shape: tuple[int, ...], kind: int) -> None:
        whole = (
            outer.op("Concat", batch, outer.constant(list(shape), "shape"), name="shape", axis=0) if shape else batch
        )
        zero = outer.constant(np.zeros(1, helper.tensor_dtype_to_np_dtype(kind)), "zero")
        start = outer.op("Expand", zero, whole, name=name)
        carried.append((name, after, start, _info(name, shape, kind)))

    for state in step.states:
        carry(state.name, state.after, state.shape, FLOAT)
    summed = body.op("Add", "read_out/sum", body.double(step.output), name="add")
    carry("read_out/sum", summed, names.output_shape, DOUBLE)
    sites = list(names.spikes())
    shapes = {node.name: tuple(node.meta["shape"]) for node in neurons_of(network.graph)}
    for site in sites:
        body.scope = f"count/{site}"
        axes = body.constant(list(range(1, 1 + len(shapes[site]))), "axes")
        units = body.op("ReduceSum", body.op("Abs", step.spikes[site], name="units"), axes, name="sum", keepdims=0)
        counted = body.op("Add", f"{site}/count", body.op("Cast", units, name="whole", to=INT64), name="add")
        carry(f"{site}/count", counted, (), INT64)
    return _around(names, outer, body, carried, sites, frames)


def _around(  # noqa: PLR0917 (the two graphs and what passes between them)
    names: _Names,
    outer: Emitter,
    body: Emitter,
    carried: list[tuple[str, str, str, onnx.ValueInfoProto]],
    sites: list[str],
    frames: str,
) -> onnx.ModelProto:
    schedule = names.network.schedule
    body.scope, outer.scope = "loop", "read_out"
    going = body.op("Identity", "going", name="going_on")
    head = [
        helper.make_tensor_value_info(CLOCK, INT64, []),
        helper.make_tensor_value_info("going", TensorProto.BOOL, []),
    ]
    after = []
    for name, value, _, info in carried:
        left = body.op("Identity", value, name=f"{name}/left")
        made = onnx.ValueInfoProto()
        made.CopyFrom(info)
        made.name = left
        after.append(made)
    inner = helper.make_graph(
        body.nodes,
        "step",
        [*head, *(info for *_, info in carried)],
        [helper.make_tensor_value_info(going, TensorProto.BOOL, []), *after],
    )
    outer.initializers.update(body.initializers)
    ends = [f"{name}/end" for name, *_ in carried]
    outer.nodes.append(
        helper.make_node("Loop", [LENGTH, "", *(start for _, _, start, _ in carried)], ends, name="time", body=inner)
    )
    left_out = outer.constant(np.array(schedule.read_from, np.int64), "frames_left_out")
    count = outer.double(outer.op("Sub", frames, left_out, name="frames_read"))
    mean = outer.op("Div", ends[len(carried) - len(sites) - 1], count, name="mean", double=True)
    outer.nodes.append(helper.make_node("Cast", [mean], [names.output], name=names.output, to=FLOAT))
    axis = outer.constant([1], "axis")
    columns = [outer.op("Unsqueeze", end, axis, name="column") for end in ends[-len(sites) :]]
    outer.nodes.append(helper.make_node("Concat", columns, [COUNTS], name=COUNTS, axis=1))
    inputs = [_info(names.image, names.network.input_shape), helper.make_tensor_value_info(LENGTH, INT64, [])]
    outputs = [_info(names.output, names.output_shape), _info(COUNTS, (len(sites),), INT64)]
    return _model(
        names, outer, inputs, outputs, {"counted": [names.spikes()[site][: -len("/spikes")] for site in sites]}
    )


def _model(
    names: _Names,
    emit: Emitter,
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    more: dict[str, Any],
) -> onnx.ModelProto:
    """The file, with what a program needs to know to run it."""
    network, schedule = names.network, names.network.schedule
    facts = {
        "schedule": schedule.to_dict(),
        "frames": schedule.frames,
        "length": _length(network),
        "read_from": schedule.read_from,
        "input": names.image,
        "output": names.output,
        "preprocessing": network.preprocessing,
        "spikes": names.spikes(),
        **more,
    }
    return _file(emit, inputs, outputs, network.source.name, facts)


def _file(
    emit: Emitter,
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    name: str,
    facts: dict[str, Any],
) -> onnx.ModelProto:
    graph = helper.make_graph(emit.nodes, name, inputs, outputs, list(emit.initializers.values()))
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="snnconvert", ir_version=IR_VERSION
    )
    helper.set_model_props(model, {KEY: json.dumps(facts)})
    return model
