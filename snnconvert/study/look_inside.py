"""A few neurons and images in detail, for a reader who wants to see spikes: trains, membranes, rates, examples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snnconvert.data.moving import joined
from snnconvert.graph.dialect import arguments, calls, neurons_of, op_of, origin_of
from snnconvert.graph.kinds import Neuron, Role
from snnconvert.graph.types import Snn
from snnconvert.simulate.moving_input import mean_so_far
from snnconvert.simulate.result import Probe, Simulation, result_alone
from snnconvert.study.attribution import in_double, neuron_inputs

RATE_IMAGES = 4
EXAMPLE_IMAGES = 48
RATE_BINS = 10
TRAINS = 14
# beyond these, following every membrane of one image would take seconds
MOST_STEPS = 3e9
MOST_SPIKES = 6e7


@dataclass(frozen=True)
class Example:
    """One image: prepared input (1, *sample), its index, and the class probabilities (answers, classes)."""

    kind: str
    index: int
    image: Tensor
    probabilities: Tensor
    settled: int | None


class LookInside:
    """Watches the first images of a simulation.

    Args:
        snn: the network; three of its layers (first, middle, last) are looked at neuron by neuron.
    """

    def __init__(self, snn: Snn) -> None:
        self.snn, self.frames = snn, snn.schedule.frames
        self.nodes = {node.name: node for node in neurons_of(snn.graph)}
        names = list(self.nodes)
        self.chosen = list(dict.fromkeys([names[0], names[len(names) // 2], names[-1]])) if names else []
        self.follows = followable(snn)
        self.trains: dict[str, Tensor] = {}
        self.histograms: dict[str, list[int]] = {}
        self.membranes: dict[str, Tensor] = {}
        self.limits: dict[str, Tensor] = {}
        self.images = torch.zeros(0)
        self.outputs: list[Tensor] = []
        self.seen = 0
        self.kept: list[Tensor] = []

    def begin(self, images: Tensor) -> Probe | None:
        """A probe for the engine's run on `images`, or None once enough were seen."""
        if self.seen >= EXAMPLE_IMAGES or not self.nodes:
            return None
        first, self.seen = self.seen == 0, self.seen + len(images)
        self.kept.append(images[: EXAMPLE_IMAGES - self.seen + len(images)])

        def probe(name: str, by_frame: Tensor) -> None:
            op = op_of(self.nodes[name], Neuron)
            rates = by_frame[:, :RATE_IMAGES].sum(0, dtype=torch.float32).cpu() / (self.frames * op.levels)
            silent = int((rates == 0).sum())
            counts = torch.histc(rates[rates != 0].abs(), RATE_BINS, 0.0, 1.0).to(torch.int64).tolist()
            self.histograms[name] = [silent, *counts]
            if self.follows or name in self.chosen:
                self.trains[name] = by_frame[:, 0].cpu().clone()

        return probe if first else result_alone

    @torch.inference_mode()
    def end(self, seen: Simulation) -> None:
        """Called after each watched run."""
        logits = seen.outputs[0].flatten(2).cpu()
        self.outputs.append(logits[:, : len(self.kept[-1])].float())
        if len(self.outputs) == 1 and self.follows:
            self._follow(self.kept[0][:1])

    def _follow(self, image: Tensor) -> None:
        """Membranes of the chosen layers after each frame: v(t) = v(0) + all input so far - threshold * units sent."""
        schedule, times = self.snn.schedule, torch.arange(1, self.frames + 1, dtype=torch.float64)
        sent = {name: train.double().cumsum(0) for name, train in self.trains.items()}
        means = {name: total / _along(times, total) for name, total in sent.items()}
        graph, ahead = in_double(self.snn.graph), schedule.waited
        arrived = (torch.arange(self.frames) + ahead).clamp(max=self.frames - 1)
        for node, mean in neuron_inputs(graph, mean_so_far(self.snn.graph, image, self.frames), means):
            if node.name in self.chosen:
                op = op_of(node, Neuron)
                received = (mean * _along(times, mean))[arrived]
                membrane = op.initial + received - op.threshold * sent[node.name]
                self.membranes[node.name] = (membrane / op.threshold).float()
                self.limits[node.name] = op(mean[-1])
        self.trains = {name: self.trains[name] for name in self.chosen}

    # --- what there is to show ---

    def neurons(self) -> list[dict[str, Any]]:
        """For each chosen layer a neuron of middling rate, step by step, in thresholds; empty where not followed."""
        rows = []
        for name in self.chosen:
            if name not in self.membranes:
                continue
            rates = self.limits[name].flatten()
            index = int((rates - 0.35).abs().argmin())
            train = self.trains[name].flatten(1)[:, index].double()
            steps = torch.arange(1, len(train) + 1)
            rows.append(
                {
                    "layer": str(origin_of(self.nodes[name])),
                    "neuron": index,
                    "spikes": [int(value) for value in train],
                    "membrane": _rounded(self.membranes[name].flatten(1)[:, index]),
                    "rate": _rounded(train.cumsum(0) / steps),
                    "limit": round(float(rates[index]), 4),
                }
            )
        return rows

    def raster(self) -> list[dict[str, Any]]:
        """Spike trains of a few active neurons of each chosen layer, spread over the layer."""
        rows = []
        for name in self.chosen:
            trains = self.trains[name].flatten(1)
            active = trains.count_nonzero(0).nonzero().flatten()
            pick = active[torch.linspace(0, max(0, len(active) - 1), min(TRAINS, len(active))).long()]
            rows.append(
                {
                    "layer": str(origin_of(self.nodes[name])),
                    "neurons": pick.tolist(),
                    "trains": [[int(value) for value in trains[:, index]] for index in pick],
                }
            )
        return rows

    def rates(self) -> list[dict[str, Any]]:
        """How many neurons of each layer are silent, and how many fall into each tenth of the largest rate."""
        edges = [index / RATE_BINS for index in range(RATE_BINS + 1)]
        return [
            {"layer": str(origin_of(self.nodes[name])), "silent": counts[0], "counts": counts[1:], "edges": edges}
            for name, counts in self.histograms.items()
        ]

    def examples(self, labels: NDArray[np.int64]) -> list[Example]:
        """An image that is right early, the one that is right last, and up to two that are wrong."""
        if not self.outputs:
            return []
        sums = torch.cat(self.outputs, 1)
        truth = torch.from_numpy(labels[: sums.shape[1]])
        times = torch.arange(1, len(sums) + 1).reshape(-1, 1, 1)
        probabilities = (sums / times).softmax(2)
        right = sums.argmax(2) == truth
        # The first frame from which the answer stays right: one after the last wrong one.
        wrong = (~right).int().cumsum(0).argmax(0) + 1
        settled = torch.where(right.all(0), 0, wrong)
        indices = torch.arange(sums.shape[1])
        good, bad = indices[right[-1]], indices[~right[-1]]
        chosen: list[tuple[str, int]] = []
        if len(good):
            chosen.append(("right early", int(good[settled[good].argmin()])))
            late = int(good[settled[good].argmax()])
            chosen += [("right late", late)] if late != chosen[0][1] else []
        chosen += [("wrong", int(index)) for index in bad[:2]]
        images = joined(self.kept)
        return [
            Example(kind, k, images[k : k + 1], probabilities[:, k], None if kind == "wrong" else int(settled[k]))
            for kind, k in chosen
        ]


def followable(snn: Snn) -> bool:
    """Whether following one image through every frame is cheap enough, and membranes follow from sums at all."""
    neurons, multiplications = extent(snn)
    frames = snn.schedule.frames
    return snn.schedule.keeps_membrane and frames * multiplications <= MOST_STEPS and frames * neurons <= MOST_SPIKES


def extent(snn: Snn) -> tuple[int, int]:
    """Neurons, and multiplications of one dense pass over one image."""
    neurons = multiplications = 0
    for node, op in calls(snn.graph):
        size = math.prod(node.meta["shape"])
        neurons += size if op.role == Role.NEURON else 0
        if op.role == Role.WEIGHTED:
            multiplications += op.multiply_accumulates([arguments(node)[0].meta["shape"]], node.meta["shape"])
    return neurons, multiplications


def _along(times: Tensor, like: Tensor) -> Tensor:
    return times.reshape(-1, *([1] * (like.ndim - 1)))


def _rounded(values: Tensor) -> list[float]:
    return [round(float(value), 4) for value in values]
