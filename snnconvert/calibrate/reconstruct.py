"""Closed-loop calibration: every layer is solved against the spikes that the layers before it really send.

Per activation site in data-flow order, on unlabelled images, in the schedule that will be deployed:

(a) ridge least squares for weights and bias of the operators that feed it: the spiking network's own mean input against
    the ANN's pre-activation minus what arrives over joins (see `least_squares`);
(b) a threshold and a membrane start per channel, chosen through the real neuron, starting from the threshold that
    minimises the squared quantisation error (see `mse`);
(c) weights and bias corrected by the residual of the neuron's own rates, in `rounds` steps, each followed by (b) on a
    finer grid; then the bias by the mean residual;
(d) the classifier last, towards the ANN's logits, for the frames that are read; how many are left out at the start is
    chosen with it (everything before is the same).

Each step is kept, channel by channel, only where the error on images held out from it falls.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, fx

from snnconvert.calibrate.expected import Expected, nanoseconds
from snnconvert.calibrate.histogram import histograms
from snnconvert.calibrate.least_squares import (
    Merged,
    NormalEquations,
    Split,
    best_penalty,
    changed,
    inputs_of,
    solvable,
    sum_of,
    weights_solved,
)
from snnconvert.calibrate.live_values import Chunk, Room, chunk_images, disk_space, each, split_images
from snnconvert.calibrate.mse import best_bounds
from snnconvert.calibrate.observe import Range, channel_axis, ranges
from snnconvert.calibrate.options import Reconstruct
from snnconvert.calibrate.rate_norm import objectives_of
from snnconvert.calibrate.reconstruct_lives import Lives
from snnconvert.calibrate.reconstruct_networks import Networks
from snnconvert.calibrate.reconstruct_neuron import SiteNeuron
from snnconvert.calibrate.reconstruct_rows import lacking_of, rows_of
from snnconvert.calibrate.reconstruct_site import Presynaptic, SiteStep
from snnconvert.calibrate.task import Task
from snnconvert.compile.spikify import neuron_at, neuron_in
from snnconvert.errors import DataError
from snnconvert.graph.dialect import arguments, op_of, origin_of
from snnconvert.graph.edit import copied, kind_of, replace_op
from snnconvert.graph.kinds import Op, Role, Weighted
from snnconvert.graph.types import Calibrated, SiteCalibration
from snnconvert.options import made

# a later first answer has to be worth it: errors of the read-out within this factor of the least count as equal
WORTH = 1.02
# Longer runs are read from the start, which keeps an answer at every step. Of four networks one reads late: that gains
# 1.5 points of agreement up to 8 steps and 0.6 at 16 on held-out training images (`python benchmarks/constants.py`).
LATE_UP_TO = 8
# steps of the progress that is told; Gram matrices and factors that are held at once
PROGRESS, GRAMS = 1000, 6
# the read-out is judged by cross-validation, as far as its Gram matrices are small
FOLDS = 5
CROSS_VALIDATED = 512
# values of a channel by whose histogram a search of its threshold starts: what it ends with, real neurons decide
SEEN = 2**14
PENALTIES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


@torch.inference_mode()
def calibrate_reconstruct(task: Task) -> Calibrated:
    """Solve every layer against the spiking network's own spikes.

    Its options are those of `Reconstruct`.
    """
    options = made(Reconstruct, task.options)
    found, teacher = ranges(task.ann.graph, task.images, task.progress)
    counts = histograms(task.ann.graph, task.images, found, task.progress, enough=SEEN)
    reads = read_at(task, options)
    bounds = {}
    for name, site in found.items():
        resolution = (
            task.resolution(name) if len(reads) == 1 or task.once else task.levels(name) * reads[len(reads) // 2]
        )
        bounds[name] = best_bounds(counts.pop(name), site, resolution, task.schedule.initial)
    reconstruction = Reconstruction(task, options)
    reconstruction.found, reconstruction.bounds = found, [bounds]
    if options.rate_norm:
        best, *others = objectives_of(task, found, teacher)
        reconstruction.bounds.append({name: site.largest * best.p for name, site in found.items()})
        reconstruction.tried += [{**one.row(), "agreement": None, "chosen": one is best} for one in (best, *others)]
    return reconstruction.run()


def expected_of_reconstruct(task: Task) -> Expected:
    """What `calibrate_reconstruct` will take."""
    return Reconstruction(task, made(Reconstruct, task.options)).expected()


def read_at(task: Task, options: Reconstruct) -> tuple[int, ...]:
    """The numbers of frames after which the network is to be right, ascending."""
    return tuple(sorted({*options.read_at, task.schedule.frames}))


@dataclass(frozen=True)
class _Solution:
    """A solved operator, the normal equations that its site corrects it with, its squared error, and the record."""

    op: Weighted
    presynaptic: Presynaptic | None
    error: float
    entry: dict[str, Any]


class Reconstruction:
    """The walk over a network's operators and sites.

    Args:
        task: what is calibrated.
        options: how.

    Attributes:
        found: the range of every site.
        bounds: the largest representable activation per channel that the search of each site starts from; and others
            that it tries.
    """

    def __init__(self, task: Task, options: Reconstruct) -> None:
        self.task, self.options, self.neuron = task, options, neuron_in(task.schedule, task.neuron)
        self.graph = copied(task.ann.graph)
        self.read_at = read_at(task, options)
        self.networks = Networks(task.ann.graph, self.graph, task.schedule, self.read_at)
        self.visited = [node for node in self.networks.nodes if self._is_visited(node)]
        self.lives = Lives(self.networks, self.visited, self._read, self.neuron)
        self.images = self._affordable()
        size = chunk_images(self.graph, task.schedule.frames)
        self.chunks = split_images(self.images, size, options.held_out, Room(options.memory * 2**30))
        self.step = SiteStep(self.networks, self.chunks, options)
        self.sites: dict[str, SiteCalibration] = {}
        self.layers: list[dict[str, Any]] = []
        self.presynaptic: dict[fx.Node, Presynaptic] = {}
        self.found: dict[str, Range] = {}
        self.bounds: list[dict[str, Tensor]] = []
        self.read_out = self._read_out()
        self.read_from: int = task.schedule.read_from
        self.tried: list[dict[str, Any]] = []

    def run(self) -> Calibrated:
        """Calibrate every operator and site."""
        self.networks.begin(self.chunks)
        images, frames = len(self.images), self.task.schedule.frames
        spent = (nanoseconds(node, images, frames, self.options) for node in self.visited)
        work = list(accumulate(spent, initial=0.0))
        for index, node in enumerate(self.visited):
            try:
                self._visit(node, op_of(node))
            except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
                raise DataError(
                    f"what {origin_of(node)} reads on the calibration images is too large for its weights to be solved",
                    hint="scale the images as in training (--scale, --mean, --std); or --calibration mse",
                ) from error
            self.lives.forget(index, self.chunks)
            self.task.progress("reconstruct", round(PROGRESS * work[index + 1] / work[-1]), PROGRESS)
        if not self.read_out:
            self._read_without_classifier()
        self.graph.recompile()
        record = {
            "method": "reconstruct",
            "options": asdict(self.options),
            "images": len(self.images),
            "layers": self.layers,
            "candidates": self.tried,
        }
        return self.task.calibrated(self.graph, self.sites, record, read_from=self.read_from)

    def _visit(self, node: fx.Node, op: Op) -> None:
        if op.role == Role.WEIGHTED and self.options.weights:
            self._solve(node, op)
        if op.role == Role.SITE:
            self._site(node)
        elif node in self.networks.stored:
            self._store(node)

    def expected(self) -> Expected:
        """What `run` will take: the values of live edges, as far as they may be in memory, and the trials' currents."""
        images, frames = len(self.images), self.task.schedule.frames
        seconds = 1e-9 * sum(nanoseconds(node, images, frames, self.options) for node in self.visited)
        sites = [node for node in self.visited if op_of(node).role == Role.SITE]
        rows = max((len(self._tried_at(node)) * node.meta["shape"][channel_axis(node)] for node in sites), default=0)
        live = min(float(self.lives.bytes_at_once() * images), self.options.memory * 2**30)
        weighted = [op_of(node, Weighted) for node in self.visited if op_of(node).role == Role.WEIGHTED]
        gram = max((op.groups * inputs_of(op) ** 2 for op in weighted if weights_solved(op)), default=0)
        return Expected(seconds, live + 2 * 4 * frames * images * rows + GRAMS * 8 * gram)

    def _tried_at(self, node: fx.Node) -> Tensor:
        channels = node.meta["shape"][channel_axis(node)]
        return self.step.positions(math.prod(node.meta["shape"]) // channels, channels)

    def _store(self, node: fx.Node) -> None:
        for _ in each(self.chunks, lambda chunk: self.networks.store(chunk, node)):
            pass

    # --- which node is read when ---

    def _is_visited(self, node: fx.Node) -> bool:
        if node.op != "call_module":
            return False
        return node in self.networks.stored or op_of(node).role == Role.WEIGHTED

    def _read(self, node: fx.Node) -> tuple[fx.Node, ...]:
        """What the visit of `node` looks at."""
        weighted = op_of(node).role == Role.WEIGHTED
        return (*arguments(node), *(arguments(self._target(node)) if weighted else ()))

    def _affordable(self) -> Tensor:
        """As many of the images as the memory and the files for live edges allow, at least 8."""
        room = int(self.options.memory * 2**30 + disk_space())
        return self.task.images[: max(8, room // self.lives.bytes_at_once())]

    def _target(self, node: fx.Node) -> fx.Node:
        """The furthest sum that only waits for `node`: there the ANN and the spiking network are compared."""
        while len(node.users) == 1 and node not in self.networks.stored:
            (user,) = node.users
            if kind_of(user) != "Add" or arguments(user).count(node) != 1:
                break
            own = self.networks.position[node]
            others = [one for other in arguments(user) if other is not node for one in self.networks.region(other)]
            waits = any(self.networks.position[one] > own and self._is_visited(one) for one in others)
            if waits or user.meta["shape"] != node.meta["shape"]:
                break
            node = user
        return node

    def _read_out(self) -> set[fx.Node]:
        """The weighted operators after which nothing spikes: their outputs are only summed."""
        before: set[fx.Node] = set()
        for node in reversed(self.networks.nodes):
            if node in before or (node.op == "call_module" and op_of(node).role == Role.SITE):
                before.update(node.all_input_nodes)
        return {one for one in self.visited if op_of(one).role == Role.WEIGHTED and one not in before}

    # --- the read-out ---

    def _starts(self) -> tuple[int, ...]:
        """How many frames the read-out may leave out: what the schedule says, or several to choose from."""
        given, frames = self.read_from, self.task.schedule.frames
        free = self.options.read_out and len(self.read_out) <= 1 and given == 0 and len(self.read_at) == 1
        if not free or frames > LATE_UP_TO or "read_from" not in self.task.schedule.options():
            return (given,)
        tried = (0, 1, 2, frames // 4, 3 * frames // 8, frames // 2)
        return tuple(sorted({start for start in tried if 2 * start <= frames}))

    def _choose(self, errors: dict[int, float]) -> None:
        """Leave out as few frames as give (nearly) the least error: whoever leaves out many answers late."""
        if len(errors) > 1:
            enough = WORTH * max(min(errors.values()), 0.0)  # what is solved exactly rounds to less than nothing
            self.read_from = min((start for start, error in errors.items() if error <= enough), default=self.read_from)
            self.tried += [
                {"name": f"read-out leaves out {start} steps", "agreement": None, "error": error}
                | {"chosen": start == self.read_from}
                for start, error in errors.items()
            ]

    def _read_without_classifier(self) -> None:
        """Choose the read-out of a network whose outputs are spikes, or pooled spikes: there is nothing to solve."""
        node, errors = self.networks.outputs()[0], dict.fromkeys(self._starts(), 0.0)
        judging = [chunk for chunk in self.chunks if chunk.held_out] or self.chunks
        for start in errors:
            for chunk in judging:
                residual = self.networks.wanted(chunk, node) - self.networks.read(chunk, node, start)
                errors[start] += float(residual.double().square().sum()) / sum(len(one.images) for one in judging)
        self._choose(errors)

    # --- (a) and (d) ---

    def _solve(self, node: fx.Node, op: Op) -> None:
        entry: dict[str, Any] = {"name": node.name, "origin": str(origin_of(node)), "kind": "weights"}
        self.layers.append(entry)
        if not solvable(op):
            entry["kept"] = f"no least squares for {type(op).__name__}"
            return
        late = node in self.read_out
        starts = self._starts() if late else (0,)
        solutions = {start: self._least_squares(node, op_of(node, Weighted), start) for start in starts}
        if late:
            self._choose({start: solution.error for start, solution in solutions.items()})
        solution = solutions[self.read_from if late else 0]
        replace_op(self.graph, node, solution.op)
        entry.update(solution.entry)
        if solution.presynaptic is not None:
            self.presynaptic[node] = solution.presynaptic

    def _least_squares(self, node: fx.Node, op: Weighted, start: int) -> _Solution:
        """`op` solved for the mean over the frames from `start` on."""
        target, positions = self._target(node), self._positions(op, node)
        cross_validated = node in self.read_out and inputs_of(op) <= CROSS_VALIDATED and not op.depthwise
        parts = [NormalEquations(op) for _ in range(FOLDS if cross_validated else 2)]
        rows = rows_of(self.networks, node, positions, start=start)

        def seen(chunk: Chunk) -> tuple[Any, Tensor]:
            return rows(chunk), lacking_of(self.networks, chunk, op, target, positions, start=start)

        for chunk, (inputs, residual) in zip(self.chunks, each(self.chunks, seen), strict=True):
            if cross_validated:
                for fold, part in enumerate(parts):
                    part.add(inputs[:, fold::FOLDS], residual[:, fold::FOLDS])
            else:
                parts[chunk.held_out].add(inputs, residual)
        splits: list[Split]
        if cross_validated:
            others = [parts[:fold] + parts[fold + 1 :] for fold in range(len(parts))]
            splits = [(Merged(some), part) for some, part in zip(others, parts, strict=True)]
        else:
            splits = [(parts[0], parts[1] if parts[1].rows else parts[0])]
        judged = max(sum(judge.rows for _, judge in splits), 1)
        before = sum_of([judge.errors(torch.zeros_like(judge.cross)) for _, judge in splits])
        best, found = best_penalty(PENALTIES, splits)
        accepted = found < before
        everything = Merged(parts)
        solved = changed(op, everything.solve(best), accepted.double())
        after = float(torch.where(accepted, found, before).sum()) / judged
        entry = {
            "penalty": best,
            "rows": everything.rows,
            "error_before": float(before.sum()) / judged,
            "error_after": after,
            "accepted": int(accepted.sum()),
            "channels": len(accepted),
        }
        presynaptic = None if node in self.read_out else Presynaptic(node, parts[0], parts[1], everything, positions)
        return _Solution(solved, presynaptic, after, entry)

    def _positions(self, op: Weighted, node: fx.Node) -> Tensor:
        """Output positions that enter the least squares."""
        shape = node.meta["shape"]
        total = math.prod(shape[:-1] if op.features_last else shape[1:])
        return self.step.positions(total, op.outputs, inputs_of(op) if weights_solved(op) else 0)

    # --- (b) and (c) ---

    def _site(self, node: fx.Node) -> None:
        firing = neuron_at(node, self.neuron)
        neuron = SiteNeuron(*firing, self.task.schedule, self.networks.native, self.read_at)
        weighted = self._weighted(node)
        presynaptic = self.presynaptic.pop(weighted, weighted) if weighted is not None else None
        starts = [one[node.name] / neuron.levels for one in self.bounds]
        site, entry = self.step.run(node, neuron, self.found[node.name], starts, presynaptic)
        self.networks.forget_remembered(self.chunks)
        self.sites[node.name] = site
        self.layers.append({"name": node.name, "origin": str(origin_of(node)), "kind": "site", **entry})
        self.presynaptic.clear()

    def _weighted(self, node: fx.Node) -> fx.Node | None:
        """The operator whose weights and bias reach a site directly, or None."""
        (source,) = arguments(node)
        if source in self.networks.stored:  # others have read it already
            return None
        for one in reversed(self.visited):
            if self.networks.position[one] > self.networks.position[source] or one in self.networks.stored:
                continue
            if op_of(one).gathers and self._target(one) is source:
                return one
        return None
