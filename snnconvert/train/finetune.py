"""Fine-tuning of a checkpoint: from its calibration to a better checkpoint, and what is to be said of both."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from snnconvert.compile.network import compile_network
from snnconvert.data.datasets import Dataset
from snnconvert.data.selection import as_prepared, calibrated_on, images_for
from snnconvert.errors import DataError, OptionError, SnnConvertError
from snnconvert.graph.checkpoint import digest, graph_tensors
from snnconvert.graph.dialect import output_nodes
from snnconvert.graph.schedule import Schedule
from snnconvert.graph.types import Ann, Calibrated, Snn
from snnconvert.progress import Progress, silent
from snnconvert.recompile import SELECTION, Change, schedule_of
from snnconvert.request import Request
from snnconvert.simulate.early_exit import with_early_exit
from snnconvert.simulate.measure import FitCurve
from snnconvert.stages import for_task, open_ann
from snnconvert.study.evaluate import Evaluation, evaluate, rerun
from snnconvert.tasks import TaskChoice
from snnconvert.train import TRAINING_METHODS
from snnconvert.train.images import TrainingImages, training_images
from snnconvert.train.kept import Kept, key_of
from snnconvert.train.loop import Judge, Loop, Say
from snnconvert.train.method import Method, temperature_for
from snnconvert.train.options import FineTuning, check_asked
from snnconvert.train.scratch import draw
from snnconvert.train.start import start_for
from snnconvert.train.student import Student

DRAWN_ON = 64
# images that tell how sure the teacher is, and what temperature that asks for
TOLD_BY = 256
NOT_EVALUATED = ("synthetic", "calibration images")


@dataclass(frozen=True)
class Tuned:
    """What fine-tuning leaves behind.

    Attributes:
        snn: the trained network, with the figures of its evaluation.
        teacher: the network that it learned from.
        evaluation: of the trained network.
        before: the curve of the network that it started from, on the same images.
        data: those images.
        record: JSON-able account of the training; see `report.sections.training`.
        notes: what has to be said besides.
    """

    snn: Snn
    teacher: Ann
    evaluation: Evaluation
    before: FitCurve
    data: Dataset
    record: dict[str, Any]
    notes: tuple[str, ...]


def tune(
    snn: Snn,
    asked: FineTuning,
    *,
    data: Dataset | None = None,
    evaluation_data: Dataset | None = None,
    keep: Path | None = None,
    progress: Progress = silent,
    say: Say = lambda _: None,
) -> Tuned:
    """Train a spiking network on.

    Args:
        snn: a network that holds its calibration.
        asked: the options.
        data, evaluation_data: the images, where they are not in the files that the options name.
        keep: where an interrupted run writes down how far it is, and goes on from.
        progress, say: told how it goes.

    Raises:
        OptionError: a network or options that cannot be trained.
        DataError: images that do not fit, or that the network is measured on.
    """
    check_asked(asked)
    calibrated = _calibrated(snn)
    teacher = _teacher(snn, calibrated, asked)
    given = data if data is not None else images_for(snn, _named(asked.data), None)
    evaluated = _evaluated(snn, asked, evaluation_data)
    chosen: dict[str, Any] = {"held_out": asked.held_out, "augment": asked.augment, "seed": asked.seed}
    images = training_images(given, evaluated.whole, calibrated=calibrated_on(snn, given), **chosen)
    if asked.label_weight and given.classes_of_images is None:
        raise DataError(f"{given.name} has no class labels", hint="leave --label-weight out: the original teaches")
    schedule = schedule_of(calibrated, snn.schedule, Change(timesteps=asked.timesteps))
    _refuse_steps(schedule, asked)
    start, scale = start_for(calibrated, schedule, teacher, images.learned)
    student = _student(start, schedule, images, asked)
    held_out = images.held_out.images()
    kept = Kept(keep, key_of(asked, digest(graph_tensors(calibrated.network.graph)), given.fingerprint()))
    method = _method(student, teacher, snn.task, asked, held_out)
    state = kept.load()
    if state is not None:
        say(f"going on from step {state.step}, where {kept.path} says an earlier run was")
    loop = Loop(
        student=student,
        method=method,
        teacher=teacher.graph,
        images=images,
        judge=Judge(teacher.graph, snn.task, held_out),
        asked=method.asked,
        precision=snn.precision,
        keep=kept.save,
        say=say,
    )
    method.prepare(loop.few)
    loop.run(state, progress)
    outcome = _Outcome(snn, teacher, loop, method.asked, scale, progress)
    made, record, more = outcome.network()
    found = outcome.measured(made, record, evaluated.images, evaluated.notes + more)
    kept.remove()
    return found


def _refuse_steps(schedule: Schedule, asked: FineTuning) -> None:
    if schedule.continuous and not TRAINING_METHODS[asked.method].continuous:
        able = " or ".join(name for name, row in TRAINING_METHODS.items() if row.continuous)
        raise OptionError(
            f"--method {asked.method} trains spikes in steps; this network sends them in continuous time",
            hint=f"choose --method {able}, or convert with --schedule streaming",
            options=("method",),
        )


def _student(start: Calibrated, schedule: Schedule, images: TrainingImages, asked: FineTuning) -> Student:
    found = Student(start, schedule, device=asked.device, arithmetic=asked.arithmetic, width=asked.surrogate_width)
    if asked.from_scratch:
        draw(found, images.learned.images(range(min(DRAWN_ON, len(images)))), asked.seed)
    return found


def _method(student: Student, teacher: Ann, task: TaskChoice, asked: FineTuning, images: Tensor) -> Method:
    """How to train; the temperature, where none is asked for, follows from the teacher's answers to some images."""
    if asked.temperature is None:
        with torch.inference_mode():
            asked = replace(asked, temperature=temperature_for(teacher.graph(images[:TOLD_BY]), task))
    made: Method = TRAINING_METHODS[asked.method].load()(student, task, asked)
    return made


@dataclass(frozen=True)
class _Outcome:
    """What has been learned, to be compiled and measured."""

    snn: Snn
    teacher: Ann
    loop: Loop
    asked: FineTuning
    scale: float
    progress: Progress

    def network(self) -> tuple[Snn, dict[str, Any], tuple[str, ...]]:
        """The best network compiled, the account of its training, and what has to be said."""
        snn, loop, asked, state, images = self.snn, self.loop, self.asked, self.loop.state, self.loop.images
        row = TRAINING_METHODS[asked.method]
        # what the clock says is no part of a result that can be repeated to the last bit
        looked = ("step", "epochs", "score") if asked.epochs is not None else ("step", "epochs", "score", "seconds")
        own = {
            "method": asked.method,
            "source": row.source,
            "timesteps": loop.student.schedule.timesteps,
            "options": {name: value for name, value in asdict(asked).items() if value is not None},
            "images": len(images),
            "held_out": len(images.held_out),
            "fingerprint": images.learned.fingerprint(),
            "threshold_scale": self.scale,
            "metric": snn.task.headline.name,
            "history": [{name: row[name] for name in looked} for row in state.history],
            "steps": state.step,
            "best": state.score,
            "uncompiled": loop.judge.trained(loop.student),
            **loop.method.record(),
        }
        calibrated = loop.calibrated()
        calibrated = replace(calibrated, record={**calibrated.record, "training": own})
        made = compile_network(calibrated, precision=snn.precision)
        if snn.early_exit is None:
            return made, own, ()
        try:
            return with_early_exit(made, loop.few, snn.early_exit.share, self.progress), own, ()
        except OptionError as error:
            return made, own, (f"early exit is switched off: {error.message}",)

    def measured(self, made: Snn, record: dict[str, Any], data: Dataset | None, notes: tuple[str, ...]) -> Tuned:
        """That network measured beside the one before it."""
        state = self.loop.state
        record = record | {"seconds": round(state.seconds, 1), "processor_seconds": round(state.processor, 1)}
        if data is None:
            data = self.loop.images.held_out
            notes += (f"measured on the {len(data)} {data.noun}s held out from training, which chose the best network",)
        evaluation = evaluate(self.teacher, made, data, batch_size=64, progress=self.progress)
        before = rerun(self.snn, data, batch_size=64, progress=self.progress, reference=evaluation.reference)
        record |= {"before": _figures(before), "after": _figures(evaluation.curve)}
        made = replace(made, evaluation={**_selection(self.snn, data, self.asked), **evaluation.figures()})
        return Tuned(made, self.teacher, evaluation, before, data, record, notes)


def _figures(curve: FitCurve) -> dict[str, Any]:
    """The figures of a curve at its last step; and how near K_l(t) comes to its bound 2 Omega_l / t, at worst."""
    found: dict[str, Any] = {name: of.values[-1] for name, of in curve.metrics().items()}
    intervals = {f"{name}_interval": of.intervals[-1] for name, of in curve.metrics().items()}
    fit = [(one["t"] * one["k"] / (2 * row["omega"])) for row in curve.layers if row["omega"] for one in row["fit"]]
    own = {
        "timesteps": curve.timesteps[-1],
        "spikes_per_image": curve.spikes[-1],
        "fit_over_bound": max(fit, default=None),
    }
    return {**own, **found, **intervals}


def _selection(snn: Snn, measured: Dataset, asked: FineTuning) -> dict[str, Any]:
    """How the evaluation images are chosen again."""
    fingerprint = measured.fingerprint()
    if fingerprint == snn.evaluation.get("fingerprint"):
        return {name: snn.evaluation[name] for name in SELECTION if name in snn.evaluation}
    return {
        "source": asked.evaluation_data or snn.evaluation.get("source") or measured.name,
        "labelled": measured.labels is not None and bool(snn.task.row.labels),
        "fingerprint": fingerprint,
        "excluded_calibration": 0,
        "limit": asked.limit,
        "seed": int(snn.evaluation.get("seed") or 0),
        "label_offset": snn.label_offset,
    }


def _named(data: str | None) -> str:
    if data is None:
        raise OptionError("there is nothing to train on", hint="add --data, e.g. the training set of the network")
    return data


def _calibrated(snn: Snn) -> Calibrated:
    if snn.calibrated is None:
        raise OptionError(
            f"{snn.source.name} cannot be trained on: its checkpoint does not hold the calibrated network",
            hint="convert the model again with this version",
        )
    return snn.calibrated


def _teacher(snn: Snn, calibrated: Calibrated, asked: FineTuning) -> Ann:
    if asked.teacher is None:
        if calibrated.original is None:
            raise OptionError(
                f"the checkpoint of {snn.source.name} does not hold the original network, from which to learn",
                hint="give it with --teacher, or convert again without --without-original",
                options=("teacher",),
            )
        return calibrated.original
    request = Request(model=asked.teacher, input_shape=snn.input_shape)
    opened, _ = open_ann(request)
    found = for_task(request, opened, snn.task)
    own, other = ([node.meta["shape"] for node in output_nodes(one.graph)] for one in (snn, found))
    if own != other or found.input_shape != snn.input_shape:
        raise OptionError(
            f"--teacher {asked.teacher} takes {found.input_shape} and answers {other[0]}, the network takes "
            f"{snn.input_shape} and answers {own[0]}",
            hint="give a network of the same inputs and outputs",
            options=("teacher",),
        )
    return found


@dataclass(frozen=True)
class _Evaluated:
    """What to measure on, the whole set that it was chosen from, and what has to be said."""

    images: Dataset | None = None
    whole: Dataset | None = None
    notes: tuple[str, ...] = ()


def _evaluated(snn: Snn, asked: FineTuning, given: Dataset | None) -> _Evaluated:
    if given is not None:
        return _Evaluated(given, given)
    source = asked.evaluation_data or snn.evaluation.get("source")
    if not source or source in NOT_EVALUATED:
        return _Evaluated(notes=("the conversion had no evaluation data (--evaluation-data gives some)",))
    try:
        return _Evaluated(images_for(snn, source, asked.limit), as_prepared(snn, source))
    except SnnConvertError:
        if asked.evaluation_data is not None:
            raise
        note = (
            f"{source}, on which the conversion was measured, is not here (--evaluation-data says where it is): images "
            "that are trained on may be among it"
        )
        return _Evaluated(notes=(note,))
