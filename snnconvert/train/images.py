"""The images that are trained on: what is held out, what is refused, the order of a run, and how they are varied."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from snnconvert.data.datasets import Dataset
from snnconvert.data.sampling import split_calibration
from snnconvert.errors import DataError
from snnconvert.options import AUTO

LARGEST_SHIFT = 1 / 8
HELD_OUT_SHARE = 5


@dataclass(frozen=True)
class Batch:
    """Images (n, *sample) with their labels (n,), where there are any."""

    images: Tensor
    labels: Tensor | None


@dataclass(frozen=True)
class TrainingImages:
    """Images to learn from, and others that choose the best network.

    Attributes:
        learned: those that are trained on.
        held_out: those that are not.
        mirrored: whether images are mirrored at random.
        shift: by how many pixels at most they are moved, rows and columns alike.
        mixed: whether each has a share of another image of its step, at most half, mixed in: what the teacher answers
            is known everywhere, and images to learn from do not run out (Beyer et al., CVPR 2022).
        seed: of order and variation. Both follow from it and the number of the step alone, so that a run which was
            interrupted goes on as if it had not been.
    """

    learned: Dataset
    held_out: Dataset
    mirrored: bool
    shift: int
    mixed: bool
    seed: int

    def __len__(self) -> int:
        return len(self.learned)

    def batch(self, step: int, size: int) -> Batch:
        """The images of a step, varied."""
        size = min(size, len(self))
        steps = math.ceil(len(self) / size)
        epoch, position = divmod(step, steps)
        order = torch.randperm(len(self), generator=_generator(self.seed, epoch, 0))
        indices = order[position * size : (position + 1) * size].numpy()
        images, labels = next(self.learned.batches(size, indices))
        return Batch(self._varied(images, _generator(self.seed, step, 1)), labels)

    def steps(self, epochs: float, size: int) -> int:
        """Steps of so many passes over the images."""
        return max(1, round(epochs * math.ceil(len(self) / min(size, len(self)))))

    def _varied(self, images: Tensor, generator: torch.Generator) -> Tensor:
        if self.mirrored:
            chosen = torch.rand(len(images), generator=generator) < 0.5
            images = torch.where(chosen[:, None, None, None], images.flip(3), images)
        if self.shift:
            height, width = images.shape[2:]
            padded = F.pad(images, (self.shift,) * 4)
            moves = torch.randint(0, 2 * self.shift + 1, (len(images), 2), generator=generator).tolist()
            pairs = zip(padded, moves, strict=True)
            images = torch.stack([one[:, y : y + height, x : x + width] for one, (y, x) in pairs])
        if self.mixed:
            share = torch.rand(len(images), generator=generator).reshape(-1, *([1] * (images.ndim - 1))) / 2
            images = torch.lerp(images, images.roll(1, 0), share)
        return images


def _generator(seed: int, number: int, purpose: int) -> torch.Generator:
    mixed = np.random.SeedSequence((seed, number, purpose)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(mixed >> np.uint64(1)))


def training_images(
    data: Dataset,
    evaluation: Dataset | None,
    *,
    held_out: int,
    augment: str,
    seed: int,
    calibrated: Dataset | None = None,
) -> TrainingImages:
    """What to train on, of `data`.

    Args:
        evaluation: images that the network is measured on.
        held_out: how many of them choose the best network; at most a fifth is taken.
        augment: as in `FineTuning`.
        seed: draws those that are held out.
        calibrated: images that the network was calibrated on. It fits them better than others, and they would prefer
            it to what is learned: none is held out, while there are others.

    Raises:
        DataError: too few images, or some that are evaluated on.
        OptionError: a variation that these inputs do not have.
    """
    if len(data) < 2 * HELD_OUT_SHARE:
        raise DataError(
            f"{data.name} holds {len(data)} {data.noun}s, which are too few to train on",
            hint=f"give at least {2 * HELD_OUT_SHARE}; a few thousand are usual",
        )
    digests = data.digests()
    if evaluation is not None:
        _refuse_shared(data, digests, evaluation)
    fitted = set() if calibrated is None else set(calibrated.digests())
    count = min(held_out, len(data) // HELD_OUT_SHARE)
    free = np.array([index for index, digest in enumerate(digests) if digest not in fitted], np.int64)
    if len(free) <= count:
        free = np.arange(len(data), dtype=np.int64)
    apart = free[split_calibration(data.subset(free), count, seed)[0]]
    known = {digests[index] for index in apart}
    rest = np.array([index for index, digest in enumerate(digests) if digest not in known], np.int64)
    if not len(rest):
        raise DataError(f"all {data.noun}s of {data.name} are the same", hint="give different ones to train on")
    variation = _variation(augment, data.sample_shape)
    return TrainingImages(data.subset(rest), data.subset(apart), *variation, seed)


def _refuse_shared(data: Dataset, digests: list[bytes], evaluation: Dataset) -> None:
    evaluated = set(evaluation.digests())
    shared: NDArray[np.int64] = np.flatnonzero([one in evaluated for one in digests])
    if len(shared):
        shown = ", ".join(map(str, shared[:3].tolist())) + (", ..." if len(shared) > 3 else "")
        raise DataError(
            f"{len(shared)} of the {len(data)} {data.noun}s in {data.name} are also in {evaluation.name}, on which the "
            f"network is measured (number {shown})",
            hint="train on a set of its own, or measure on another: --evaluation-data",
        )


def _variation(augment: str, shape: tuple[int, ...]) -> tuple[bool, int, bool]:
    """Whether images are mirrored, by how much they are moved, and whether they are mixed."""
    picture = len(shape) == 3
    if augment == AUTO:
        augment = "flip,shift" if picture and shape[0] == 3 else "none"
    chosen = set(augment.split(",")) - {"none"}
    if chosen and not picture:
        raise DataError(
            f"--augment {augment} is for images; one input here has the shape {'x'.join(map(str, shape))}",
            hint="leave --augment out",
        )
    shift = round(min(shape[1:]) * LARGEST_SHIFT) if "shift" in chosen else 0
    return "flip" in chosen, shift, "mix" in chosen
