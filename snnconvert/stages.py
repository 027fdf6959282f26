"""What the main path is made of: the outcome, and the steps around the libraries' own functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from snnconvert.calibrate import DRAFT_IMAGES, METHODS, Task
from snnconvert.capacity import given_out
from snnconvert.compile.added import with_added_neurons
from snnconvert.compile.balance import with_identity_sites
from snnconvert.compile.network import compile_network
from snnconvert.compile.precision import in_precision
from snnconvert.convert.attention import with_spiking_operators
from snnconvert.convert.doors import choose_named, import_fitting, open_model
from snnconvert.convert.encoder import with_input_encoder, with_replay
from snnconvert.convert.linear import with_spiking_sums
from snnconvert.convert.onnx_reference import Comparison, compare_with_onnxruntime
from snnconvert.convert.passes import canonicalize
from snnconvert.convert.passes.logits import keep_logits
from snnconvert.convert.units import refuse_analog, refuse_overflow, refuse_without_sites, with_units
from snnconvert.cost.chip import load_target
from snnconvert.data.bundled import bundled, data_path
from snnconvert.data.datasets import Dataset, dataset_of, load_dataset
from snnconvert.data.memory import Memory
from snnconvert.data.named import Wanted, raw_of
from snnconvert.data.parts import offered_by
from snnconvert.data.preprocessing import Preprocessing
from snnconvert.data.selection import Inputs
from snnconvert.errors import DataError, InternalError, OptionError
from snnconvert.forecast import forecast
from snnconvert.graph.dialect import class_count, outputs_of
from snnconvert.graph.parts import Part, fitting
from snnconvert.graph.schedule import SCHEDULES, Schedule, owners
from snnconvert.graph.types import Ann, Calibrated, NeuronChoice, Snn
from snnconvert.options import AUTO
from snnconvert.progress import Progress, timed
from snnconvert.request import Request
from snnconvert.search import Candidate, Trial, candidates, choose, eligible, for_target, roughly, with_several_answers
from snnconvert.study.converted import Converted, Means
from snnconvert.study.evaluate import Evaluation, Spread, evaluate, rerun
from snnconvert.study.studies import STUDIES
from snnconvert.tasks import TaskChoice
from snnconvert.tasks.assume import task_of

# float32 engines differ by rounding alone: YOLOX-nano by 1.05e-4 on noise, 400 nodes deep
TOLERANCE = 2e-4
# images on which the original network has to give finite numbers before anything is calibrated
CHECKED_IMAGES = 32


@dataclass(frozen=True)
class Facts:
    """What is known of a network once it is open: its number of outputs, and how far it is from ONNX Runtime."""

    classes: int
    comparison: dict[str, Any] | None


@dataclass(frozen=True)
class Outcome:
    """What a conversion leaves behind; `report.from_run` turns it into a report.

    Attributes:
        request: what was asked for, with the neuron that was chosen.
        ann: the network with functions replaced by units.
        facts: what is known of it besides.
        inputs: the images.
        snn: the spiking network.
        evaluation: how both did on the evaluation images.
        studies: what else was found out, by the names of `study.studies.STUDIES`.
        timings: seconds of each stage.
    """

    request: Request
    ann: Ann
    facts: Facts
    inputs: Inputs
    snn: Snn
    evaluation: Evaluation
    studies: Mapping[str, Any]
    timings: dict[str, float]


def with_bundled_data(request: Request) -> Request:
    """Fill in the data set and preprocessing that come with a `zoo:` model, where the user gave none, or named them."""
    if not request.model.startswith("zoo:"):
        return request
    row = bundled(request.model)
    data = request.data or request.model
    named = data.startswith("zoo:") and bundled(data.partition("/")[0]).dataset == row.dataset
    own = request.preprocessing == Preprocessing() and (named or not row.dataset)
    request = replace(request, preprocessing=row.preprocessing) if own else request
    if request.data is not None or not row.dataset:
        return request
    train = f"zoo:{row.name}/train"
    return replace(request, data=f"zoo:{row.name}", calibration_data=request.calibration_data or train)


def open_ann(request: Request, memory: Memory | None = None) -> tuple[Ann, Facts]:
    """Read the model, compare it with its reference, canonicalise it, and compare again.

    `memory` holds the model and the data that are no files.

    Raises:
        InternalError: if the canonical network computes something else than the model.
    """
    memory = memory or Memory()
    module = memory.module
    shapes, arrays = ((request.input_shape,), {}) if request.input_shape else _shapes_of_data(request, memory)
    if module is not None:
        opened = choose_named(import_fitting(module, shapes, arrays, name=request.model), request.output_name)
    else:
        shape, output = shapes[0] if shapes else None, request.output_name
        opened = open_model(request.model, arch=request.arch, input_shape=shape, output_name=output, arrays=arrays)
        path = Path(opened.source.location)
        if request.model.startswith("zoo:"):
            opened = replace(opened, source=replace(opened.source, location=request.model))
    samples = torch.rand((2, *opened.input_shape), generator=torch.Generator().manual_seed(request.seed))
    samples = fitting(opened.inputs, samples)
    comparison: dict[str, Any] | None = None
    if module is None and opened.source.format == "onnx":
        found = compare_with_onnxruntime(opened, path, samples, tolerance=TOLERANCE)
        comparison = {
            "runtime": "onnxruntime",
            "max_difference": max(found.differences.values(), default=None),
            "tolerance": found.tolerance,
            "samples": len(samples),
        }
        opened = _with_remark(opened, found, len(samples))
    ann = canonicalize(opened)
    with torch.inference_mode():
        before, after = opened.graph(samples)[0], ann.graph(samples)[0]
    refuse_overflow(ann.source.name, before)
    difference = float((before - after).abs().max() / before.abs().max().clamp(min=1e-12))
    if not difference <= TOLERANCE:
        raise InternalError(f"canonicalisation changed the network's output by {difference:.1e} (relative)")
    return ann, Facts(class_count(ann.graph), comparison)


def for_task(request: Request, ann: Ann, task: TaskChoice | None = None) -> Ann:
    """`ann` made ready for its task: where it decides, logits are kept instead of probabilities.

    Args:
        request: what is asked for.
        ann: a canonical network.
        task: None if no labels have been seen.

    Raises:
        UnsupportedError: if no activation could become a spiking neuron, or (--strict-spiking) one stays analog.
    """
    task = task or task_of(request.task, outputs_of(ann.graph), ann.input_shape, None)
    ann = keep_logits(replace(ann, task=task))
    refuse_without_sites(with_spiking_operators(ann) if request.whole else ann)
    if request.strict_spiking:
        declined = request.approximate == "analog"
        refuse_analog(ann, spared=not declined, untried=declined, whole=request.whole)
    return ann


def with_encoder(request: Request, ann: Ann, images: Tensor, inputs: Inputs) -> tuple[Ann, Ann]:
    """`ann` with its functions replaced by units, and the network to convert: that with the encoder asked for.

    Args:
        request, ann: how functions are approximated and images enter, and a canonical network.
        images, inputs: calibration inputs in canonical order, and where they come from.
    """
    with torch.inference_mode():
        refuse_overflow(ann.source.name, ann.graph(images[:CHECKED_IMAGES])[0])
    way, strict = request.approximate, request.strict_spiking
    ann, network = with_units(ann, images, way=way, strict=strict, whole=request.whole)
    network = with_spiking_sums(network) if request.sums_spike(ann) else network
    if request.input_encoder == "spiking":
        network = with_input_encoder(network)
    ann = replace(ann, source=network.source)
    return ann, with_replay(network, images, inputs.replay, inputs.preprocessing)


def measured(
    request: Request, ann: Ann, snn: Snn, data: Dataset | Tensor, *, progress: Progress, spread: Spread | None
) -> Evaluation:
    """`snn` beside `ann` on the evaluation images."""
    size, device = request.batch_size, request.device
    return evaluate(ann, snn, data, batch_size=size, progress=progress, device=device, spread=spread)


def kept(snn: Snn, inputs: Inputs, evaluation: Evaluation, studies: Mapping[str, Any]) -> Snn:
    """The network that a checkpoint keeps: in the precision that was asked for, with the figures of its own curve."""
    rounded = studies.get("precision")
    if rounded is not None:
        snn, evaluation = in_precision(snn, rounded.precision), replace(evaluation, curve=rounded.curve)
    return replace(snn, evaluation={**inputs.evaluation_record, **evaluation.figures()})


def studied(request: Request, converted: Converted, timings: dict[str, float], progress: Progress) -> Mapping[str, Any]:
    """The results of all studies that `request` asks for, by name."""
    free = replace(request, calibrate_for=(), frontier=(), budgets=(), early_exit=None, studies=())
    alone = replace(free, schedule=converted.snn.schedule.kind).with_neuron(converted.snn.neuron)

    def convert_for(steps: int, progress: Progress, *, freely: bool = False, budget: float | None = None) -> Snn:
        wanted, images, inputs = replace(free if freely else alone, timesteps=steps), converted.images, converted.inputs
        wanted = wanted if budget is None else wanted.with_budget(budget)
        return spiking(wanted, converted.ann, converted.network, images=images, inputs=inputs, progress=progress)

    measure = partial(
        rerun,
        data=converted.inputs.measured,
        batch_size=request.batch_size,
        device=request.device,
        reference=converted.evaluation.reference,
    )
    wishes = (request.compared, request.timesteps, request.frontier, request.budgets, request.precision, request.target)
    means = Means(measure, convert_for, *wishes, progress)
    found = {}
    for name, study in STUDIES.items():
        if study.wanted(request):
            with timed(timings, name):
                found[name] = study.function()(converted, means)
    return found


def _with_remark(opened: Ann, found: Comparison, samples: int) -> Ann:
    """`opened` with a note where ONNX Runtime is no exact reference, or none at all."""
    if found.ran and found.tolerance <= TOLERANCE:
        return opened
    remark = f"not compared with ONNX Runtime, which cannot run it: {found.reason}"
    if found.ran:
        remark = (
            f"the file's own numbers are rounded: its outputs on {samples} random samples differ by "
            f"{found.largest:.1%} of the largest from the real numbers converted here"
        )
    return replace(opened, source=replace(opened.source, notes=(*opened.source.notes, remark)))


def _shapes_of_data(request: Request, memory: Memory) -> tuple[tuple[tuple[int, ...], ...], dict[str, Part]]:
    """The shapes that one input may have, of models that do not state their own, the likeliest first; and what the data
    hold by name.

    Real numbers in memory are what the model takes, as they are, before they are images of some layout.
    """
    path, given = request.data or request.calibration_data, memory.data or memory.calibration_data
    model = request.model
    of_its_own = memory.module is None and (model.startswith("zoo:") or model.endswith((".onnx", ".pt2")))
    if path is None or of_its_own:
        return (), {}
    held = offered_by(data_path(path) if given is None else given, request.preprocessing)
    asked: dict[str, Any] = {"preprocessing": request.preprocessing, "input_shape": None}
    try:
        if given is None:
            return (load_dataset(data_path(path), labels=request.labels, **asked).sample_shape,), held
        raw = raw_of(given, Wanted(labels=request.labels))
        prepared = dataset_of(raw, path, **asked).sample_shape
    except DataError:
        if len(held) < 2:
            raise
        return (), held  # its arrays are called as the inputs of the model
    return tuple(dict.fromkeys((raw.source.shape, prepared) if raw.source.dtype.kind == "f" else (prepared,))), held


def _check_fits(request: Request, found: Sequence[Candidate]) -> None:
    """Refuse to search without the schedule whose own option was given.

    Raises:
        OptionError: if none of that kind fits into the budget.
    """
    if not request.automatic or request.compared:
        return
    for option, kinds in owners().items():
        asked = [one for one in found if one.kind.kind in kinds]
        if request.gives(option) and asked and all(one.schedule is None for one in asked):
            named = f"--{option.replace('_', '-')} {getattr(request, option)}"
            raise OptionError(f"{named} does not fit: {asked[0].reason}", hint=asked[0].hint)


def spiking(
    request: Request,
    original: Ann,
    network: Ann,
    *,
    images: Tensor,
    inputs: Inputs,
    progress: Progress,
    say: Callable[[str], object] = str,
) -> Snn:
    """Calibrate and compile with the neuron and schedule that were asked for, or with the best of those that fit.

    Args:
        request: schedule, neuron and calibration method.
        original: the network before anything was approximated; kept with the calibration.
        network: the network to convert.
        images: calibration inputs in canonical order.
        inputs: where they come from and how they were prepared.
        progress: called as work goes on.
        say: told what to expect, before work that takes long.

    Raises:
        OptionError: if no schedule fits into the budget of time steps.
    """

    def make(network: Ann, schedule: Schedule, neuron: NeuronChoice, count: int | None = None) -> Snn:
        method, own = _method_and_options(request, schedule, quick=count is not None)
        task = Task(network, images[:count], schedule, neuron, own, progress)
        return compile_network(_calibrated(task, replace(request, calibration=method), original, inputs))

    found = _candidates(request, network)
    if request.target is not None and len(eligible(found)) > 1:
        found = for_target(found, load_target(request.target), partial(roughly, network, images))
    if line := forecast(network, found, partial(_method_and_options, request), images, inputs.measured):
        say(line)
    if len(eligible(found)) == 1:
        trials = [Trial(one, chosen=one.schedule is not None) for one in found]
    else:
        row = METHODS[request.calibration]
        costly = row.costly and (len(images) > DRAFT_IMAGES or bool(row.quick))
        draft = partial(make, count=DRAFT_IMAGES) if costly else make
        tried = choose(network, found, draft, images, progress)
        trials = [trial.by_stand_in() if costly else trial for trial in tried]
    (best,) = [trial for trial in trials if trial.chosen]
    schedule, neuron, snn = best.candidate.schedule, best.candidate.neuron, best.snn
    assert schedule is not None
    shaped = with_identity_sites(network, schedule)
    if request.units_by_site:
        asked: dict[str, Any] = {"levels": request.levels, "budget": request.added}
        quick = partial(make, shaped, schedule, neuron, DRAFT_IMAGES)
        shaped, neuron = given_out(shaped, neuron, **asked, draft=quick, images=images, progress=progress)
    snn = make(shaped, schedule, neuron) if snn is None or request.units_by_site else snn
    rows = [(replace(trial, snn=snn) if trial.chosen else trial).record() for trial in trials]
    assert snn.calibrated is not None
    record = {**snn.calibrated.record, **request.budget_record, "schedules": rows}
    return replace(snn, calibration=record, calibrated=replace(snn.calibrated, record=record))


def _method_and_options(request: Request, schedule: Schedule, *, quick: bool = False) -> tuple[str, dict[str, Any]]:
    """The calibration method for a schedule, and its options; `quick` ones where schedules are compared."""
    method = _method(request, schedule)
    own = _method_options(request) if method == request.calibration else {}
    return method, {**own, **METHODS[method].quick} if quick else own


def _method(request: Request, schedule: Schedule) -> str:
    """The calibration method: the one that was asked for, or the schedule's own where none was.

    Raises:
        OptionError: options of the method that is not used.
    """
    if request.calibration != Request.calibration or schedule.own_method is None:
        return request.calibration
    if request.options:
        raise OptionError(
            f"{next(iter(request.options))} means nothing to {schedule.name}, which is calibrated by "
            f"{schedule.own_method}",
            hint=f"leave it out, or say --calibration {request.calibration} with another schedule",
        )
    return schedule.own_method


def _method_options(request: Request) -> dict[str, Any]:
    """The calibration method's own options, and those that follow from what the network is for."""
    free = request.read_from is None and request.early_exit is None  # who wants to stop early reads every step
    options = request.options if free else {**request.options, "read_out": False}
    return {**options, "read_at": request.calibrate_for} if request.calibrate_for else options


def _calibrated(task: Task, request: Request, original: Ann, inputs: Inputs) -> Calibrated:
    """What the method that was asked for makes of `task`, with the choices that whoever compiles it has to know."""
    made = METHODS[request.calibration](task)
    found = with_added_neurons(made) if request.added_neurons else made
    return replace(
        found,
        original=original,
        approximate=request.approximate,
        input_encoder=request.input_encoder,
        linear="spiking" if request.linear == AUTO and request.strict_spiking else request.linear,
        preprocessing=inputs.preprocessing,
        label_offset=request.label_offset,
        record={**inputs.calibration_record, **found.record},
    )


def _candidates(request: Request, network: Ann) -> list[Candidate]:
    """The neurons and schedules to try.

    Raises:
        OptionError: if none fits that an option was given for.
    """
    found = candidates(
        network,
        int(request.timesteps) if request.automatic else request.timesteps,  # a budget, or nobody's wish
        neurons=request.neurons,
        schedules=request.schedules,
        **{option: getattr(request, option, None) for row in SCHEDULES.values() for option in row.options()},
    )
    _check_fits(request, found)
    return found if request.early_exit is None else with_several_answers(found)
