"""Where added units help most: how many each layer of neurons may send a step, within a budget (`--levels auto`).

What limits a run of few steps is the resolution of a few layers. r_i is what layer i adds to the error by itself: its
rates less the activation of its own mean input (clipping, quantisation and unevenness of `study.attribution`). With all
r_i the calibrated network, run on mean values, answers as it spikes. The *effect* of layer i has two parts:

    effect_i = max(nearer_i, 0) + NOISE * noise_i

nearer_i is how much nearer its outputs come to the original's, squared, where r_i / 2 is added instead of r_i. It is
below zero where weights behind a layer, which were solved against its spikes, make up for what is steady in r_i. What
no weights can make up for is noise: r_i less its mean where a channel sends as many spikes; noise_i is how far the
outputs move, squared, if the signs of that are random: the sum of its squares times those of the outputs' derivatives
(drawn directions of the outputs, one pass backward each). It is known of every channel, and tells how a layer's effect
is shared among them. A layer of L units resolves L times as much, so that the next unit goes to

    max over i of  effect_i (1 / L_i^2 - 1 / (L_i + 1)^2) / (cost of one more unit in layer i)

until the budget is spent. A unit costs the neurons of its layer, or the spikes that the layer sends more. Effects are
measured once, on a quickly calibrated network of one unit everywhere, on calibration images. By channels
(`--budget-by channel`) i is a block of channels of a layer, those with the most noise together; blocks of as many units
become a layer of their own (`convert.channels`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, fx

from snnconvert.compile.network import compile_network
from snnconvert.compile.spikify import neuron_in
from snnconvert.convert.channels import can_be_apart, with_channels_apart
from snnconvert.errors import OptionError
from snnconvert.graph.dialect import neurons_of, op_of, output_nodes, role_of, sites
from snnconvert.graph.edit import kind_of
from snnconvert.graph.kinds import Neuron, Role
from snnconvert.graph.types import Ann, NeuronChoice, Snn
from snnconvert.graph.walk import Rule, applied, batch_of, walk
from snnconvert.progress import Progress, silent
from snnconvert.simulate.chunks import chunk_size, watchable
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.study.attribution import LOCAL, Attribution, activation

IMAGES = 64
# a layer has no use for more: what it sends is then finer than what reaches it
MOST_UNITS = 8
# channels of a block: whole bytes of bits
CHANNELS = 8
# weight of the noise; `python benchmarks/constants.py NOISE`
NOISE = 0.25
# of the outputs, in which noise is measured; and images whose values are kept for a pass backward
DIRECTIONS, AT_ONCE = 4, 4

# a site, or a block of its channels
Key = TypeVar("Key", str, tuple[str, int])


@dataclass(frozen=True)
class Budget:
    """What may be spent on resolution.

    Attributes:
        share: added units, or spikes, over those of a network of one unit a step everywhere.
        spikes: whether spikes are counted, not units.
        by_channel: whether channels of a layer may differ.
    """

    share: float
    spikes: bool = False
    by_channel: bool = False


def given_out(
    network: Ann,
    neuron: NeuronChoice,
    *,
    levels: tuple[int, ...] | str | None,
    budget: Budget,
    draft: Callable[[], Snn],
    images: Tensor,
    progress: Progress = silent,
) -> tuple[Ann, NeuronChoice]:
    """`neuron` with units at each site of `network`: those in `levels`, or as `budget` allows.

    Args:
        network: what is to be converted.
        neuron: of as many units a step everywhere.
        levels: one number for every site in data-flow order; else the budget decides.
        budget: what may be spent.
        draft: calibrates `network` with `neuron`, quickly.
        images: calibration inputs in canonical order, (n, *sample).
        progress: called as the effects are measured.

    Returns:
        the network, with more sites where channels of one differ; and the neuron.

    Raises:
        OptionError: another number of sites.
    """
    if isinstance(levels, tuple):
        return network, by_hand(network, neuron, levels)
    return spent(network, draft(), images, budget, progress)


def by_hand(network: Ann, neuron: NeuronChoice, levels: tuple[int, ...]) -> NeuronChoice:
    """`neuron` with these units at the sites of `network` in data-flow order.

    Raises:
        OptionError: another number of sites.
    """
    names = [node.name for node, _ in sites(network.graph)]
    if len(levels) != len(names):
        raise OptionError(
            f"--levels has {len(levels)} numbers, {network.source.name} has {len(names)} layers of neurons",
            hint=f"give one number for all, or one for each of {', '.join(names[:4])}{', ...' * (len(names) > 4)}",
            options=("levels",),
        )
    return _with_units(neuron, dict(zip(names, levels, strict=True)))


def spent(
    network: Ann, snn: Snn, images: Tensor, budget: Budget, progress: Progress = silent
) -> tuple[Ann, NeuronChoice]:
    """The neuron of `snn`, with units at each site as `budget` allows; see `given_out`.

    Args:
        network: what was converted.
        snn: of as many units a step everywhere.
        images: calibration inputs in canonical order, (n, *sample).
        budget: what may be spent.
        progress: called as the effects are measured.
    """
    neuron = neuron_in(snn.schedule, snn.neuron)
    effects = effects_of(network, snn, images[: watchable(snn, IMAGES)], progress)
    parts = _blocks(effects, can_be_apart(network) if budget.by_channel else set())
    gains = {key: float(effects[key[0]][some].sum()) for key, some in parts.items()}
    pixels = {node.name: math.prod(node.meta["shape"][1:]) for node, _ in sites(network.graph)}
    sizes = {key: float(len(some) * pixels[key[0]]) for key, some in parts.items()}
    sent = _spikes(snn, images[:IMAGES]) if budget.spikes else None

    def cost(key: tuple[str, int], levels: int) -> float:
        return levels * sizes[key] if sent is None else sent(key[0], levels)

    units = greedy(gains, cost, budget.share, neuron.levels)
    network, numbers = with_channels_apart(network, _groups(parts, units))
    return network, _with_units(neuron, numbers)


def _blocks(effects: dict[str, Tensor], apart: set[str]) -> dict[tuple[str, int], Tensor]:
    """Channels of each site, those with the most effect together; one block of those that cannot be apart."""
    found: dict[tuple[str, int], Tensor] = {}
    for name, one in effects.items():
        order = one.argsort(descending=True, stable=True)
        some = torch.split(order, CHANNELS if name in apart else len(order))
        found |= {(name, place): block for place, block in enumerate(some)}
    return found


def _groups(parts: dict[tuple[str, int], Tensor], units: dict[tuple[str, int], int]) -> dict[str, dict[int, Tensor]]:
    """The channels of each site by the units that they send, the fewest first."""
    found: dict[str, dict[int, list[Tensor]]] = {}
    for key, some in sorted(parts.items(), key=lambda item: units[item[0]]):
        found.setdefault(key[0], {}).setdefault(units[key], []).append(some)
    return {
        name: {count: torch.cat(some).sort().values for count, some in groups.items()} for name, groups in found.items()
    }


def greedy(effects: dict[Key, float], cost: Callable[[Key, int], float], share: float, start: int) -> dict[Key, int]:
    """Units of every site, or block of channels, the next one always where the effect falls most for what it costs.

    Args:
        effects: of the sites with `start` units each; see `effects_of`.
        cost: (site, units) -> what they cost, neurons or spikes.
        share: of the cost at `start` that may be added.
        start: units that every site has.
    """
    units = dict.fromkeys(effects, start)
    left = share * sum(cost(name, start) for name in effects)
    while True:
        steps = []
        for name, now in units.items():
            price = cost(name, now + 1) - cost(name, now)
            gain = effects[name] * ((start / now) ** 2 - (start / (now + 1)) ** 2)
            if now < MOST_UNITS * start and price <= left and gain > 0:
                steps.append((gain / max(price, 1e-9), price, name))
        if not steps:
            return units
        _, price, name = max(steps)
        units[name] += 1
        left -= max(price, 0.0)


@torch.no_grad()
def effects_of(network: Ann, snn: Snn, images: Tensor, progress: Progress = silent) -> dict[str, Tensor]:
    """How much of the outputs' error comes from the resolution of each site: squared, over that of all together.

    Args:
        network: the original.
        snn: what it was converted to, with a neuron at every site of it.
        images: calibration inputs in canonical order, (n, *sample).
        progress: called with how many passes are done.

    Returns:
        the effects of a site's channels, (channels,) float64, which add up to that of the site.
    """
    neurons = [node.name for node in neurons_of(snn.graph)]
    error, left, noise = 0.0, dict.fromkeys(neurons, 0.0), dict[str, Tensor]()
    size = min(chunk_size(snn), batch_of(network.graph))
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        watched = Attribution(snn, network, len(batch))
        LayerEngine(snn).run(batch, watched.begin(batch))
        counts = {name: (rates * snn.schedule.frames).round().long() for name, rates in watched.rates.items()}
        added = {name: torch.stack([split.causes[cause] for cause in LOCAL]).sum(0) for name, split in watched.splits()}
        run = partial(_first_outputs, watched.graph, batch.double())
        wanted = _first_outputs(network.graph, batch, applied).double()
        error += _squared(run(_erring(added)), wanted)
        for index, name in enumerate(neurons):
            left[name] += _squared(run(_erring(added | {name: added[name] / 2})), wanted)
            progress("effects of layers", start * len(neurons) + index * len(batch), len(images) * len(neurons))
        random = {name: _unexplained(added[name], counts[name]) for name in neurons}
        for first in range(0, len(batch), AT_ONCE):
            few = slice(first, first + AT_ONCE)
            some, drawn = ({name: one[few] for name, one in values.items()} for values in (added, random))
            found = _noise(watched.graph, batch[few].double(), some, drawn)
            noise = {name: noise.get(name, 0.0) + one for name, one in found.items()}
    effects = {}
    for name, one in noise.items():
        nearer, whole = max(error - left[name], 0.0), one.sum().clamp(min=1e-30)
        effects[name] = one * (nearer / whole + NOISE) / max(error, 1e-30)
    return effects


def _noise(
    graph: fx.GraphModule, batch: Tensor, added: dict[str, Tensor], random: dict[str, Tensor]
) -> dict[str, Tensor]:
    """How far the outputs move, squared, if the signs of `random` are drawn: by every site's channels."""
    moved = {name: torch.zeros_like(one).requires_grad_() for name, one in added.items()}
    with torch.enable_grad():
        outputs = _first_outputs(graph, batch, _erring({name: one + moved[name] for name, one in added.items()}))
    signs, found = torch.Generator().manual_seed(0), dict.fromkeys(added, torch.zeros(()))
    for draw in range(DIRECTIONS):
        along = torch.randint(0, 2, outputs.shape, generator=signs).mul(2).sub(1).to(outputs)
        slopes = torch.autograd.grad(outputs, list(moved.values()), along, retain_graph=draw < DIRECTIONS - 1)
        for name, slope in zip(moved, slopes, strict=True):
            squares = (slope * random[name]).square().transpose(0, 1).flatten(1).sum(1)
            found[name] = found[name] + squares / DIRECTIONS
    return found


def _squared(one: Tensor, other: Tensor) -> float:
    return float((one - other).square().sum())


def _unexplained(values: Tensor, counts: Tensor) -> Tensor:
    """`values` (n, channels, ...) less their mean over those of a channel that have the same count."""
    channels, least = values.shape[1], int(counts.min())
    different = int(counts.max()) - least + 1
    channel = torch.arange(channels).view(1, -1, *([1] * (values.ndim - 2)))
    key = (channel * different + counts - least).flatten()
    sums = torch.zeros(channels * different, dtype=values.dtype).index_add_(0, key, values.flatten())
    means = sums / torch.bincount(key, minlength=len(sums)).clamp(min=1)
    return values - means[key].view_as(values)


def _first_outputs(graph: fx.GraphModule, batch: Tensor, rule: Rule[Tensor]) -> Tensor:
    last = output_nodes(graph)[0]
    return next(value for node, _, value in walk(graph, batch, rule, wanted=[last]) if node is last)


def _erring(added: dict[str, Tensor]) -> Rule[Tensor]:
    """Neurons that send the activation of what they receive and an error of their own; grids, which have no slope, are
    left out."""

    def rule(node: fx.Node, inputs: list[Tensor]) -> Tensor:
        if kind_of(node) == "Snap":
            return inputs[0]
        if role_of(node) != Role.NEURON:
            return applied(node, inputs)
        op = op_of(node, Neuron)
        return (activation(op, inputs[0]) + added[node.name]) / op.threshold

    return rule


def _spikes(snn: Snn, images: Tensor) -> Callable[[str, int], float]:
    """Spikes of a site, all images together, where all sites may send so many units a step."""
    known: dict[int, dict[str, float]] = {}
    calibrated = snn.calibrated
    assert calibrated is not None

    def cost(name: str, levels: int) -> float:
        if levels not in known:
            made = compile_network(calibrated, neuron=replace(calibrated.neuron, levels=levels, sites=()))
            size = max(1, min(len(images), chunk_size(made)))
            runs = [LayerEngine(made).run(images[start : start + size]) for start in range(0, len(images), size)]
            known[levels] = {site: float(sum(run.spikes[site].sum() for run in runs)) for site in runs[0].spikes}
        return known[levels][name]

    return cost


def _with_units(neuron: NeuronChoice, units: dict[str, int]) -> NeuronChoice:
    """`neuron` with so many units at these sites, which are all."""
    if len(set(units.values())) == 1:
        return replace(neuron, levels=next(iter(units.values())), sites=())
    return replace(neuron, sites=tuple(units.items()))
