"""What bistable and synchronous neurons are worth to a network: figures with and without each of them.

Two questions are asked on a few images, the same for all, at equal T and equal thresholds:

    arms      accuracy, agreement with the ANN and spikes with and without each of the two neurons (Li, Zeng & Zhao,
              arXiv 2105.12917); without either it is plain phase coding (Kim et al. 2018).
    layers    spikes of inactivated neurons: neurons that fire although the ANN's activation is 0, in streaming
              integrate-and-fire (before) and in the bistable network (after). What is left after comes from earlier
              layers' rounding; a neuron whose own input is not positive stays silent in a single window.

Everything is exact arithmetic, so the figures depend on neither batches nor processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snnconvert.calibrate.observe import answers
from snnconvert.errors import listed
from snnconvert.graph.dialect import calls, neurons_of, op_of, origin_of
from snnconvert.graph.kinds import Neuron, Role
from snnconvert.graph.schedule import Schedule
from snnconvert.graph.types import Ann, Snn
from snnconvert.progress import Progress, silent
from snnconvert.simulate.chunks import chunk_size
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.simulate.result import Probe, Simulation, joined
from snnconvert.study.attribution import activations, in_double, neuron_inputs
from snnconvert.study.converted import Converted, Means
from snnconvert.study.evaluate import read
from snnconvert.study.look_inside import extent
from snnconvert.study.phase_coding import PhaseCoding, rigid_operators
from snnconvert.study.streaming_twin import TWIN, streaming_twin
from snnconvert.tasks.scores import scores_of

# multiplications of dense passes, all steps of all arms: a few seconds of one core
BUDGET = 2.5e11
MOST_IMAGES = 32
FEWEST_IMAGES = 4
# an input that is 0 but for the rounding of rates, in thresholds
NOTHING = 1e-9


@dataclass(frozen=True)
class Arm:
    """One combination of the two neurons.

    Attributes:
        bistable: whether neurons keep apart integrating and sending.
        synchronous: whether shortcuts are held back.
        gated: whether bistable neurons keep still until their own first window.
        passes: dense passes that a step costs, about.
    """

    bistable: bool
    synchronous: bool
    gated: bool
    passes: float

    def name(self, schedule: Schedule) -> str:
        """As the report's table says it."""
        if not self.bistable:
            return "plain phase coding" if schedule.positional else "plain rate coding"
        return "bistable" if self.gated else "bistable, alternating from step 0"


WHOLE = Arm(True, True, True, 0.0)
WITHOUT = (
    Arm(True, False, True, 0.1),
    Arm(True, False, False, 0.5),
    Arm(False, True, True, 1.0),
    Arm(False, False, True, 1.0),
)


@dataclass(frozen=True)
class Subject:
    """What an ablation needs to know.

    Attributes:
        snn: the bistable network.
        network: the ANN that it was made from, whose activations count.
        before: the same as streaming integrate-and-fire, for as many steps.
        described: what `before` is, for the reader.
    """

    snn: Snn
    network: Ann
    before: Snn
    described: str


@dataclass(frozen=True)
class Plan:
    """How many images to simulate, in which arms besides the whole network, and why not in all."""

    images: int
    arms: tuple[Arm, ...]
    left_out: str | None


def ablation_of(converted: Converted, means: Means) -> dict[str, Any]:
    """The report's section of a conversion, on the first of its evaluation images."""
    snn, network = converted.snn, converted.network
    plan = planned(snn)
    if not plan.images:
        return nothing_affordable(snn, plan)
    images, labels = next(iter(read(converted.inputs.measured, plan.images)))
    reference = answers(converted.ann, images)
    subject = Subject(snn, network, streaming_twin(network, snn, converted.inputs.calibration), TWIN)
    return ablation(subject, images, reference, labels, plan=plan, progress=means.progress)


def planned(snn: Snn) -> Plan:
    """What fits into BUDGET; no images if not even streaming integrate-and-fire on one does."""
    delays = any(op.role == Role.DELAY for _, op in calls(snn.graph))
    arms = tuple(arm for arm in WITHOUT if delays or arm.synchronous)
    each = snn.schedule.timesteps * max(1, extent(snn)[1])
    count = int(BUDGET / (each * (1 + sum(arm.passes for arm in arms))))
    reason = _impossible(snn)
    if reason is None and count < FEWEST_IMAGES:
        reason = (
            f"too large: one image takes {each / 1e9:,.0f} thousand million multiplications per arm, and at most "
            f"{BUDGET / 1e9:,.0f} are spent on this table"
        )
    if reason is None:
        return Plan(min(MOST_IMAGES, count), arms, None)
    return Plan(min(MOST_IMAGES, int(BUDGET / each)), (), reason)


def nothing_affordable(snn: Snn, plan: Plan) -> dict[str, Any]:
    """The report's section where not a single image could be simulated."""
    empty: dict[str, Any] = {"arms": [], "before": None, "layers": []}
    return {"images": 0, "timesteps": snn.schedule.timesteps, "left_out": plan.left_out, **empty}


def _impossible(snn: Snn) -> str | None:
    if not snn.schedule.keeps_membrane and snn.schedule.frames > 1:
        return "several windows that do not keep what is left have no counterpart without bistable neurons"
    rigid = rigid_operators(snn)
    if rigid:
        return f"without windows only linear operators can be computed step by step, not {listed(rigid, 3)}"
    return None


@torch.inference_mode()
def ablation(
    subject: Subject,
    images: Tensor,
    reference: NDArray[Any],
    labels: NDArray[Any] | None,
    *,
    plan: Plan,
    progress: Progress = silent,
) -> dict[str, Any]:
    """The report's section, JSON-able.

    Args:
        subject: the networks.
        images: (plan.images, *sample).
        reference: the ANN's answers (plan.images, ...).
        labels: (plan.images, ...), or None.
        plan: see `planned`.
        progress: called after each network.
    """
    snn, count, total = subject.snn, len(images), len(plan.arms) + 2
    quiet = _silent_neurons(subject, images)

    def row(name: str, synchronous: bool, seen: Simulation, counted: set[str] | None = None) -> dict[str, Any]:
        scores = scores_of(snn.task)
        scores.add([sums.cpu().numpy() for sums in seen.outputs], reference, labels)
        known = {name: curve.values[-1] for name, curve in scores.curves().items()}
        spikes = sum(int(of.sum()) for site, of in seen.spikes.items() if counted is None or site in counted)
        return {
            "neurons": name,
            "synchronous": synchronous,
            "accuracy": known.get("accuracy"),
            "agreement": known.get("agreement"),
            "value": known[snn.task.headline.name],
            "spikes_per_image": spikes / count,
        }

    watched = _Watched(snn, quiet)
    delays = {node.name for node, op in calls(snn.graph) if op.role == Role.DELAY}
    rows = [row(WHOLE.name(snn.schedule), bool(delays), watched.run(images))]
    progress("ablation", 1, total)
    for index, arm in enumerate(plan.arms):
        seen = PhaseCoding(snn, bistable=arm.bistable, synchronous=arm.synchronous, gated=arm.gated).run(images)
        used = None if arm.synchronous else set(seen.spikes) - delays
        rows.append(row(arm.name(snn.schedule), arm.synchronous and bool(delays), seen, used))
        progress("ablation", index + 2, total)
    early = _Watched(subject.before, quiet)
    rows.append(row("streaming integrate-and-fire", False, early.run(images)))
    progress("ablation", total, total)
    return {
        "images": count,
        "timesteps": snn.schedule.timesteps,
        "arms": rows,
        "left_out": plan.left_out,
        "before": subject.described,
        "layers": _layer_rows(early, watched),
    }


def _layer_rows(before: _Watched, after: _Watched) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "origin": str(origin_of(node)),
            "neurons": int(np.prod(node.meta["shape"])),
            "before": before.shares(name),
            "after": after.shares(name),
        }
        for name, node in after.nodes.items()
    ]


def _silent_neurons(subject: Subject, images: Tensor) -> dict[str, Tensor]:
    """Where the ANN's activation is not above 0, by site, (n, *sample); signed sites have no inactivated side."""
    there = {node.name for node, _ in calls(subject.network.graph)}
    wanted = {
        node.name for node, op in neurons_of(subject.snn.graph).items() if op.row.rectifies and node.name in there
    }
    return {name: value <= 0 for name, value in activations(in_double(subject.network.graph), images, wanted).items()}


class _Watched:
    """Simulates a network and counts what neurons send that should be silent."""

    def __init__(self, snn: Snn, quiet: dict[str, Tensor]) -> None:
        self.snn, self.quiet, self.engine = snn, quiet, LayerEngine(snn)
        self.nodes = {node.name: node for node, _ in calls(snn.graph) if node.name in quiet}
        self.mean_field = in_double(snn.graph)
        self.sums = {name: np.zeros(5) for name in self.nodes}

    def run(self, images: Tensor) -> Simulation:
        """All images, as many at a time as memory likes."""
        size = chunk_size(self.snn)
        return joined([self._chunk(images, start, start + size) for start in range(0, len(images), size)])

    def shares(self, name: str) -> dict[str, float | None]:
        """Of a layer's neurons, and of the units that it sends; `unprovoked` of its neurons, by their own input."""
        neurons, fired, sent, units, unprovoked = self.sums[name].tolist()
        return {
            "neurons": fired / neurons,
            "units": sent / units if units else None,
            "unprovoked": unprovoked / neurons,
        }

    def _chunk(self, images: Tensor, start: int, stop: int) -> Simulation:
        sent: dict[str, Tensor] = {}
        seen = self.engine.run(images[start:stop], _keeper(sent))
        frames = self.snn.schedule.frames
        rates = {name: units / frames for name, units in sent.items()}
        for node, received in neuron_inputs(self.mean_field, images[start:stop], rates):
            if node.name not in self.nodes:
                continue
            op, units = op_of(node, Neuron), sent[node.name].abs()
            quiet, fired = self.quiet[node.name][start:stop], units > 0
            self.sums[node.name] += [
                units.numel(),
                int((fired & quiet).sum()),
                float(units[quiet].sum()),
                float(units.sum()),
                int((fired & (received <= NOTHING * op.threshold)).sum()),
            ]
        return seen


def _keeper(sent: dict[str, Tensor]) -> Probe:
    """Keeps what each neuron sends in all frames, float64."""

    def probe(name: str, by_frame: Tensor) -> None:
        sent[name] = by_frame.sum(0, dtype=torch.float32).double()

    return probe
