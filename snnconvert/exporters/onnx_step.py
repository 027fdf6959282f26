"""One frame of a portable network in ONNX: what flows in it, and the state that it leaves to the next.

A frame is a step, or a window of a schedule that has windows. States start at zero: a membrane is written as what it
has moved from its start, which is a constant of the graph.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from torch import fx

from snnconvert.errors import NodeFault, UnsupportedError
from snnconvert.exporters.equations import evaluated, traced, why_not
from snnconvert.exporters.onnx_nodes import FLOAT, TRANSLATIONS, Emitter, layer_name
from snnconvert.graph.dialect import arguments, calls, op_of, origin_of, output_nodes
from snnconvert.graph.flow import Flow
from snnconvert.graph.kinds import Neuron, Op, Role
from snnconvert.graph.schedule.timing import site_depths
from snnconvert.graph.types import Snn

_OPERATIONS = {
    "ge": "GreaterOrEqual",
    "gt": "Greater",
    "le": "LessOrEqual",
    "lt": "Less",
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "truediv": "Div",
    "neg": "Neg",
    "and_": "And",
    "floor": "Floor",
    "maximum": "Max",
}


@dataclass
class State:
    """A state of the graph: its shape without the batch, and the values that hold it before and after a frame."""

    name: str
    shape: tuple[int, ...]
    before: str
    after: str = ""


@dataclass
class Step:
    """What one frame is made of.

    Attributes:
        states: in the order in which they are taken and left.
        spikes: the units that every neuron layer sends, by site.
        output: what is added to the read-out.
    """

    states: list[State] = field(default_factory=list)
    spikes: dict[str, str] = field(default_factory=dict)
    output: str = ""


def refuse_inexact(network: Snn) -> None:
    """Refuse what has no ONNX operators that are exact in every runtime.

    Raises:
        UnsupportedError: naming every such node, and why.
    """
    faults = []
    for node, op in calls(network.graph):
        reason = ""
        if op.role == Role.NEURON:
            neuron = op_of(node, Neuron)
            reason = why_not(neuron.row, neuron.levels, on_a_grid=True)
        elif op.role == Role.ANALOG:
            reason = "its real values differ between runtimes in their last bits, and so would spikes"
        elif (mode := getattr(op, "mode", "nearest")) != "nearest":
            reason = f"{mode} resizing rounds differently in every runtime"
        elif type(op) not in TRANSLATIONS and op.role != Role.DELAY:
            reason = f"a {op.plain_name} has no exact ONNX operators"
        if reason:
            origin = origin_of(node)
            faults.append(NodeFault(origin.name, origin.operator, reason))
    if faults:
        raise UnsupportedError(
            f"{network.source.name} cannot be exported to ONNX exactly",
            hint="convert it with --strict-spiking, other --approximate or another --neuron, or export --to torch",
            faults=tuple(faults),
        )


class StepWriter:
    """Writes a frame of `network` with an emitter.

    Args:
        network: in its portable form.
        emit: collects the nodes.
        clock: the value that holds the number of the step (int64), for schedules that make sites wait; else unused.
        frames: likewise, how many frames a site sends.
        stateless: whether there is one frame only, so that nothing is left to the next.
    """

    def __init__(self, network: Snn, emit: Emitter, *, clock: str, frames: str, stateless: bool = False) -> None:
        self.network, self.emit, self.schedule = network, emit, network.schedule
        self.clock, self.frames, self.stateless = clock, frames, stateless
        self.depths = site_depths(network.graph)
        self.values: dict[fx.Node, str] = {}
        self.step = Step()

    def constants(self, image: str) -> None:
        """Write what does not move: the input, and what is computed from it alone."""
        for node in self.network.graph.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = image
            elif node.op == "call_module" and self._constant(node):
                self.values[node] = self._plain(node, op_of(node))

    def moving(self) -> Step:
        """Write the rest."""
        for node, op in calls(self.network.graph):
            if node not in self.values:
                self.values[node] = self._moving(node, op)
        (output, *_) = output_nodes(self.network.graph)
        self.emit.scope = "read_out"
        self.step.output = self._read(output, self.emit.single(self.values[output]))
        return self.step

    def _constant(self, node: fx.Node) -> bool:
        return bool(node.meta["flow"] == Flow.CONSTANT)

    def _plain(self, node: fx.Node, op: Op) -> str:
        self.emit.scope = layer_name(node)
        if not op.reads:
            return self._constant_of(op, self.values[arguments(node)[0]])
        return TRANSLATIONS[type(op)](self.emit, node, op, [self.values[source] for source in arguments(node)])

    def _constant_of(self, op: Op, like: str) -> str:
        value = next(op.buffers()).float()
        batch = self.emit.op("Shape", like, name="batch", end=1)
        shape = self.emit.op("Concat", batch, self.emit.constant(list(value.shape), "shape"), name="shape", axis=0)
        return self.emit.op("Expand", self.emit.constant(value.unsqueeze(0), "value"), shape)

    def _moving(self, node: fx.Node, op: Op) -> str:
        self.emit.scope = layer_name(node)
        if op.role == Role.NEURON:
            return self._neuron(node, op_of(node, Neuron))
        if op.role == Role.DELAY:
            return self._delay(node)
        if op.role == Role.MAXPOOL and not self.schedule.windowed:
            return self._running_maximum(node, op)
        return self._plain(node, op)

    # --- states ---

    def _state(self, node: fx.Node, name: str, shape: tuple[int, ...]) -> State:
        label = f"{layer_name(node)}/{name}"
        made = State(label, shape, label)
        self.step.states.append(made)
        return made

    def _leave(self, state: State, value: str) -> None:
        state.after = value

    def _neuron(self, node: fx.Node, op: Neuron) -> str:
        emit, model = self.emit, op.row
        current = emit.single(self.values[arguments(node)[0]])
        shape = tuple(node.meta["shape"])
        threshold, initial = (
            emit.constant(op.threshold.float(), "threshold"),
            emit.constant(op.initial.float(), "start"),
        )
        v = initial
        moved = None if self.stateless else self._state(node, "v", shape)
        if moved is not None:
            v = emit.op("Add", moved.before, initial, name="membrane")
        count = None if self.stateless or not model.memory else self._state(node, "sent", shape)
        sent = (
            ""
            if not model.memory
            else emit.constant(np.zeros(1, np.float32), "none")
            if count is None
            else count.before
        )
        late = self.schedule.waited > 0
        risen = emit.op("Add", v, current, name="integrate")
        if late:
            risen = emit.op("Where", self._between(self._integrates(node)), risen, v, name="integrating")
        spikes, after, counted = evaluated(
            traced(model, op.levels), {"v": risen, "sent": sent, "threshold": threshold}, self._operation
        )
        if late:
            sends = self._between(self._emits(node))
            spikes = emit.op("Where", sends, spikes, emit.constant(0.0, "silent"), name="sending")
            after = emit.op("Where", sends, after, risen, name="kept")
            counted = counted and emit.op("Where", sends, counted, sent, name="counted")
        spikes = emit.op("Identity", spikes)
        if moved is not None:
            self._leave(moved, self._after_window(after, threshold, initial))
        if count is not None and counted is not None:
            self._leave(count, counted)
        self.step.spikes[node.name] = spikes
        return spikes

    def _after_window(self, v: str, threshold: str, initial: str) -> str:
        """What the membrane has moved from its start, once a frame has been sent."""
        residual = getattr(self.schedule, "residual", "keep")
        if residual == "clear":
            return self.emit.op("Mul", v, self.emit.constant(0.0, "zero"), name="cleared")
        if residual == "clamp":
            v = self.emit.op("Min", v, threshold, name="clamped")
        return self.emit.op("Sub", v, initial, name="moved")

    def _operation(self, name: str, given: tuple[str | float, ...]) -> str:
        inputs = [one if isinstance(one, str) else self.emit.constant(float(one), "number") for one in given]
        if name == "to":
            return self.emit.op("Cast", inputs[0], name="number", to=FLOAT)
        if name == "clamp":
            return self.emit.op("Clip", *inputs, name="clamp")
        return self.emit.op(_OPERATIONS[name], *inputs, name=name.strip("_"))

    def _running_maximum(self, node: fx.Node, op: Op) -> str:
        """By how much the largest sum so far has grown."""
        (source,) = arguments(node)
        received = self._state(node, "received", tuple(source.meta["shape"]))
        best = self._state(node, "best", tuple(node.meta["shape"]))
        total = self.emit.op("Add", received.before, self.emit.single(self.values[source]), name="received")
        now = TRANSLATIONS[type(op)](self.emit, node, op, [total])
        self._leave(received, total)
        self._leave(best, now)
        return self.emit.op("Sub", now, best.before, name="grown")

    def _delay(self, node: fx.Node) -> str:
        """Held back for as many steps as a site waits."""
        value, shape = self.values[arguments(node)[0]], tuple(node.meta["shape"])
        queue = [self._state(node, f"held{index}", shape) for index in range(self.schedule.waited)]
        for state, after in zip(queue, [*(one.before for one in queue[1:]), value], strict=True) if queue else ():
            self._leave(state, self.emit.op("Identity", after, name="held"))
        return queue[0].before if queue else value

    # --- time ---

    def _integrates(self, node: fx.Node) -> int:
        return self.schedule.integration_step(self.depths[node.name], 0)

    def _emits(self, node: fx.Node) -> int:
        return self.schedule.emission_step(self.depths[node.name], 0)

    def _between(self, first: int) -> str:
        """Whether the clock is in [first, first + frames)."""
        emit = self.emit
        elapsed = emit.op("Sub", self.clock, emit.constant(np.array(first, np.int64), "first"), name="elapsed")
        begun = emit.op("GreaterOrEqual", elapsed, emit.constant(np.array(0, np.int64), "zero"), name="begun")
        return emit.op("And", begun, emit.op("Less", elapsed, self.frames, name="lasting"), name="on_time")

    def _read(self, output: fx.Node, value: str) -> str:
        """The output where it is read, else 0."""
        left_out = self.schedule.read_from
        if self.schedule.windowed or not (self.schedule.waited or left_out):
            return self.emit.op("Identity", value, name="value")
        first = self._emits(output)
        read = self._between(first)
        if left_out:
            later = self.emit.constant(np.array(first + left_out, np.int64), "first_read")
            read = self.emit.op("And", read, self.emit.op("GreaterOrEqual", self.clock, later, name="settled"))
        return self.emit.op("Where", read, value, self.emit.constant(0.0, "unread"), name="value")


def uses_clock(network: Snn) -> bool:
    """Whether what a network does depends on the number of the step."""
    schedule = network.schedule
    return not schedule.windowed and bool(schedule.waited or schedule.read_from)
