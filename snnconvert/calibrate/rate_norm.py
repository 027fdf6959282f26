"""Rate Norm Layer calibration of a pretrained network: a shared p, chosen without labels and without training.

Ding, Yu, Tian & Huang, IJCAI 2021 (arXiv 2105.11654), value-preserving variant: every activation is clipped at
theta = p * M with M the largest activation on the calibration images. p minimises

    [1 - cos(teacher logits, clipped logits)] + lambda * mean over layers of Omega,    Omega = sum r / sum r^2

against the frozen, unclipped teacher; r = clip(a, 0, theta) / theta. The authors train p; a grid search over a shared p
needs no gradient. The default lambda = 1 / (3 T) follows from T being known. The best p and its two neighbours are then
ranked by what counts: how the spiking network does at its task beside the ANN at T (`tasks`), on calibration images.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from snnconvert.calibrate import options
from snnconvert.calibrate.observe import Range, answers, broadcastable, observed, ranges
from snnconvert.calibrate.task import Task
from snnconvert.compile.network import compile_network
from snnconvert.compile.spikify import neuron_in
from snnconvert.graph.edit import copied, replace_op
from snnconvert.graph.kinds import RateNorm
from snnconvert.graph.types import Calibrated
from snnconvert.options import made
from snnconvert.simulate.agreement import rank

GRID = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
RANKING_IMAGES = 256


@dataclass(frozen=True)
class Objective:
    """The rate inference objective of one p: distance to the teacher, mean Omega, and their weighted sum."""

    p: float
    distance: float
    omega: float
    value: float

    def row(self) -> dict[str, Any]:
        """As a row of the candidates of a calibration."""
        own = {"p": self.p, "distance": self.distance, "omega": self.omega, "objective": self.value}
        return {"name": f"p = {self.p:g}", **own}


def calibrate_rate_norm(task: Task) -> Calibrated:
    """Choose p by the rate inference objective, then among its neighbours by how the SNN does at the task.

    Its options are those of `options.RateNorm`.
    """
    graph = task.ann.graph
    given = made(options.RateNorm, task.options)
    granularity, weight = given.granularity, given.lambda_ or default_weight(task)
    found, teacher = ranges(graph, task.images, task.progress)
    if granularity == "layer":
        found = {
            name: replace(site, largest=torch.full_like(site.largest, float(site.largest.max())))
            for name, site in found.items()
        }
    grid = GRID if given.p is None else (given.p,)
    objectives = [objective(task, found, teacher, p, weight) for p in grid]
    best = min(range(len(grid)), key=lambda i: objectives[i].value)
    neighbours = sorted({max(best - 1, 0), best, min(best + 1, len(grid) - 1)})
    ranked = []
    for index in neighbours:
        calibrated = _at(task, found, grid[index], granularity, weight)
        merit = _merit(task, calibrated) if len(neighbours) > 1 else 0.0
        ranked.append((merit, -objectives[index].value, index))
    chosen = max(ranked)[2]
    values = {index: abs(merit) for merit, _, index in ranked if len(neighbours) > 1}
    kind = task.ann.task
    candidates = [
        {
            **one.row(),
            "value": values.get(i),
            "agreement": values.get(i) if kind.row.counted else None,
            "chosen": i == chosen,
        }
        for i, one in enumerate(objectives)
    ]
    result = _at(task, found, grid[chosen], granularity, weight)
    return replace(result, record={**result.record, "candidates": candidates})


def default_weight(task: Task) -> float:
    """The weight of Omega that follows from T: lambda = 1 / (3 T)."""
    return 1 / (3 * task.schedule.frames * neuron_in(task.schedule, task.neuron).levels)


def objectives_of(task: Task, found: dict[str, Range], teacher: Tensor) -> list[Objective]:
    """The rate inference objective of every p of GRID, the least first; `teacher` are the logits, (n, classes)."""
    weight = default_weight(task)
    return sorted((objective(task, found, teacher, p, weight) for p in GRID), key=lambda one: one.value)


def clipped(graph: fx.GraphModule, bounds: dict[str, Tensor]) -> fx.GraphModule:
    """A copy of `graph` with a Rate Norm Layer at every site of `bounds` (broadcastable to one sample)."""
    copy = copied(graph)
    for node in copy.graph.nodes:
        if node.name in bounds:
            signed = type(copy.get_submodule(str(node.target))).__name__ == "Identity"
            replace_op(copy, node, RateNorm(bounds[node.name].float(), signed=signed))
    copy.recompile()
    return copy


def objective(task: Task, found: dict[str, Range], teacher: Tensor, p: float, weight: float) -> Objective:
    """Evaluate one p on all calibration images; sums in float64 over all images, divided once."""
    bounds = {name: broadcastable(site.largest * p, site.axis, site.rank) for name, site in found.items()}
    network = clipped(task.ann.graph, bounds)
    first = dict.fromkeys(bounds, 0.0)
    second = dict.fromkeys(bounds, 0.0)
    distance, start = 0.0, 0

    def see(name: str, values: Tensor) -> None:
        rates = (values / bounds[name].float()).abs()
        first[name] += float(rates.sum(dtype=torch.float64))
        second[name] += float(rates.double().square().sum())

    for output, *_ in observed(network, task.images, f"rate norm p = {p:g}", task.progress, see=see):
        logits = output.flatten(1).double()
        reference = teacher[start : start + len(logits)].double()
        distance += float((1 - F.cosine_similarity(logits, reference, dim=1)).sum())
        start += len(logits)
    omegas = [first[name] / second[name] for name in bounds if second[name] > 0]
    omega = sum(omegas) / max(len(omegas), 1)
    mean = distance / len(task.images)
    return Objective(p, mean, omega, mean + weight * omega)


def _at(task: Task, found: dict[str, Range], p: float, granularity: str, weight: float) -> Calibrated:
    result = {name: task.site(site.largest * p, site) for name, site in found.items()}
    record = {
        "method": "rnl",
        "options": {"p": p, "lambda": weight, "granularity": granularity, "initial": 0.5},
        "dead_channels": {name: site.dead for name, site in found.items() if site.dead},
    }
    return task.calibrated(task.ann.graph, result, record)


def _merit(task: Task, calibrated: Calibrated) -> float:
    """The metric of the network's task at the last step, of an error its negative."""
    metric, images = task.ann.task.headline, task.images[:RANKING_IMAGES]
    scores, _ = rank(compile_network(calibrated), images, answers(task.ann, images))
    value = scores.curves()[metric.name].values[-1]
    return metric.gain(0.0 if value is None else value, 0.0)
