"""The real neuron in the loop: what it sends on given currents, and how far its rates are from their targets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from snnconvert.calibrate.packed_units import mean_sent
from snnconvert.calibrate.sent_spikes import Sent
from snnconvert.graph.kinds import Neuron
from snnconvert.graph.schedule import Schedule, Windowed
from snnconvert.graph.types import SiteCalibration
from snnconvert.neurons import NeuronModel
from snnconvert.simulate.kernels import Native
from snnconvert.simulate.kernels.layout import per_element
from snnconvert.simulate.kernels.native import MOST_UNITS, Current, Membrane, Summand
from snnconvert.simulate.kernels.native_trials import Candidates, Course, Tried, tried
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

    @property
    def by_kernel(self) -> bool:
        """Whether native kernels simulate it."""
        fits = self.native is not None and self.model.native is not None and self.levels <= MOST_UNITS
        return fits and not isinstance(self.schedule, Windowed)

    @property
    def range(self) -> tuple[int, int]:
        """Least and most units in a frame."""
        return self.model.range(self.levels)

    def sent(self, terms: Sequence[Summand], batch: int, shape: tuple[int, ...], site: SiteCalibration) -> Sent:
        """What neurons of `shape` send on the sum of `terms`, packed as the kernels make it."""
        assert self.native is not None
        start = site.threshold * site.initial
        parameters = per_element(site.threshold, shape), per_element(start, shape)
        membrane = Membrane(self.model, self.levels, self.schedule.waited, *parameters)
        spikes, counts = self.native.neurons(terms, membrane, self.schedule.frames, batch, shape)
        elements = max(self.schedule.frames * batch * math.prod(shape), 1)
        return Sent(spikes, site.threshold, self.range, density=int(counts[0].sum()) / elements)

    def units(self, current: Tensor, threshold: Tensor, initial: Tensor) -> Tensor:
        """Units sent in each frame, (frames, batch, *sample), a signed integer type.

        Args:
            current: float32 (frames, batch, *sample), or (1, batch, *sample) where it is constant in time.
            threshold: membrane units, broadcastable to one sample.
            initial: membrane potential at t = 0, in fractions of the threshold.
        """
        return self._sent(current, threshold, threshold * initial)

    def _sent(self, current: Tensor, threshold: Tensor, start: Tensor) -> Tensor:
        op = Neuron(threshold, start, model=self.model.name, levels=self.levels)
        if isinstance(self.schedule, Windowed):
            return send_windows(op.double(), current.double(), self.schedule).to(torch.int32)
        wait = self.schedule.waited
        frames, constant = self.schedule.frames, len(current) == 1
        if self.native is not None and self.by_kernel:
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

    def tried(
        self,
        current: Tensor,
        target: Tensor,
        candidates: Candidates,
        other: Tensor | None = None,
        *,
        rates: bool = False,
    ) -> Tried:
        """What neurons whose parameters are a channel's send on the same currents, and how far off their rates are.

        Args:
            current: float32 (frames or 1, batch, channels, positions, 1).
            target: wanted rates, (reads * batch, channels, positions, 1).
            candidates: parameters, (candidates, channels) each.
            other: another current, shaped alike, for candidates with a share of the way to it.
            rates: whether the rates of the last candidate are wanted.
        """
        if self.native is not None and self.by_kernel:
            course = Course(self.model, self.levels, self.schedule.waited, self.schedule.frames, self.read_at)
            return tried(self.native, course, candidates, current, target, other=other, rates=rates)
        errors, lacking, rate = [], [], None
        for index, (threshold, initial) in enumerate(zip(candidates.threshold, candidates.initial, strict=True)):
            moved = current
            if other is not None and candidates.share is not None:
                moved = torch.add(current, other - current, alpha=float(candidates.share[index]))
            elif candidates.shift is not None:
                moved = current + shaped(candidates.shift[index])
            worth = shaped(threshold)
            rate = self.mean(self._sent(moved, worth, shaped(initial)), worth)
            residual = target - rate
            errors.append(channel_sums(residual.square()))
            lacking.append(channel_sums(residual))
        return Tried(torch.stack(errors), torch.stack(lacking), rate if rates else None)


def at_positions(values: Tensor, axis: int, positions: Tensor) -> Tensor:
    """(batch, *sample) with channels at `axis` as (batch, channels, positions, 1): some of every channel's values.

    Channels lie last in memory.
    """
    by_channel = values.movedim(axis + 1, 1).flatten(2) if values.ndim > 2 else values.unsqueeze(2)
    if by_channel.stride(1) != 1:
        return by_channel[:, :, positions].unsqueeze(-1).contiguous(memory_format=torch.channels_last)
    rows = by_channel.transpose(1, 2)
    if len(positions) < rows.shape[1]:
        rows = rows.index_select(1, positions)
    return rows.contiguous().unsqueeze(1).permute(0, 3, 2, 1)


def channel_sums(values: Tensor) -> Tensor:
    """(batch, channels, positions, 1) summed over everything but the channels, float64."""
    return values.sum((0, 2, 3), dtype=torch.float64)


class Scratch:
    """Memory for what is large, which one trial leaves to the next: new pages take longer than what is put there."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, bool], Tensor] = {}

    def room(self, name: str, held: bool, *shape: int) -> Tensor:
        """Room for float32 values of this shape; whoever had it under this name before has it no longer."""
        size, kept = math.prod(shape), self._kept.pop((name, held), torch.empty(0))
        if kept.numel() < size:
            del kept
            kept = torch.empty(size)
        self._kept[name, held] = kept
        return kept[:size].view(shape)


class Trial:
    """A site being calibrated: the currents and targets of the images that thresholds are tried on.

    Images that are fitted lie side by side, and so do those held out, however small the chunks are that they come in.

    Args:
        neuron: what the site becomes.
        held_out: whether a chunk was held out from all fitting, one after the other; where none was (there are too few
            images), those that were fitted judge as well.
        images: of each chunk.
        scratch: whose memory it uses; the trial before is over then.
    """

    def __init__(
        self, neuron: SiteNeuron, held_out: Sequence[bool], images: Sequence[int], scratch: Scratch | None = None
    ) -> None:
        self.neuron, self.held_out, self.scratch = neuron, list(held_out), scratch or Scratch()
        self.places: list[slice] = []  # of each chunk among those of its kind
        self.images = {False: 0, True: 0}
        for held, count in zip(held_out, images, strict=True):
            self.places.append(slice(self.images[held], self.images[held] + count))
            self.images[held] += count
        self.currents: dict[bool, Tensor] = {}
        self.others: dict[bool, Tensor] = {}
        self.targets: dict[bool, Tensor] = {}

    def place(self, chunk: int, current: Tensor, target: Tensor) -> None:
        """Take in a chunk's float32 currents, (frames or 1, batch, channels, positions, 1), and the ANN's activations.

        These are (reads * batch, channels, positions, 1).
        """
        self._put("currents", chunk, current)
        self._put("targets", chunk, target.view(-1, current.shape[1], *target.shape[1:]))

    def place_other(self, chunk: int, current: Tensor) -> None:
        """Take in what a chunk's currents would be otherwise."""
        self._put("others", chunk, current)

    def _put(self, name: str, chunk: int, value: Tensor) -> None:
        held, (first, _, channels, positions, _) = self.held_out[chunk], value.shape
        kept: dict[bool, Tensor] = getattr(self, name)
        if held not in kept:
            room = self.scratch.room(name, held, first, self.images[held], positions, 1, channels)
            kept[held] = room.permute(0, 1, 4, 2, 3)
        kept[held][:, self.places[chunk]] = value

    def thinned(self, rows: int) -> Trial:
        """The same on some `rows` of every channel, evenly over the images and positions; itself where that is all."""
        step = sum(one.shape[1] * one.shape[3] for one in self.currents.values()) // max(rows, 1)
        if step < 2:
            return self
        held = [one for one in (False, True) if one in self.currents]
        few = Trial(self.neuron, held, [-(-self.images[one] * self.currents[one].shape[3] // step) for one in held])
        for one in held:
            few.currents[one] = _every(step, self.currents[one])
            few.targets[one] = _every(step, self.targets[one])
        return few

    def moved(self, share: Tensor) -> None:
        """Move the currents their `share`, (channels,), of the way to the others, which are forgotten."""
        for held, other in self.others.items():
            self.currents[held].lerp_(other, shaped(share))
        self.others = {}

    def judged(self, candidates: Candidates) -> tuple[Tensor, Tensor]:
        """Squared errors of the rates on fitted and held-out images, and what the rates of the fitted ones lack.

        Where there are other currents, every candidate moves its share of the way to these. Returns sums of shape
        (candidates, 2, channels) and (candidates, channels).
        """
        count, channels = candidates.threshold.shape
        errors = torch.zeros(count, 2, channels, dtype=torch.float64)
        lacking = torch.zeros(count, channels, dtype=torch.float64)
        for held, current in self.currents.items():
            target = self.targets[held].flatten(0, 1)
            tried = self.neuron.tried(current, target, candidates, self.others.get(held))
            errors[:, int(held)] = tried.errors
            if not held:
                lacking = tried.lacking
        if True not in self.currents:
            errors[:, 1] = errors[:, 0]
        return errors, lacking

    @property
    def fitted(self) -> int:
        """Values of every channel on the fitted images."""
        return sum(one.numel() // one.shape[2] for held, one in self.targets.items() if not held)

    def residuals(self, threshold: Tensor, initial: Tensor, top: Tensor) -> list[Tensor]:
        """What the rates of each chunk lack, (reads * batch, channels, positions, 1).

        Rates that are at `top` already lack nothing.
        """
        one, found = candidates_of([threshold], [initial]), {}
        for held, current in self.currents.items():
            target = self.targets[held].flatten(0, 1)
            rate = self.neuron.tried(current, target, one, rates=True).rates
            assert rate is not None
            residual = target - rate
            residual.masked_fill_((rate >= top) & (residual > 0), 0.0)
            found[held] = residual.view(self.targets[held].shape)
        return [found[held][:, place].flatten(0, 1) for held, place in zip(self.held_out, self.places, strict=True)]

    def power(self) -> float:
        """Sum of the squared targets on the held-out images."""
        judging = self.targets.get(True, self.targets.get(False))
        return max(0.0 if judging is None else float(judging.double().square().sum()), 1e-30)


def _every(step: int, values: Tensor) -> Tensor:
    """One of `step` rows of (frames, batch, channels, positions, 1), as (frames, rows, channels, 1, 1)."""
    by_row = values.permute(0, 1, 3, 4, 2).flatten(1, 3)
    return by_row[:, ::step].contiguous()[..., None, None]


def candidates_of(thresholds: Sequence[Tensor], initials: Sequence[Tensor], **more: Tensor) -> Candidates:
    """Parameters to try, from those of each candidate, (channels,); membranes start at fractions of the thresholds."""
    threshold, fraction = torch.stack(list(thresholds)).float(), torch.stack(list(initials)).float()
    return Candidates(threshold, threshold * fraction, **more)


def shaped(vector: Tensor) -> Tensor:
    """(channels,) broadcastable to what thresholds are tried on, float32."""
    return vector.float().reshape(-1, 1, 1)


def better(tried: Tensor, best: Tensor) -> Tensor:
    """Channels whose error falls on the fitted images and does not rise on those held out; both (2, channels)."""
    return (tried[0] < best[0]) & (tried[1] <= best[1])
