"""Where training for other steps than those calibrated for starts: the thresholds that agree best at once.

Tried are multiples of the thresholds as they are, and of theta / Omega by channel, with Omega = |r|_1 / |r|_2^2
of the clipped rates r: in one step a spike stands for all values above it, and theta / Omega = |x|_2^2 / |x|_1 is their
mean weighted by themselves, the Hoyer extremum (Datta et al., 2022, arXiv 2212.10170).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, fx

from snnconvert.compile.network import compile_network
from snnconvert.compile.spikify import neuron_at, neuron_in
from snnconvert.data.datasets import Dataset
from snnconvert.graph.schedule import Schedule
from snnconvert.graph.types import Ann, Calibrated
from snnconvert.graph.walk import applied, walk
from snnconvert.train.loop import Judge

FACTORS = (0.35, 0.5, 0.7, 0.85, 1.0, 1.2, 1.4, 1.7, 2.0, 2.4, 2.8)
# of theta / Omega, in one step only
HOYER_FACTORS = (0.5, 0.7, 1.0, 1.4, 2.0)
TRIED_ON = 256


def start_for(calibrated: Calibrated, schedule: Schedule, teacher: Ann, learned: Dataset) -> tuple[Calibrated, float]:
    """A calibration to start from, and by what its thresholds were multiplied, in the geometric mean.

    Args:
        schedule: the steps to train for; for those calibrated for nothing changes.
        learned: images to train on, of which a few judge.
    """
    if schedule.frames == calibrated.schedule.frames:
        return calibrated, 1.0
    images: Tensor = learned.images(range(min(TRIED_ON, len(learned))))
    judge = Judge(teacher.graph, calibrated.network.task, images)
    neuron = neuron_in(schedule, calibrated.neuron)
    usual = {name: torch.ones_like(one.threshold) for name, one in calibrated.sites.items()}
    tried = [_scaled(calibrated, usual, factor) for factor in FACTORS]
    if schedule.frames == 1:
        tried += [_scaled(calibrated, _hoyer(calibrated, images), factor) for factor in HOYER_FACTORS]
    best = max(tried, key=lambda one: judge.exact(compile_network(one, schedule, neuron)))
    pairs = zip(best.sites.values(), calibrated.sites.values(), strict=True)
    logs = torch.cat([(one.threshold / was.threshold).log().flatten() for one, was in pairs])
    return best, round(float(logs.mean().exp()), 4)


def _scaled(calibrated: Calibrated, by: dict[str, Tensor], factor: float) -> Calibrated:
    sites = {
        name: replace(
            one,
            threshold=one.threshold * by[name] * factor,
            amplitude=None if one.amplitude is None else one.amplitude * by[name] * factor,
        )
        for name, one in calibrated.sites.items()
    }
    return replace(calibrated, sites=sites)


@torch.no_grad()
def _hoyer(calibrated: Calibrated, images: Tensor) -> dict[str, Tensor]:
    """1 / Omega of every channel, shaped as its thresholds, in the original network with clipped activations."""
    found = {name: torch.ones_like(one.threshold) for name, one in calibrated.sites.items()}

    def rule(node: fx.Node, inputs: list[Tensor]) -> Tensor:
        value = applied(node, inputs)
        if node.name not in found:
            return value
        threshold = calibrated.sites[node.name].threshold
        neuron = neuron_in(calibrated.schedule, calibrated.neuron)
        model, levels = neuron_at(node, neuron)
        top = threshold * model.range(levels)[1]
        rates = (value / top).clamp(-1, 1).abs()
        shared = [0, *(axis + 1 for axis, size in enumerate(threshold.shape) if size == 1)]
        total, squares = (one.sum(shared).reshape(threshold.shape) for one in (rates, rates.square()))
        found[node.name] = torch.where(total > 0, squares / total.clamp(min=1e-12), 1.0)
        clipped: Tensor = rates * top * value.sign()
        return clipped

    for _ in walk(calibrated.network.graph, images, rule):
        pass
    return found
