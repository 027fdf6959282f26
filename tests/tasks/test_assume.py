"""Which task is assumed: labels first, then shapes; and what is said of it."""

from __future__ import annotations

import numpy as np
import pytest

from snnconvert.tasks import TaskChoice, inputs_called, task_from
from snnconvert.tasks.assume import Output, Truth, task_of

IMAGE = (3, 8, 8)


def assumed(
    outputs: list[tuple[int, ...] | Output],
    labels: np.ndarray | None = None,
    asked: str = "auto",
    shape: tuple[int, ...] = IMAGE,
) -> TaskChoice:
    given = [one if isinstance(one, Output) else Output(one) for one in outputs]
    return task_of(asked, given, shape, Truth.of(labels))


@pytest.mark.parametrize(
    ("output", "shape", "kind"),
    [
        ((10,), IMAGE, "classification"),
        ((10, 1, 1), IMAGE, "classification"),
        ((1, 10), IMAGE, "classification"),
        (Output((1,), "sigmoid"), IMAGE, "classification"),
        ((1,), IMAGE, "regression"),
        (IMAGE, IMAGE, "regression"),
        ((64,), (64,), "regression"),
        (Output((64,), "softmax"), (64,), "classification"),
        (Output(IMAGE, "softmax"), IMAGE, "segmentation"),
        ((5, 8, 8), IMAGE, "segmentation"),
        ((5, 100), (1, 100), "segmentation"),
        ((1, 8, 8), IMAGE, "regression"),
    ],
)
def test_without_labels_the_shape_decides(output: tuple[int, ...] | Output, shape: tuple[int, ...], kind: str) -> None:
    found = assumed([output], shape=shape)
    assert (found.kind, found.assumed) == (kind, True)
    assert "no labels" in found.reason
    assert "--task" in found.reason


def test_several_outputs() -> None:
    assert assumed([(3,), (5, 4)]) == assumed([(3,), (5, 4)])
    raw = assumed([(3,), (5, 4)])
    assert (raw.kind, raw.outputs) == ("raw", (0, 1))
    assert assumed([(3,), (3,)]).kind == "classification"
    assert assumed([(3,), (5, 4)], np.array([0, 1, 2])).kind == "classification"


@pytest.mark.parametrize(
    ("output", "labels", "kind", "axis"),
    [
        ((10,), np.arange(10), "classification", 0),
        ((1,), np.array([0, 1, 1]), "classification", 0),
        ((1,), np.array([0, 1, 2]), "regression", 0),
        ((1,), np.array([0.5, 1.0]), "regression", 0),
        ((3,), np.ones((4, 3)) / 3, "regression", 0),
        ((3,), np.arange(12).reshape(4, 3), "regression", 0),
        ((5, 8, 8), np.zeros((4, 8, 8), np.uint8), "segmentation", 0),
        ((8, 8, 5), np.zeros((4, 8, 8), np.uint8), "segmentation", 2),
        ((5, 8, 8), np.zeros((4, 1, 8, 8), np.int64), "segmentation", 0),
        ((1, 8, 8), np.zeros((4, 8, 8), np.uint8), "segmentation", 0),
        ((1, 8, 8), np.full((4, 8, 8), 7, np.uint8), "regression", 0),
        ((3, 8, 8), np.full((4, 3, 8, 8), 200, np.uint8), "regression", 0),
        ((3, 8, 8), np.full((4, 3, 8, 8), 0.5), "regression", 0),
    ],
)
def test_labels_decide_first(output: tuple[int, ...], labels: np.ndarray, kind: str, axis: int) -> None:
    found = assumed([output], labels)
    assert (found.kind, found.axis) == (kind, axis)
    assert "label" in found.reason


@pytest.mark.parametrize(
    ("output", "shape", "most", "kind"),
    [
        ((3, 8, 8), IMAGE, 9, "raw"),  # an auto-encoder beside class numbers
        ((192,), IMAGE, 9, "raw"),
        ((5, 4, 4), IMAGE, 4, "raw"),  # neither masks nor one score for each class
        ((16,), (16,), 9, "classification"),
        (Output((192,), "softmax"), IMAGE, 9, "classification"),
        ((192,), IMAGE, 150, "classification"),
        ((10, 1, 1), IMAGE, 9, "classification"),
    ],
)
def test_class_numbers_beside_what_is_no_score(
    output: tuple[int, ...] | Output, shape: tuple[int, ...], most: int, kind: str
) -> None:
    found = assumed([output], np.arange(most + 1), shape=shape)
    assert (found.kind, found.assumed) == (kind, True)
    assert "--task" in found.reason
    assert "label" in found.reason


def test_who_asks_gets_it() -> None:
    found = assumed([(10,)], np.arange(10), asked="regression")
    assert (found.kind, found.assumed) == ("regression", False)
    assert assumed([(10,), (3, 3)], asked="raw").outputs == (0, 1)


def test_a_task_is_kept_and_read_again() -> None:
    task = assumed([(8, 8, 5)], np.zeros((4, 8, 8), np.uint8))
    assert task_from(task.to_dict()) == task
    assert task_from(None).kind == "classification"
    with pytest.raises(ValueError, match="nonsense"):
        task_from({**task.to_dict(), "kind": "nonsense"})


@pytest.mark.parametrize(
    ("shape", "noun"),
    [
        ((28, 28), "image"),
        ((28, 28, 1), "image"),
        (IMAGE, "image"),
        ((1, 128), "input"),
        ((128,), "input"),
        ((12, 1000), "input"),
        ((7, 5, 5), "input"),
        ((10,), "input"),
        ((2, 8, 8, 8), "input"),
    ],
)
def test_inputs_are_called_what_they_are(shape: tuple[int, ...], noun: str) -> None:
    assert inputs_called(shape) == noun
