"""Which images calibrate and which evaluate: never the same ones, and always the same for the same data and seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from snnconvert.data.bundled import data_path
from snnconvert.data.datasets import Dataset, check_truth, dataset_of, load_dataset, shared_images
from snnconvert.data.memory import Memory
from snnconvert.data.named import Arrays, Wanted, raw_of
from snnconvert.data.preprocessing import Preprocessing
from snnconvert.data.recordings import Replay
from snnconvert.data.sampling import balanced_sample, split_calibration
from snnconvert.data.sources import RawData
from snnconvert.data.synthetic import guess_range, synthetic_inputs
from snnconvert.errors import SnnConvertError
from snnconvert.graph.dialect import output_nodes, outputs_of
from snnconvert.graph.inputs import events_of, inputs_of
from snnconvert.graph.types import Ann, Snn
from snnconvert.tasks import TaskChoice, inputs_called
from snnconvert.tasks.assume import Truth, task_of

SYNTHETIC_EVALUATION = 64


@dataclass(frozen=True)
class Inputs:
    """Images for both purposes.

    Attributes:
        calibration: (n, *sample) float32.
        calibration_record: source, number, fingerprint and seed; JSON-able.
        evaluation: images to measure on, or None when only `stand_in` inputs exist.
        stand_in: synthetic inputs to measure agreement on where there are no data.
        evaluation_record: source, number, fingerprint, what was excluded, and how to choose them again; JSON-able.
        preprocessing: JSON-able, all defaults filled in.
        task: what the network is for, as labels and outputs say.
        noun: what one input is called.
        notes: what the report must say about the data.
        replay: of recordings how they are replayed, JSON-able (see `Dataset.replay`); None for all others.
    """

    calibration: Tensor
    calibration_record: dict[str, Any]
    evaluation: Dataset | None
    stand_in: Tensor | None
    evaluation_record: dict[str, Any]
    preprocessing: dict[str, Any]
    notes: tuple[str, ...]
    task: TaskChoice
    noun: str
    replay: dict[str, Any] | None = None

    @property
    def measured(self) -> Dataset | Tensor:
        """What the network is measured on."""
        if self.evaluation is not None:
            return self.evaluation
        assert self.stand_in is not None
        return self.stand_in


class Wishes(Protocol):
    """The part of a request that says which images to use (see `request.Request`)."""

    @property
    def task(self) -> str: ...
    @property
    def data(self) -> str | None: ...
    @property
    def calibration_data(self) -> str | None: ...
    @property
    def calibration_samples(self) -> int: ...
    @property
    def limit(self) -> int | None: ...
    @property
    def seed(self) -> int: ...
    @property
    def preprocessing(self) -> Preprocessing: ...
    @property
    def label_offset(self) -> int: ...
    @property
    def labels(self) -> str | None: ...


def select_inputs(ann: Ann, wishes: Wishes, memory: Memory | None = None, steps: int | None = None) -> Inputs:
    """Choose calibration and evaluation images for a network, and find out what it is for.

    Without a calibration set of its own, calibration images are drawn from `data` and excluded from the evaluation;
    of a set with fewer than twice the asked number, half is used. Without any data the inputs are synthetic. `memory`
    holds the sets that are no files; recordings are replayed in `steps`, by default those of the longest.

    Raises:
        DataError: a data set that cannot be read or does not fit the model.
    """
    seed, limit, samples, here = wishes.seed, wishes.limit, wishes.calibration_samples, memory or Memory()
    own = _load(ann, wishes.calibration_data, wishes, here.calibration_data)
    evaluation, own = _in_step(_load(ann, wishes.data, wishes, here.data), own, steps)
    task, notes = _purpose(ann, evaluation or own, wishes)
    excluded = 0
    if own is not None:
        chosen = own.subset(balanced_sample(own.classes_of_images, len(own), samples, seed))
    elif evaluation is not None:
        excluded = min(samples, max(1, len(evaluation) // 2))
        chosen, evaluation = (evaluation.subset(part) for part in split_calibration(evaluation, excluded, seed))
        asked = "" if excluded == samples else f" (asked for {samples}; half of the set is kept)"
        notes += (f"{excluded} images of {wishes.data} calibrate and are left out of the evaluation{asked}",)
    else:
        return _synthetic(ann, wishes, task)
    record: dict[str, Any] = {"source": "calibration images", "labelled": False, "excluded_calibration": 0}
    measured: Dataset | None = None
    if evaluation is None:
        notes = ("no evaluation data was given: the calibration images themselves are measured on",)
    else:
        measured = evaluation.subset(balanced_sample(evaluation.classes_of_images, len(evaluation), limit, seed))
        notes += () if own is None else _shared((evaluation, own), (measured, chosen), wishes)
        notes += tuple(dict.fromkeys(measured.notes + chosen.notes))
        record = _record(measured, wishes, task, excluded)
    images, shown = chosen.images(), chosen if measured is None else measured
    return Inputs(
        calibration=images,
        calibration_record={
            "source": str(wishes.calibration_data or wishes.data),
            "samples": len(chosen),
            "synthetic": False,
            "fingerprint": chosen.fingerprint(),
            "seed": seed,
        },
        evaluation=measured,
        stand_in=images[:SYNTHETIC_EVALUATION] if measured is None else None,
        evaluation_record=record,
        preprocessing=shown.preprocessing.to_dict(),
        notes=notes,
        task=task,
        noun=chosen.noun,
        replay=shown.replay,
    )


def _record(measured: Dataset, wishes: Wishes, task: TaskChoice, excluded: int) -> dict[str, Any]:
    """What the report says of the images that are measured on."""
    return {
        "source": str(wishes.data),
        "labelled": measured.labels is not None and bool(task.row.labels),
        "fingerprint": measured.fingerprint(),
        "excluded_calibration": excluded,
        "limit": wishes.limit,
        "seed": wishes.seed,
        "label_offset": wishes.label_offset,
        "labels": wishes.labels,
    }


def _in_step(
    evaluation: Dataset | None, own: Dataset | None, steps: int | None
) -> tuple[Dataset | None, Dataset | None]:
    """Both sets, replayed in the same number of steps where they are recordings."""
    plans = [one.arrangement for one in (evaluation, own) if one is not None]
    needed = steps or max((plan.steps for plan in plans if isinstance(plan, Replay)), default=0)
    if not needed:
        return evaluation, own
    return tuple(one if one is None else one.in_steps(needed) for one in (evaluation, own))  # type: ignore[return-value]


def _shared(sets: tuple[Dataset, Dataset], used: tuple[Dataset, Dataset], wishes: Wishes) -> tuple[str, ...]:
    """A note on images that are in both sets; where reading all of them would take long, on those that are used."""
    if all(one.source.at_hand for one in sets):
        found, said = shared_images(*sets), "images of {} are also in the calibration set {}"
    else:
        found, said = shared_images(*used), "evaluated images of {} are also calibrated on, from {}"
    return (f"{found} {said.format(wishes.data, wishes.calibration_data)}",) if found else ()


def _purpose(ann: Ann, data: Dataset | None, wishes: Wishes) -> tuple[TaskChoice, tuple[str, ...]]:
    """What the network is for, by the labels of `data` and its outputs, and what to say of the labels."""
    outputs = outputs_of(ann.graph)
    task = task_of(wishes.task, outputs, ann.input_shape, Truth.of(None if data is None else data.labels))
    return task, () if data is None else check_truth(data, task, outputs[0].shape)


def _synthetic(ann: Ann, wishes: Wishes, task: TaskChoice) -> Inputs:
    """Inputs where there are no data."""
    samples, plan, name = wishes.calibration_samples, wishes.preprocessing, "as given"
    if plan == Preprocessing():
        name, plan = guess_range(ann)
    images = synthetic_inputs(ann, samples + SYNTHETIC_EVALUATION, wishes.seed, plan)
    return Inputs(
        calibration=images[:samples],
        calibration_record={
            "source": "synthetic",
            "samples": samples,
            "synthetic": True,
            "seed": wishes.seed,
            "range": name,
        },
        evaluation=None,
        stand_in=images[samples:],
        evaluation_record={"source": "synthetic", "labelled": False, "excluded_calibration": 0},
        preprocessing=plan.to_dict(),
        task=task,
        noun=inputs_called(ann.input_shape),
        notes=("no data was given: thresholds come from synthetic inputs, and no accuracy is claimed",),
    )


def select_again(recorded: dict[str, Any], dataset: Dataset, limit: int | None) -> Dataset:
    """The images that a checkpoint's own evaluation used, if `dataset` is that data set; else all of it.

    Args:
        recorded: the checkpoint's evaluation record.
        limit: use a class-balanced sample of this many images instead.
    """
    seed = int(recorded.get("seed") or 0)
    excluded = int(recorded.get("excluded_calibration") or 0)
    rest = dataset
    if 0 < excluded < len(dataset):
        rest = dataset.subset(split_calibration(dataset, excluded, seed)[1])
    same = rest.subset(balanced_sample(rest.classes_of_images, len(rest), recorded.get("limit"), seed))
    if same.fingerprint() == recorded.get("fingerprint"):
        return same if limit is None else rest.subset(balanced_sample(rest.classes_of_images, len(rest), limit, seed))
    return dataset.subset(balanced_sample(dataset.classes_of_images, len(dataset), limit, seed))


def images_for(snn: Snn, data: str, limit: int | None, labels: str | None = None) -> Dataset:
    """`data` as a checkpoint prepares it: its own evaluation images where it holds them, else all; or `limit` of them.

    Args:
        labels: their array or column; by default that of the conversion.

    Raises:
        DataError: data that cannot be read, do not fit the network, or have labels beyond its classes.
    """
    dataset = as_prepared(snn, data, labels)
    check_truth(dataset, snn.task, output_nodes(snn.graph)[snn.task.outputs[0]].meta["shape"])
    return select_again(snn.evaluation, dataset, limit)


def calibrated_on(snn: Snn, given: Dataset | None = None) -> Dataset | None:
    """The images that `snn` was calibrated on, found in `given` or where they were; None where they are not there."""
    recorded = snn.calibration
    source, count, seed = recorded.get("source"), int(recorded.get("samples") or 0), int(recorded.get("seed") or 0)

    def drawn(place: Dataset) -> Dataset | None:
        indices = balanced_sample(place.classes_of_images, len(place), count, seed)
        return place.subset(indices) if place.fingerprint(indices) == recorded.get("fingerprint") else None

    if recorded.get("synthetic", True):
        return None
    if given is not None and (found := drawn(given)) is not None:
        return found
    try:
        return drawn(as_prepared(snn, source)) if source else None
    except SnnConvertError:
        return None


def as_prepared(snn: Snn, data: str, labels: str | None = None) -> Dataset:
    """`data` as a checkpoint prepares it."""
    events = events_of(snn.graph)
    return load_dataset(
        data_path(data),
        preprocessing=Preprocessing.from_dict(snn.preprocessing),
        input_shape=snn.input_shape,
        label_offset=snn.label_offset,
        inputs=inputs_of(snn),
        labels=labels or snn.evaluation.get("labels"),
        steps=None if events is None else snn.schedule.frames,
        whole=None if events is None else events.steps,
    )


def _load(ann: Ann, path: str | None, wishes: Wishes, raw: RawData | Arrays | None) -> Dataset | None:
    if path is None:
        return None
    fitted: Any = {
        "preprocessing": wishes.preprocessing,
        "input_shape": ann.input_shape,
        "label_offset": wishes.label_offset,
        "inputs": inputs_of(ann),
    }
    if raw is None:
        return load_dataset(data_path(path), labels=wishes.labels, **fitted)
    return dataset_of(raw_of(raw, Wanted(fitted["inputs"], wishes.labels)), path, **fitted)
