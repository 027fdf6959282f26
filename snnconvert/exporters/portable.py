"""The portable form of a spiking network: one whose sums are exact in float32, in every order and every runtime.

A checkpoint is exact in the engines of this package: they add in float64 where real numbers come in, and a membrane is
stepped in a fixed order. Other readers add in float32, in an order of their own, and may fuse operators. In the
portable form everything that is summed into a neuron, with its threshold and its membrane at t = 0, is a multiple of
one power of two per channel, and so small that T steps of the worst input need no more than 24 bits. Real numbers (the
image) come in on a grid, too. The result is a network like any other: it is checked, run and reported, and what an
exporter writes is exactly this network.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx

from snnconvert.compile.exact import finest_grids, largest_sums, round_to
from snnconvert.compile.integers import Unit, channel_rows
from snnconvert.errors import NodeFault, UnsupportedError
from snnconvert.exporters.dense import as_convolutions
from snnconvert.exporters.sums import Sum, largest_by_channel, largest_values, span, sums_of
from snnconvert.graph.checkpoint import packed
from snnconvert.graph.dialect import arguments, calls, op_of, origin_of, role_of, verify
from snnconvert.graph.edit import bypass, copied, finish, insert_after, replace_op
from snnconvert.graph.flow import flows
from snnconvert.graph.kinds import Neuron, Op, Role, Scale, Snap, Stage, Weighted
from snnconvert.graph.types import Snn

BITS = 24
# of them one is left to readers that spike above a threshold instead of at it: they start half a unit higher
SPARE = 1
# of a product of a real input and a weight: the input's, where the sum may be rounded afterwards, and where it may not
INPUT_BITS, COARSE_INPUT_BITS = 12, 9
MOST_INPUT_BITS = 16
# fewer are not left to it, and 8-bit weights on real inputs are rounded once more
INPUT_BITS_OF_CODES = 9


@dataclass(frozen=True)
class Form:
    """What a reader can hold.

    Attributes:
        unit: whether every threshold has to be 1.
        convolutions: whether a matrix product has to be a convolution, so that nothing is flattened before the output.
        rounds: whether the reader can round a real value to a grid. Without it the first layer shares the 24 bits of
            its membranes, and is coarser; only the input itself is rounded then.
    """

    unit: bool = False
    convolutions: bool = False
    rounds: bool = True


def portable(snn: Snn, form: Form | None = None) -> Snn:
    """`snn` as a network whose sums are exact in float32, for readers that can hold `form`.

    Args:
        snn: any spiking network; not changed.
        form: the default holds thresholds per channel, matrix products and roundings.

    Raises:
        UnsupportedError: naming every node that has no such form, and why.
    """
    form, graph = form or Form(), copied(snn.graph)
    flows(graph)
    if form.convolutions:
        as_convolutions(graph)
        flows(graph)
    rewrite = _Rewrite(graph, snn, form)
    rewrite.run()
    flows(finish(graph))
    return replace(snn, graph=verify(graph, Stage.SNN), calibrated=None, early_exit=None)


class _Rewrite:
    def __init__(self, graph: fx.GraphModule, snn: Snn, form: Form) -> None:
        self.graph, self.form, self.frames = graph, form, snn.schedule.frames
        self.coded = snn.precision == "int8"
        self.input_bound = math.inf if snn.calibrated is None else snn.calibrated.input_bound
        self.faults: list[NodeFault] = []

    def run(self) -> None:
        self._snaps()
        for sum_ in sums_of(self.graph):
            self._rescale(sum_)
        self._refuse()
        counted = {node for sum_ in sums_of(self.graph) for node in sum_.counted}
        for node, op in list(calls(self.graph, Weighted)):
            if node not in counted:
                self._real_input(node, op)
        self._refuse()
        for sum_ in sums_of(self.graph):
            self._onto_grid(sum_)
        self._refuse()

    def _fault(self, node: fx.Node, reason: str) -> None:
        origin = origin_of(node)
        self.faults.append(NodeFault(origin.name, origin.operator, reason))

    def _refuse(self) -> None:
        if self.faults:
            raise UnsupportedError(
                "this network has no portable form, whose sums are exact in every reader",
                hint="export --to torch keeps everything as it is; or convert the model with --strict-spiking",
                faults=tuple(dict.fromkeys(self.faults)),
            )

    def _snaps(self) -> None:
        """Roundings that keep float64 sums exact are not needed; those of real values get a limit."""
        for node, op in list(calls(self.graph, Snap)):
            summed = all(user.op == "output" or role_of(user) in (Role.JOIN, Role.NEURON) for user in node.users)
            if summed and arguments(node)[0].op != "placeholder":
                bypass(node)  # sums get a grid of their own
            elif math.isfinite(most := span(node, op)):
                op.limit = most
        finish(self.graph)

    # --- units of a channel ---

    def _rescale(self, sum_: Sum) -> None:
        """Thresholds become 1 where the reader wants that; weights that are 8-bit codes stay so on real inputs, too."""
        axis = sum_.axis
        if self.form.unit and sum_.neurons:
            thresholds = [
                channel_rows(op.threshold, tuple(node.meta["shape"]), axis) for node, op in sum_.neurons.items()
            ]
            rows = torch.cat(thresholds, 1)
            if bool((rows != rows[:, :1]).any()):
                node = next(iter(sum_.neurons))
                self._fault(node, "its thresholds differ within a channel, or from others that share its sum")
                return
            self._scale(sum_, 1 / rows[:, 0], axis)
        elif self.coded and axis is not None and sum_.neurons:
            made = [node for node, _ in sum_.real if role_of(node) == Role.WEIGHTED]
            codes = packed("", op_of(made[0], Weighted)) if len(made) == 1 else {}
            if codes:
                self._scale(sum_, 1 / codes[".steps"].double().flatten(), axis)
                if len(made[0].users) == 1:
                    self._put(made[0], op_of(made[0]).rebuilt(weight=codes[".codes"].double()))

    def _scale(self, sum_: Sum, factor: Tensor, axis: int | None, *, keep: bool = False) -> None:
        """Multiply all that is summed by `factor`, one per channel; weights become float64 unless `keep`."""
        unit = Unit(factor, axis or 0)
        for node in sum_.counted | set(sum_.neurons):
            self._put(node, _mapped(node, unit, torch.mul, keep=keep or role_of(node) != Role.WEIGHTED))
            if role_of(node) == Role.NEURON:
                op_of(node, Neuron).ceiling = None  # one number cannot say it of all channels
        for source, reader in sum_.real:
            if role_of(source) == Role.WEIGHTED and len(source.users) == 1:
                self._put(source, _mapped(source, unit, torch.mul, keep=keep))
            else:
                along = unit.along(len(source.meta["shape"]))
                added = insert_after(self.graph, source, Scale(along), suffix="scaled", users=[reader])
                added.meta["flow"] = source.meta["flow"]

    # --- grids ---

    def _real_input(self, node: fx.Node, op: Weighted) -> None:
        """A weighted sum of real values: input and weights on grids of which no sum of products needs over 24 bits."""
        (source,) = arguments(node)
        snap = op_of(source)
        if not isinstance(snap, Snap) or snap.limit is None:
            self._fault(node, "nothing bounds the real values that it reads")
            return
        most = 2.0 ** math.ceil(math.log2(snap.limit))
        rows = op.by_rows(op.weight.double())
        bits = INPUT_BITS
        if self.coded:  # the weights have few bits: all others are the input's
            kept = finest_grids(rows)
            needed = largest_sums(op, most, signed=True) / (kept * most)
            worst = float(torch.where(kept.isinf(), 1.0, needed).max())
            left = BITS - math.ceil(math.log2(max(worst * (1 + 2.0**-10), 1.0)))
            bits = min(MOST_INPUT_BITS, left) if left >= INPUT_BITS_OF_CODES else bits
        snap.grid = most / 2.0**bits
        self._put(node, _on_products(op, snap.grid, most, _powers(largest_sums(op, most, signed=True)) / 2.0**BITS))

    def _onto_grid(self, sum_: Sum) -> None:
        """Round all that is summed, the thresholds and the membranes at t = 0 to one power of two per channel."""
        values = largest_values(self.graph, self.input_bound)
        unbounded = [node for node, _ in sum_.real if not math.isfinite(values[node])]
        for node in unbounded:
            self._fault(node, "nothing bounds its real values")
        if unbounded:
            return
        grid = self._grid(sum_, values)
        if sum_.real and sum_.axis is not None and self.form.rounds and not self.form.unit:
            # one rounding serves all channels, without a loss in those of small units
            self._scale(sum_, grid.median() / grid, sum_.axis, keep=True)
            sum_ = next(one for one in sums_of(self.graph) if one.ends & sum_.ends)
            grid = self._grid(sum_, largest_values(self.graph, self.input_bound))
        if sum_.real:
            self._real_on(sum_, grid)
        unit = Unit(grid, sum_.axis or 0)
        for node in sum_.counted | set(sum_.neurons):
            self._round(node, unit)

    def _grid(self, sum_: Sum, values: dict[fx.Node, float]) -> Tensor:
        """The power of two of each channel, or of all, that leaves room for all that can be summed."""
        axis, largest = sum_.axis, largest_by_channel(sum_, values)
        for node, op in sum_.neurons.items():
            shape = tuple(node.meta["shape"])
            threshold, initial = (
                channel_rows(tensor, shape, axis).abs().amax(1) for tensor in (op.threshold, op.initial)
            )
            largest = torch.maximum(largest, largest * self.frames + initial + threshold * op.levels)
        return _powers(largest * (1 + 2.0**-10)) / 2.0 ** (BITS - SPARE)

    def _real_on(self, sum_: Sum, grid: Tensor) -> None:
        """Bring the real values of a sum onto its grid."""
        if not self.form.rounds:
            for source, _ in sum_.real:
                if role_of(source) != Role.WEIGHTED or len(sum_.real) > 1 or sum_.axis is None:
                    self._fault(source, "its real values would have to be rounded, which the reader cannot")
                    return
                snap = op_of(arguments(source)[0], Snap)
                assert snap.limit is not None
                most = 2.0 ** math.ceil(math.log2(snap.limit))
                snap.grid = most / 2.0**COARSE_INPUT_BITS
                self._put(source, _on_products(op_of(source, Weighted), snap.grid, most, grid))
            return
        for source, reader in sum_.real:
            added = insert_after(self.graph, source, Snap(grid=float(grid.max())), suffix="rounded", users=[reader])
            added.meta["flow"] = source.meta["flow"]

    def _round(self, node: fx.Node, unit: Unit) -> None:
        """Put all tensors of a node on the grid."""
        if role_of(node) == Role.WEIGHTED:
            op = op_of(node, Weighted)
            if self.coded and (codes := packed("", op)):
                sizes = op.by_output(unit.sizes.expand(op.outputs))
                steps = round_to(codes[".steps"], sizes).maximum(sizes)
                self._put(node, op.rebuilt(weight=codes[".codes"].double() * steps))
            self._put(node, _mapped(node, unit, round_to, keep=False).float())
            return
        made = _mapped(node, unit, round_to, keep=True)
        if isinstance(made, Neuron):
            size = unit.along(len(node.meta["shape"])).to(made.threshold.dtype)
            made = made.rebuilt(threshold=made.threshold.maximum(size))
        self._put(node, made)

    def _put(self, node: fx.Node, op: Op) -> None:
        replace_op(self.graph, node, op)


def _mapped(node: fx.Node, unit: Unit, function: Callable[[Tensor, Tensor], Tensor], *, keep: bool) -> Op:
    """The operator at `node` with `function` of each of its tensors and the units of its output, in float64.

    Args:
        keep: the tensors' own precision.
    """
    op, found = op_of(node), {}
    for name, tensor in op.named_buffers():
        if role_of(node) == Role.WEIGHTED:
            weighted = op_of(node, Weighted)
            along = unit.sizes.expand(weighted.outputs)
            along = along if name == "bias" else weighted.by_output(along)
        else:
            along = unit.along(len(node.meta["shape"]))
        made = function(tensor.double(), along) + 0.0  # an integer has no negative zero
        found[name] = made.to(tensor.dtype) if keep else made
    return op.rebuilt(**found)


def _on_products(op: Weighted, input_grid: float, most: float, products: Tensor) -> Weighted:
    """`op` in float32, with weights whose products with inputs on `input_grid` are multiples of `products`.

    Where rounding weights up makes a sum too large for 24 bits, the channel's grid is made coarser.
    """
    products = products.expand(op.outputs)
    while True:
        bias = None if op.bias is None else round_to(op.bias, products)
        made = op.rebuilt(weight=round_to(op.weight, op.by_output(products / input_grid)) + 0.0, bias=bias)
        over = largest_sums(made, most, signed=True) > products * 2.0**BITS
        if not bool(over.any()):
            return made.float()
        products = torch.where(over, 2 * products, products)


def _powers(values: Tensor) -> Tensor:
    """The smallest powers of two that are at least `values` (1 for 0)."""
    return torch.where(values > 0, 2.0 ** values.clamp(min=1e-300).log2().ceil(), torch.ones_like(values))
