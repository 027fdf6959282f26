"""Every metric against a few lines of numpy."""

from __future__ import annotations

import numpy as np
import pytest

from snnconvert.tasks import METRICS, TASKS, TaskChoice
from snnconvert.tasks.scores import VOID, Scores, answer_of, drop_interval, scores_of

SEED = 3
RNG = np.random.default_rng(SEED)


@pytest.fixture(autouse=True)
def the_same_draws_whatever_ran_before() -> None:
    RNG.bit_generator.state = np.random.default_rng(SEED).bit_generator.state


ANSWERS, INPUTS = 5, 40


def scored(
    task: TaskChoice, outputs: list[np.ndarray], ann: list[np.ndarray], labels: np.ndarray | None = None
) -> Scores:
    """Scores of outputs given as means, (answers, inputs, *shape), in three parts."""
    whole, counts = scores_of(task), np.arange(1, ANSWERS + 1)
    for part in (slice(0, 7), slice(7, 8), slice(8, INPUTS)):
        one = scores_of(task)
        sums = [mean[:, part] * counts.reshape(-1, *[1] * (mean.ndim - 1)) for mean in outputs]
        one.add(sums, answer_of(task, [value[part] for value in ann]), None if labels is None else labels[part])
        whole.include(one)
    return whole


def near(ann: np.ndarray) -> np.ndarray:
    """Outputs that approach those of the ANN."""
    return np.stack([ann + RNG.normal(0, 1 / t, ann.shape) for t in range(1, ANSWERS + 1)])


@pytest.mark.parametrize("shape", [(6,), (1, 6), (6, 1, 1)])
def test_classification(shape: tuple[int, ...]) -> None:
    ann = RNG.normal(size=(INPUTS, *shape))
    outputs, labels = near(ann), RNG.integers(0, 6, INPUTS)
    curves = scored(TaskChoice(), [outputs], [ann], labels).curves()
    decided = outputs.reshape(ANSWERS, INPUTS, 6).argmax(2)
    wanted = 100 * (decided == ann.reshape(INPUTS, 6).argmax(1)).mean(1)
    assert curves["agreement"].values == pytest.approx(wanted)
    assert curves["accuracy"].values == pytest.approx(100 * (decided == labels).mean(1))
    for value, band in zip(curves["agreement"].values, curves["agreement"].intervals, strict=True):
        assert band is not None and value is not None
        assert band[0] <= value <= band[1]


def test_one_logit_decides_by_its_sign() -> None:
    ann = RNG.normal(size=(INPUTS, 1))
    outputs, labels = near(ann), RNG.integers(0, 2, INPUTS)
    curves = scored(TaskChoice(), [outputs], [ann], labels).curves()
    assert curves["agreement"].values == pytest.approx(100 * ((outputs > 0) == (ann > 0)).mean((1, 2)))
    assert curves["accuracy"].values == pytest.approx(100 * ((outputs[..., 0] > 0) == labels).mean(1))
    assert curves["agreement"].values[0] != curves["agreement"].values[-1]


@pytest.mark.parametrize(("shape", "axis"), [((3, 4, 5), 0), ((4, 5, 3), 2), ((1, 4, 5), 0)])
def test_segmentation(shape: tuple[int, ...], axis: int) -> None:
    ann = RNG.normal(size=(INPUTS, *shape))
    outputs = near(ann)
    masks = RNG.integers(0, max(2, shape[axis]), (INPUTS, 4, 5)).astype(np.uint8)
    masks[:, 0, 0] = VOID
    task = TaskChoice("segmentation", axis=axis)
    found = scored(task, [outputs], [ann], masks)
    curves = found.curves()
    single = shape[axis] == 1
    given = (outputs > 0).squeeze(2 + axis).astype(int) if single else outputs.argmax(2 + axis)
    wanted = (ann > 0).squeeze(1 + axis).astype(int) if single else ann.argmax(1 + axis)
    valid = masks != VOID
    for index, one in enumerate(given):
        assert curves["pixel_agreement"].values[index] == pytest.approx(100 * (one == wanted).mean())
        assert curves["mean_iou"].values[index] == pytest.approx(100 * mean_iou(one, wanted, np.ones_like(valid)))
        assert curves["accuracy"].values[index] == pytest.approx(100 * (one == masks)[valid].mean())
        assert curves["mask_iou"].values[index] == pytest.approx(100 * mean_iou(one, masks, valid))
    original = scores_of(task)
    original.add([ann[None]], None, masks)
    band = drop_interval(original, found)
    drop = 100 * ((wanted == masks)[valid].mean() - (given[-1] == masks)[valid].mean())
    assert band is not None
    assert band[0] < drop < band[1]


def mean_iou(one: np.ndarray, other: np.ndarray, valid: np.ndarray) -> float:
    classes = set(one[valid].tolist()) | set(other[valid].tolist())
    each = [((one == c) & (other == c) & valid).sum() / (((one == c) | (other == c)) & valid).sum() for c in classes]
    return float(np.mean(each))


@pytest.mark.parametrize("shape", [(1,), (4,), (2, 3, 3)])
def test_regression(shape: tuple[int, ...]) -> None:
    ann = RNG.normal(3.0, 2.0, size=(INPUTS, *shape))
    outputs, labels = near(ann), RNG.normal(3.0, 2.0, size=(INPUTS, *shape))
    curves = scored(TaskChoice("regression"), [outputs], [ann], labels).curves()
    for index, one in enumerate(outputs):
        off = one - ann
        assert curves["relative_error"].values[index] == pytest.approx(100 * np.sqrt((off**2).sum() / (ann**2).sum()))
        variation = ((ann - ann.mean(0)) ** 2).sum()
        assert curves["r2"].values[index] == pytest.approx(1 - (off**2).sum() / variation)
        assert curves["mae"].values[index] == pytest.approx(np.abs(one - labels).mean())
        assert curves["rmse"].values[index] == pytest.approx(np.sqrt(((one - labels) ** 2).mean()))
    assert curves["relative_error"].values[-1] < 0.5 * curves["relative_error"].values[0]


def test_raw_outputs_count_alike_whatever_their_scale() -> None:
    anns = [RNG.normal(size=(INPUTS, 3)), 1000 * RNG.normal(size=(INPUTS, 2, 2)), np.zeros((INPUTS, 2))]
    outputs = [near(anns[0]), anns[1] * 1.5 + np.zeros((ANSWERS, 1, 1, 1)), np.zeros((ANSWERS, INPUTS, 2))]
    found = scored(TaskChoice("raw", outputs=(0, 1, 2)), outputs, anns)
    first, second, third = found.by_output()
    off = [
        float(np.sqrt(((one - ann) ** 2).sum() / (ann**2).sum()))
        for one, ann in zip([o[-1] for o in outputs[:2]], anns, strict=False)
    ]
    assert first[-1] == pytest.approx(100 * off[0])
    assert second[-1] == pytest.approx(50.0)
    assert third[-1] is None
    assert found.curves()["relative_error"].values[-1] == pytest.approx(100 * np.sqrt(np.mean(np.square(off))))
    assert "r2" not in found.curves()
    labelled = scored(TaskChoice("raw", outputs=(0, 1, 2)), outputs, anns, np.arange(INPUTS))
    assert set(labelled.curves()) == {"relative_error"}, "labels of something else are no outputs"


def test_intervals_cover_the_truth_of_a_large_sample() -> None:
    """95 % intervals from 60 inputs, of what 20,000 inputs say."""
    task, many, few = TaskChoice("regression"), 20_000, 60
    ann = RNG.gamma(2.0, size=(many, 2))
    given = ann * (1 + 0.1 * RNG.normal(size=ann.shape)) + 0.05 * RNG.normal(size=ann.shape)
    truth = 100 * np.sqrt(((given - ann) ** 2).sum() / (ann**2).sum())
    hits = 0
    for start in range(0, 200 * few, few):
        scores = scores_of(task)
        scores.add([given[None, start : start + few]], ann[start : start + few], None)
        (band,) = scores.curves()["relative_error"].intervals
        assert band is not None
        hits += band[0] <= truth <= band[1]
    assert 0.88 <= hits / 200 <= 0.99


def test_an_error_is_as_good_as_another_only_if_it_is_near() -> None:
    task, ann = TaskChoice("regression"), RNG.normal(size=(INPUTS, 8))
    noise = RNG.normal(size=ann.shape)
    best = scores_of(task)
    best.add([(ann + 0.1 * noise)[None]], ann, None)
    other = scores_of(task)
    other.add([np.stack([ann + 0.2 * noise, 2 * (ann - 0.1 * noise)])], ann, None)
    assert other.as_good_as(best).tolist() == [False, True]


def test_what_is_not_known_of_every_input_is_not_known() -> None:
    task, ann = TaskChoice(), RNG.normal(size=(INPUTS, 3))
    whole, part = scores_of(task), scores_of(task)
    whole.add([ann[None]], answer_of(task, [ann]), None)
    part.add([ann[None]], answer_of(task, [ann]), np.zeros(INPUTS, np.int64))
    whole.include(part)
    assert set(whole.curves()) == {"agreement"}
    assert whole.inputs == 2 * INPUTS


def test_tables_name_each_other() -> None:
    for row in TASKS.values():
        assert {*row.metrics, *row.truths} <= set(METRICS)
        assert row.headline.target is not None
        assert isinstance(scores_of(TaskChoice(row.kind)), Scores)
