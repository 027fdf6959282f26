"""One activation site of the closed loop: threshold, membrane start and weights, all judged by the real neuron."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from snnconvert.calibrate.expected import ROWS_PER_INPUT
from snnconvert.calibrate.least_squares import NormalEquations, changed, chosen_penalty, outputs_by_group
from snnconvert.calibrate.live_values import Chunk, each
from snnconvert.calibrate.observe import Range
from snnconvert.calibrate.options import Reconstruct
from snnconvert.calibrate.reconstruct_networks import Networks
from snnconvert.calibrate.reconstruct_neuron import (
    Scratch,
    SiteNeuron,
    Trial,
    at_positions,
    better,
    candidates_of,
    shaped,
)
from snnconvert.calibrate.reconstruct_rows import rows_of
from snnconvert.calibrate.sent_spikes import Sent
from snnconvert.graph.dialect import arguments, op_of
from snnconvert.graph.edit import kind_of, replace_op
from snnconvert.graph.kinds import Affine, Weighted
from snnconvert.graph.types import SiteCalibration

# No other list, shorter or longer, agrees better on held-out training images of three networks by two standard errors
# (`python benchmarks/constants.py`; the tables are in constants.md beside it)
FACTORS = (0.6, 0.8, 1.25)
STARTS = (0.25, 0.75)
MORE_STARTS = (0.0, 1.0)  # tried where so few frames are sent that the first one decides
FEW_FRAMES = 4
FINE_FACTORS = (0.85, 0.93, 1.07, 1.15)
FINE_STARTS = (-0.12, 0.12)
PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0)
SHARES = (1.0, 0.5, 1.5)
# rows on which a threshold and a start are chosen, before they are judged on all, where weights do not change
RACED_ROWS = 2048
# of `memory`, for the currents that thresholds are tried on and as much for a change of them; and the fewest rows
TRIAL_SHARE, MIN_ROWS = 0.25, 1024


@dataclass
class Presynaptic:
    """The operator whose output a site rectifies, with the Gram matrices of its inputs on the sample's rows.

    Attributes:
        fit: of the images that it is fitted on.
        held: of those held out.
        every: of both.
        positions: of the sample: where in every image.
    """

    node: fx.Node
    fit: NormalEquations
    held: NormalEquations
    every: NormalEquations
    positions: Tensor


@dataclass
class _Fit:
    """What has been found so far: (channels,) each, and the errors (2, channels) on fitted and held-out images.

    `lacking` is what rates lack on the fitted images; `least` are thresholds that no channel may go below; `first` are
    the errors of what was tried first.
    """

    threshold: Tensor
    initial: Tensor
    errors: Tensor
    lacking: Tensor
    least: Tensor
    first: Tensor | None = None

    @classmethod
    def nothing(cls, threshold: Tensor, initial: Tensor, least: Tensor) -> _Fit:
        """Before the first trial, than which everything is better."""
        unknown = torch.full((2, len(threshold)), math.inf, dtype=torch.float64)
        return cls(threshold, initial, unknown, unknown[0], least)

    def take(self, trial: Trial, thresholds: list[Tensor], initials: list[Tensor]) -> None:
        """Move every channel to the parameters, of those given in turn, that are better than what it has."""
        thresholds = [torch.maximum(one, self.least) for one in thresholds]
        errors, lacking = trial.judged(candidates_of(thresholds, initials))
        for threshold, initial, *tried in zip(thresholds, initials, errors, lacking, strict=True):
            improved = self.better(*tried)
            self.threshold = torch.where(improved, threshold, self.threshold)
            self.initial = torch.where(improved, initial, self.initial)
        self.first = errors[0] if self.first is None else self.first

    def better(self, errors: Tensor, lacking: Tensor) -> Tensor:
        """The channels that have less error so; what is known of them is then this."""
        improved = better(errors, self.errors)
        self.errors = torch.where(improved, errors, self.errors)
        self.lacking = torch.where(improved, lacking, self.lacking)
        return improved


class SiteStep:
    """Calibrates sites in data-flow order.

    Args:
        networks: evaluates nodes; its graph is edited.
        chunks: the calibration images.
        options: how much is tried.
    """

    def __init__(self, networks: Networks, chunks: list[Chunk], options: Reconstruct) -> None:
        self.networks, self.chunks, self.options = networks, chunks, options
        self.scratch = Scratch()

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
        total = math.prod(node.meta["shape"]) // len(found.largest)
        given = presynaptic.positions if isinstance(presynaptic, Presynaptic) else None
        positions = self.positions(total, len(found.largest)) if given is None else given
        trial = self._trial(node, neuron, found, positions)
        raced = self.options.thresholds and not isinstance(presynaptic, Presynaptic)
        few = trial.thinned(RACED_ROWS) if raced else trial
        fit = self._search(few, found.followed(self.options.headroom) / neuron.levels, *starts)
        if few is not trial:
            fit = self._judged(trial, fit, starts[0])
        power = trial.power()
        assert fit.first is not None
        first = float(fit.first[1].sum()) / power
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
        for _ in each(self.chunks, lambda chunk: self._emit(chunk, node, neuron, site)):
            pass
        return site, entry

    def _trial(self, node: fx.Node, neuron: SiteNeuron, found: Range, positions: Tensor) -> Trial:
        """Currents and targets at some positions of every image."""
        images = [len(one.images) for one in self.chunks]
        trial = Trial(neuron, [one.held_out for one in self.chunks], images, self.scratch)

        def seen(chunk: Chunk) -> tuple[Tensor, Tensor]:
            current = self._current_at(chunk, node, found.axis, positions)
            return current, at_positions(self.networks.wanted(chunk, node), found.axis, positions)

        for index, (current, target) in enumerate(each(self.chunks, seen)):
            trial.place(index, current, target)
        return trial

    def positions(self, total: int, channels: int, inputs: int = 0) -> Tensor:
        """Which of `total` values of every channel, the same ones in each image, are the sample; `inputs` are fitted.

        On it operators are solved, thresholds tried and weights corrected: what tells these apart is a matter of rows,
        not of where they are.
        """
        images = sum(len(chunk.images) for chunk in self.chunks)
        frames = self.networks.schedule.frames
        affordable = int(TRIAL_SHARE * self.options.memory * 2**30) // (4 * frames * channels)
        wanted = max(self.options.rows_for(frames, solved=inputs > 0), ROWS_PER_INPUT * inputs)
        rows = min(wanted, max(MIN_ROWS, affordable))
        drawn = torch.randperm(total, generator=torch.Generator().manual_seed(total))
        return drawn[: math.ceil(rows / images)].sort().values

    def _current(self, chunk: Chunk, node: fx.Node) -> Tensor:
        value = self.networks.frames(chunk, arguments(node)[0])
        return value.tensor.unsqueeze(0) if value.constant else self.networks.by_frames(value.tensor)

    def _current_at(self, chunk: Chunk, node: fx.Node, axis: int, positions: Tensor) -> Tensor:
        """The current at some of every channel's values, (frames, batch, channels, positions, 1)."""
        (source,), shape = arguments(node), node.meta["shape"]
        if axis == 0 and len(shape) == 3 and tuple(source.meta["shape"]) == tuple(shape):
            value = self.networks.frames_at(chunk, source, positions)
            return value.tensor.unsqueeze(0) if value.constant else self.networks.by_frames(value.tensor)
        after = op_of(source, Affine) if kind_of(source) == "Affine" and source not in chunk.frames else None
        shared = after is not None and {after.scale.numel(), after.shift.numel()} == {1}
        if shared and arguments(source)[0].meta["shape"] == shape:  # picked first, as most are left out
            current = self._current(chunk, source)
        else:
            current, after = self._current(chunk, node), None
        some = at_positions(current.flatten(0, 1), axis, positions)
        return (some if after is None else after(some)).view(*current.shape[:2], *some.shape[1:])

    def _search(self, trial: Trial, least: Tensor, start: Tensor, *others: Tensor) -> _Fit:
        start = torch.maximum(start, least)
        initial = torch.full_like(start, self.networks.schedule.initial)
        fit = _Fit.nothing(start, initial, least)
        more = [*(start * factor for factor in FACTORS), *others] if self.options.thresholds else []
        fit.take(trial, [start, *more], [initial] * (1 + len(more)))
        if self.options.thresholds and not self.networks.schedule.windowed:
            few = self.networks.schedule.frames <= FEW_FRAMES
            starts = [torch.full_like(start, fraction) for fraction in STARTS + (MORE_STARTS if few else ())]
            fit.take(trial, [fit.threshold] * len(starts), starts)
        return fit

    def _judged(self, trial: Trial, found: _Fit, start: Tensor) -> _Fit:
        """What was `found` on few rows, where it is better than the `start` on all of them."""
        start = torch.maximum(start, found.least)
        initial = torch.full_like(start, self.networks.schedule.initial)
        fit = _Fit.nothing(start, initial, found.least)
        fit.take(trial, [start, found.threshold], [initial, found.initial])
        return fit

    def _refine(self, trial: Trial, fit: _Fit) -> None:
        if not self.options.thresholds:
            return
        thresholds = [fit.threshold * factor for factor in FINE_FACTORS]
        fit.take(trial, thresholds, [fit.initial] * len(thresholds))
        if not self.networks.schedule.windowed:
            starts = [fit.initial + step for step in FINE_STARTS]
            fit.take(trial, [fit.threshold] * len(starts), starts)

    def _correct(self, node: fx.Node, trial: Trial, found: Range, fit: _Fit, presynaptic: Presynaptic) -> int:
        """A step of the weights by the residual of the neuron's own rates; the number of channels that take it.

        The rate of an active neuron follows its mean input one to one, so what it lacks, regressed on the mean input of
        the operator, says how the weights have to move: that also makes up for spikes sent too early, which no match
        of pre-activations can see. Where the neuron is silent as it should be, nothing is lacking.
        """
        normal, held = presynaptic.fit.cleared(), presynaptic.held.cleared()
        op = op_of(presynaptic.node, Weighted)
        top = shaped(fit.threshold) * trial.neuron.levels
        residuals = trial.residuals(fit.threshold, fit.initial, top)

        read = rows_of(self.networks, presynaptic.node, presynaptic.positions)
        for chunk, rows, residual in zip(self.chunks, each(self.chunks, read), residuals, strict=True):
            lacking = residual.squeeze(-1).transpose(1, 2) if op.features_last else residual
            (held if chunk.held_out else normal).add(rows, outputs_by_group(op, lacking))
        penalty, _ = chosen_penalty(PENALTIES, [(normal, held)])
        change = presynaptic.every.with_cross_of([normal, held]).solve(penalty)
        replace_op(self.networks.graph, presynaptic.node, changed(op, change))
        others = each(self.chunks, lambda chunk: self._current_at(chunk, node, found.axis, presynaptic.positions))
        for index, other in enumerate(others):
            trial.place_other(index, other)
        chosen = torch.zeros_like(fit.threshold)
        count = len(SHARES)
        shared = candidates_of([fit.threshold] * count, [fit.initial] * count, share=torch.tensor(SHARES))
        for share, *tried in zip(SHARES, *trial.judged(shared), strict=True):
            chosen = torch.where(fit.better(*tried), torch.full_like(chosen, share), chosen)
        replace_op(self.networks.graph, presynaptic.node, changed(op, change, chosen))
        trial.moved(chosen)
        return int((chosen > 0).sum())

    def _shift(self, trial: Trial, fit: _Fit, weighted: fx.Node) -> int:
        """Correct the bias by the mean residual of the rates; the number of channels that keep it."""
        shift = fit.lacking / max(trial.fitted, 1)
        moved = candidates_of([fit.threshold], [fit.initial], shift=shift.float().unsqueeze(0))
        (shifted,), _ = trial.judged(moved)
        improved = better(shifted, fit.errors) if self.options.judged else torch.ones_like(shift, dtype=torch.bool)
        fit.errors = torch.where(improved, shifted, fit.errors)
        op = op_of(weighted)
        bias = op.tensors()["bias"]
        old = torch.zeros(len(shift), dtype=torch.float64) if bias is None else bias.double()
        new = torch.where(improved, old + shift, old)
        replace_op(self.networks.graph, weighted, op.rebuilt(bias=new.float()))
        return int(improved.sum())

    def _emit(self, chunk: Chunk, node: fx.Node, neuron: SiteNeuron, site: SiteCalibration) -> None:
        """Store what the calibrated neurons send."""
        (source,) = arguments(node)
        if node not in chunk.ann and node not in self.networks.remade:
            chunk.ann[node] = self.networks.ann(chunk, node)
        terms = self.networks.summands(chunk, source) if neuron.by_kernel else None
        if terms is None or source.meta["shape"] != node.meta["shape"]:
            units = neuron.units(self._current(chunk, node), site.threshold, site.initial).flatten(0, 1)
            sent = Sent(units, site.threshold, neuron.range, density=1.0)
        else:
            sent = neuron.sent(terms, len(chunk.images), tuple(node.meta["shape"]), site)
        self.networks.keep(chunk, node, sent)
