"""The real neuron in the loop: what it sends on given currents, and how far its rates are from their targets."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from snnconvert.calibrate.packed_units import mean_sent
from snnconvert.graph.kinds import Neuron
from snnconvert.graph.schedule import Schedule, Windowed
from snnconvert.neurons import NeuronModel
from snnconvert.simulate.kernels import Native
from snnconvert.simulate.kernels.layout import per_element
from snnconvert.simulate.kernels.native import MOST_UNITS, Current, Membrane
from snnconvert.simulate.over_time import send
from snnconvert.simulate.window_neurons import send_windows


@dataclass(frozen=True)
class SiteNeuron:
    """Which neuron a site becomes.

    Attributes:
        levels: its units per frame.
        schedule: when it integrates and emits.
        native: kernels to simulate it with, or None for plain torch.
        read_at: numbers of frames after which its rate is looked at.
    """

    model: NeuronModel
    levels: int
    schedule: Schedule
    native: Native | None
    read_at: tuple[int, ...]

    def units(self, current: Tensor, threshold: Tensor, initial: Tensor) -> Tensor:
        """Units sent in each frame, (frames, batch, *sample), a signed integer type.

        Args:
            current: float32 (frames, batch, *sample), or (1, batch, *sample) where it is constant in time.
            threshold: membrane units, broadcastable to one sample.
            initial: membrane potential at t = 0, in fractions of the threshold.
        """
        start = threshold * initial
        op = Neuron(threshold, start, model=self.model.name, levels=self.levels)
        if isinstance(self.schedule, Windowed):
            return send_windows(op.double(), current.double(), self.schedule).to(torch.int32)
        wait = self.schedule.waited
        frames, constant = self.schedule.frames, len(current) == 1
        if self.native is not None and self.model.native is not None and self.levels <= MOST_UNITS:
            shape = tuple(current.shape[2:])
            membrane = Membrane(self.model, self.levels, wait, per_element(threshold, shape), per_element(start, shape))
            terms = [Current(current.flatten(0, 1), constant and frames > 1)]
            sent, _ = self.native.neurons(terms, membrane, frames, current.shape[1], shape)
            return self.native.expanded(sent).view(frames, -1, *shape)
        whole = torch.int8 if self.model.peak(self.levels) <= MOST_UNITS else torch.int32
        return send(op, current, frames, wait).to(whole).view(frames, *current.shape[1:])

    def mean(self, units: Tensor, threshold: Tensor) -> Tensor:
        """The mean value sent until each of `read_at`, (reads * batch, *sample), in units of the ANN's activations."""
        return mean_sent(units, threshold, self.model.peak(self.levels), self.read_at)

    def rate(self, current: Tensor, threshold: Tensor, initial: Tensor) -> Tensor:
        """The mean values sent on `current`, (reads * batch, *sample)."""
        return self.mean(self.units(current, threshold, initial), threshold)


def at_positions(values: Tensor, axis: int, positions: Tensor) -> Tensor:
    """(batch, *sample) with channels at `axis` as (batch, channels, positions, 1): some of every channel's values."""
    by_channel = values.movedim(axis + 1, 1).flatten(2) if values.ndim > 2 else values.unsqueeze(2)
    return by_channel[:, :, positions].unsqueeze(-1).contiguous(memory_format=torch.channels_last)


def channel_sums(values: Tensor) -> Tensor:
    """(batch, channels, positions, 1) summed over everything but the channels, float64."""
    return values.sum((0, 2, 3), dtype=torch.float64)


@dataclass
class Trial:
    """A site being calibrated: the currents and targets of the images that thresholds are tried on.

    Attributes:
        currents: one float32 tensor (frames, batch, channels, positions, 1) per chunk of images.
        targets: the ANN's activations, (reads * batch, channels, positions, 1) per chunk.
        held_out: whether a chunk was held out from all fitting; where none was (there are too few images), those that
            were fitted judge as well.
    """

    neuron: SiteNeuron
    currents: list[Tensor]
    targets: list[Tensor]
    held_out: list[bool]

    def errors(
        self,
        threshold: Tensor,
        initial: Tensor,
        shift: Tensor | None = None,
        *,
        steps: list[Tensor] | None = None,
        share: float = 1.0,
    ) -> Tensor:
        """Squared error of the rates, shape (2, channels): fitted and held-out images.

        A change of the currents may be tried: `shift` per channel, or `share` of `steps`, shaped like `currents`.
        """
        result = torch.zeros(2, len(threshold), dtype=torch.float64)
        for chunk, (current, target, held) in enumerate(zip(self.currents, self.targets, self.held_out, strict=True)):
            moved = current if steps is None else torch.add(current, steps[chunk], alpha=share)
            residual = self._residual(moved, target, threshold, initial, shift)
            result[int(held)] += channel_sums(residual.square())
        if not any(self.held_out):
            result[1] = result[0]
        return result

    def mean_residual(self, threshold: Tensor, initial: Tensor) -> Tensor:
        """The mean residual of the rates over the fitted images, (channels,)."""
        total, count = torch.zeros(len(threshold), dtype=torch.float64), 0
        for current, target, held in zip(self.currents, self.targets, self.held_out, strict=True):
            if not held:
                total += channel_sums(self._residual(current, target, threshold, initial, None))
                count += target.numel() // len(threshold)
        return total / max(count, 1)

    def power(self) -> float:
        """Sum of the squared targets on the held-out images."""
        judging = [target for target, held in zip(self.targets, self.held_out, strict=True) if held] or self.targets
        return max(sum(float(target.double().square().sum()) for target in judging), 1e-30)

    def _residual(
        self, current: Tensor, target: Tensor, threshold: Tensor, initial: Tensor, shift: Tensor | None
    ) -> Tensor:
        moved = current if shift is None else current + shaped(shift)
        return target - self.neuron.rate(moved, shaped(threshold), shaped(initial))


def shaped(vector: Tensor) -> Tensor:
    """(channels,) broadcastable to what thresholds are tried on, float32."""
    return vector.float().reshape(-1, 1, 1)


def better(tried: Tensor, best: Tensor) -> Tensor:
    """Channels whose error falls on the fitted images and does not rise on those held out; both (2, channels)."""
    return (tried[0] < best[0]) & (tried[1] <= best[1])
