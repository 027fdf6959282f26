"""How the report was made: the model, the images, the calibration, the time it takes, the command, the versions."""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired, TypedDict

from snnconvert.neurons import NEURONS
from snnconvert.report.blocks import Block, Code, Facts, On, Text
from snnconvert.report.outcomes import outcomes
from snnconvert.report.section import Amount, Count, Document, Section, Step, means
from snnconvert.report.wording import clean, fixed, flat, plural, schedule, share

if TYPE_CHECKING:
    from snnconvert.data.datasets import Dataset
    from snnconvert.graph.types import Snn
    from snnconvert.report.measured import Measured


class Tool(TypedDict):
    version: str
    command_line: str
    python: NotRequired[str | None]
    torch: NotRequired[str | None]


class Model(TypedDict):
    name: str
    location: str
    sha256: str
    format: str
    input_shape: list[Step]
    sites: Annotated[Count, means("activations that became neurons")]
    parameters: Count
    notes: list[str]


class Outcomes(TypedDict):
    order: str
    snn: str
    ann: str | None


class Answers(TypedDict):
    ann: Count
    snn: Count | None


class Evaluation(TypedDict):
    samples: Step
    labelled: bool
    source: str
    fingerprint: str | None
    excluded_calibration: Annotated[
        int | bool | None, means("how many images were left out because calibration had seen them")
    ]
    classes: Annotated[Step | None, means("of a classifier")]
    answers: NotRequired[Annotated[Answers | None, means("how many different classes each network answered with")]]
    outcomes: Annotated[
        Outcomes | None,
        means(
            "right (1) or wrong (0) for each image at the last step: base64, bit k (most significant first) belongs to "
            "the image with the k-th smallest sha256 of its raw bytes"
        ),
    ]
    notes: list[str]


class Calibration(TypedDict):
    method: str
    samples: Count
    source: str
    fingerprint: str | None
    synthetic: bool
    options: dict[str, Any]


class ScheduleUsed(TypedDict):
    kind: str
    timesteps: Step
    wait: NotRequired[Count | None]
    window: NotRequired[Count | None]
    phases: NotRequired[str | None]
    depth: NotRequired[Count | None]


class NeuronUsed(TypedDict):
    model: str
    levels: NotRequired[Annotated[Step, means("most units that one neuron sends a step, or a window")]]
    added: NotRequired[Annotated[float, means("units a step beyond one, over all neurons")]]
    input: NotRequired[Annotated[str, means("analog: a constant current; spiking: sent by an encoder neuron; events")]]


class Latency(TypedDict):
    window: Count | None
    first_output: Count | None
    total: Step
    asked: NotRequired[
        Annotated[
            Step | None,
            means("the T that was asked for; null where T follows from others, or only the network is at hand"),
        ]
    ]
    step_milliseconds: NotRequired[
        Annotated[Amount, means("of a recording in one step (mean), where recordings are replayed in time")]
    ]


class Reference(TypedDict):
    max_difference: NotRequired[Amount | None]
    tolerance: NotRequired[float | None]
    runtime: NotRequired[str]
    samples: NotRequired[int | None]


class Task(TypedDict):
    kind: Annotated[Literal["classification", "segmentation", "regression", "raw"], means("what the network is for")]
    assumed: Annotated[bool, means("concluded from labels or shapes, not asked for")]
    reason: Annotated[str, means("why, with the option that changes it")]
    input: Annotated[Literal["image", "input", "recording"], means("what one input is called")]


class Keys(TypedDict):
    task: Task
    tool: Tool
    model: Model
    evaluation: Evaluation
    calibration: Calibration
    preprocessing: dict[str, Any]
    schedule: ScheduleUsed
    neuron: NeuronUsed
    latency: Latency
    comparison: Reference | None
    timings: dict[str, Amount]


# of reports from before there were other tasks
CLASSIFIER = {"kind": "classification", "assumed": True, "reason": "", "input": "image"}
DEFAULTS: dict[str, dict[str, Any]] = {
    "model": {"notes": []},
    "evaluation": {"fingerprint": None, "excluded_calibration": None, "classes": None, "outcomes": None, "notes": []},
    "calibration": {"fingerprint": None, "synthetic": False, "options": {}},
}


def compute(measured: Measured) -> dict[str, Any]:
    snn, curve, network = measured.snn, measured.curve, measured.network
    tried = ("candidates", "schedules")  # a section of their own
    calibration = {name: value for name, value in snn.calibration.items() if name not in tried}
    if snn.early_exit is not None:
        calibration["early_exit"] = asdict(snn.early_exit)
    right = measured.right
    kept = right is not None and measured.data is not None
    return {
        "task": {**snn.task.section(), "input": measured.noun},
        "tool": tool(measured.command_line),
        "model": {
            "name": network.source.name,
            "location": network.source.location,
            "sha256": network.source.sha256,
            "format": network.source.format,
            "input_shape": list(network.input_shape),
            "sites": measured.sites,
            "parameters": measured.parameters,
            "notes": list(network.source.notes),
        },
        "evaluation": {
            "samples": curve.samples,
            "labelled": measured.labelled,
            **measured.images,
            "classes": measured.classes if snn.task.row.counted else None,
            "answers": measured.answers,
            "outcomes": outcomes(measured.data.digests(), **right) if kept else None,  # type: ignore[union-attr,arg-type]
            "notes": [*measured.notes, *_left_out(calibration)],
        },
        "calibration": calibration,
        "preprocessing": snn.preprocessing,
        "schedule": snn.schedule.to_dict(),
        "neuron": neuron_of(snn),
        "latency": {**snn.schedule.latency, "asked": measured.asked, **step_milliseconds(measured.data)},
        "comparison": measured.comparison,
        "timings": measured.timings,
    }


def step_milliseconds(data: Dataset | None) -> dict[str, float]:
    """How long a step of recordings is; nothing of all other data."""
    replay = None if data is None else data.replay
    return {} if replay is None else {"step_milliseconds": replay["milliseconds"]}


def tool(command_line: str) -> dict[str, Any]:
    """Versions and the command line."""
    import torch

    return {
        "version": metadata.version("snnconvert"),
        "command_line": command_line,
        "python": platform.python_version(),
        "torch": torch.__version__.split("+")[0],
    }


def neuron_of(snn: Snn) -> dict[str, Any]:
    """The models of a network's neurons (those on sums aside, where there are others), the most units of one, and
    whether the first weights read spikes as well."""
    from snnconvert.graph.dialect import arguments, calls, neurons_of
    from snnconvert.graph.flow import Flow, flows
    from snnconvert.graph.inputs import events_of
    from snnconvert.graph.kinds import Weighted

    neurons, flow = list(neurons_of(snn.graph).values()), flows(snn.graph)
    main = [op for op in neurons if op.row.rectifies] or neurons
    constant = any(flow[arguments(node)[0]] == Flow.CONSTANT for node, _ in calls(snn.graph, Weighted))
    return {
        "model": ", ".join(sorted({op.model for op in main})),
        "levels": max(op.levels for op in main),
        **_added(snn),
        "input": "events" if events_of(snn.graph) is not None else "analog" if constant else "spiking",
    }


def units_of(snn: Snn) -> tuple[list[int], float]:
    """The units a step of each layer of neurons in order, and those beyond one over all neurons."""
    from snnconvert.graph.dialect import neurons_of

    found = [(math.prod(node.meta["shape"]), op.levels) for node, op in neurons_of(snn.graph).items()]
    added = sum(size * (levels - 1) for size, levels in found) / max(sum(size for size, _ in found), 1)
    return [levels for _, levels in found], added


def _added(snn: Snn) -> dict[str, float]:
    """The units that some layers have more than one, where layers differ."""
    units, added = units_of(snn)
    return {"added": added} if len(set(units)) > 1 else {}


def _left_out(record: dict[str, Any]) -> list[str]:
    """A note where memory holds fewer calibration images than there are."""
    used, given = record.get("images"), record["samples"]
    if used is None or used >= given:
        return []
    memory = record["options"].get("memory")
    room = "memory" if memory is None else f"{memory:g} GiB (option memory of {record['method']})"
    return [
        f"{used} of the {given} calibration images were used for weights and thresholds: more do not fit into {room}"
    ]


def complete(document: dict[str, Any]) -> None:
    for key, defaults in DEFAULTS.items():
        document[key] = {**document[key], **{name: v for name, v in defaults.items() if name not in document[key]}}
    document["task"] = {**CLASSIFIER, **document.get("task", {})}
    document.setdefault("comparison", None)
    document.setdefault("timings", {})


def blocks(document: Document) -> Sequence[Block]:
    titles = {
        "Model": document["model"],
        "Preprocessing": document["preprocessing"],
        "Calibration": document["calibration"],
        "Evaluation": {name: value for name, value in document["evaluation"].items() if name != "outcomes"},
        "Time": document["schedule"],
        "Latency, in timesteps": document["latency"],
        "Neurons": _neurons(document),
        "Import checked against a reference": document["comparison"] or {},
    }
    lists = [(title, list(flat(section))) for title, section in titles.items()]
    versions = [("snnconvert" if name == "version" else name, value) for name, value in flat(document["tool"])]
    lists.append(("Versions", [row for row in versions if row[0] != "command line"]))
    seconds = [(clean(name).replace("_", " "), fixed(value, 2)) for name, value in document["timings"].items()]
    lists.append(("Seconds taken", seconds))
    command = document["tool"]["command_line"]
    following: list[Block] = []
    if document["next_commands"]:
        following = [Text("What to type next:", soft=True), Code(document["next_commands"])]
    return [
        Text(f"snnconvert {document['tool']['version']}:", On.MARKDOWN),
        Code([command], On.PAGE | On.MARKDOWN),
        *following,
        Facts([one for one in lists if one[1]]),
    ]


def _neurons(document: Document) -> dict[str, str]:
    """The neurons in words, not by the names that options have."""
    given, row = document["neuron"], schedule(document)
    named = [NEURONS[model].title or model if model in NEURONS else model for model in given["model"].split(", ")]
    frame = "window" if row is not None and row.windowed else "step"
    levels, entering = given.get("levels"), {"analog": "a constant current", "events": "events as they come"}
    found = {"model": ", ".join(named)}
    found |= {f"spikes a {frame}": f"worth up to {plural(levels, 'unit')}"} if levels else {}
    found |= {"added units": f"{share(given['added'])} of the neurons"} if given.get("added") else {}
    return found | ({"input": entering.get(given["input"], "spikes")} if given.get("input") else {})


SECTION = Section(Keys, compute, "How it was made", complete, blocks=blocks)
