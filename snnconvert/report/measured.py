"""What sections are computed from: the measurement of one network, converted or read from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from snnconvert.cost.energy_constants import Constants
from snnconvert.data.datasets import Dataset
from snnconvert.graph.dialect import calls, sites
from snnconvert.graph.types import Ann, Snn
from snnconvert.simulate.measure import FitCurve
from snnconvert.study.evaluate import Studies
from snnconvert.tasks.scores import Curve


@dataclass(frozen=True)
class Measured:
    """What sections are computed from.

    Attributes:
        snn: the spiking network.
        network: what the report names as its origin: the ANN, or the checkpoint's network where there is none.
        curve: the network over time.
        labelled: whether the images have labels.
        images: source, fingerprint and excluded_calibration of the images.
        data: the images; None without a data set.
        classes: outputs of the network.
        command_line: what the user typed.
        timings: seconds of each stage.
        metrics: by name the metrics of the task that are known, by step.
        ann: by name the ANN's own figures against labels.
        noun: what one input is called (`tasks.inputs_called`).
        answers: by "ann" and "snn", how many different classes a classifier answered with.
        drop_interval: 95 % interval of the accuracy lost, points.
        paired: images that only the ANN, and only the SNN, classifies correctly at the end.
        right: by "ann" and "snn", whether each image is classified correctly at the end.
        watched: what was seen on the first images.
        studies: results of studies by name, and of "chip".
        asked: the T that was asked for; None where T follows from others, or only the network is at hand.
        calibrated_for: steps besides the last that the network was calibrated for.
        constants: the user's own energies.
        comparison: how far the import is from its reference.
        notes: remarks on the images and the measurement.
        warnings: {code, text, hint} of earlier stages.
        next_commands: what to type next.
    """

    snn: Snn
    network: Ann | Snn
    curve: FitCurve
    labelled: bool
    images: Mapping[str, Any]
    data: Dataset | None
    classes: int
    command_line: str
    timings: Mapping[str, float]
    metrics: Mapping[str, Curve] = field(default_factory=dict)
    ann: Mapping[str, float | None] = field(default_factory=dict)
    noun: str = "image"
    drop_interval: Sequence[float] | None = None
    answers: Mapping[str, int | None] | None = None
    paired: tuple[int, int] | None = None
    right: Mapping[str, NDArray[Any]] | None = None
    watched: Studies | None = None
    studies: Mapping[str, Any] = field(default_factory=dict)
    asked: int | None = None
    calibrated_for: tuple[int, ...] = ()
    constants: Constants | None = None
    comparison: Mapping[str, Any] | None = None
    notes: Sequence[str] = ()
    warnings: Sequence[Mapping[str, str]] = ()
    next_commands: Sequence[str] = ()

    @property
    def sites(self) -> int:
        """Activations that became neurons."""
        return len(sites(self.network.graph))

    @property
    def parameters(self) -> int:
        """Numbers in the network's tensors."""
        return sum(buffer.numel() for _, op in calls(self.network.graph) for buffer in op.buffers())
