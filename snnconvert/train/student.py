"""A calibrated network with weights, biases, thresholds and membrane starts that learn, run as the spiking network.

Values flow as the original network's: a spike is worth its threshold, which compilation folds into the weights that
read it. Time is folded into the batch, as in `simulate.layer_engine`: frames of a batch are (frames * batch, *sample),
and what is the same in all frames is computed once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx

from snnconvert.calibrate.first_spike import calibrate_first_spike
from snnconvert.calibrate.task import REACH_IMAGES, Task, reach
from snnconvert.compile.spikify import neuron_at, neuron_in
from snnconvert.errors import OptionError
from snnconvert.graph.dialect import calls, op_of, origin_of, output_nodes, sites
from snnconvert.graph.edit import copied
from snnconvert.graph.flow import Flow, flows
from snnconvert.graph.kinds import Op, Role, Weighted
from snnconvert.graph.schedule import Schedule
from snnconvert.graph.types import Ann, Calibrated, SiteCalibration
from snnconvert.graph.walk import walk
from snnconvert.simulate.over_time import by_frames, compensated, running_maximum
from snnconvert.train.neurons import Firing, fired, trainable

# tensors of operators that learn, by role
LEARNED = {Role.WEIGHTED: ("weight", "bias"), Role.AFFINE: ("scale", "shift")}
LEAST_THRESHOLD = 1e-6
LEAST_SPREAD = 1e-4


@dataclass
class Site:
    """A layer of neurons.

    Attributes:
        start: thresholds before training, broadcastable to one sample.
        growth: what learns: the logarithm of the threshold over `start`.
        initial: the membrane at t = 0 as a fraction of the threshold.
        worth: what a unit is worth, in thresholds, where an earlier training gave it an amplitude of its own.
    """

    firing: Firing
    start: Tensor
    growth: Tensor
    initial: Tensor
    worth: Tensor | None = None

    @property
    def threshold(self) -> Tensor:
        """As it is now; positive whatever is learned."""
        return self.start * self.growth.exp()


# what becomes of the current of a site instead of `fired`: (site, current, whether it is constant) -> values
Fire = Callable[[fx.Node, Site, Tensor, bool], Tensor]


class Student:
    """Args:
        calibrated: where training starts; not changed.
        schedule: the steps it is trained for: streaming, or a wait; or first spikes in continuous time, which are the
            network's activations.
        device: where to compute.
        arithmetic: of convolutions and matrix products: float32 or bfloat16.
        width, triangle: of the surrogate, as in `Firing`.

    Attributes:
        graph: the calibrated network with the tensors that learn.
        sites: its layers of neurons by node.
        fire: what becomes of currents.
        after: what becomes of the values of other nodes, where a method adds something.
        counts: whether what is sent is kept for `sent_units`.

    Raises:
        OptionError: a schedule or neuron that has no derivative here; with what to do.
    """

    def __init__(
        self,
        calibrated: Calibrated,
        schedule: Schedule,
        *,
        device: str = "cpu",
        arithmetic: str = "float32",
        width: float = 0.5,
        triangle: bool = False,
    ) -> None:
        _refuse_untrainable(calibrated, schedule)
        self.calibrated, self.schedule = calibrated, schedule
        self.device, self.arithmetic = torch.device(device), arithmetic
        self.graph = copied(calibrated.network.graph).to(self.device)
        self.flow = flows(self.graph)
        self.outputs = output_nodes(self.graph)
        neuron = neuron_in(schedule, calibrated.neuron)
        self.sites: dict[fx.Node, Site] = {}
        for node, _ in sites(self.graph):
            found = calibrated.sites[node.name]
            firing = Firing(*neuron_at(node, neuron), schedule.frames, schedule.waited, width, triangle)
            start = found.threshold.to(self.device, torch.float32).clamp(min=LEAST_THRESHOLD)
            initial = found.initial.to(self.device, torch.float32).clone().requires_grad_()
            worth = None if found.amplitude is None else found.amplitude.to(self.device, torch.float32) / start
            self.sites[node] = Site(firing, start, torch.zeros_like(start).requires_grad_(), initial, worth)
        for _, op, name in self._learned():
            kept = getattr(op, name).detach().float().clone()
            laid = kept.contiguous(memory_format=torch.channels_last) if kept.ndim == 4 else kept
            setattr(op, name, laid.requires_grad_())
        self.fire: Fire = as_activations if schedule.continuous else as_neurons
        self.counts = False
        self._sent: list[Tensor] = []
        self.after: dict[fx.Node, Callable[[Tensor], Tensor]] = {}

    def _learned(self) -> Iterator[tuple[fx.Node, Op, str]]:
        for node, op in calls(self.graph):
            for name in LEARNED.get(op.role, ()):
                if getattr(op, name, None) is not None:
                    yield node, op, name

    def parameters(self) -> dict[str, Tensor]:
        """Everything that learns, by name, in data-flow order."""
        found = {f"{node.name}.{name}": getattr(op, name) for node, op, name in self._learned()}
        for node, site in self.sites.items() if not self.schedule.continuous else ():
            found |= {f"{node.name}.growth": site.growth, f"{node.name}.initial": site.initial}
        return found

    def spreads(self) -> dict[str, Tensor]:
        """Root mean square of every output channel's weights, shaped to multiply them, by name."""
        found = {}
        for node, op in calls(self.graph, Weighted):
            spread = op.by_rows(op.weight.detach()).square().mean(1).sqrt()
            found[f"{node.name}.weight"] = op.by_output(spread.clamp(min=LEAST_SPREAD))
        return found

    # --- forward ---

    def __call__(self, images: Tensor, *, watch: Callable[[fx.Node, Tensor], None] | None = None) -> list[Tensor]:
        """The outputs of every frame that is read, each (frames, batch, *output), at least float32.

        Args:
            images: (batch, *sample).
            watch: told of the values of every layer of neurons, (frames * batch, *sample).
        """
        frames, batch = self.schedule.frames, len(images)
        found: dict[fx.Node, Tensor] = {}
        with self.precision():
            for step in walk(self.graph, self.laid_out(images), lambda node, inputs: self._value(node, inputs, batch)):
                if watch is not None and step.node in self.sites:
                    watch(step.node, step.value)
                if step.node in self.outputs:
                    found[step.node] = step.value
        values = (_over_time(found[node], frames, batch) for node in self.outputs)
        return [by_frames(_single(value), frames)[self.schedule.read_from :] for value in values]

    def laid_out(self, images: Tensor) -> Tensor:
        """Images on the device, in the memory order that convolutions like."""
        images = images.to(self.device)
        return images.contiguous(memory_format=torch.channels_last) if images.ndim == 4 else images

    def _value(self, node: fx.Node, inputs: list[Tensor], batch: int) -> Tensor:
        return self.shaped(node, self._computed(node, inputs, batch))

    def shaped(self, node: fx.Node, value: Tensor) -> Tensor:
        """A value with what a method adds to it."""
        return self.after[node](value) if node in self.after else value

    def _computed(self, node: fx.Node, inputs: list[Tensor], batch: int) -> Tensor:
        op, frames = op_of(node), self.schedule.frames
        if node in self.sites:
            constant = len(inputs[0]) == batch and (frames > 1 or self.flow[node.all_input_nodes[0]] == Flow.CONSTANT)
            site = self.sites[node]
            sent = self.fire(node, site, inputs[0], constant)
            if self.counts:
                self._sent.append((sent / site.threshold.detach()).abs().float().sum() / len(sent))
            return sent
        if self.flow[node] == Flow.CONSTANT or not op.reads:
            value: Tensor = op(*inputs)
            return value
        moving = [_over_time(value, frames, batch) for value in inputs]
        if op.role == Role.MAXPOOL:
            return running_maximum(op, moving[0].float(), frames)
        if op.role == Role.ANALOG:
            return compensated(op, moving, frames, torch.float32)
        moved: Tensor = op(*moving)
        return moved

    @contextmanager
    def precision(self) -> Iterator[None]:
        """The arithmetic of a pass."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.arithmetic == "bfloat16"):
            yield

    def sent_units(self) -> Tensor:
        """Units that a neuron has sent a step since this was called last, on average over neurons, with gradients."""
        found, self._sent = torch.stack(self._sent).sum(), []
        neurons = sum(math.prod(node.meta["shape"]) for node in self.sites)
        return torch.div(found, neurons)

    # --- back ---

    @torch.no_grad()
    def trained(self, images: Tensor) -> Calibrated:
        """The calibration that was learned, which compiles into an ordinary spiking network.

        Args:
            images: some inputs (n, *sample), by which bounds of real values are measured.
        """
        graph = copied(self.graph).to("cpu")
        for node, op, name in self._learned():
            (own,) = (one for one in graph.graph.nodes if one.name == node.name)
            learned = getattr(op, name).detach().cpu().contiguous().clone()
            setattr(op_of(own), name, learned)
        network = replace(self.calibrated.network, graph=graph)
        return replace(
            self.calibrated,
            network=network,
            sites=self._windows(network, images.cpu()) or {n.name: _calibration(s) for n, s in self.sites.items()},
            schedule=self.schedule,
            reach=reach(graph, images[:REACH_IMAGES].cpu()),
            early_exit=None,
        )

    def _windows(self, network: Ann, images: Tensor) -> dict[str, SiteCalibration]:
        """In continuous time windows as long as what was learned asks for; else nothing."""
        if not self.schedule.continuous:
            return {}
        given = self.calibrated.record["options"]
        task = Task(network, images, self.schedule, self.calibrated.neuron, {"zeta": given["zeta"]})
        return calibrate_first_spike(task).sites


def _single(value: Tensor) -> Tensor:
    """At least float32."""
    return value if value.dtype == torch.float64 else value.float()


def _calibration(site: Site) -> SiteCalibration:
    threshold = site.threshold.detach().cpu().clamp(min=LEAST_THRESHOLD).clone()
    amplitude = None if site.worth is None else threshold * site.worth.cpu()
    return SiteCalibration(threshold, site.initial.detach().cpu().clone(), amplitude)


def as_neurons(node: fx.Node, site: Site, current: Tensor, constant: bool) -> Tensor:
    """The neurons of a site as they are."""
    del node
    sent = fired(site.firing, current, site.threshold, site.initial, constant=constant)
    return sent if site.worth is None else (sent * site.worth).to(sent.dtype)


def as_activations(node: fx.Node, site: Site, current: Tensor, constant: bool) -> Tensor:
    """The original network's activation, which a first spike in continuous time tells exactly."""
    del site, constant
    value: Tensor = op_of(node)(current)
    return value


def _over_time(value: Tensor, frames: int, batch: int) -> Tensor:
    """A value that is the same in all frames, repeated for each; others as they are, (frames * batch, *sample)."""
    return value if len(value) == frames * batch else value.repeat(frames, *[1] * (value.dim() - 1))


def _refuse_untrainable(calibrated: Calibrated, schedule: Schedule) -> None:
    if schedule.continuous:
        return
    if schedule.windowed or schedule.once:
        raise OptionError(
            f"{schedule.describe()} cannot be trained: its neurons do not fire step by step",
            hint="convert with --schedule streaming, wait, or ttfs without --time-bits, and train that",
            options=("schedule",),
        )
    neuron = neuron_in(schedule, calibrated.neuron)
    for node, _ in sites(calibrated.network.graph):
        model, levels = neuron_at(node, neuron)
        if not trainable(model.name, levels):
            cure = "give its NeuronModel a surrogate" if model.provider else "convert with --neuron if or ternary"
            what = "has no surrogate" if model.reset == "subtract" else f"resets to {model.reset}"
            raise OptionError(
                f"the {model.name} neurons at {origin_of(node)} cannot be trained: their model {what}",
                hint=f"{cure}, whose reset subtracts what a spike is worth",
                options=("neuron",),
            )
