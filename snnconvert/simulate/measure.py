"""Measure a spiking network: accuracy, agreement and spikes at every step, and how well each layer fits its ANN.

One pass over the data gives everything; memory does not grow with the number of images.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snnconvert.data.moving import joined
from snnconvert.graph.dialect import neurons_of, op_of, origin_of
from snnconvert.graph.kinds import Neuron
from snnconvert.graph.schedule.timing import site_depths
from snnconvert.graph.types import Snn
from snnconvert.graph.walk import values_of
from snnconvert.progress import Progress, silent
from snnconvert.simulate.chunks import chunk_size, planned_size, watchable
from snnconvert.simulate.early_exit import Exits
from snnconvert.simulate.first_spikes import FirstSpikes
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.simulate.result import Probe, Simulation, result_alone
from snnconvert.tasks.scores import Curve, Scores, scores_of

FIT_IMAGES = 64


@dataclass(frozen=True)
class Batch:
    """Inputs (n, *sample), labels or None, and the ANN's answers (n, ...) as `tasks.scores.answer_of` gives them."""

    images: Tensor
    labels: NDArray[Any] | None
    reference: NDArray[Any] | None


@dataclass(frozen=True)
class FitCurve:
    """What a network does over time.

    Attributes:
        samples: number of images.
        timesteps: 1..T.
        correct: images classified rightly after each step; None before the first answer, without labels, or where the
            task is no classification.
        agreed: images on which SNN and ANN decide alike; None likewise.
        spikes: spikes per image sent up to and including each step, all layers.
        units: as spikes, but a spike that carries n units counts n.
        layers: one record per site (see `LayerFit.record`).
        scores: by which the network is judged; `metrics` has what follows from them.
        early_exit: when images leave, of a network with a limit for it (see `Exits.record`).
        notes: what to say about the simulation itself.
    """

    samples: int
    timesteps: list[int]
    correct: list[int | None]
    agreed: list[int | None]
    spikes: list[float]
    units: list[float]
    layers: list[dict[str, Any]]
    scores: Scores
    steps: list[int]
    early_exit: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()

    @property
    def predictions(self) -> NDArray[np.int64] | None:
        """The SNN's last decisions, one per image, of a classifier."""
        return self.scores.rows["decided"][-1] if "decided" in self.scores.rows else None

    def metrics(self) -> dict[str, Curve]:
        """Every metric of the task that is known, by step; None before the first answer."""
        found = self.scores.curves()
        return {
            name: Curve(self._by_step(curve.values), self._by_step(curve.intervals)) for name, curve in found.items()
        }

    def _by_step(self, answers: list[Any]) -> list[Any]:
        return by_step(answers, self.steps, len(self.timesteps))


class Watcher(Protocol):
    """Looks at the spikes of the first images while they are simulated."""

    def begin(self, images: Tensor) -> Probe | None:
        """A probe for the engine's run on `images` (`result_alone` for what it ends with), or None to see nothing."""

    def end(self, seen: Simulation) -> None:
        """Called after each watched run with its result."""


@dataclass
class Tally:
    """Counts over images; those of several parts add up, in order.

    Attributes:
        samples: number of images.
        scores: of the answers.
        spikes, units: by site, as in `Simulation`.
        exits: when images may leave early.
        notes: what to say about the simulation itself.
    """

    samples: int
    scores: Scores
    spikes: dict[str, Tensor]
    units: dict[str, Tensor]
    exits: Exits
    notes: tuple[str, ...] = ()

    def add(self, other: Tally) -> None:
        """Count the images of `other` too, which come after these."""
        self.samples += other.samples
        self.scores.include(other.scores)
        for own, new in ((self.spikes, other.spikes), (self.units, other.units)):
            for name, counts in new.items():
                own[name] = own[name] + counts if name in own else counts
        self.exits.include(other.exits)
        self.notes = tuple(dict.fromkeys((*self.notes, *other.notes)))


def tally(
    snn: Snn,
    batches: Iterable[Batch],
    *,
    total: int = 0,
    progress: Progress = silent,
    watchers: Sequence[Watcher] = (),
    device: str = "cpu",
    size: int | None = None,
) -> Tally:
    """Simulate all batches and count; arguments as for `measure`."""
    engine = LayerEngine(snn, device)
    whole = Tally(0, scores_of(snn.task), {}, {}, Exits(snn))
    usual = chunk_size(snn)
    later = planned_size(snn, device) if size in (None, usual) else None  # another size: memory has run out before
    for batch in regrouped(batches, size or usual, watched_images(snn), later):
        seen = watched_run(engine, batch.images, watchers)
        scores, exits = scores_of(snn.task), Exits(snn)
        scores.add([sums.cpu().numpy() for sums in seen.outputs], batch.reference, batch.labels)
        exits.add(seen.outputs, batch.labels)
        whole.add(Tally(len(batch.images), scores, seen.spikes, seen.units, exits))
        progress("simulate", whole.samples, total)
    whole.notes = engine.notes
    return whole


def measure(
    snn: Snn,
    batches: Iterable[Batch],
    *,
    total: int,
    progress: Progress = silent,
    watchers: Sequence[Watcher] = (),
    device: str = "cpu",
    size: int | None = None,
    rest: Iterable[Tally] = (),
) -> FitCurve:
    """Simulate all batches.

    Args:
        snn: the network.
        batches: inputs with the ANN's answers; any batch size gives the same result.
        total: number of images, for the progress.
        progress: called after each chunk.
        watchers: what else to look at on the way.
        device: where to simulate.
        size: images at once; by default what fits the cache.
        rest: counts of the images after these, simulated elsewhere; asked for when these are done.
    """
    schedule, fit = snn.schedule, LayerFit(snn)
    found = tally(snn, batches, total=total, progress=progress, watchers=[fit, *watchers], device=device, size=size)
    for part in rest:
        found.add(part)
        progress("simulate", found.samples, total)
    steps, rows = schedule.answer_steps, found.scores.rows
    counts = {name: rows[name].sum(1).tolist() for name in ("correct", "agreed") if name in rows}
    unknown = [None] * len(steps)
    return FitCurve(
        samples=found.samples,
        timesteps=list(range(1, schedule.timesteps + 1)),
        correct=by_step(counts.get("correct", unknown), steps, schedule.timesteps),
        agreed=by_step(counts.get("agreed", unknown), steps, schedule.timesteps),
        spikes=_cumulative(snn, found.spikes, found.samples),
        units=_cumulative(snn, found.units, found.samples),
        layers=fit.records(found.spikes, found.units, found.samples),
        scores=found.scores,
        steps=steps,
        early_exit=found.exits.record(),
        notes=found.notes,
    )


def watched_images(snn: Snn) -> int:
    """Images, from the first, that watchers may look at: whole chunks, so that these are the same in every run."""
    size = chunk_size(snn)
    return -(-FIT_IMAGES // size) * size


def regrouped(batches: Iterable[Batch], size: int, watched: int = 0, later: int | None = None) -> Iterator[Batch]:
    """The same images in batches of `size`: what is looked at must not depend on how the images were read.

    After the first `watched` images batches are of the size `later`, if there is one.
    """
    waiting: list[Batch] = []
    held = done = 0
    for batch in batches:
        waiting.append(batch)
        held += len(batch.images)
        while held >= size:
            whole = _joined(waiting)
            yield _slice(whole, 0, size)
            waiting, held, done = [_slice(whole, size, held)], held - size, done + size
            if later is not None and done >= watched:
                size, later = later, None
    if held:
        yield _joined(waiting)


def _joined(batches: list[Batch]) -> Batch:
    if len(batches) == 1:
        return batches[0]
    return Batch(
        joined([batch.images for batch in batches]),
        _whole([batch.labels for batch in batches]),
        _whole([batch.reference for batch in batches]),
    )


def _whole(parts: Sequence[NDArray[Any] | None]) -> NDArray[Any] | None:
    known = [part for part in parts if part is not None]
    return np.concatenate(known) if len(known) == len(parts) else None


def _slice(batch: Batch, start: int, stop: int) -> Batch:
    parts = (None if part is None else part[start:stop] for part in (batch.labels, batch.reference))
    return Batch(batch.images[start:stop], *parts)


def watched_run(engine: LayerEngine, images: Tensor, watchers: Sequence[Watcher]) -> Simulation:
    """One run of the engine that all `watchers` see."""
    looking = [(watcher, probe) for watcher in watchers if (probe := watcher.begin(images)) is not None]
    probes = [probe for _, probe in looking if probe is not result_alone]

    def each(name: str, by_frame: Tensor) -> None:
        for probe in probes:
            probe(name, by_frame)

    seen = engine.run(images, each if probes else None)
    for watcher, _ in looking:
        watcher.end(seen)
    return seen


def by_step(answers: Sequence[Any], steps: Sequence[int], timesteps: int) -> list[Any]:
    """What stands after each step: the latest of the answers, which stand after `steps`; None before the first."""
    found: list[Any] = []
    known = dict(zip(steps, answers, strict=True))
    for step in range(1, timesteps + 1):
        found.append(known.get(step, found[-1] if found else None))
    return found


def _cumulative(snn: Snn, counts: dict[str, Tensor], images: int) -> list[float]:
    """Spikes of all sites by global step, accumulated, per image."""
    schedule, depths = snn.schedule, site_depths(snn.graph)
    by_step = np.zeros(schedule.timesteps)
    for name, own in counts.items():
        for index, value in enumerate(own.tolist()):
            frame, phase = divmod(index, schedule.steps_per_frame)
            step = schedule.emission_step(depths[name], frame, phase)
            if step < schedule.timesteps:
                by_step[step] += value
    return [float(value) for value in np.cumsum(by_step) / max(images, 1)]


class LayerFit:
    """Sums for every site's fit curve K(t) = |r(t) - r*|^2 / |r*|^2, streamed over the first images.

    r(t) is the mean number of units per frame after t frames, r* its limit (the clipped ANN's activation over the
    threshold). Ding et al., IJCAI 2021, bound K(t) < 2 Omega / t with Omega = |r*|_1 / |r*|_2^2 for rate codes.
    """

    def __init__(self, snn: Snn, images: int | None = None) -> None:
        self.snn, self.left = snn, watchable(snn, FIT_IMAGES) if images is None else images
        frames = snn.schedule.frames
        self.frames = sorted({2**i for i in range(12) if 2**i < frames} | {frames})
        self.nodes = {node.name: node for node in neurons_of(snn.graph)}
        self.error = {name: torch.zeros(len(self.frames), dtype=torch.float64) for name in self.nodes}
        self.sums = {name: torch.zeros(5, dtype=torch.float64) for name in self.nodes}
        self.first = {name: FirstSpikes(frames) for name in self.nodes}
        self.images = 0

    def begin(self, images: Tensor) -> Probe | None:
        """A probe for the engine's run on `images`, or None once enough were seen."""
        if self.left <= 0:
            return None
        limit = limits(self.snn, images)
        self.left -= len(images)
        self.images += len(images)

        def probe(name: str, by_frame: Tensor) -> None:
            self._add(name, by_frame, limit[name].float())

        return probe

    def end(self, seen: Simulation) -> None:
        """Nothing is left to do after a run."""

    def _add(self, name: str, by_frame: Tensor, limit: Tensor) -> None:
        last, before = torch.zeros_like(limit), 0
        for index, frame in enumerate(self.frames):
            last += by_frame[before:frame].sum(0, dtype=torch.float32)
            self.error[name][index] += (last / frame - limit).square().sum(dtype=torch.float64)
            before = frame
        levels = op_of(self.nodes[name], Neuron)
        self.sums[name] += torch.tensor(
            [
                float(limit.abs().sum(dtype=torch.float64)),
                float(limit.square().sum(dtype=torch.float64)),
                float(((last != 0) & (limit == 0)).sum()),
                float((last >= levels.levels * len(by_frame)).sum()),
                float(limit.numel()),
            ],
            dtype=torch.float64,
        )
        self.first[name].add(by_frame)

    def records(self, spikes: dict[str, Tensor], units: dict[str, Tensor], images: int) -> list[dict[str, Any]]:
        """One JSON-able record per neuron layer."""
        depths, schedule = site_depths(self.snn.graph), self.snn.schedule
        records = []
        for name, node in self.nodes.items():
            op = op_of(node, Neuron)
            neurons = int(np.prod(node.meta["shape"]))
            first, second, spurious, saturated, count = self.sums[name].tolist()
            origin = origin_of(node)
            omega = first / second if second > 0 else None
            emitted = [frame * schedule.steps_per_frame for frame in self.frames]
            errors = [float(value) / second for value in self.error[name]] if second > 0 else []
            records.append(
                {
                    "name": name,
                    "origin": {"name": origin.name, "operator": origin.operator},
                    "depth": depths[name],
                    "channels": op.threshold.numel(),
                    "neurons": neurons,
                    "model": op.model,
                    "units": op.levels,
                    "threshold": summary(op.threshold),
                    "spikes_per_image": float(spikes[name].sum()) / max(images, 1),
                    "units_per_image": float(units[name].sum()) / max(images, 1),
                    "firing_rate": float(spikes[name].sum()) / max(images * neurons * len(spikes[name]), 1),
                    "dead_share": self.first[name].dead_share,
                    "first_spike": self.first[name].record(schedule, depths[name]),
                    "saturated_share": saturated / count if count else None,
                    "sin_share": spurious / count if count else None,
                    "omega": omega,
                    "fit": [{"t": t, "k": k} for t, k in zip(emitted, errors, strict=False)],
                }
            )
        return records


def summary(tensor: Tensor) -> dict[str, float]:
    """Least, median and largest value."""
    flat = tensor.double().flatten()
    return {"min": float(flat.min()), "median": float(flat.median()), "max": float(flat.max())}


def limits(snn: Snn, images: Tensor) -> dict[str, Tensor]:
    """The rate of every neuron for T -> infinity, units per frame: the spiking graph run as a clipped ANN."""
    wanted = neurons_of(snn.graph)
    return {node.name: value for node, value in values_of(snn.graph, images.double()) if node in wanted}
