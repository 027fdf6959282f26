"""The value that each stage of the main path hands to the next. All are frozen.

Ann -> Calibration -> Snn -> FitCurve -> report
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, fx

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
    """A network in the dialect, at stage ANN.

    Attributes:
        graph: a GraphModule in which every node is a placeholder, the output, or a `call_module` of a kind in KINDS.
        input_shape: shape of one sample, batch excluded, for instance (3, 32, 32).
        outputs: names of the model's outputs; the classifier is the first unless chosen otherwise.
    """

    graph: fx.GraphModule
    input_shape: tuple[int, ...]
    outputs: tuple[str, ...]
    source: Source


@dataclass(frozen=True)
class SiteCalibration:
    """What calibration found for one activation site, in units of the ANN activation.

    Attributes:
        threshold: value of one spike, shape broadcastable to one sample, for instance (C, 1, 1).
        bound: largest representable activation per channel (equals threshold for binary streaming neurons).
        initial: membrane potential at t = 0, as a fraction of the threshold.
    """

    threshold: Tensor
    bound: Tensor
    initial: Tensor


@dataclass(frozen=True)
class Calibration:
    """Thresholds of every site, and how they were found.

    Attributes:
        graph: the ANN the thresholds belong to; its weights differ from the source where a method changed them.
        record: JSON-able account of the method, its options, the images used and the candidates tried.
        read_from: frames that the read-out leaves out at the start, where the method chose it; None otherwise.
    """

    graph: fx.GraphModule
    sites: dict[str, SiteCalibration]
    record: dict[str, Any]
    read_from: int | None = None


@dataclass(frozen=True)
class Snn:
    """A spiking network: the graph at stage SNN, its schedule, and all that is needed to run it again."""

    graph: fx.GraphModule
    schedule: Schedule
    input_shape: tuple[int, ...]
    outputs: tuple[str, ...]
    source: Source
    preprocessing: dict[str, Any]
    calibration: dict[str, Any]
    evaluation: dict[str, Any] = field(default_factory=dict)
