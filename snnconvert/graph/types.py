"""The networks that the stages of the main path hand on, all frozen: Ann -> Calibrated -> Snn.

The doors and passes make an `Ann`, a calibration method a `Calibrated`, `compile_network` an `Snn`, which
the engines of `simulate` run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from snnconvert.tasks import CLASSIFIER, TaskChoice

if TYPE_CHECKING:
    from torch import Tensor, fx

    from snnconvert.graph.parts import Part
    from snnconvert.graph.schedule import Schedule


@dataclass(frozen=True)
class Origin:
    """Where a node of the dialect comes from, in the user's own words.

    Attributes:
        name: ONNX node name, or the qualified name of the PyTorch module call.
        operator: operator type as the source spells it, for instance "Conv" or "aten.relu_".
    """

    name: str
    operator: str

    def __str__(self) -> str:
        return f"{self.name} ({self.operator})"


@dataclass(frozen=True)
class Source:
    """Which file or name a model was read from, and its sha256 (of the file, or of the weights)."""

    name: str
    location: str
    sha256: str
    format: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ann:
    """A network in the dialect that computes with real numbers: at stage ANN, or CALIBRATED inside `Calibrated`.

    Attributes:
        graph: a GraphModule in which every node is a placeholder, the output, or a `call_module` of a kind in KINDS.
        input_shape: shape of one sample, batch excluded, for instance (3, 32, 32).
        outputs: names of the model's outputs; the classifier is the first unless chosen otherwise.
        task: what the network is for.
        inputs: what `input_shape` holds, where the original has several inputs, or one of whole numbers; else nothing.
    """

    graph: fx.GraphModule
    input_shape: tuple[int, ...]
    outputs: tuple[str, ...]
    source: Source
    task: TaskChoice = CLASSIFIER
    inputs: tuple[Part, ...] = ()


@dataclass(frozen=True)
class NeuronChoice:
    """Which neuron replaces the activations.

    Attributes:
        model: a name from NEURONS.
        levels: units that it may send a step.
        sites: sites where these are others, with their number.
    """

    model: str = "if"
    levels: int = 1
    sites: tuple[tuple[str, int], ...] = ()

    def units_at(self, site: str) -> int:
        """Units that the neurons of a site may send a step."""
        return dict(self.sites).get(site, self.levels)


@dataclass(frozen=True)
class EarlyExit:
    """When an image stops being simulated, as `simulate.early_exit` found it on calibration images.

    Attributes:
        share: of answers that have to be those of the last step; of numbers their relative error is at most the rest.
        margin: largest mean logit less the second largest at which an image leaves; with `scales` the largest move of
            the mean outputs since the answer before, relative to them, at which it does.
        images: calibration images the margin was found on.
        agreement: of their answers with those of the last step, per cent.
        scales: root mean square of each output that counts, on these images; empty of a classifier.
    """

    share: float
    margin: float
    images: int
    agreement: float
    scales: tuple[float, ...] = ()


@dataclass(frozen=True)
class SiteCalibration:
    """What calibration found for one activation site.

    Attributes:
        threshold: value of one unit in units of the ANN activation, shape broadcastable to one sample, e.g. (C, 1, 1).
        initial: membrane potential at t = 0, as a fraction of the threshold.
        amplitude: what a unit is worth to those that read it, where that is not the threshold; shaped like it.
    """

    threshold: Tensor
    initial: Tensor
    amplitude: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """What there is, by name."""
        return {name: one for name, one in vars(self).items() if one is not None}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], place: str) -> SiteCalibration:
        """What `tensors` gave, among others, under PLACE.NAME."""
        return cls(tensors[f"{place}.threshold"], tensors[f"{place}.initial"], tensors.get(f"{place}.amplitude"))


@dataclass(frozen=True)
class Calibrated:
    """A calibrated network: real numbers still, and all that `compile_network` needs to make it spike.

    Attributes:
        network: at stage CALIBRATED; its weights differ from the original where a method changed them, its sites are
            float activations.
        sites: threshold and membrane start of every site of `network`.
        schedule: the schedule that thresholds were found for, with the read-out's start as it was chosen.
        neuron: the neuron they were found for.
        input_bound: largest absolute input value that summation has to stay exact for.
        reach: largest absolute value seen on calibration images, by node of `network`.
        original: the canonical network before anything was approximated or calibrated, at stage ANN; None if left out.
        early_exit: in `schedule`, where it was asked for.
        approximate: what was asked for functions such as SiLU (`convert.units.WAYS`).
        input_encoder: how the input enters (`convert.encoder.WAYS`).
        linear: what was to become of sums that operators with weights read: "spiking", "analog" or "auto".
        preprocessing: of images, JSON-able.
        label_offset: what is taken off the labels of data.
        record: JSON-able account of the method, its options, the images used and the candidates tried; read to be
            shown, and to find those images again.
    """

    network: Ann
    sites: dict[str, SiteCalibration]
    schedule: Schedule
    neuron: NeuronChoice
    input_bound: float
    reach: dict[str, float] = field(default_factory=dict)
    original: Ann | None = None
    early_exit: EarlyExit | None = None
    approximate: str = "auto"
    input_encoder: str = "analog"
    linear: str = "auto"
    preprocessing: dict[str, Any] = field(default_factory=dict)
    label_offset: int = 0
    record: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Snn:
    """A spiking network: the graph at stage SNN, its schedule, and all that is needed to run it again.

    Attributes:
        graph: at stage SNN, weights in `precision`.
        calibration: the account of the calibration, see `Calibrated.record`.
        evaluation: figures of the conversion's own evaluation, and how its images are chosen again.
        calibrated: what the network was compiled from; None for files that do not hold it.
        task: what the network is for.
        inputs: as of `Ann`.
    """

    graph: fx.GraphModule
    schedule: Schedule
    input_shape: tuple[int, ...]
    outputs: tuple[str, ...]
    source: Source
    preprocessing: dict[str, Any]
    calibration: dict[str, Any]
    evaluation: dict[str, Any] = field(default_factory=dict)
    neuron: NeuronChoice = NeuronChoice()
    precision: str = "float32"
    early_exit: EarlyExit | None = None
    label_offset: int = 0
    calibrated: Calibrated | None = None
    task: TaskChoice = CLASSIFIER
    inputs: tuple[Part, ...] = ()

    @property
    def provenance(self) -> str:
        """What the network was calibrated for and what it is run as; empty where the two are one."""
        if self.calibrated is None or self.calibrated.schedule == self.schedule:
            return ""
        own, now = self.calibrated.schedule, self.schedule
        changed = "" if own.describe() == now.describe() else f"as {now.describe()}, "
        return f"calibrated for {own.describe()}, T = {own.timesteps}; run {changed}at T = {now.timesteps}"
