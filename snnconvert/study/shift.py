"""Do the evaluation images drive the network further than the calibration images did?

Thresholds fit the images they were found on. Images that come from elsewhere, or were cropped, resized or sharpened
differently, may have larger activations, and what lies above a neuron's largest rate is cut off at every T.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from snnconvert.calibrate.observe import observed
from snnconvert.compile.added import for_each
from snnconvert.graph.dialect import calls, neurons_of, origin_of
from snnconvert.graph.types import Ann, Snn
from snnconvert.study.converted import Converted, Means
from snnconvert.study.evaluate import read

IMAGES = 32
# of a layer's activations (root of the sum of squares): less is nothing to worry about
_NOTABLE, _TIMES = 0.05, 2.0


@dataclass(frozen=True)
class Shift:
    """The first layer where evaluation images are cut off much more than calibration images: shares from 0 to 1."""

    name: str
    origin: str
    calibration: float
    evaluation: float


def shift_of(converted: Converted, means: Means) -> Shift | None:
    """Whether the evaluation images of a conversion are of another kind; None where they are not, or there are none."""
    del means
    if converted.inputs.evaluation is None:
        return None
    measured, _ = next(iter(read(converted.inputs.evaluation, IMAGES)))
    return find_shift(converted.network, converted.snn, converted.images, measured)


@torch.inference_mode()
def find_shift(network: Ann, snn: Snn, calibration: Tensor, evaluation: Tensor) -> Shift | None:
    """Compare what the neurons of `snn` cut off of the ANN's activations on both sets (n, *sample).

    Args:
        network: what was converted; its sites have the names of the neurons.
        snn: the spiking network.
        calibration: images that thresholds were found on.
        evaluation: images that it is measured on.
    """
    before, now = (cut_off(network, snn, images[:IMAGES]) for images in (calibration, evaluation))
    for node, _ in calls(snn.graph):
        name = node.name
        if name in now and now[name] > max(_NOTABLE, _TIMES * before[name]):
            return Shift(name, str(origin_of(node)), before[name], now[name])
    return None


def cut_off(network: Ann, snn: Snn, images: Tensor) -> dict[str, float]:
    """Of every site: what is above its neurons' largest rate, relative to its activations (root of sums of squares)."""
    neurons = neurons_of(snn.graph)
    bounds = {node.name: op.threshold * op.levels for node, op in neurons.items()}
    channels = {node.name: node.meta["shape"][0] for node in neurons}
    sums: dict[str, Tensor] = {}

    def see(name: str, values: Tensor) -> None:
        if name in bounds:
            size = for_each(values, channels[name]).abs()
            above = (size - bounds[name].float()).clamp_(min=0)
            pair = torch.stack([one.square_().sum(dtype=torch.float64) for one in (above, size)])
            sums[name] = sums[name] + pair if name in sums else pair

    for _ in observed(network.graph, images, "", see=see):
        pass
    return {name: float((above / whole) ** 0.5) if whole > 0 else 0.0 for name, (above, whole) in sums.items()}
