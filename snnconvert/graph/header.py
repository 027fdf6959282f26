"""What the header of a checkpoint has to be before anything is made of it: the types of its JSON.

A header that was damaged or edited is refused here, as a whole, so that nobody behind has to expect a text in the place
of a number. Keys that are not named here are let through: accounts of methods and studies have keys of their own.
"""

from __future__ import annotations

from typing import Annotated, Any, NotRequired, TypedDict

import msgspec
from msgspec import Meta

# of a side, a count or a level: what a tensor can have
_MOST = 2**31
Size = Annotated[int, Meta(ge=0, lt=_MOST)]
Count = Annotated[int, Meta(ge=0, lt=_MOST)]
Whole = Annotated[int, Meta(gt=-_MOST, lt=_MOST)]
Seed = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Units = Annotated[int, Meta(ge=1, lt=2**24)]


class Node(TypedDict):
    """A node; `kind` and `fields` are missing for an input."""

    name: str
    origin: Annotated[list[str], Meta(min_length=2, max_length=2)]
    shape: list[Size]
    inputs: list[str]
    kind: NotRequired[str]
    fields: NotRequired[dict[str, Any]]


class Graph(TypedDict):
    """A graph: its nodes in data-flow order, and what it returns."""

    nodes: Annotated[list[Node], Meta(min_length=1)]
    returns: Annotated[list[str], Meta(min_length=1)]


class Source(TypedDict):
    """Where the model came from."""

    name: str
    location: str
    sha256: str
    format: str
    notes: list[str]


class Neuron(TypedDict, total=False):
    """Which neuron replaces the activations."""

    model: str
    levels: Units
    sites: dict[str, Units]


class Schedule(TypedDict, total=False):
    """A schedule; each class checks its own fields."""

    kind: str
    timesteps: Count
    depth: Count


class EarlyExit(TypedDict):
    """When an image stops being simulated."""

    share: float
    margin: float
    images: Count
    agreement: float
    scales: NotRequired[list[Annotated[float, Meta(ge=0)]]]


class Calibrated(Graph):
    """The network that the spiking one was compiled from."""

    schedule: Schedule
    neuron: Neuron
    early_exit: EarlyExit | None
    sites: list[str]
    input_bound: float
    reach: dict[str, float]
    approximate: str
    input_encoder: str
    linear: NotRequired[str]


class Calibration(TypedDict, total=False):
    """What every method's account may hold."""

    method: str
    options: dict[str, Any]
    samples: Count
    seed: Seed
    source: str | None
    fingerprint: str | None
    synthetic: bool
    candidates: list[dict[str, Any]]
    schedules: list[dict[str, Any]]


class Evaluation(TypedDict, total=False):
    """The figures of the conversion's own evaluation, and how its images are chosen again."""

    samples: Count
    correct: list[Count | None] | None
    agreed: list[Count | None] | None
    ann_correct: Count | None
    spikes_per_image: list[float]
    source: str | None
    fingerprint: str | None
    labelled: bool
    limit: Count | None
    seed: Seed
    excluded_calibration: Count
    label_offset: Whole
    labels: str | None
    early_exit: dict[str, Any] | None
    metrics: dict[str, dict[str, Any]]
    ann: dict[str, float | None]


class Task(TypedDict, total=False):
    """What the network is for."""

    kind: str
    assumed: bool
    reason: str
    axis: Count
    outputs: list[Count]


class Input(TypedDict):
    """One of several inputs of the original, or one of whole numbers."""

    name: str
    shape: list[Size]
    whole: bool
    rows: Count


class Header(Graph):
    """A header of any schema that is read."""

    input_shape: Annotated[list[Size], Meta(min_length=1)]
    outputs: list[str]
    source: Source
    preprocessing: dict[str, Any]
    calibration: Calibration
    evaluation: Evaluation
    schedule: Schedule
    tensors: str
    precision: NotRequired[str]
    neuron: NotRequired[Neuron]
    early_exit: NotRequired[EarlyExit | None]
    label_offset: NotRequired[Whole]
    calibrated: NotRequired[Calibrated | None]
    original: NotRequired[Graph | None]
    task: NotRequired[Task | None]
    inputs: NotRequired[list[Input]]
    copies: NotRequired[dict[str, str]]
    providers: NotRequired[dict[str, str]]
    equations: NotRequired[dict[str, str]]


def check_header(header: Any) -> None:
    """Make sure that `header` has the types of a header.

    Raises:
        ValueError: naming the first place that has another.
    """
    try:
        msgspec.convert(header, Header, strict=True)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None
