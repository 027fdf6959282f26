"""Layers of bistable neurons by the native kernel: joins, scales and grids are computed in passing.

Equal to `window_neurons`, which serves where the kernel was not built, and to the oracle, in every count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, fx

from snnconvert.graph.dialect import arguments
from snnconvert.graph.kinds import Neuron, Op, Role, Scale, Snap
from snnconvert.graph.schedule import Windowed
from snnconvert.neurons.bistable import phase_weights
from snnconvert.simulate.frames import Frames, Value
from snnconvert.simulate.kernels import Native
from snnconvert.simulate.kernels.layout import per_element
from snnconvert.simulate.kernels.native_windows import Emitter, Values, send_by_window
from snnconvert.simulate.window_neurons import count_window_spikes

Evaluate = Callable[[fx.Node, dict[fx.Node, Value]], Frames]


class WindowLayers:
    """The neuron layers of one bistable network.

    Args:
        native: the kernels.
        schedule: a bistable one.
        ops: the operators of the network's nodes.
        value: computes the value of a node, given what is known already.
    """

    def __init__(self, native: Native, schedule: Windowed, ops: Mapping[fx.Node, Op], value: Evaluate) -> None:
        self.native, self.schedule, self.ops, self.value = native, schedule, ops, value
        self.weights = torch.tensor(phase_weights(schedule.window, schedule.phases))
        self.laid_out: dict[Tensor, Tensor] = {}

    def may_wait(self, node: fx.Node) -> bool:
        """Whether the kernel may compute `node` in passing."""
        op = self.ops[node]
        summed = op.passes_units and op.role in (Role.JOIN, Role.AFFINE)
        return op.repeatable or (summed and len(node.users) == 1)

    def neurons(
        self, node: fx.Node, op: Neuron, values: dict[fx.Node, Value], batch: int
    ) -> tuple[Tensor, tuple[Tensor, Tensor]] | None:
        """Units (frames * batch, *sample) of the neurons at `node`, and their spikes and units in each step.

        None where torch has to do it.
        """
        if not op.plain:
            return None
        shape = tuple(node.meta["shape"])
        terms = self._terms(arguments(node)[0], shape, values)
        if terms is None or op.threshold.dtype != torch.float64:
            return None
        threshold, initial = self._rows(op.threshold, shape), self._rows(op.initial, shape)
        emitter = Emitter(batch, shape, threshold, initial, op.row.negative, op.levels)
        units, spikes = send_by_window(self.native, terms, emitter, self.schedule)
        if self.schedule.phases == "first":  # the kernel counts ones; here every number is one spike
            by_frame = units.view(self.schedule.frames, batch, *shape)
            return units, count_window_spikes(by_frame, self.schedule, signed=op.row.negative)
        return units, (spikes.flatten(), (spikes * self.weights).flatten())

    def _terms(self, node: fx.Node, shape: tuple[int, ...], values: dict[fx.Node, Value]) -> list[Values] | None:
        """The sum of a window's current at `node` as summands in their order; None if it is spread over `shape`."""
        if tuple(node.meta["shape"]) != shape:
            return None
        if node in self.ops and node not in values and self.may_wait(node):
            found = self._in_passing(node, self.ops[node], shape, values)
            if found is not None:
                return found
        value = self.value(node, values)
        if value.constant:
            return [Values(value.tensor, at=[0] * self.schedule.frames)]
        return [Values(value.tensor, ours=self._made_for_one(node))]

    def _made_for_one(self, node: fx.Node) -> bool:
        op = self.ops.get(node)
        return op is not None and op.role == Role.WEIGHTED and len(node.users) == 1

    def _in_passing(
        self, node: fx.Node, op: Op, shape: tuple[int, ...], values: dict[fx.Node, Value]
    ) -> list[Values] | None:
        sources = arguments(node)
        if isinstance(op, Scale):
            units = self.value(sources[0], values)
            fits = op.factor.dtype == torch.float64 and units.tensor.dtype == torch.float32 and not units.constant
            return [Values(units.tensor, self._rows(op.factor, shape))] if fits else None
        parts = [self._terms(source, shape, values) for source in sources]
        if isinstance(op, Snap):
            (terms,) = parts
            single = op.limit is None and terms is not None and len(terms) == 1 and not terms[0].grid
            return [replace(terms[0], grid=op.grid)] if terms and single else None
        return in_order(parts)

    def _rows(self, parameter: Tensor, shape: tuple[int, ...]) -> Tensor:
        if parameter not in self.laid_out:  # by identity: it belongs to one operator
            self.laid_out[parameter] = per_element(parameter, shape, torch.float64)
        return self.laid_out[parameter]


def in_order(parts: Sequence[list[Values] | None]) -> list[Values] | None:
    """The summands of a join of `parts`, added up one after the other; None if a part has to be finished first."""
    first, *others = parts
    if len(others) == 1 and others[0] is not None and len(others[0]) > 1:  # a + (b + c) = (b + c) + a
        first, others = others[0], [first]
    terms = list(first or [])
    for part in others:
        if part is None or len(part) != 1:
            return None
        terms += part
    single = [term.factor is None and not term.grid and term.tensor.dtype == torch.float32 for term in terms[:2]]
    return None if not first or (len(terms) > 1 and all(single)) else terms
