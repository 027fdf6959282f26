"""What the main path is made of: the request, the outcome, and the steps around the libraries' own functions."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from snnconvert.calibrate import METHODS, Task
from snnconvert.calibrate.options import check_options
from snnconvert.calibrate.shift import Shift
from snnconvert.convert import encoder
from snnconvert.convert.doors import open_model
from snnconvert.convert.onnx_reference import Comparison, compare_with_onnxruntime
from snnconvert.convert.passes import canonicalize
from snnconvert.convert.passes.logits import keep_logits
from snnconvert.convert.precision import PRECISIONS
from snnconvert.convert.pytorch import import_module
from snnconvert.convert.spikify import NeuronChoice
from snnconvert.convert.units import WAYS, refuse_analog, refuse_overflow, refuse_without_sites
from snnconvert.data.datasets import load_dataset
from snnconvert.data.preprocessing import Preprocessing
from snnconvert.data.selection import Inputs
from snnconvert.errors import InternalError, OptionError
from snnconvert.graph.balance import with_identity_sites
from snnconvert.graph.dialect import class_count
from snnconvert.graph.schedule import KINDS, Schedule
from snnconvert.graph.types import Ann, Snn
from snnconvert.neurons import RECTIFIERS
from snnconvert.progress import Progress
from snnconvert.search import AUTO, WINDOWS, Trial, candidates, choose, eligible, with_several_answers
from snnconvert.simulate.evaluate import Evaluation
from snnconvert.simulate.measure import FitCurve
from snnconvert.zoo.catalogue import bundled, data_path

# float32 engines differ by rounding alone: YOLOX-nano by 1.05e-4 on noise, 400 nodes deep
TOLERANCE = 2e-4
# methods whose calibration takes long enough to compare schedules on fewer images first
COSTLY = ("reconstruct", "snn-calibration-light", "local-threshold-balancing")
DRAFT_IMAGES = 128
# units per step of the neurons that may send more than one, where the user does not say
LEVELS = {"burst": 5, "graded": 15}
# what `--neuron auto` tries, by what one of their spikes costs: a bit, a bit and a sign, 3 bits, 4 bits
CHEAPEST_FIRST = ("if", "ternary", "burst", "graded")


@dataclass(frozen=True)
class Request:
    """Everything a user can ask of a conversion; the defaults are those of the command line.

    `options` are the calibration method's own; `levels` is the number of units a neuron may send a step, None for the
    usual one (LEVELS); `read_from` is the number of first steps that the read-out leaves out, None lets the calibration
    choose; `early_exit` is the share of images that has to keep the last step's answer when clear ones stop early;
    `calibrate_for` are earlier steps after which the network is to be right as well; `compare_at` are steps at which it
    is compared with networks that are calibrated for so many steps alone, as it is at those of `calibrate_for`.
    """

    model: str
    arch: str | None = None
    input_shape: tuple[int, ...] | None = None
    output_name: str | None = None
    timesteps: int = 32
    data: str | None = None
    calibration_data: str | None = None
    calibration_samples: int = 512
    calibration: str = "reconstruct"
    options: dict[str, Any] = field(default_factory=dict)
    neuron: str = "if"
    levels: int | None = None
    schedule: str = "auto"
    wait: int | None = None
    window: int | None = None
    phases: str = "power2"
    residual: str = "keep"
    rounding: str = "nearest"
    read_from: int | None = None
    early_exit: float | None = None
    calibrate_for: tuple[int, ...] = ()
    compare_at: tuple[int, ...] = ()
    limit: int | None = None
    batch_size: int = 64
    seed: int = 0
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    label_offset: int = 0
    device: str = "cpu"
    precision: str = "float32"
    input_encoder: str = "analog"
    approximate: str = "auto"
    strict_spiking: bool = False
    energy_constants: str | None = None

    @property
    def units(self) -> int:
        """Units that a neuron may send a step."""
        return LEVELS.get(self.neuron, 1) if self.levels is None else self.levels

    @property
    def neurons(self) -> tuple[NeuronChoice, ...]:
        """The neurons to choose from, the cheapest first."""
        if self.neuron != "auto":
            return (NeuronChoice(self.neuron, self.units),)
        return tuple(NeuronChoice(model, LEVELS.get(model, 1)) for model in CHEAPEST_FIRST)

    def with_neuron(self, neuron: NeuronChoice) -> Request:
        """The same request for this neuron alone."""
        return replace(self, neuron=neuron.model, levels=neuron.levels if neuron.model in LEVELS else None)

    @property
    def compared(self) -> tuple[int, ...]:
        """The numbers of steps that a network of its own is made for beside this one, ascending.

        The last step is among them only where this network has to serve others as well: else it is that network.
        """
        return tuple(
            sorted({*self.calibrate_for, *self.compare_at} | ({self.timesteps} if self.calibrate_for else set()))
        )


@dataclass(frozen=True)
class Facts:
    """What is known of a network once it is open: its number of outputs, and how far it is from ONNX Runtime."""

    classes: int
    comparison: dict[str, Any] | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Alone:
    """A network calibrated for one number of steps only: its schedule, and its curve on the same images."""

    schedule: Schedule
    curve: FitCurve


@dataclass(frozen=True)
class Outcome:
    """What a conversion leaves behind; `report.from_run` turns it into a report.

    `rounded` is the curve of the same network in the precision that was asked for, if that is not float32; `ablation`
    is what the two neurons of a bistable network are worth; `alone` is what networks of `Request.compared` do; `shift`
    is where the evaluation images drive the network further than the calibration images did.
    """

    request: Request
    ann: Ann
    facts: Facts
    inputs: Inputs
    snn: Snn
    evaluation: Evaluation
    timings: dict[str, float]
    rounded: FitCurve | None = None
    ablation: dict[str, Any] | None = None
    alone: tuple[Alone, ...] = ()
    shift: Shift | None = None


@contextmanager
def timed(timings: dict[str, float], stage: str) -> Iterator[None]:
    """Store the seconds that the block takes."""
    start = time.perf_counter()
    yield
    timings[stage] = round(time.perf_counter() - start, 3)


def check_request(request: Request) -> None:
    """Refuse values outside their range before any work.

    Raises:
        OptionError: naming the option, its value and what is allowed.
    """
    for option, value in (
        ("--timesteps", request.timesteps),
        ("--calibration-samples", request.calibration_samples),
        ("--batch-size", request.batch_size),
        ("--limit", 1 if request.limit is None else request.limit),
        ("--levels", request.units),
        ("--wait", 1 if request.wait is None else request.wait),
        ("--window", 1 if request.window is None else request.window),
    ):
        if value < 1:
            raise OptionError(f"{option} {value} is below 1", hint=f"give {option} a whole number of at least 1")
    for option, given, last, what in (
        ("--calibrate-for", request.calibrate_for, request.timesteps, "timesteps"),
        ("--compare-at", request.compare_at, request.timesteps - 1, "earlier steps"),
    ):
        for steps in given:
            if not 1 <= steps <= last:
                more = request.timesteps + max(steps, 1) - last
                raise OptionError(
                    f"{option} {steps} is outside 1 to {last}, the {what} of this network",
                    hint="leave it out" + (f", or ask for more steps: -T {more}" if steps > last else ""),
                )
            if steps <= (request.read_from or 0):
                raise OptionError(
                    f"{option} {steps} has no answer with --read-from {request.read_from}",
                    hint=f"leave one of the two out, or read earlier: --read-from {steps - 1}",
                )
    if request.early_exit is not None and not 0 < request.early_exit <= 1:
        raise OptionError(
            f"--early-exit {request.early_exit} is outside 0 to 1",
            hint="give the share to keep, e.g. --early-exit 0.99",
        )
    if request.read_from is not None and request.read_from < 0:
        raise OptionError(f"--read-from {request.read_from} is below 0", hint="give 0 to read every step, or auto")
    for option, chosen, allowed in (
        ("--calibration", request.calibration, METHODS),
        ("--neuron", request.neuron, (*RECTIFIERS, "auto")),
        ("--schedule", request.schedule, (*KINDS, "auto")),
        ("--phases", request.phases, ("power2", "uniform")),
        ("--residual", request.residual, ("keep", "clear", "clamp")),
        ("--rounding", request.rounding, ("nearest", "floor")),
        ("--approximate", request.approximate, WAYS),
        ("--precision", request.precision, PRECISIONS),
        ("--input-encoder", request.input_encoder, encoder.WAYS),
    ):
        if chosen not in allowed:
            raise OptionError(f"{option} {chosen!r} is not known", hint=f"choose one of {', '.join(allowed)}")

    _check_combinations(request)


def _check_combinations(request: Request) -> None:
    if request.neuron == "auto" and request.levels is not None:
        raise OptionError(
            f"--levels {request.levels} does not fit --neuron auto, which tries each neuron with its usual levels",
            hint="leave --levels out, or choose --neuron burst or --neuron graded",
        )
    if request.units != 1 and request.neuron not in ("burst", "graded"):
        raise OptionError(
            f"--levels {request.units} does not fit --neuron {request.neuron}, which sends one unit a step",
            hint="add --neuron burst or --neuron graded, or leave --levels out",
        )
    if request.schedule == "bistable" and request.neuron != "if":
        raise OptionError(
            f"--schedule bistable brings neurons of its own, not --neuron {request.neuron}",
            hint="leave --neuron out, or choose --schedule streaming or wait",
        )
    for option, given, kind in (
        ("--wait", request.wait is not None, "wait"),
        ("--window", request.window is not None, "bistable"),
        ("--phases", request.phases != "power2", "bistable"),
        ("--residual", request.residual != "keep", "bistable"),
    ):
        if given and request.schedule not in (kind, "auto"):
            raise OptionError(
                f"{option} means nothing to --schedule {request.schedule}",
                hint=f"leave {option} out, or add --schedule {kind}",
            )
    if request.calibrate_for and (
        request.calibration != "reconstruct" or request.schedule not in ("auto", "streaming")
    ):
        raise OptionError(
            "--calibrate-for is for --calibration reconstruct and --schedule streaming",
            hint="leave --calibrate-for out, or leave out the other two",
        )
    if request.compare_at and request.schedule not in ("auto", "streaming"):
        raise OptionError(
            f"--compare-at does not fit --schedule {request.schedule}, which waits the same at every T",
            hint="leave --compare-at out, or choose --schedule streaming",
        )
    if request.read_from and request.schedule == "bistable":
        raise OptionError(
            f"--read-from {request.read_from} does not fit --schedule bistable, which answers window by window",
            hint="leave --read-from out, or choose --schedule streaming or wait",
        )
    check_options(request.calibration, request.options)


def with_bundled_data(request: Request) -> Request:
    """Fill in the data set and preprocessing that come with a `zoo:` model, where the user gave none."""
    if not request.model.startswith("zoo:"):
        return request
    row = bundled(request.model)
    own = request.preprocessing == Preprocessing() and request.data is None
    return replace(
        request,
        data=request.data or f"zoo:{row.name}",
        calibration_data=request.calibration_data or (f"zoo:{row.name}/train" if request.data is None else None),
        preprocessing=row.preprocessing if own else request.preprocessing,
    )


def open_ann(request: Request, module: nn.Module | None = None) -> tuple[Ann, Facts]:
    """Read the model, compare it with its reference, canonicalise it, and compare again.

    Raises:
        UnsupportedError: if no activation could become a spiking neuron.
        InternalError: if the canonical network computes something else than the model.
    """
    shape = request.input_shape or _shape_of_data(request)
    if module is not None:
        if shape is None:
            raise OptionError(
                "a module needs the shape of one input", hint="pass input_shape, for instance (3, 32, 32)"
            )
        opened = import_module(module, shape, name=request.model)
    else:
        opened = open_model(request.model, arch=request.arch, input_shape=shape, output_name=request.output_name)
        path = Path(opened.source.location)
        if request.model.startswith("zoo:"):
            opened = replace(opened, source=replace(opened.source, location=request.model))
    samples = torch.rand((2, *opened.input_shape), generator=torch.Generator().manual_seed(request.seed))
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
    ann = keep_logits(ann)
    refuse_without_sites(ann)
    if request.strict_spiking:
        refuse_analog(ann, spared=request.approximate != "analog")
    return ann, Facts(class_count(ann.graph), comparison, ann.source.notes)


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


def _shape_of_data(request: Request) -> tuple[int, ...] | None:
    """The shape of one prepared image, for models that do not state their own."""
    path = request.data or request.calibration_data
    if path is None or request.model.startswith("zoo:") or request.model.endswith(".onnx"):
        return None
    return load_dataset(data_path(path), preprocessing=request.preprocessing, input_shape=None).sample_shape


def _schedules(request: Request) -> tuple[str, ...]:
    """The kinds of schedule to try; bistable ones bring their own neuron."""
    if request.schedule != "auto" or request.compared:
        return ("streaming" if request.compared else request.schedule,)
    return tuple(kind for kind in AUTO if kind != "bistable" or request.neuron in ("if", "auto"))


def spiking(
    request: Request, ann: Ann, images: Tensor, record: dict[str, Any], progress: Progress
) -> tuple[Snn, NeuronChoice]:
    """Calibrate and spikify with the neuron and schedule that were asked for, or with the best of those that fit.

    Args:
        request: schedule, neuron and calibration method.
        ann: the network to convert.
        images: calibration inputs in canonical order.
        record: where they come from; kept with the calibration's own record.
        progress: called as work goes on.

    Raises:
        OptionError: if no schedule fits into the budget of time steps.
    """
    free = request.read_from is None and request.early_exit is None  # who wants to stop early reads every step
    options = request.options if free else {**request.options, "read_out": False}
    if request.calibrate_for:
        options = {**options, "read_at": request.calibrate_for}

    def make(network: Ann, schedule: Schedule, neuron: NeuronChoice, count: int = len(images)) -> Snn:
        task = Task(network, images[:count], schedule, neuron, options, progress)
        calibration = METHODS[request.calibration](task)
        return replace(task.spikify(calibration), calibration={**record, **calibration.record})

    found = candidates(
        ann,
        request.timesteps,
        neurons=request.neurons,
        schedules=_schedules(request),
        windows=WINDOWS if request.window is None else (request.window,),
        waits=(request.wait or 1,),
        phases=request.phases,
        residual=request.residual,
        rounding=request.rounding,
        read_from=request.read_from or 0,
    )
    if request.early_exit is not None:
        found = with_several_answers(found)
    if len(eligible(found)) == 1:
        trials = [Trial(one, chosen=one.schedule is not None) for one in found]
    else:
        costly = request.calibration in COSTLY and len(images) > DRAFT_IMAGES
        draft = partial(make, count=DRAFT_IMAGES) if costly else make
        trials = choose(ann, found, draft, images, progress)
        if costly:
            trials = [replace(trial, snn=None) if trial.chosen else trial for trial in trials]
    (best,) = [trial for trial in trials if trial.chosen]
    schedule, neuron = best.candidate.schedule, best.candidate.neuron
    assert schedule is not None
    snn = best.snn or make(with_identity_sites(ann, schedule), schedule, neuron)
    rows = [(replace(trial, snn=snn) if trial.chosen else trial).record() for trial in trials]
    return replace(snn, calibration={**snn.calibration, "schedules": rows}), neuron
