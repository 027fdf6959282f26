"""Simulations over time, from Python: what they return, inputs that vary, and going on where an earlier one stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snnconvert.data.moving import Currents, Moving, over_time_of
from snnconvert.data.recordings import are_whole
from snnconvert.errors import DataError
from snnconvert.graph.inputs import events_of
from snnconvert.graph.types import Snn
from snnconvert.simulate.chunks import pieces
from snnconvert.simulate.moving_input import refuse_moving
from snnconvert.simulate.result import Simulation, one_after_the_other
from snnconvert.simulate.stream_engine import Carried, StreamEngine

Array = NDArray[Any] | Tensor


@dataclass(frozen=True)
class Simulated:
    """What a spiking network did with a batch, over time.

    Everything is a NumPy array where the inputs were one, and a tensor on the CPU where they were a tensor.

    Attributes:
        outputs: of the network's first output after each answer, shape (answers, n, *output), float64, on the scale of
            the original network's: the mean over the frames that have been read until then.
        steps: the steps (from 1) after which the answers stand, one for each of `outputs`; the last is T at most.
        spikes: for each layer of neurons by its name in the report, the spikes of one input, all neurons together, in
            each of the T steps, mean over the batch; shape (T,), float64.
        trains: for each recorded layer what its neurons sent, shape (frames, n, *neurons), whole numbers (int32): the
            spikes of a step, where they carry several units their number, negative ones below zero; of a bistable
            network the sum of a window.
        further: as `outputs`, of the network's other outputs.
        state: where the network has stopped, if it was asked to be gone on from.

    Examples:
        >>> import numpy as np, snnconvert
        >>> snn = snnconvert.convert_model("zoo:digits-cnn", timesteps=4, schedule="streaming", calibration="mse").snn
        >>> seen = snn.simulate(np.random.default_rng(0).random((5, 1, 8, 8), np.float32))
        >>> seen.outputs.argmax(2).shape  # what it would answer after each step
        (4, 5)
        >>> bool(seen.total_spikes == sum(by_step.sum() for by_step in seen.spikes.values()))
        True
    """

    outputs: Array
    steps: list[int]
    spikes: dict[str, Array]
    trains: dict[str, Array]
    further: tuple[Array, ...] = ()
    state: Carried | None = None

    @property
    def total_spikes(self) -> float:
        """Spikes of one input, all layers and steps."""
        return float(sum(float(count.sum()) for count in self.spikes.values()))

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.outputs.shape))
        steps = f"after steps {self.steps[0]} to {self.steps[-1]}"
        spikes = f"{self.total_spikes:,.0f} spikes an input in {len(self.spikes)} layers"
        return f"Simulated(outputs {shape} {steps}, {spikes})"


@dataclass(frozen=True)
class Continued:
    """What happened in some steps, from step `first` (0-based) on."""

    simulation: Simulation
    first: int


def moving_input(snn: Snn, array: NDArray[Any], checked: Callable[[NDArray[Any]], Tensor]) -> Moving:
    """What comes in in each step, (steps, n, *input_shape), as an input of `snn`.

    Args:
        checked: makes sure of real numbers, (steps * n, *input_shape).

    Raises:
        DataError: of a network that reads events: something else than numbers of events.
        OptionError: a network for inputs that do not change.
    """
    refuse_moving(snn.graph, snn.schedule)
    events = events_of(snn.graph)
    if events is None:
        values = checked(array).view(array.shape)
        return Moving.of(values.mean(0), Currents(values))
    if not are_whole(array) or array.min(initial=0) < 0 or array.max(initial=0) > 2**24:
        raise DataError(
            f"the inputs of {snn.source.name} are not numbers of events",
            hint="give whole numbers from 0 up: how many events come in at each place in each step",
        )
    counts = torch.from_numpy(np.ascontiguousarray(array).astype(np.int32))
    return Moving.of(counts.double().mean(0).mul(events.amplitude.double()).float(), Currents(counts))


def continued(snn: Snn, given: Tensor, state: Carried | None) -> tuple[Continued, list[Tensor], Carried]:
    """Go on from `state` (from the beginning without one).

    Args:
        given: inputs (n, *input_shape); what does not vary over time comes in for T steps.

    Returns:
        What happened; each output's mean over all frames since the beginning, (answers, n, *output); the new state.

    Raises:
        DataError: the state is that of another batch.
        OptionError: a network for inputs that do not change.
    """
    incoming, engine, carried = over_time_of(given), StreamEngine(snn), state or Carried()
    if incoming is None:
        incoming = Currents(given.double().expand(snn.schedule.frames, *given.shape))
    parts, first = list[Simulation](), carried.step
    for start, stop in pieces(snn, len(given), incoming.steps):
        part, carried = engine.run(incoming.frames(start, stop), carried)
        parts.append(part)
    run = one_after_the_other(parts)
    last = carried.step - snn.schedule.start(snn.schedule.depth) - snn.schedule.read_from
    read = torch.arange(last - len(run.outputs[0]) + 1, last + 1, dtype=torch.float64)
    return Continued(run, first), [one / read.reshape(-1, *[1] * (one.ndim - 1)) for one in run.outputs], carried
