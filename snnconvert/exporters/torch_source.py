"""The text of a torch module that is a spiking network: readable, and in need of torch alone."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from snnconvert.errors import UnsupportedError
from snnconvert.exporters.equations import OPERATIONS, as_python, why_not
from snnconvert.exporters.torch_nodes import DTYPES, TRANSLATIONS, Line, fault, identifiers
from snnconvert.graph.dialect import arguments, op_of, output_nodes, role_of
from snnconvert.graph.flow import Flow, flows
from snnconvert.graph.kinds import Neuron, Role
from snnconvert.graph.schedule.timing import site_depths
from snnconvert.graph.types import Snn

WIDTH = 118

HEAD = '''"""A spiking network, {timing}.

    network = Network()                      # reads weights.pt beside this file
    answers = network(images)                # (batch, ...), the mean output of {frames} {frame}s

or {frame} by {frame}:  state = network.start(images);  output, state, spikes = network.step(images, state)

Input: float images (batch, {input}). Spikes are whole numbers of units; a threshold is what a unit is worth in the
membrane, and what it takes from it. Gradients pass a threshold as through a sigmoid. Written by snnconvert.
"""

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F


def reached(a, b, width):
    """1 where a >= b, else 0; the gradient is that of a sigmoid as wide as a threshold."""
    sent = (a >= b).to(width.dtype)
    if not torch.is_grad_enabled():
        return sent
    soft = torch.sigmoid(4.0 * (a - b) / width)
    return sent + (soft - soft.detach())


def floored(x):
    """Rounded down; the gradient is that of x."""
    return x.floor() if not torch.is_grad_enabled() else x.floor().detach() + (x - x.detach())


def snap(x, grid, limit=float("inf")):
    """x in multiples of a grid, so that no order of a sum changes it; the gradient is that of x."""
    found = ((x.double() / grid).round() * grid).clamp(-limit, limit)
    return found if not torch.is_grad_enabled() else found.detach() + (x - x.detach()).double()


class Tensors(nn.Module):
    """Holds tensors of these shapes."""

    def __init__(self, dtype=torch.float32, **shapes):
        super().__init__()
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape, dtype=dtype))
'''

COMPENSATED = '''

def compensated(function, inputs, state, frame):
    """By how much frame * function(mean of the inputs so far) has grown; the state holds the sums, and that."""
    begun, sums, before = frame >= 1, state[:-1], state[-1]
    frame = frame.clamp(min=1)
    sums = [torch.where(begun, total + x.double(), total) for total, x in zip(sums, inputs)]
    now = torch.where(begun, function(*(total / frame for total in sums)) * frame, before)
    return now - before, (*sums, now)
'''

NEURONS = '''

class {kind}(nn.Module):
    """Neurons: {title}."""

    def __init__(self, shape, each, dtype=torch.float32):
        super().__init__()
        self.shape = shape
        self.register_buffer("threshold", torch.ones(each, dtype=dtype))
        self.register_buffer("initial", torch.zeros(each, dtype=dtype))

    def start(self, batch):
        v = torch.zeros(batch, *self.shape, dtype=self.initial.dtype, device=self.initial.device) + self.initial
        return (v{start},)

    def forward(self, current, state{timed}):
        {unpack} = state
        threshold = self.threshold
{body}
'''


class Source:
    """The text for one network, and the tensors that it reads.

    Args:
        network: any spiking network.

    Raises:
        UnsupportedError: naming nodes that cannot be written.
    """

    def __init__(self, network: Snn) -> None:
        self.network, self.schedule = network, network.schedule
        graph = network.graph
        flows(graph)
        self.nodes: list[fx.Node] = [node for node in graph.graph.nodes if node.op != "output"]
        self.names, self.depths = identifiers(self.nodes), site_depths(graph)
        self.late = self.schedule.waited > 0
        self.classes: dict[tuple[str, int], str] = {}
        self.tensors: dict[str, Tensor] = {}
        self.made: list[str] = []
        self.starts: list[str] = []
        self.lines: list[str] = []
        self.analog = False
        reasons = {node: self._why_not(node) for node in self.nodes if node.op == "call_module"}
        if faults := [fault(node, reason) for node, reason in reasons.items() if reason]:
            raise UnsupportedError(
                f"{network.source.name} cannot be written as a torch module",
                hint=f"equations of a neuron may use {', '.join(OPERATIONS)}; convert with another --neuron, or "
                "report the operator",
                faults=tuple(faults),
            )
        for node in self.nodes:
            self._write(node)

    @property
    def sites(self) -> dict[str, str]:
        """What the module calls the neurons of each site."""
        return {node.name: self.names[node] for node in self.nodes if role_of(node) == Role.NEURON}

    def text(self) -> str:
        """The module."""
        schedule, frame = self.schedule, "window" if self.schedule.windowed else "step"
        head = HEAD.format(
            timing=f"{schedule.describe()}, T = {schedule.timesteps}",
            frames=schedule.frames - schedule.read_from,
            frame=frame,
            input=", ".join(map(str, self.network.input_shape)),
        )
        parts = [head, COMPENSATED if self.analog else ""]
        for (model, levels), kind in self.classes.items():
            parts.append(self._neurons(model, levels, kind))
        return "".join([*parts, "\n\n", self._network()])

    def _why_not(self, node: fx.Node) -> str:
        """Why a node cannot be written; empty where it can."""
        if role_of(node) == Role.NEURON:
            op = op_of(node, Neuron)
            return why_not(op.row, op.levels)
        known = type(op_of(node)) in TRANSLATIONS or role_of(node) == Role.DELAY
        return "" if known else f"a {op_of(node).plain_name} has no form in torch"

    # --- one node ---

    def _write(self, node: fx.Node) -> None:
        name = self.names[node]
        if node.op == "placeholder":
            node.meta["dtype"] = torch.float64
            self.lines.append(f"{name} = image.double()")
            return
        op, sources = op_of(node), arguments(node)
        inputs = [self.names[source] for source in sources]
        kinds_ = [source.meta["dtype"] for source in sources]
        own = next(op.buffers(), None)
        node.meta["dtype"] = _promoted(kinds_) if own is None else own.dtype
        if op.role == Role.NEURON:
            self._neuron(node, op_of(node, Neuron), inputs[0])
            return
        if op.role == Role.DELAY:
            self._delay(node, inputs[0], kinds_[0])
            return
        analog = op.role == Role.ANALOG and node.meta["flow"] != Flow.CONSTANT
        running = op.role == Role.MAXPOOL and not self.schedule.windowed and node.meta["flow"] != Flow.CONSTANT
        given = [f"x{index}" for index in range(len(inputs))] if analog else ["received"] if running else inputs
        if "snap(" in (line := TRANSLATIONS[type(op)](name, node, op, given)).value or analog:
            node.meta["dtype"] = torch.float64
        self._attribute(name, line)
        if analog:
            self._analog(node, line, inputs, given)
        elif running:
            self._running_maximum(node, line, inputs[0], kinds_[0])
        else:
            self.lines.append(f"{name} = {line.value}")

    def _attribute(self, name: str, line: Line) -> None:
        if line.attribute:
            self.made.append(f"self.{name} = {line.attribute}")
            self.tensors |= {f"{name}.{key}": tensor for key, tensor in line.tensors.items()}

    def _neuron(self, node: fx.Node, op: Neuron, current: str) -> None:
        name = self.names[node]
        kind = self.classes.setdefault((op.model, op.levels), self._class_name(op))
        dtype = op.threshold.dtype
        each = tuple(torch.broadcast_tensors(op.threshold, op.initial)[0].shape)  # type: ignore[no-untyped-call]
        wide = "" if dtype == torch.float32 else f", {DTYPES[dtype]}"
        self.made.append(f"self.{name} = {kind}({tuple(node.meta['shape'])!r}, {each!r}{wide})")
        self.tensors[f"{name}.threshold"] = op.threshold.expand(each).contiguous()
        self.tensors[f"{name}.initial"] = op.initial.expand(each).contiguous()
        self.starts.append(f'"{name}": self.{name}.start(len(image)),')
        timed = ""
        if self.late:
            first = [
                f(self.depths[node.name], 0) for f in (self.schedule.integration_step, self.schedule.emission_step)
            ]
            timed = f", now(t, {first[0]}), now(t, {first[1]})"
        self.lines.append(f'{name}, after["{name}"] = self.{name}({current}, state["{name}"]{timed})')

    def _class_name(self, op: Neuron) -> str:
        plain = "".join(part.capitalize() for part in op.model.split("-"))
        return f"{plain}{op.levels if op.levels > 1 else ''}Neurons"

    def _zeros(self, name: str, dtype: torch.dtype, *shapes: tuple[int, ...]) -> None:
        made = (
            f"torch.zeros(len(image), {', '.join(map(str, shape))}, dtype={DTYPES[dtype]}, device=image.device)"
            for shape in shapes
        )
        self.starts.append(f'"{name}": ({", ".join(made)},),')

    def _delay(self, node: fx.Node, value: str, dtype: torch.dtype) -> None:
        name = self.names[node]
        if not self.schedule.waited:
            self.lines.append(f"{name} = {value}")
            return
        self._zeros(name, dtype, *[tuple(node.meta["shape"])] * self.schedule.waited)
        self.lines.append(f'{name}, *held = *state["{name}"], {value}')
        self.lines.append(f'after["{name}"] = tuple(held)')

    def _running_maximum(self, node: fx.Node, line: Line, value: str, dtype: torch.dtype) -> None:
        name = self.names[node]
        self._zeros(name, dtype, tuple(arguments(node)[0].meta["shape"]), tuple(node.meta["shape"]))
        self.lines.append(f'received, best = state["{name}"][0] + {value}, state["{name}"][1]')
        self.lines.append(f"largest = {line.value}")
        self.lines.append(f'{name}, after["{name}"] = largest - best, (received, largest)')

    def _analog(self, node: fx.Node, line: Line, inputs: list[str], given: list[str]) -> None:
        self.analog, name = True, self.names[node]
        shapes = [tuple(source.meta["shape"]) for source in arguments(node)]
        self._zeros(name, torch.float64, *shapes, tuple(node.meta["shape"]))
        first = self.schedule.integration_step(self.depths[node.name] + 1, 0) if not self.schedule.windowed else 0
        function = f"lambda {', '.join(given)}: {line.value}"
        call = f'compensated({function}, ({", ".join(inputs)},), state["{name}"], t + {1 - first})'
        self.lines.append(f'{name}, after["{name}"] = {call}')

    # --- the parts of the text ---

    def _neurons(self, model: str, levels: int, kind: str) -> str:
        op = next(
            op
            for op in (op_of(node, Neuron) for node in self.nodes if role_of(node) == Role.NEURON)
            if (op.model, op.levels) == (model, levels)
        )
        residual = getattr(self.schedule, "residual", "keep")
        counts = ", sent" if op.row.memory else ""
        lines = ["risen = v + current.to(v.dtype)"]
        if self.late:
            lines.append("risen = torch.where(integrates, risen, v)")
        equations, v, sent = as_python(op.row, op.levels)
        lines += equations
        if self.late:
            lines += ["spikes = torch.where(sends, spikes, 0.0)", f"v = torch.where(sends, {v}, risen)"]
            lines += [f"sent = torch.where(sends, {sent}, sent)"] if sent else []
        else:
            lines += [f"v = {v}"] if not sent else [f"v, sent = {v}, {sent}"]
        if residual == "clamp":
            lines.append("v = torch.minimum(v, threshold)")
        elif residual == "clear":
            lines.append("v = torch.zeros_like(v) + self.initial")
        lines.append(f"return spikes, (v{counts},)")
        return NEURONS.format(
            kind=kind,
            title=f"{op.row.title or op.row.name}, after {op.row.source.removeprefix('after ')}",
            start=", torch.zeros_like(v)" if op.row.memory else "",
            timed=", integrates, sends" if self.late else "",
            unpack=f"(v{counts},)" if not counts else "v, sent",
            body="\n".join(f"        {line}" for line in lines),
        )

    def _network(self) -> str:
        (output, *_) = output_nodes(self.network.graph)
        schedule, timed = self.schedule, self.late or self.analog
        first = 0 if schedule.windowed else schedule.emission_step(self.depths[output.name], 0)
        total = schedule.frames if schedule.windowed else schedule.timesteps
        reads = f"range({first + schedule.read_from}, {first + schedule.frames})"
        spikes = ", ".join(f'"{name}": {name}' for name in self.sites.values())
        starts = ['"t": torch.zeros((), dtype=torch.int64, device=image.device),'] if timed else []
        lines = [
            "class Network(nn.Module):",
            '    """The network."""',
            "",
            '    def __init__(self, weights=Path(__file__).parent / "weights.pt"):',
            "        super().__init__()",
            *(f"        {line}" for line in self.made),
            "        if weights is not None:",
            "            self.load_state_dict(torch.load(weights, weights_only=True))",
            "",
            "    def start(self, image):",
            '        """The state before the first call of `step`."""',
            "        return {",
            *(f"            {line}" for line in [*starts, *self.starts]),
            "        }",
            "",
            "    def step(self, image, state):",
            '        """The output of one step, the state after it, and what each layer sent."""',
            "        after = {}",
            *(["        t = state['t']".replace("'", '"'), '        after["t"] = t + 1'] if timed else []),
            *(
                ["        def now(t, first):", f"            return (t >= first) & (t < first + {schedule.frames})", ""]
                if self.late
                else []
            ),
            *(f"        {line}" for line in self.lines),
            f"        spikes = {{{spikes}}}",
            f"        return {self.names[output]}, after, spikes",
            "",
            "    def forward(self, image):",
            '        """The mean output over the steps that are read."""',
            "        state, total = self.start(image), 0.0",
            f"        for t in range({total}):",
            "            output, state, _ = self.step(image, state)",
            f"            if t in {reads}:",
            "                total = total + output.double()",
            f"        return total / {schedule.frames - schedule.read_from}",
        ]
        return "\n".join(_wrapped(lines)) + "\n"


def _wrapped(lines: list[str]) -> list[str]:
    """Lines no longer than WIDTH; those of a dictionary are broken at its entries."""
    found = []
    for line in lines:
        rest, indent = line, " " * (len(line) - len(line.lstrip()) + 4)
        while len(rest) > WIDTH and (cut := rest.rfind(", ", len(indent) + 4, WIDTH)) > 0 and _open(rest[:cut]):
            found.append(rest[: cut + 1])
            rest = indent + rest[cut + 2 :]
        found.append(rest)
    return found


def _open(text: str) -> bool:
    """Whether a bracket is open at the end of a text, so that a line may end there; a continued line has one."""
    return text.startswith(" " * 12) or text.count("(") + text.count("{") > text.count(")") + text.count("}")


def _promoted(dtypes: list[torch.dtype]) -> torch.dtype:
    return torch.float64 if torch.float64 in dtypes else torch.float32
