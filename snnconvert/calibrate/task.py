"""What a calibration method is given, and what it has to return."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, fx

from snnconvert.calibrate.observe import Range, broadcastable
from snnconvert.compile.spikify import neuron_in
from snnconvert.graph.dialect import verify
from snnconvert.graph.kinds import Stage
from snnconvert.graph.schedule import Schedule
from snnconvert.graph.types import Ann, Calibrated, NeuronChoice, SiteCalibration
from snnconvert.graph.walk import batch_of, walk
from snnconvert.neurons import NEURONS
from snnconvert.progress import Progress, silent

REACH_IMAGES = 32


@dataclass(frozen=True)
class Task:
    """A calibration to be done.

    Attributes:
        ann: the canonical network.
        images: calibration inputs in canonical order, shape (n, *sample), float32; no labels.
        schedule: the schedule that the network will run in.
        neuron: the neuron at rectifying sites.
        options: method options by key; see `calibrate.options`.
        progress: called with (what, done, total).

    Examples:
        A method that sets every threshold by the largest activation:

        >>> import snnconvert
        >>> from snnconvert.calibrate.observe import ranges
        >>> @snnconvert.register_calibration("by-the-largest")
        ... def by_the_largest(task: snnconvert.Task):
        ...     seen, _ = ranges(task.ann.graph, task.images)
        ...     sites = {name: task.site(found.largest, found) for name, found in seen.items()}
        ...     record = {"method": "by-the-largest", "options": task.options, "candidates": []}
        ...     return task.calibrated(task.ann.graph, sites, record)
    """

    ann: Ann
    images: Tensor
    schedule: Schedule
    neuron: NeuronChoice
    options: dict[str, Any] = field(default_factory=dict)
    progress: Progress = silent

    def levels(self, site: str) -> int:
        """Units that the neurons of a site can send in one frame."""
        return neuron_in(self.schedule, self.neuron).units_at(site)

    def resolution(self, site: str) -> int:
        """Number of values above zero that a site's thresholds are fitted for."""
        return 1 if self.once else self.schedule.resolution(self.levels(site))

    @property
    def once(self) -> bool:
        """Whether a neuron sends a single unit in the whole run, which stands for the mean over its frames."""
        return NEURONS[self.neuron.model].once and not self.schedule.windowed

    @property
    def input_bound(self) -> float:
        """Inputs up to twice the largest calibration value are summed exactly."""
        return max(2.0 * float(self.images.abs().max()), 1e-6)

    def site(self, bound: Tensor, found: Range, initial: float | Tensor | None = None) -> SiteCalibration:
        """The calibration of a site whose largest representable activation is `bound` (channels,).

        `initial` is the membrane potential at t = 0 as a fraction of the threshold; without it, what the schedule's
        rounding asks for.
        """
        initial = self.schedule.initial if initial is None else initial
        shaped = broadcastable(bound.double(), found.axis, found.rank)
        start = broadcastable(bound.double() * 0 + initial, found.axis, found.rank)
        share = 1 / self.schedule.frames if self.once else self.levels(found.site)
        return SiteCalibration((shaped / share).float(), start.float())

    def calibrated(
        self,
        graph: fx.GraphModule,
        sites: dict[str, SiteCalibration],
        record: dict[str, Any],
        *,
        read_from: int | None = None,
    ) -> Calibrated:
        """What a method found: its graph, its sites and an account of them.

        `read_from` is the number of frames that the read-out leaves out at the start, where the method chose it.
        """
        return Calibrated(
            network=replace(self.ann, graph=verify(graph, Stage.CALIBRATED)),
            sites=sites,
            schedule=self.schedule if read_from is None else self.schedule.reading_from(read_from),
            neuron=self.neuron,
            input_bound=self.input_bound,
            reach=reach(graph, self.images[:REACH_IMAGES]),
            record=record,
        )


@torch.inference_mode()
def reach(graph: fx.GraphModule, images: Tensor) -> dict[str, float]:
    """The largest absolute value of every node on `images` (n, *sample), by name."""
    found: dict[str, float] = {}
    for some in images.split(batch_of(graph)):  # type: ignore[no-untyped-call]
        for node, _, value in walk(graph, some):
            if node.op == "call_module":
                # `aminmax` would lay maps out anew that lie pixel by pixel
                found[node.name] = max(found.get(node.name, 0.0), -float(value.amin()), float(value.amax()))
    return found
