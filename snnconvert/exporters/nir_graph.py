"""A spiking network as a NIR graph of convolutions and neurons.

Everything linear is a convolution: matrix products over whole maps, sums of pooling, scales of shortcuts, and wiring
that selects channels and strides. Branches are edges into one node, which adds them. Names are numbered in data-flow
order, for files keep no other order and some readers run nodes as they come.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from snnconvert.compile.exact import finest_grids
from snnconvert.compile.integers import channel_rows
from snnconvert.errors import InternalError, NodeFault, UnsupportedError
from snnconvert.exporters.sums import sums_of
from snnconvert.graph.dialect import arguments, op_of, origin_of, output_nodes, role_of
from snnconvert.graph.flow import flows
from snnconvert.graph.kinds import Conv, Neuron, Op, Role, Scale, Snap, SumPool, Weighted
from snnconvert.graph.types import Snn

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Profile:
    """What a reader wants of a file.

    Attributes:
        neuron: "if" (IF), "cubalif" (CubaLIF that neither leaks nor filters), or "primitive" (integrator, threshold,
            and a scale that feeds back what a spike subtracts).
        resistance: of IF neurons.
        above: whether its neurons spike above the threshold only, so that membranes start half a unit higher.
    """

    neuron: str = "if"
    resistance: float = 1.0
    above: bool = False


@dataclass
class Term:
    """A summand of a value: what a NIR node sends, with the place (from 1; 0: nothing) of every value of it."""

    name: str
    table: Tensor


class NirGraph:
    """The NIR nodes and edges of a network in a portable form.

    Args:
        snn: streaming, of neurons "if", with matrix products as convolutions.
        profile: of the reader.

    Attributes:
        nodes, edges: as of nir.NIRGraph.
        sites: the name in the file of every neuron layer.
        grid, limit: what the input is rounded to, and cut off at.

    Raises:
        UnsupportedError: naming every node that NIR cannot hold.
    """

    def __init__(self, snn: Snn, profile: Profile) -> None:
        self.snn, self.profile = snn, profile
        self.nodes: dict[str, Any] = {}
        self.edges: list[tuple[str, str]] = []
        self.sites: dict[str, str] = {}
        self.grid, self.limit = 0.0, math.inf
        self.faults: list[NodeFault] = []
        self.shapes: dict[str, tuple[int, ...]] = {}
        flows(snn.graph)
        self.halves = half_grids(snn.graph)
        self.terms: dict[fx.Node, list[Term]] = {}
        for node in snn.graph.graph.nodes:
            if node.op == "placeholder":
                self.terms[node] = [Term("input", _places(node))]
            elif node.op == "call_module":
                self.terms[node] = self._translate(node, op_of(node))
        self._finish()

    def file(self) -> Any:
        """The graph of `nir`."""
        import nir

        return nir.NIRGraph(nodes=self.nodes, edges=self.edges, type_check=False)

    # --- nodes ---

    def _translate(self, node: fx.Node, op: Op) -> list[Term]:
        rules: dict[Role, Callable[[fx.Node], list[Term]]] = {
            Role.WEIGHTED: self._weighted,
            Role.NEURON: self._neuron,
            Role.AFFINE: self._affine,
            Role.JOIN: self._join,
            Role.POOL: self._pool,
            Role.WIRING: self._wiring,
        }
        if op.role in rules:
            return rules[op.role](node)
        return self._fault(node, f"NIR has no {op.plain_name} over time")

    def _fault(self, node: fx.Node, reason: str) -> list[Term]:
        origin = origin_of(node)
        self.faults.append(NodeFault(origin.name, origin.operator, reason))
        return [Term("input", _places(node))]

    def _weighted(self, node: fx.Node) -> list[Term]:
        op = op_of(node, Weighted)
        if type(op) is not Conv or op.weight.ndim != 4:
            return self._fault(node, f"readers of NIR hold no {op.plain_name} over these axes")
        return self._convolution(node, op, arguments(node)[0])

    def _affine(self, node: fx.Node) -> list[Term]:
        op, (source,) = op_of(node), arguments(node)
        if op.passes_units:
            snap = op_of(node, Snap)
            if source.op == "placeholder":
                self.grid, self.limit = snap.grid, math.inf if snap.limit is None else snap.limit
                return self.terms[source]
            return self._fault(node, "a rounding of real values")
        channels = source.meta["shape"][0]
        factor = op_of(node, Scale).factor if op.repeatable else None
        if factor is None or factor.numel() not in (1, channels) or len(node.meta["shape"]) != 3:
            return self._fault(node, "a factor that is not one per channel")
        weight = factor.flatten().expand(channels).reshape(channels, 1, 1, 1)
        return self._convolution(node, _depthwise(weight, channels), source)

    def _pool(self, node: fx.Node) -> list[Term]:
        op, (source,) = op_of(node), arguments(node)
        channels = source.meta["shape"][0]
        if type(op) is not SumPool or len(op.window) != 2 or op.ceil_mode:
            return self._fault(node, f"a {op.plain_name} that is no plain sum of spikes")
        weight = torch.ones(channels, 1, *op.window)
        return self._convolution(node, _depthwise(weight, channels, op.stride, op.padding), source)

    def _join(self, node: fx.Node) -> list[Term]:
        sources = arguments(node)
        if any(one.meta["shape"] != node.meta["shape"] for one in sources):
            return self._fault(node, "a sum of branches of different shapes")
        return [term for one in sources for term in self.terms[one]]

    def _wiring(self, node: fx.Node) -> list[Term]:
        """Where every value comes from, found by moving places instead of values."""
        op, sources = op_of(node), arguments(node)
        if op.brings:
            return self._fault(node, f"a {op.plain_name} that brings numbers of its own")
        zeros = [torch.zeros(1, *one.meta["shape"], dtype=torch.float64) for one in sources]
        found = []
        for index, one in enumerate(sources):
            for term in self.terms[one]:
                moved = [term.table if place == index else zero for place, zero in enumerate(zeros)]
                found.append(Term(term.name, op(*moved)))
        return found

    def _neuron(self, node: fx.Node) -> list[Term]:
        op = op_of(node, Neuron)
        if op.model != "if":
            return self._fault(node, f"NIR has no neuron {op.model!r}")
        shape = node.meta["shape"]
        start, threshold = op.initial.expand(shape).double(), op.threshold.expand(shape).double()
        if self.profile.above:
            start = start + self.halves[node].expand(shape)
        sources = self._sources(node, self.terms[arguments(node)[0]], shape)
        name = self._name(node)
        made = {"if": self._if, "cubalif": self._cubalif, "primitive": self._primitive}[self.profile.neuron]
        entry = made(name, _array(threshold), _array(start))
        self._connect(node, sources, entry)
        self.sites[node.name] = name
        return [Term(name, _places(node))]

    def _if(self, name: str, threshold: Array, start: Array) -> str:
        import nir

        resistance = np.full_like(threshold, self.profile.resistance)
        self.nodes[name] = nir.IF(r=resistance, v_threshold=threshold)
        self.nodes[name].metadata = {"v0": start}
        return name

    def _cubalif(self, name: str, threshold: Array, start: Array) -> str:
        import nir

        one, slow = np.full_like(threshold, 2.0**-10), np.full_like(threshold, 2.0**50)
        gain = np.full_like(threshold, 2.0**60)
        zero = np.zeros_like(threshold)
        self.nodes[name] = nir.CubaLIF(tau_syn=one, tau_mem=slow, r=gain, v_leak=zero, v_threshold=threshold)
        self.nodes[name].metadata = {"v0": start}
        return name

    def _primitive(self, name: str, threshold: Array, start: Array) -> str:
        import nir

        integrator, feedback = f"{name}_v", f"{name}_reset"
        self.nodes[integrator] = nir.I(r=np.ones_like(threshold))
        self.nodes[name] = nir.Threshold(threshold=threshold - start)
        self.nodes[feedback] = nir.Scale(scale=-threshold)
        self.edges += [(integrator, name), (name, feedback), (feedback, integrator)]
        return integrator

    # --- convolutions ---

    def _convolution(self, node: fx.Node, op: Conv, source: fx.Node) -> list[Term]:
        sources = self._sources(node, self.terms[source], source.meta["shape"])
        name = self._name(node)
        self._connect(node, sources, name)
        self._conv2d(name, op, tuple(source.meta["shape"][1:]))
        return [Term(name, _places(node))]

    def _conv2d(self, name: str, op: Conv, sides: tuple[int, ...]) -> None:
        import nir

        # nir 1.0 infers the shapes of grouped convolutions wrongly, and most readers follow it
        weight = op.weight.double() if op.groups == 1 else _dense(op.weight.double(), op.groups)
        bias = torch.zeros(op.outputs) if op.bias is None else op.bias
        self.nodes[name] = nir.Conv2d(
            input_shape=sides,
            weight=_array(weight),
            stride=op.stride,
            padding=op.padding,
            dilation=op.dilation,
            groups=1,
            bias=_array(bias),
        )

    def _sources(self, node: fx.Node, terms: list[Term], shape: tuple[int, ...]) -> list[str]:
        """What sends the summands that `node` reads; what is moved in between gets a convolution that selects.

        Asked for before `node` has a name, since names are numbered in the order in which nodes run.
        """
        plain = torch.arange(1, math.prod(shape) + 1, dtype=torch.float64)
        moved = [not torch.equal(term.table.flatten(), plain) for term in terms]
        found = [self._selection(node, term) if far else term.name for term, far in zip(terms, moved, strict=True)]
        return [name for name in found if name is not None]

    def _connect(self, node: fx.Node, sources: list[str], name: str) -> None:
        """Edges from all summands to `name`."""
        for source in sources:
            if (source, name) in self.edges:
                self._fault(node, "a branch that is added to itself")
            self.edges.append((source, name))

    def _selection(self, node: fx.Node, term: Term) -> str | None:
        """A convolution of one place that selects channels with a stride, if `term` is one."""
        made = self.shapes[term.name]
        table = term.table[0]
        found = selection(table, made)
        if found is None:
            self._fault(node, "values are moved in a way that no convolution can")
            return None
        weight, stride = found
        name = f"n{len(self.nodes):04d}_moved"
        self._conv2d(name, Conv(weight, stride=stride, padding=(0, 0), dilation=(1, 1)), made[1:])
        self.edges.append((term.name, name))
        self.shapes[name] = tuple(table.shape)
        return name

    def _name(self, node: fx.Node) -> str:
        name = f"n{len(self.nodes):04d}_{node.name}"
        self.shapes[name] = tuple(node.meta["shape"])
        return name

    def _finish(self) -> None:
        import nir

        output = output_nodes(self.snn.graph)[0]
        (entry,) = [node for node in self.snn.graph.graph.nodes if node.op == "placeholder"]
        terms = self.terms[output]
        last = terms[0].name
        shape = self.shapes.get(last, ())
        plain = torch.arange(1, math.prod(shape) + 1, dtype=torch.float64)
        if len(terms) > 1:
            self._fault(output, "an output that is a sum of branches")
        elif not torch.equal(terms[0].table.flatten(), plain):
            self._fault(output, "an output that is moved")
        self._refuse()
        first = tuple(entry.meta["shape"])
        self.input_shape = first if len(first) == 3 else (*first, 1, 1)
        self.nodes = {
            "input": nir.Input(input_type={"input": np.array(self.input_shape)}),
            **self.nodes,
            "output": nir.Output(output_type={"output": np.array(shape)}),
        }
        self.edges.append((last, "output"))

    def _refuse(self) -> None:
        if self.faults:
            raise UnsupportedError(
                "this network has no form in NIR that this reader can hold",
                hint="NIR has convolutions, sums and IF neurons alone; export to another format instead",
                faults=tuple(dict.fromkeys(self.faults)),
            )


def half_grids(graph: fx.GraphModule) -> dict[fx.Node, Tensor]:
    """Half of the unit that every membrane is a multiple of, by neuron layer, broadcastable to one sample."""
    found: dict[fx.Node, Tensor] = {}
    for sum_ in sums_of(graph):
        axis = sum_.axis
        rows = [_rows(node, axis) for node in sum_.counted]
        rows += [_real_rows(source, axis) for source, _ in sum_.real]
        for node, op in sum_.neurons.items():
            shape = tuple(node.meta["shape"])
            rows += [channel_rows(tensor, shape, axis) for tensor in (op.threshold, op.initial)]
        most = max(len(one) for one in rows)
        grids = torch.stack([finest_grids(one).expand(most) for one in rows]).amin(0)
        for node in sum_.neurons:
            shaped = [1] * len(node.meta["shape"])
            shaped[axis or 0] = -1
            found[node] = grids.reshape(shaped) / 2
    return found


def _rows(node: fx.Node, axis: int | None) -> Tensor:
    if role_of(node) == Role.WEIGHTED:
        op = op_of(node, Weighted)
        rows = op.by_rows(op.weight.double())
        bias = torch.zeros(len(rows), 1) if op.bias is None else op.bias.double().reshape(-1, 1)
        rows = torch.cat([rows, bias], 1)
        return rows if axis is not None else rows.reshape(1, -1)
    shape = tuple(node.meta["shape"])
    return torch.cat([channel_rows(tensor, shape, axis) for tensor in op_of(node).buffers()], 1)


def _real_rows(source: fx.Node, axis: int | None) -> Tensor:
    """Products of weights and the unit of the rounded input."""
    if role_of(source) != Role.WEIGHTED:
        raise InternalError(f"{source.name} brings real values that are no weighted sum")
    op, snap = op_of(source, Weighted), op_of(arguments(source)[0], Snap)
    rows = op.by_rows(op.weight.double()) * snap.grid
    bias = torch.zeros(len(rows), 1) if op.bias is None else op.bias.double().reshape(-1, 1)
    rows = torch.cat([rows, bias], 1)
    return rows if axis is not None else rows.reshape(1, -1)


def selection(table: Tensor, source: tuple[int, ...]) -> tuple[Tensor, tuple[int, int]] | None:
    """Weights (channels, source channels, 1, 1) and stride that move values as `table` says, or None.

    Args:
        table: for every place of the result (channels, rows, columns) the place in the source from 1; 0 is nothing.
        source: (channels, rows, columns).
    """
    if table.ndim != 3 or len(source) != 3:
        return None
    channels, rows, columns = source
    height, width = table.shape[1:]
    strides = []
    for size, made in ((rows, height), (columns, width)):
        fits = [step for step in range(1, size + 1) if (size - 1) // step + 1 == made]
        strides.append(fits[0] if fits else 0)
    if not all(strides):
        return None
    down, across = strides
    places = (torch.arange(height) * down).reshape(-1, 1) * columns + torch.arange(width) * across
    weight = torch.zeros(table.shape[0], channels, 1, 1)
    for channel, values in enumerate(table.to(torch.int64)):
        if not values.any():
            continue
        taken = int(values[0, 0] - 1) // (rows * columns)
        if values.min() < 1 or not torch.equal(values - 1 - taken * rows * columns, places):
            return None
        weight[channel, taken] = 1.0
    return weight, (down, across)


def _depthwise(
    weight: Tensor, channels: int, stride: tuple[int, ...] = (1, 1), padding: tuple[int, ...] = (0, 0)
) -> Conv:
    return Conv(weight, stride=stride, padding=padding, dilation=(1, 1), groups=channels)


def _dense(weight: Tensor, groups: int) -> Tensor:
    """Weights of a grouped convolution with the zeros between the groups written out."""
    each_in, each_out = weight.shape[1], weight.shape[0] // groups
    full = weight.new_zeros(weight.shape[0], each_in * groups, *weight.shape[2:])
    for group in range(groups):
        rows = slice(group * each_out, (group + 1) * each_out)
        full[rows, group * each_in : (group + 1) * each_in] = weight[rows]
    return full


def _places(node: fx.Node) -> Tensor:
    shape = node.meta["shape"]
    return torch.arange(1, math.prod(shape) + 1, dtype=torch.float64).reshape(1, *shape)


def _array(tensor: Tensor) -> Array:
    single = tensor.detach().to(torch.float32)
    if not torch.equal(single.double(), tensor.double()):
        raise InternalError("a number of the portable form needs more than 24 bits")
    return np.ascontiguousarray(single.numpy())
