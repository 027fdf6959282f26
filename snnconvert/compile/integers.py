"""A network in the integers of a chip: weights, biases, thresholds and initial membranes, each in its unit.

Weights, biases, thresholds and initial membranes become integers in a unit that everything summed into the same
neurons shares. By default every output channel has a unit of its own, which costs a chip nothing if thresholds may
differ from neuron to neuron: the unit never leaves the channel, because spikes carry no unit. Where wiring (a
concatenation, a reshape) lies between a weighted sum and its neurons, the layer has one unit, and so has what the
network returns: scores are compared with each other. Where everything is exactly representable in the given bits (on a
power of two) the integer network is the network itself; else the unit is the largest weight over the largest integer,
coarser still if a threshold would not fit into half of the membrane's range. An identity shortcut adds one number per
channel and spike; it is no kernel, and as wide as a membrane (or as many synapses side by side as
`shortcut_synapses` says), because it would else set the unit of the kernels beside it.

What comes before the first spikes is constant in time. With `input_bits` the input is an integer as well: the sums of
the first layers are then integers in units of their own, and what they send to a neuron is brought into its unit by a
multiplication and a shift (`Rescale`). Without, and behind analogue operators, values stay real with weights rounded
to the same number of bits, and what they send to a neuron is rounded to its unit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from snnconvert.compile.exact import finest_grids
from snnconvert.errors import OptionError
from snnconvert.graph.dialect import arguments, neurons_of, op_of, output_nodes, role_of
from snnconvert.graph.flow import Flow, flows
from snnconvert.graph.kinds import Mean, Neuron, Op, Role, Scale, Snap, SumPool, Weighted
from snnconvert.graph.types import Snn

# a threshold is at most so many times as large as the largest weight that is kept apart from 0
FARTHEST = 64
# bits of a product of a sum and a multiplier, and of the multiplier alone
PRODUCT_BITS, MULTIPLIER_BITS = 62, 30
SCALES = ("channel", "layer")


@dataclass(frozen=True, eq=False)
class Unit:
    """What 1 stands for: `sizes` (channels) along `axis` of a sample (0 or -1), or (1) for all channels."""

    sizes: Tensor
    axis: int = 0

    def along(self, rank: int) -> Tensor:
        """Shaped to broadcast against a sample of that rank, or against a batch of them."""
        return shaped(self.sizes, self.axis, rank)


def shaped(values: Tensor, axis: int, rank: int) -> Tensor:
    """`values` along `axis` of a sample of that rank."""
    shape = [1] * max(1, rank)
    shape[axis] = -1
    return values.reshape(shape)


@dataclass(frozen=True, eq=False)
class Rescale:
    """From one unit to another: floor((x * multiplier + 2^(shift - 1)) / 2^shift), in 64-bit integers.

    Attributes:
        multiplier, shift: int64, one value per channel along `axis`, or one for all.
    """

    multiplier: Tensor
    shift: Tensor
    axis: int = 0

    def __call__(self, x: Tensor) -> Tensor:
        """`x` (batch, *sample) holds integers as float64, and so does the result."""
        multiplier = shaped(self.multiplier, self.axis, x.ndim - 1)
        shift = shaped(self.shift, self.axis, x.ndim - 1)
        half = torch.where(shift > 0, torch.bitwise_left_shift(torch.ones_like(shift), (shift - 1).clamp(min=0)), 0)
        return torch.bitwise_right_shift(x.to(torch.int64) * multiplier + half, shift).double()

    @staticmethod
    def between(old: Unit, new: Unit, bound: float) -> Rescale:
        """For integers up to `bound`."""
        ratio = old.sizes.double() / new.sizes.double()
        bits = min(MULTIPLIER_BITS, PRODUCT_BITS - math.ceil(math.log2(max(bound, 1.0) + 1)))
        # as many bits as the multiplier may have, and no shift to the left
        shift = (bits - 1 - ratio.log2().floor()).clamp(min=0, max=PRODUCT_BITS).to(torch.int64)
        multiplier = (ratio * 2.0 ** shift.double()).round().to(torch.int64)
        return Rescale(multiplier, shift, old.axis if old.sizes.numel() > 1 else new.axis)


class Integers:
    """`snn` in integers.

    Args:
        weight_bits, state_bits: of a weight and of a membrane, sign included.
        input_bits: of an input value, likewise; None leaves the input real.
        scale_per: "channel" or "layer", what has a unit of its own.

    Attributes:
        units: of every value that is integers and no spikes.
        ops: by node, what takes the place of its operator: with integers in float32 or float64 tensors, where the
            node's value is integers.
        bounds: the largest absolute integer that a value can be, by node.
        low, high: limits of a membrane.
        shortcut_synapses: how many weights side by side the largest factor of an identity shortcut would take.

    Raises:
        OptionError: for bits outside 2 to 53, or another `scale_per`.
    """

    def __init__(
        self, snn: Snn, *, weight_bits: int, state_bits: int, input_bits: int | None = None, scale_per: str = "channel"
    ) -> None:
        widths = {"weight_bits": weight_bits, "state_bits": state_bits, "input_bits": input_bits or 2}
        for name, bits in widths.items():
            if not 2 <= bits <= 53:
                raise OptionError(f"{name} = {bits} is outside 2 to 53", hint="8 and 16 are common")
        if scale_per not in SCALES:
            raise OptionError(f"scale_per = {scale_per!r} is not known", hint=f"choose {' or '.join(SCALES)}")
        self.snn, self.per_channel = snn, scale_per == "channel"
        self.largest_weight: int = 2 ** (weight_bits - 1) - 1
        self.largest_input = None if input_bits is None else 2 ** (input_bits - 1) - 1
        self.low, self.high = -(2.0 ** (state_bits - 1)), 2.0 ** (state_bits - 1) - 1
        self.domains = flows(snn.graph)
        self.shortcut_synapses = 1
        self.units, self.bounds = self._units(), dict[fx.Node, float]()
        self.ops: dict[fx.Node, Op] = {}
        for node in snn.graph.graph.nodes:
            if node.op == "placeholder" and self.largest_input is not None and snn.calibrated is not None:
                size = torch.tensor([snn.calibrated.input_bound / self.largest_input]).double()
                self.units[node], self.bounds[node] = Unit(size), float(self.largest_input)
            elif node.op == "call_module":
                self.ops[node] = self._constant(node) or self._quantised(node, op_of(node))

    def rescale(self, source: fx.Node, unit: Unit) -> Rescale | None:
        """How the value of `source` gets into `unit`; None where it is in it, or no integer."""
        own = self.units.get(source)
        if own is None or own is unit or self.domains[source] == Flow.SPIKES:
            return None
        if own.sizes.numel() > 1 and unit.sizes.numel() > 1 and own.axis != unit.axis:
            return None
        return Rescale.between(own, unit, self.bounds.get(source, self.high))

    # --- units ---

    def _units(self) -> dict[fx.Node, Unit]:
        """One unit for everything that is summed into the same neurons."""
        groups: dict[fx.Node, set[fx.Node]] = {}
        returned = output_nodes(self.snn.graph)
        for end in [*neurons_of(self.snn.graph), *returned]:
            found, todo = {end}, arguments(end) if role_of(end) == Role.NEURON else [end]
            while todo:
                node = todo.pop()
                if node.op != "call_module" or self.domains[node] != "current":
                    continue
                found.add(node)
                if op_of(node).passes_units:
                    todo += arguments(node)
            merged = set(found).union(*(groups[node] for node in found if node in groups))
            for node in merged:
                groups[node] = merged
        units = {
            id(group): self._unit(group, compared=any(node in group for node in returned)) for group in groups.values()
        }
        return {node: units[id(group)] for node, group in groups.items()}

    def _unit(self, group: set[fx.Node], *, compared: bool) -> Unit:
        axis = channel_axis(group) if self.per_channel and not compared else None
        weights, states = list[Tensor](), list[Tensor]()
        for node in group:
            op, shape = op_of(node), tuple(node.meta["shape"])
            fed = self.domains[arguments(node)[0]] == "spikes"
            if op.role == Role.NEURON:
                neuron = op_of(node, Neuron)
                full = neuron.threshold * neuron.row.peak(
                    neuron.levels
                )  # a membrane holds all that may leave it at once
                states += [channel_rows(tensor, shape, axis) for tensor in (neuron.threshold, full, neuron.initial)]
            elif op.role == Role.WEIGHTED and fed:
                synapses = op_of(node, Weighted)
                rows = synapses.by_rows(synapses.weight.double())
                weights.append(rows.reshape(1, -1) if axis is None else rows)
                states += [] if synapses.bias is None else [synapses.bias.double().reshape(len(weights[-1]), -1)]
            elif op.repeatable and fed:
                states.append(channel_rows(op_of(node, Scale).factor, shape, axis))
        channels = torch.zeros(max(len(rows) for rows in weights + states) if weights or states else 1, 1).double()
        every, states_only = torch.cat([channels, *weights, *states], 1), torch.cat([channels, *states], 1)
        largest = torch.cat([channels, *weights], 1).abs().amax(1)
        # Where no weights set the unit, thresholds take half of the membrane's bits: currents may be far above them.
        coarsest = torch.where(largest > 0, 2.0, max(2.0, (2 * (self.high + 1)) ** 0.5 / 2))
        finest = torch.maximum(largest / self.largest_weight, coarsest * states_only.abs().amax(1) / (self.high + 1))
        # Weights that are all far below the threshold (a pruned channel) need no finer unit.
        finest = torch.maximum(finest, states_only.abs().amax(1) / (FARTHEST * self.largest_weight)).clamp(min=1e-30)
        grid = exact_grids(every)
        # Real values that join the sum are rounded to the unit: half of the bits to spare make it finer.
        exact = grid / 2.0 ** (grid / finest).clamp(min=1.0).log2().floor().div(2).floor()
        return Unit(torch.where(grid < finest, finest, exact), axis or 0)

    # --- before the first spikes ---

    def _constant(self, node: fx.Node) -> Op | None:  # noqa: PLR0911 (one line for each kind)
        """The operator of a value that is constant in time in integers, whose unit and bound are noted."""
        sources = arguments(node)
        op = op_of(node)
        if self.domains[node] != Flow.CONSTANT or not sources or any(one not in self.bounds for one in sources):
            return None
        unit, bound = self.units[sources[0]], self.bounds[sources[0]]
        if op.role == Role.AFFINE and op.passes_units:  # only rounds
            return self._noted(node, Snap(grid=1.0), unit, bound)
        if op.role == Role.WEIGHTED:
            return self._constant_weights(node, op_of(node, Weighted), unit, bound)
        if op.role == Role.JOIN and all(self.units[one] is unit for one in sources):
            return self._noted(node, op.rebuilt(), unit, sum(self.bounds[one] for one in sources))
        if op.role == Role.MAXPOOL:
            return self._noted(node, op.rebuilt(), unit, bound)
        if unit.sizes.numel() > 1 and op.role != Role.POOL:
            return None
        if op.role == Role.WIRING:
            return self._noted(node, op.rebuilt(), unit, max(self.bounds[one] for one in sources))
        summed = summed_pool(op, tuple(sources[0].meta["shape"]))
        if summed is None:
            return None
        area = math.prod(summed.window)
        return self._noted(node, summed, Unit(unit.sizes / area, unit.axis), bound * area)

    def _constant_weights(self, node: fx.Node, op: Weighted, unit: Unit, bound: float) -> Op | None:
        weight, several = op.weight.double(), unit.sizes.numel() > 1
        if several and (unit.axis == -1) != op.features_last:
            return None
        weight = weight * (op.by_input(unit.sizes) if several else unit.sizes)
        steps = self._steps(op.by_rows(weight))
        whole = (weight / op.by_output(steps)).round().clamp(-self.largest_weight, self.largest_weight)
        bias = None if op.bias is None else (op.bias.double() / steps).round()
        reach = op.by_rows(whole).abs().sum(1) * bound + (0.0 if bias is None else bias.abs())
        if not self.per_channel:
            steps = steps[:1]
        axis = -1 if op.features_last and len(node.meta["shape"]) > 1 else 0
        made = op.rebuilt(weight=whole, bias=bias)
        return self._noted(node, made, Unit(steps, axis), float(reach.max()))

    def _noted(self, node: fx.Node, op: Op, unit: Unit, bound: float) -> Op | None:
        if bound >= 2.0**53:
            return None
        if node not in self.units:  # what is returned may be constant in time; it has its unit
            self.units[node], self.bounds[node] = unit, bound
        return op.double()

    def _steps(self, rows: Tensor) -> Tensor:
        """Of weights on real values, per output channel: exact where the bits suffice."""
        apart = rows if self.per_channel else rows.reshape(1, -1)
        largest, grid = apart.abs().amax(1), exact_grids(apart)
        steps = torch.where(largest <= grid * self.largest_weight, grid, largest / self.largest_weight)
        return torch.where(steps > 0, steps, 1.0).expand(len(rows))

    # --- in time ---

    def _quantised(self, node: fx.Node, op: Op) -> Op:
        unit, sources = self.units.get(node), arguments(node)
        integers = unit if sources and self.domains[sources[0]] == Flow.SPIKES else None
        if op.role == Role.NEURON:
            return self._neuron(node, op_of(node, Neuron))
        if op.role == Role.WEIGHTED:
            return self._weights(op_of(node, Weighted), integers)
        if op.repeatable:
            return self._factor(node, op_of(node, Scale), integers)
        return op.rebuilt().double()

    def _neuron(self, node: fx.Node, op: Neuron) -> Neuron:
        size = self.units[node].along(len(node.meta["shape"]))
        return op.rebuilt(
            threshold=(op.threshold.double() / size).round().clamp(min=1.0),
            initial=(op.initial.double() / size).round(),
        )

    def _weights(self, op: Weighted, unit: Unit | None) -> Weighted:
        weight, rows = op.weight.double(), op.by_rows(op.weight.double())
        sizes = self._steps(rows) if unit is None else unit.sizes.expand(len(rows))
        whole = (weight / op.by_output(sizes)).round().clamp(-self.largest_weight, self.largest_weight)
        bias = None if op.bias is None else op.bias.double()
        if unit is None:
            return op.rebuilt(weight=whole * op.by_output(sizes), bias=bias)
        return op.rebuilt(
            weight=whole, bias=None if bias is None else (bias / sizes).round().clamp(self.low, self.high)
        )

    def _factor(self, node: fx.Node, op: Scale, unit: Unit | None) -> Scale:
        factor = op.factor.double()
        if unit is not None:
            factor = (factor / unit.along(len(node.meta["shape"]))).round().clamp(self.low, self.high)
            side_by_side = math.ceil(float(factor.abs().max()) / self.largest_weight)
            self.shortcut_synapses = max(self.shortcut_synapses, side_by_side)
        return Scale(factor)


def summed_pool(op: Op, shape: tuple[int, ...]) -> SumPool | None:
    """The sum that an average over `shape` is a part of; None where windows have different numbers of members."""
    found, sides = op.on_spikes(), shape[1:]
    if op.role == Role.POOL and found is not None and type(found[0]) is SumPool:
        return found[0]
    if type(op) is Mean and op.keepdim and op.dims == tuple(range(2, len(shape) + 1)):
        return SumPool(kernel=sides, stride=sides, padding=tuple(0 for _ in sides))
    return None


def channel_axis(group: set[fx.Node]) -> int | None:
    """The axis of a sample (0, or -1 behind Linear) along which all of `group` keeps its channels apart, else None."""
    weighted = [op for op in map(op_of, group) if isinstance(op, Weighted)]
    last = any(op.features_last for op in weighted)
    axis = -1 if last and any(len(node.meta["shape"]) > 1 for node in group) else 0
    if axis and not all(op.features_last for op in weighted):
        return None
    sizes = set[int]()
    for node in group:
        op, shape = op_of(node), tuple(node.meta["shape"])
        if op.role == Role.WIRING or not shape:
            return None
        rank = len(arguments(node)[0].meta["shape"]) if arguments(node) else 0
        if op.role == Role.POOL and (1 if axis == 0 else rank) in op.pooled_axes(rank):
            return None
        sizes.add(shape[axis])
    return axis if len(sizes) == 1 else None


def channel_rows(tensor: Tensor, shape: tuple[int, ...], axis: int | None) -> Tensor:
    """What broadcasts against a sample, as (channels, values of one) or, without an axis, as (1, values)."""
    if axis is None:
        return tensor.double().reshape(1, -1)
    # Only the channels are spread out: a threshold per channel stays one value.
    padded = tensor.double().reshape([1] * (len(shape) - tensor.ndim) + list(tensor.shape)).movedim(axis, 0)
    return padded.reshape(len(padded), -1).expand(shape[axis], -1)


def exact_grids(rows: Tensor) -> Tensor:
    """Per row the largest power of two, up to 2^40, of which all values are multiples; 0 if it is below 2^-60."""
    grids = finest_grids(rows)
    return torch.where(grids < 2.0**-60, 0.0, grids.clamp(max=2.0**40))
