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
from snnconvert.simulate.result import Probe, Simulation

FIT_IMAGES = 64


@dataclass(frozen=True)
class Batch:
    """Inputs (n, *sample), class labels or None, and the ANN's predictions (n,)."""

    images: Tensor
    labels: NDArray[np.int64] | None
    reference: NDArray[np.int64]


@dataclass(frozen=True)
class FitCurve:
    """What a network does over time.

    Attributes:
        samples: number of images.
        timesteps: 1..T.
        correct: images classified rightly after each step; None before the first answer or without labels.
        agreed: images on which SNN and ANN decide alike; None before the first answer.
        spikes: spikes per image sent up to and including each step, all layers.
        units: as spikes, but a spike that carries n units counts n.
        layers: one record per site (see `LayerFit.record`).
        predictions: the SNN's last decisions, one per image.
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
    predictions: NDArray[np.int64]
    early_exit: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()


class Watcher(Protocol):
    """Looks at the spikes of the first images while they are simulated."""

    def begin(self, images: Tensor) -> Probe | None:
        """A probe for the engine's run on `images`, or None to let it run unwatched."""

    def end(self, seen: Simulation) -> None:
        """Called after each watched run with its result."""


@dataclass
class Tally:
    """Counts over images; those of several parts add up, in any order but for the predictions.

    Attributes:
        samples: number of images.
        labelled: whether all of them had labels.
        correct, agreed: images by answer, shape (answers,).
        spikes, units: by site, as in `Simulation`.
        exits: when images may leave early.
        predictions: the last decisions, one per image.
        notes: what to say about the simulation itself.
    """

    samples: int
    labelled: bool
    correct: NDArray[np.int64]
    agreed: NDArray[np.int64]
    spikes: dict[str, Tensor]
    units: dict[str, Tensor]
    exits: Exits
    predictions: NDArray[np.int64]
    notes: tuple[str, ...] = ()

    def add(self, other: Tally) -> None:
        """Count the images of `other` too, which come after these."""
        self.samples += other.samples
        self.labelled &= other.labelled
        self.correct += other.correct
        self.agreed += other.agreed
        for own, new in ((self.spikes, other.spikes), (self.units, other.units)):
            for name, counts in new.items():
                own[name] = own[name] + counts if name in own else counts
        self.exits.include(other.exits)
        self.notes = tuple(dict.fromkeys((*self.notes, *other.notes)))
        self.predictions = np.concatenate([self.predictions, other.predictions])


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
    engine, answers = LayerEngine(snn, device), len(snn.schedule.answer_steps)
    nothing = np.zeros(0, np.int64)
    whole = Tally(0, True, np.zeros(answers, np.int64), np.zeros(answers, np.int64), {}, {}, Exits(snn), nothing)
    usual = chunk_size(snn)
    later = planned_size(snn, device) if size in (None, usual) else None  # another size: memory has run out before
    for batch in regrouped(batches, size or usual, watched_images(snn), later):
        seen = watched_run(engine, batch.images, watchers)
        decided = decisions(seen.outputs[0])
        right = np.zeros(answers, np.int64) if batch.labels is None else (decided == batch.labels).sum(1)
        agreed = (decided == batch.reference).sum(1)
        exits = Exits(snn)
        exits.add(seen.outputs[0], decided, batch.labels)
        labelled, count = batch.labels is not None, len(batch.images)
        whole.add(Tally(count, labelled, right, agreed, seen.spikes, seen.units, exits, decided[-1]))
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
        batches: inputs with reference decisions; any batch size gives the same result.
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
    answers = {step: index for index, step in enumerate(schedule.answer_steps)}
    return FitCurve(
        samples=found.samples,
        timesteps=list(range(1, schedule.timesteps + 1)),
        correct=_by_step(found.correct if found.labelled else None, answers, schedule.timesteps),
        agreed=_by_step(found.agreed, answers, schedule.timesteps),
        spikes=_cumulative(snn, found.spikes, found.samples),
        units=_cumulative(snn, found.units, found.samples),
        layers=fit.records(found.spikes, found.units, found.samples),
        predictions=found.predictions,
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
    labels = [batch.labels for batch in batches if batch.labels is not None]
    return Batch(
        torch.cat([batch.images for batch in batches]),
        np.concatenate(labels) if len(labels) == len(batches) else None,
        np.concatenate([batch.reference for batch in batches]),
    )


def _slice(batch: Batch, start: int, stop: int) -> Batch:
    labels = None if batch.labels is None else batch.labels[start:stop]
    return Batch(batch.images[start:stop], labels, batch.reference[start:stop])


def watched_run(engine: LayerEngine, images: Tensor, watchers: Sequence[Watcher]) -> Simulation:
    """One run of the engine that all `watchers` see."""
    looking = [(watcher, probe) for watcher in watchers if (probe := watcher.begin(images)) is not None]

    def each(name: str, by_frame: Tensor) -> None:
        for _, probe in looking:
            probe(name, by_frame)

    seen = engine.run(images, each if looking else None)
    for watcher, _ in looking:
        watcher.end(seen)
    return seen


def decisions(logits: Tensor) -> NDArray[np.int64]:
    """The first largest class of (answers, batch, *classes), shape (answers, batch)."""
    found: NDArray[np.int64] = np.argmax(logits.flatten(2).cpu().numpy(), axis=2)
    return found


def _by_step(values: NDArray[np.int64] | None, answers: dict[int, int], timesteps: int) -> list[int | None]:
    result: list[int | None] = []
    latest: int | None = None
    for step in range(1, timesteps + 1):
        if values is not None and step in answers:
            latest = int(values[answers[step]])
        result.append(latest)
    return result


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
                float(limit.abs().sum()),
                float(limit.square().sum()),
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
