"""Closed-loop calibration: every layer is solved against the spikes that the layers before it really send.

Per activation site in data-flow order, on unlabelled images, in the schedule that will be deployed:

(a) ridge least squares for weights and bias of the operators that feed it: the spiking network's own mean input against
    the ANN's pre-activation minus what arrives over joins (see `least_squares`);
(b) a threshold and a membrane start per channel, chosen through the real neuron, starting from the threshold that
    minimises the squared quantisation error (see `mse`);
(c) the bias corrected by the mean of what the rates lack;
(d) the classifier last, towards the ANN's logits.

Each step is kept, channel by channel, only where the error on images held out from it falls.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from snnconvert.calibrate.histogram import histograms
from snnconvert.calibrate.least_squares import NormalEquations, changed, outputs_by_group, patches, solvable
from snnconvert.calibrate.mse import best_bounds
from snnconvert.calibrate.observe import Range, broadcastable, ranges
from snnconvert.calibrate.reconstruct_neuron import Soma, channel_sums
from snnconvert.calibrate.reconstruct_worlds import Chunk, Spikes, Worlds, chunk_images, split_images
from snnconvert.calibrate.task import Task
from snnconvert.graph.dialect import arguments, op_of
from snnconvert.graph.edit import copied, kind_of, replace_op
from snnconvert.graph.ops import Conv, Linear, Op, Role
from snnconvert.graph.types import Calibration, SiteCalibration

FACTORS = (1.0, 0.5, 0.6, 0.7, 0.8, 0.9, 1.15, 1.3)
STARTS = (0.5, 0.25, 0.75)
PENALTIES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
SEARCH_IMAGES = 128


@torch.inference_mode()
def calibrate_reconstruct(task: Task) -> Calibration:
    """Solve every layer against the spiking network's own spikes.

    Options:
        weights: solve for weights and biases (default True); otherwise thresholds and bias corrections only.
        held_out: share of the images on which every step has to prove itself, default 0.2.
        rows: most output positions per operator that enter the least squares, default 200,000.
        search_images: images on which thresholds are tried, default 128.
    """
    return _Reconstruction(task).run()


@dataclass
class _Site:
    """A site while it is being calibrated: currents of the images that thresholds are tried on."""

    soma: Soma
    found: Range
    currents: list[Tensor]
    targets: list[Tensor]
    held_out: list[bool]

    def errors(self, threshold: Tensor, initial: Tensor, shift: Tensor | None = None) -> Tensor:
        """Squared error of the rates, shape (2, channels): fitted and held-out images."""
        result = torch.zeros(2, len(threshold), dtype=torch.float64)
        for current, target, held in zip(self.currents, self.targets, self.held_out, strict=True):
            lack = self._lack(current, target, threshold, initial, shift)
            result[int(held)] += channel_sums(lack.square(), self.found.axis)
        return result

    def mean_lack(self, threshold: Tensor, initial: Tensor) -> Tensor:
        """What the rates lack on average over the fitted images, (channels,)."""
        total, count = torch.zeros(len(threshold), dtype=torch.float64), 0
        for current, target, held in zip(self.currents, self.targets, self.held_out, strict=True):
            if not held:
                total += channel_sums(self._lack(current, target, threshold, initial, None), self.found.axis)
                count += target.numel() // len(threshold)
        return total / max(count, 1)

    def power(self) -> float:
        """Sum of the squared targets, held-out images."""
        pairs = zip(self.targets, self.held_out, strict=True)
        return sum(float(target.double().square().sum()) for target, held in pairs if held)

    def _lack(
        self, current: Tensor, target: Tensor, threshold: Tensor, initial: Tensor, shift: Tensor | None
    ) -> Tensor:
        moved = current if shift is None else current + self._shaped(shift)
        return target - self.soma.rate(moved, self._shaped(threshold), self._shaped(initial))

    def _shaped(self, vector: Tensor) -> Tensor:
        return broadcastable(vector.float(), self.found.axis, self.found.rank)


class _Reconstruction:
    def __init__(self, task: Task) -> None:
        self.task, self.options = task, task.options
        self.graph = copied(task.ann.graph)
        self.worlds = Worlds(task.ann.graph, self.graph, task.schedule)
        size = chunk_images(self.graph, task.schedule.frames)
        self.chunks = split_images(task.images, size, float(self.options.get("held_out", 0.2)))
        self.sites: dict[str, SiteCalibration] = {}
        self.layers: list[dict[str, Any]] = []

    def run(self) -> Calibration:
        task, graph = self.task, self.task.ann.graph
        self.found, _ = ranges(graph, task.images, task.progress)
        counts = histograms(graph, task.images, self.found, task.progress)
        self.bounds = {name: best_bounds(counts[name], site, task.resolution) for name, site in self.found.items()}
        self.worlds.begin(self.chunks)
        events = [node for node in self.worlds.nodes if self._is_event(node)]
        last = self._last_reads(events)
        for index, node in enumerate(events):
            op = op_of(node)
            if op.role == Role.WEIGHTED:
                self._solve(node, op)
            if op.role == Role.SITE:
                self._site(node, op)
            elif node in self.worlds.stored:
                for chunk in self.chunks:
                    self.worlds.store(chunk, node)
            for gone in last.get(index, ()):
                for chunk in self.chunks:
                    chunk.forget(gone)
            task.progress("reconstruct", index + 1, len(events))
        self.graph.recompile()
        record = {"method": "reconstruct", "options": self._used_options(), "layers": self.layers, "candidates": []}
        return Calibration(self.graph, self.sites, record)

    def _used_options(self) -> dict[str, Any]:
        defaults = {"weights": True, "held_out": 0.2, "rows": 200_000, "search_images": SEARCH_IMAGES}
        return {**defaults, **self.options}

    # --- which node is read when ---

    def _is_event(self, node: fx.Node) -> bool:
        if node.op != "call_module":
            return False
        return node in self.worlds.stored or op_of(node).role == Role.WEIGHTED

    def _last_reads(self, events: list[fx.Node]) -> dict[int, list[fx.Node]]:
        """Stored nodes by the index of the last event that reads them."""
        last: dict[fx.Node, int] = {}
        for index, node in enumerate(events):
            roots = [self._target(node)] if op_of(node).role == Role.WEIGHTED else []
            for root in roots + arguments(node):
                reads = arguments(root) if root in self.worlds.stored and root not in arguments(node) else [root]
                for read in reads:
                    last.update(dict.fromkeys(self.worlds.sources(read), index))
        by_event: dict[int, list[fx.Node]] = {}
        for node, index in last.items():
            by_event.setdefault(index, []).append(node)
        return by_event

    def _target(self, node: fx.Node) -> fx.Node:
        """The furthest sum that only waits for `node`: there the ANN and the spiking network are compared."""
        while len(node.users) == 1 and node not in self.worlds.stored:
            (user,) = node.users
            if kind_of(user) != "Add" or arguments(user).count(node) != 1:
                break
            if user.meta["shape"] != node.meta["shape"]:
                break
            own = self.worlds.position[node]
            others = [one for other in arguments(user) if other is not node for one in self.worlds.region(other)]
            if any(self.worlds.position[one] > own and self._is_event(one) for one in others):
                break
            node = user
        return node

    # --- (a) and (d) ---

    def _solve(self, node: fx.Node, op: Op) -> None:
        if not self.options.get("weights", True):
            return
        entry: dict[str, Any] = {"name": node.name, "kind": "weights"}
        self.layers.append(entry)
        if not solvable(op):
            entry["kept"] = f"no least squares for {type(op).__name__}"
            return
        assert isinstance(op, Conv | Linear)
        target = self._target(node)
        positions = self._positions(op, node)
        fit, held = NormalEquations(op), NormalEquations(op)
        for chunk in self.chunks:
            rows = patches(op, self.worlds.mean(chunk, arguments(node)[0]), positions)
            lack = self.worlds.ann(chunk, target) - self.worlds.mean(chunk, target)
            (held if chunk.held_out else fit).add(rows, outputs_by_group(op, lack, positions))
        before = held.errors(held.cross.new_zeros(held.cross.shape))
        trials = {penalty: held.errors(fit.solve(penalty)) for penalty in PENALTIES}
        best = min(PENALTIES, key=lambda penalty: float(trials[penalty].sum()))
        accepted = trials[best] < before if held.rows else torch.ones_like(before, dtype=torch.bool)
        solved = changed(op, fit.plus(held).solve(best), accepted.double())
        replace_op(self.graph, node, solved)
        count = max(held.rows, 1)
        entry.update(
            penalty=best,
            rows=fit.rows + held.rows,
            error_before=float(before.sum()) / count,
            error_after=float(torch.where(accepted, trials[best], before).sum()) / count,
            accepted=int(accepted.sum()),
            channels=len(accepted),
        )

    def _positions(self, op: Conv | Linear, node: fx.Node) -> Tensor | None:
        """Output positions that enter the least squares: all, or as many as `rows` allows, evenly drawn."""
        shape = node.meta["shape"]
        total = 1
        for extent in shape[:-1] if isinstance(op, Linear) else shape[1:]:
            total *= extent
        wanted = max(1, int(self.options.get("rows", 200_000)) // len(self.task.images))
        if total <= wanted:
            return None
        drawn = torch.randperm(total, generator=torch.Generator().manual_seed(total))
        return drawn[:wanted].sort().values

    # --- (b) and (c) ---

    def _soma(self, op: Op) -> Soma:
        signed = type(op).__name__ == "Identity"
        return Soma("signed" if signed else self.task.neuron.model, self.task.levels, self.task.schedule)

    def _site(self, node: fx.Node, op: Op) -> None:
        found, soma = self.found[node.name], self._soma(op)
        trial = self._trial(node, soma, found)
        start = self.bounds[node.name] / soma.levels
        threshold, initial, errors = self._search(trial, start)
        feeding = self._feeding(node)
        accepted = 0
        after = errors
        if feeding is not None:
            shift = trial.mean_lack(threshold, initial)
            shifted = trial.errors(threshold, initial, shift)
            better = _better(shifted, errors)
            after = torch.where(better, shifted, errors)
            accepted = int(better.sum())
            change = torch.where(better, shift, torch.zeros_like(shift))
            weighted = op_of(feeding)
            old = weighted.get_buffer("bias") if weighted.tensors()["bias"] is not None else torch.zeros(len(change))
            replace_op(self.graph, feeding, weighted.rebuilt(bias=(old.double() + change).float()))
        shaped = broadcastable(threshold.double(), found.axis, found.rank).float()
        starts = broadcastable(initial.double(), found.axis, found.rank).float()
        self.sites[node.name] = SiteCalibration(shaped, shaped * soma.levels, starts)
        power = max(trial.power(), 1e-30)
        self.layers.append(
            {
                "name": node.name,
                "kind": "site",
                "error_start": float(self._start_errors[1].sum()) / power,
                "error_threshold": float(errors[1].sum()) / power,
                "error_after": float(after[1].sum()) / power,
                "bias_accepted": accepted,
                "channels": len(threshold),
            }
        )
        for chunk in self.chunks:
            self._emit(chunk, node, soma)

    def _trial(self, node: fx.Node, soma: Soma, found: Range) -> _Site:
        wanted = int(self.options.get("search_images", SEARCH_IMAGES))
        left = {False: wanted, True: max(wanted // 2, 1)}
        trial = _Site(soma, found, [], [], [])
        for chunk in self.chunks:
            if left[chunk.held_out] <= 0:
                continue
            left[chunk.held_out] -= len(chunk.images)
            trial.currents.append(self._current(chunk, node))
            trial.targets.append(self.worlds.ann(chunk, node))
            trial.held_out.append(chunk.held_out)
        return trial

    def _current(self, chunk: Chunk, node: fx.Node) -> Tensor:
        value = self.worlds.frames(chunk, arguments(node)[0])
        return value.tensor.unsqueeze(0) if value.constant else self.worlds.by_frames(value.tensor)

    def _search(self, trial: _Site, start: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The threshold and the membrane start of each channel, and their errors."""
        initial = torch.full_like(start, STARTS[0])
        threshold, best = start.clone(), trial.errors(start, initial)
        self._start_errors = best
        chosen = initial.clone()
        for factor in FACTORS[1:]:
            tried = trial.errors(start * factor, initial)
            better = _better(tried, best)
            threshold = torch.where(better, start * factor, threshold)
            best = torch.where(better, tried, best)
        for fraction in STARTS[1:]:
            tried = trial.errors(threshold, torch.full_like(start, fraction))
            better = _better(tried, best)
            chosen = torch.where(better, torch.full_like(start, fraction), chosen)
            best = torch.where(better, tried, best)
        return threshold, chosen, best

    def _feeding(self, node: fx.Node) -> fx.Node | None:
        """The operator whose bias shifts the current of a site, or None."""
        (source,) = arguments(node)
        for one in reversed(self.worlds.nodes[: self.worlds.position[node]]):
            op = op_of(one) if one.op == "call_module" else None
            if isinstance(op, Conv | Linear) and one not in self.worlds.stored and self._target(one) is source:
                return one
        return None

    def _emit(self, chunk: Chunk, node: fx.Node, soma: Soma) -> None:
        site = self.sites[node.name]
        ann = self.worlds.ann(chunk, node)
        current = self._current(chunk, node)
        whole = torch.int8 if soma.levels < 128 else torch.int32
        units = torch.stack([sent.to(whole) for sent in soma.units(current, site.threshold, site.initial)])
        chunk.ann[node] = ann
        chunk.mean[node] = units.sum(0, dtype=torch.float32) * (site.threshold / len(units))
        chunk.frames[node] = Spikes(units.flatten(0, 1), site.threshold)


def _better(tried: Tensor, best: Tensor) -> Tensor:
    """Channels whose error falls on the fitted images and does not rise on those held out."""
    return (tried[0] < best[0]) & (tried[1] <= best[1])
