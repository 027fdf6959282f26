"""The network that a bistable one is compared with: plain integrate-and-fire with the same largest activations."""

from __future__ import annotations

from torch import Tensor

from snnconvert.calibrate.task import Task
from snnconvert.compile.network import compile_network
from snnconvert.graph.dialect import neurons_of
from snnconvert.graph.schedule import Streaming
from snnconvert.graph.types import Ann, NeuronChoice, SiteCalibration, Snn

# what `streaming_twin` makes, for a report
TWIN = (
    "streaming integrate-and-fire for as many steps, with the largest activations of the bistable neurons as "
    "thresholds, v(0) at half of them, and the weights of the original network"
)


def streaming_twin(ann: Ann, snn: Snn, images: Tensor) -> Snn:
    """Streaming integrate-and-fire for as many steps as `snn`, a bistable network, takes.

    What a neuron of `snn` sends with a full code is the threshold here, so both clip at the same activation. There are
    no synchronous neurons and no signed ones on sums: nothing is held back. Weights are those of `ann`.

    Args:
        ann: the network that `snn` was made from.
        snn: a network in a bistable schedule.
        images: calibration inputs (n, *sample), for the range in which sums have to be exact.
    """
    sites = {}
    for node, op in neurons_of(snn.graph).items():
        bound = op.threshold.float() * op.levels
        sites[node.name] = SiteCalibration(bound, bound * 0 + 0.5)
    schedule = Streaming(snn.schedule.timesteps, snn.schedule.depth)
    return compile_network(Task(ann, images, schedule, NeuronChoice()).calibrated(ann.graph, sites, {}))
