"""One activation site of the closed loop: threshold, membrane start and weights, all judged by the real neuron."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from snnconvert.calibrate.least_squares import NormalEquations, changed, merged, outputs_by_group, patches
from snnconvert.calibrate.observe import Range
from snnconvert.calibrate.options import Reconstruct
from snnconvert.calibrate.reconstruct_networks import Chunk, Networks, in_turn
from snnconvert.calibrate.reconstruct_neuron import SiteNeuron, Trial, at_positions, better, shaped
from snnconvert.calibrate.sent_spikes import Sent
from snnconvert.graph.dialect import arguments, op_of
from snnconvert.graph.edit import replace_op
from snnconvert.graph.kinds import Weighted
from snnconvert.graph.types import SiteCalibration

# No other list, shorter or longer, agrees better on held-out training images of three networks by two standard errors
# (`python benchmarks/constants.py`; the tables are in constants.md beside it)
FACTORS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.15, 1.3)
STARTS = (0.25, 0.75)
MORE_STARTS = (0.0, 1.0)  # tried where so few frames are sent that the first one decides
FEW_FRAMES = 4
FINE_FACTORS = (0.85, 0.93, 1.07, 1.15)
FINE_STARTS = (-0.12, 0.12)
PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0)
SHARES = (1.0, 0.5, 1.5)
# of `memory`, for the currents that thresholds are tried on and as much for a change of them; and the fewest positions
TRIAL_SHARE, MIN_POSITIONS = 0.75, 16


@dataclass
class Presynaptic:
    """The operator whose output a site rectifies, with the Gram matrices of its inputs."""

    node: fx.Node
    fit: NormalEquations
    held: NormalEquations
    positions: Tensor | None


@dataclass
class _Fit:
    """What has been found so far: (channels,) each, and the errors (2, channels) on fitted and held-out images.

    `least` are thresholds that no channel may go below.
    """

    threshold: Tensor
    initial: Tensor
    errors: Tensor
    least: Tensor

    def take(self, trial: Trial, threshold: Tensor, initial: Tensor) -> None:
        """Move every channel to the given parameters where they are better."""
        threshold = torch.maximum(threshold, self.least)
        tried = trial.errors(threshold, initial)
        improved = better(tried, self.errors)
        self.threshold = torch.where(improved, threshold, self.threshold)
        self.initial = torch.where(improved, initial, self.initial)
        self.errors = torch.where(improved, tried, self.errors)


class SiteStep:
    """Calibrates sites in data-flow order.

    Args:
        networks: evaluates nodes; its graph is edited.
        chunks: the calibration images.
        options: how much is tried.
    """

    def __init__(self, networks: Networks, chunks: list[Chunk], options: Reconstruct) -> None:
        self.networks, self.chunks, self.options = networks, chunks, options

    def run(
        self,
        node: fx.Node,
        neuron: SiteNeuron,
        found: Range,
        starts: list[Tensor],
        presynaptic: Presynaptic | fx.Node | None,
    ) -> tuple[SiteCalibration, dict[str, Any]]:
        """Calibrate `node` and send its spikes on.

        The search starts from the first of the thresholds `starts`, (channels,) each, and tries the others as well.
        `presynaptic` is the operator whose bias shifts the site's current, with its normal equations where its weights
        may be changed. Returns the calibration and a JSON-able record of relative squared errors on held-out images.
        """
        trial = self._trial(node, neuron, found)
        fit = self._search(trial, found.followed(self.options.headroom) / neuron.levels, *starts)
        power = trial.power()
        first = float(self.first_errors[1].sum()) / power
        entry: dict[str, Any] = {"error_start": first, "error_threshold": float(fit.errors[1].sum()) / power}
        if isinstance(presynaptic, Presynaptic):
            entry["rounds"] = []
            for _ in range(self.options.rounds):
                count = self._correct(node, trial, found, fit, presynaptic)
                self._refine(trial, fit)
                entry["rounds"].append({"accepted": count, "error": float(fit.errors[1].sum()) / power})
        weighted = presynaptic.node if isinstance(presynaptic, Presynaptic) else presynaptic
        entry["bias_accepted"] = 0 if weighted is None else self._shift(trial, fit, weighted)
        entry["error_after"] = float(fit.errors[1].sum()) / power
        entry["channels"] = len(fit.threshold)
        threshold = found.shaped(fit.threshold)
        site = SiteCalibration(threshold, found.shaped(fit.initial))
        for chunk in in_turn(self.chunks):
            self._emit(chunk, node, neuron, site)
        return site, entry

    def _trial(self, node: fx.Node, neuron: SiteNeuron, found: Range) -> Trial:
        """Currents and targets of the first images: as many as asked for to fit, half as many held out.

        Of every image some positions only, the same ones each time: they are enough to tell thresholds apart.
        """
        wanted, positions = self.options.search_images, self._positions(found, node)
        left = {False: wanted, True: max(wanted // 2, 1)}
        trial = Trial(neuron, [], [], [])
        for chunk in in_turn(self.chunks):
            if left[chunk.held_out] > 0:
                left[chunk.held_out] -= len(chunk.images)
                trial.currents.append(self._current_at(chunk, node, found.axis, positions))
                trial.targets.append(at_positions(self.networks.wanted(chunk, node), found.axis, positions))
                trial.held_out.append(chunk.held_out)
        return trial

    def _positions(self, found: Range, node: fx.Node) -> Tensor:
        """Which values of every channel thresholds are tried on."""
        total = math.prod(node.meta["shape"]) // len(found.largest)
        drawn = torch.randperm(total, generator=torch.Generator().manual_seed(total))
        images = min(sum(len(chunk.images) for chunk in self.chunks), math.ceil(1.5 * self.options.search_images))
        each = 4 * images * self.networks.schedule.frames * len(found.largest)
        affordable = max(MIN_POSITIONS, int(TRIAL_SHARE * self.options.memory * 2**30) // each)
        return drawn[: min(self.options.search_positions, affordable)].sort().values

    def _current(self, chunk: Chunk, node: fx.Node) -> Tensor:
        value = self.networks.frames(chunk, arguments(node)[0])
        return value.tensor.unsqueeze(0) if value.constant else self.networks.by_frames(value.tensor)

    def _current_at(self, chunk: Chunk, node: fx.Node, axis: int, positions: Tensor) -> Tensor:
        """The current at some of every channel's values, (frames, batch, channels, positions, 1)."""
        (source,), shape = arguments(node), node.meta["shape"]
        if axis == 0 and len(shape) == 3 and tuple(source.meta["shape"]) == tuple(shape):
            value = self.networks.frames_at(chunk, source, positions)
            return value.tensor.unsqueeze(0) if value.constant else self.networks.by_frames(value.tensor)
        current = self._current(chunk, node)
        some = at_positions(current.flatten(0, 1), axis, positions)
        return some.view(*current.shape[:2], *some.shape[1:])

    def _search(self, trial: Trial, least: Tensor, start: Tensor, *others: Tensor) -> _Fit:
        start = torch.maximum(start, least)
        initial = torch.full_like(start, self.networks.schedule.initial)
        self.first_errors = trial.errors(start, initial)
        fit = _Fit(start.clone(), initial, self.first_errors, least)
        if self.options.thresholds:
            for factor in FACTORS:
                fit.take(trial, start * factor, initial)
            for other in others:
                fit.take(trial, other, initial)
            if not self.networks.schedule.windowed:
                few = self.networks.schedule.frames <= FEW_FRAMES
                for fraction in STARTS + (MORE_STARTS if few else ()):
                    fit.take(trial, fit.threshold, torch.full_like(start, fraction))
        return fit

    def _refine(self, trial: Trial, fit: _Fit) -> None:
        if not self.options.thresholds:
            return
        threshold = fit.threshold
        for factor in FINE_FACTORS:
            fit.take(trial, threshold * factor, fit.initial)
        initial = fit.initial
        if not self.networks.schedule.windowed:
            for step in FINE_STARTS:
                fit.take(trial, fit.threshold, initial + step)

    def _correct(self, node: fx.Node, trial: Trial, found: Range, fit: _Fit, presynaptic: Presynaptic) -> int:
        """A step of the weights by the residual of the neuron's own rates; the number of channels that take it.

        The rate of an active neuron follows its mean input one to one, so what it lacks, regressed on the mean input of
        the operator, says how the weights have to move: that also makes up for spikes sent too early, which no match
        of pre-activations can see. Where the neuron is silent as it should be, nothing is lacking.
        """
        normal, held = presynaptic.fit.cleared(), presynaptic.held.cleared()
        op = op_of(presynaptic.node, Weighted)
        threshold, initial = found.shaped(fit.threshold), found.shaped(fit.initial)
        top = threshold * trial.neuron.levels
        (source,) = arguments(presynaptic.node)
        some = presynaptic.positions if op.weight.ndim == 4 and found.axis == 0 else None
        for chunk in in_turn(self.chunks):
            wanted = self.networks.wanted(chunk, node)
            if some is None:
                rate = trial.neuron.rate(self._current(chunk, node), threshold, initial)
            else:
                rate = trial.neuron.rate(self._current_at(chunk, node, found.axis, some), threshold, initial)
                wanted = at_positions(wanted, found.axis, some)
            residual = wanted - rate
            residual = torch.where((rate >= top) & (residual > 0), torch.zeros_like(residual), residual)
            rows = patches(op, self.networks.mean(chunk, source), presynaptic.positions)
            into = held if chunk.held_out else normal
            into.add(rows, outputs_by_group(op, residual, presynaptic.positions if some is None else None), gram=False)
        penalty = min(PENALTIES, key=lambda one: float(held.errors(normal.solve(one)).sum()))
        change = merged([normal, held]).solve(penalty)
        replace_op(self.networks.graph, presynaptic.node, changed(op, change))
        steps = self._trial(node, trial.neuron, found).currents
        for before, step in zip(trial.currents, steps, strict=True):
            step.sub_(before)
        chosen = torch.zeros_like(fit.threshold)
        for share in SHARES:
            tried = trial.errors(fit.threshold, fit.initial, steps=steps, share=share)
            improved = better(tried, fit.errors)
            chosen = torch.where(improved, torch.full_like(chosen, share), chosen)
            fit.errors = torch.where(improved, tried, fit.errors)
        replace_op(self.networks.graph, presynaptic.node, changed(op, change, chosen))
        for before, step in zip(trial.currents, steps, strict=True):
            before.addcmul_(step, shaped(chosen))
        return int((chosen > 0).sum())

    def _shift(self, trial: Trial, fit: _Fit, weighted: fx.Node) -> int:
        """Correct the bias by the mean residual of the rates; the number of channels that keep it."""
        shift = trial.mean_residual(fit.threshold, fit.initial)
        shifted = trial.errors(fit.threshold, fit.initial, shift)
        improved = better(shifted, fit.errors) if self.options.judged else torch.ones_like(shift, dtype=torch.bool)
        fit.errors = torch.where(improved, shifted, fit.errors)
        op = op_of(weighted)
        bias = op.tensors()["bias"]
        old = torch.zeros(len(shift), dtype=torch.float64) if bias is None else bias.double()
        new = torch.where(improved, old + shift, old)
        replace_op(self.networks.graph, weighted, op.rebuilt(bias=new.float()))
        return int(improved.sum())

    def _emit(self, chunk: Chunk, node: fx.Node, neuron: SiteNeuron, site: SiteCalibration) -> None:
        ann = self.networks.ann(chunk, node)
        units = neuron.units(self._current(chunk, node), site.threshold, site.initial)
        chunk.ann[node], chunk.mean[node] = ann.contiguous(), neuron.mean(units, site.threshold).contiguous()
        sent = Sent(units.flatten(0, 1), site.threshold, neuron.model.range(neuron.levels), density=1.0)
        chunk.frames[node] = sent.kept(len(units))
