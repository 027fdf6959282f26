"""Which task a network has, where nobody said so: labels decide first, then the shapes of its outputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from snnconvert.options import AUTO
from snnconvert.tasks import TaskChoice

if TYPE_CHECKING:
    from numpy.typing import NDArray

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Output:
    """One output of a network: the shape for one input, and the function at its very end ("" for another)."""

    shape: Shape
    ends: str = ""


@dataclass(frozen=True)
class Truth:
    """What labels look like.

    Attributes:
        shape: of one of them; () for a number.
        whole: whether all are whole numbers.
        least, most: of their values, 255 left out, which masks use for what has no class.
    """

    shape: Shape
    whole: bool
    least: float
    most: float

    @classmethod
    def of(cls, labels: NDArray[Any] | None) -> Truth | None:
        """Of labels (inputs, *shape); None without any."""
        if labels is None or labels.size == 0:
            return None
        kept = labels[labels != 255] if labels.ndim > 1 else labels
        kept = labels if kept.size == 0 else kept
        whole = labels.dtype.kind in "bui" or bool((labels == labels.round()).all())
        return cls(labels.shape[1:], whole, float(kept.min()), float(kept.max()))


def task_of(asked: str, outputs: Sequence[Output], input_shape: Shape, truth: Truth | None) -> TaskChoice:
    """The task of a network.

    Args:
        asked: what `--task` says.
        outputs: the network's outputs, the one that counts first.
        input_shape: of one input.
        truth: the labels of the evaluation data.
    """
    kind, reason = asked, "asked for with --task"
    if asked == AUTO:
        kind, why = _by_shape(outputs, input_shape) if truth is None else _by_labels(outputs[0], input_shape, truth)
        others = "segmentation, regression or raw" if kind == "classification" else "classification or another"
        reason = f"assumed: {why}; --task {others} changes it"
    numbers = kind in ("regression", "raw")
    counting = tuple(range(len(outputs))) if kind == "raw" else (0,)
    return TaskChoice(
        kind,
        asked == AUTO,
        reason,
        axis=0 if numbers else _class_axis(outputs[0], truth),
        outputs=counting,
    )


def _by_labels(output: Output, input_shape: Shape, truth: Truth) -> tuple[str, str]:
    count, shape = math.prod(output.shape), _without_ones(truth.shape)
    if not truth.whole:
        return "regression", "the labels are real numbers"
    binary = truth.least >= 0 and truth.most <= 1
    if not shape and _rebuilds(output, input_shape, truth):
        return "raw", f"the labels are class numbers, and an output of {_shown(output.shape)} is no score for each"
    if not shape:
        if count > 1 or binary:
            return "classification", "the labels are whole numbers, one for each input"
        return "regression", "the labels are numbers beyond 0 and 1, and there is one output"
    spaces = {_without_ones(_spaces(output.shape, axis)) for axis in (0, len(output.shape) - 1)}
    if shape in spaces and (count > math.prod(shape) or binary) and len(_without_ones(output.shape)) > 1:
        return "segmentation", "the labels are masks of whole numbers"
    return "regression", "there is a number for each output among the labels"


def _rebuilds(output: Output, input_shape: Shape, truth: Truth) -> bool:
    """Whether an output beside class numbers is an image, or the input again, of which most would be classes unseen."""
    again = math.prod(output.shape) == math.prod(input_shape) and output.ends != "softmax"
    return len(_without_ones(output.shape)) > 1 or (again and 2 * (truth.most + 1) < math.prod(output.shape))


def _by_shape(outputs: Sequence[Output], input_shape: Shape) -> tuple[str, str]:
    first = outputs[0]
    shape, sizes = _shown(first.shape), _without_ones(first.shape)
    if len({output.shape for output in outputs}) > 1:
        kind, why = "raw", f"there are {len(outputs)} outputs of different shapes"
    elif first.ends != "softmax" and first.shape == input_shape:
        kind, why = "regression", f"the output has the input's shape, {shape}"
    elif not sizes:
        kind = "classification" if first.ends == "sigmoid" else "regression"
        why = "there is one output" + (", behind a sigmoid" if first.ends == "sigmoid" else "")
    elif len(sizes) == 1:
        kind, why = "classification", f"the output is a vector of {sizes[0]}"
    elif first.shape[0] > 1:
        kind, why = "segmentation", f"the output has the shape {shape}"
    else:
        kind, why = "regression", f"the output has the shape {shape}, one channel"
    return kind, f"{why}, and there are no labels"


def _class_axis(output: Output, truth: Truth | None) -> int:
    """The first axis, unless masks have the shape of all but the last."""
    last = len(output.shape) - 1
    if truth is None or last < 1:
        return 0
    masks = _without_ones(truth.shape)
    fits = [axis for axis in (0, last) if _without_ones(_spaces(output.shape, axis)) == masks]
    return fits[0] if fits else 0


def _spaces(shape: Shape, axis: int) -> Shape:
    return shape[:axis] + shape[axis + 1 :]


def _without_ones(shape: Shape) -> Shape:
    return tuple(size for size in shape if size > 1)


def _shown(shape: Shape) -> str:
    return "x".join(map(str, shape))
